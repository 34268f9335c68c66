"""What a first call costs: importing, answering from a cold process, memory after a hundred texts.

Each sample is a process of its own. "Cold" means a new process; files may be in the system's cache.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from statistics import median

import click

from cascade.bundle.opening import open_bundle
from cascade.cli.demo.command import sentences
from cascade.core.checks import check_whole
from cascade.exceptions import BundleError
from cascade.runtime.threads import check_threads
from cascade_bench.options import count_option, model_argument, threads_option
from cascade_bench.timing.interleaving import Progress, quiet
from cascade_bench.timing.report import bar, grid

TEXTS = 100

CODE = """
import time
begin = time.perf_counter()
import cascade
end = time.perf_counter()
import json, sys
model, threads, texts = json.load(sys.stdin)
pipeline = cascade.load(model, threads=threads)
answer = getattr(pipeline, "predict_texts", pipeline.predict)
answer(texts[:1])
answered = time.time()
answer(texts)
import psutil
print(end - begin, answered, psutil.Process().memory_info().rss / 2**20)
"""

MEASURED = {
    "import_seconds": ("import cascade", "{:.2f} s"),
    "answer_seconds": ("first answer of a cold process", "{:.2f} s"),
    "resident_mib": ("resident memory after 100 texts", "{:.0f} MiB"),
}
"""For programs, for readers, and how to write it."""


@click.command(short_help="Seconds of import and first answer, memory; in fresh processes.")
@model_argument
@count_option("--samples", 5, "Of each.")
@threads_option
def startup(model: str, samples: int, threads: int | None) -> None:
    """What a first call costs: `import cascade`, an answer from a cold process, memory after 100 texts.

    MODEL is a folder or a Hub id. Every sample is a process of its own; medians are shown.

    \b
    Example:
      cascade-bench startup models/sentiment --threads 2
    """
    count = check_threads(threads)
    open_bundle(model)  # what is wrong with it is said once, here
    with bar(samples + 1) as step:
        found = measure(model, threads=count, samples=samples, progress=step)
    rows = [[title, form.format(median(found[name]))] for name, (title, form) in MEASURED.items()]
    click.echo(grid(["", f"median of {samples}"], rows))


def measure(model: str, *, threads: int, samples: int = 5, progress: Progress = quiet) -> dict[str, tuple[float, ...]]:
    """Measure in fresh processes, `samples` of them after one that does not count.

    By the names of `MEASURED`, one for each process. One that fails is a `BundleError`.
    """
    check_whole("samples", samples, "5 give a stable median")
    texts = sentences("sentiment")[0][:TEXTS]
    found = []
    for number in range(samples + 1):
        progress(f"process {number}")
        begin, given, command = time.time(), json.dumps([model, threads, texts]), [sys.executable, "-c", CODE]
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
            raise BundleError(f"a fresh process must answer with this bundle, but: {reason[0]}; see cascade inspect")
        imported, answered, memory = map(float, done.stdout.split())
        found.append((imported, answered - begin, memory))
    return dict(zip(MEASURED, zip(*found[1:], strict=True), strict=True))  # the first one fills the system's cache

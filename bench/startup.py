"""What a first call costs: importing, answering from a cold process, memory after a hundred texts.

Each sample is a process of its own. "Cold" means a new process; files may be in the system's cache.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from statistics import median
from typing import Any

import click

from cascade.bundle.manifest import TAGGING
from cascade.bundle.opening import open_bundle
from cascade.cli.demo.texts import sentences
from cascade.core.checks import check_whole
from cascade.exceptions import BundleError
from cascade.runtime.threads import check_threads
from cascade_bench.options import count_option, model_argument, threads_option
from cascade_bench.timing.interleaving import Progress, quiet
from cascade_bench.timing.report import bar, grid

TEXTS = 100

IMPORT = """
import time
begin = time.perf_counter()
import cascade
middle = time.perf_counter()
import {module}
print(middle - begin, time.perf_counter() - begin)
"""

ANSWER = """
import json, sys
from {module} import {name}
model, threads, texts = json.load(sys.stdin)
{name}.from_pretrained(model, threads=threads).{predict}(texts)
"""

MEMORY = f"""{ANSWER}
try:
    lines = open("/proc/self/status").read().splitlines()
    found = dict(line.split()[:2] for line in lines if line.startswith(("VmRSS", "VmHWM")))
    print(int(found["VmRSS:"]) / 1024, int(found["VmHWM:"]) / 1024)
except OSError:
    import psutil
    held = psutil.Process().memory_info().rss / 2**20
    print(held, held)
"""

MEASURED = ("import_seconds", "pipeline_seconds", "answer_seconds", "resident_mib", "peak_mib")
CLASSIFIER = {"module": "cascade.pipelines.classifier", "name": "Classifier", "predict": "predict"}
TAGGER = {"module": "cascade.pipelines.tagger", "name": "Tagger", "predict": "predict_texts"}


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
    tagging = open_bundle(model).manifest.task == TAGGING  # what is wrong with it is said once, here
    with bar(3 * (samples + 1)) as step:
        found = measure(model, threads=count, tagging=tagging, samples=samples, progress=step)
    middle = {name: median(values) for name, values in found.items()}
    rows = [
        ["import cascade", f"{middle['import_seconds']:.2f} s"],
        [f"with all that a {'Tagger' if tagging else 'Classifier'} needs", f"{middle['pipeline_seconds']:.2f} s"],
        ["first answer of a cold process", f"{middle['answer_seconds']:.2f} s"],
        ["resident memory after 100 texts", f"{middle['resident_mib']:.0f} MiB"],
        ["peak until then", f"{middle['peak_mib']:.0f} MiB"],
    ]
    click.echo(grid(["", f"median of {samples}"], rows))


def measure(
    model: str, *, threads: int, tagging: bool = False, samples: int = 5, progress: Progress = quiet
) -> dict[str, tuple[float, ...]]:
    """Measure in fresh processes, the three kinds taking turns; `samples` of each, after one that does not count.

    By the names of `MEASURED`: seconds of imports inside a process, from its start to its end, and MiB at its end, one
    for each process. One that fails is a `BundleError`.
    """
    check_whole("samples", samples, "5 give a stable median")
    names = TAGGER if tagging else CLASSIFIER
    texts = [sentence.text for sentence in sentences("sentiment")][:TEXTS]
    kinds = {"import": (IMPORT, None), "first answer": (ANSWER, texts[:1]), "memory": (MEMORY, texts)}
    found = []
    for _ in range(samples + 1):
        said: dict[str, list[float]] = {}
        for kind, (code, asked) in kinds.items():
            progress(kind)
            begin = time.perf_counter()
            printed = _fresh(code, names, [model, threads, asked])
            said[kind] = [*map(float, printed), time.perf_counter() - begin]
        found.append((*said["import"][:2], said["first answer"][-1], *said["memory"][:2]))
    return dict(zip(MEASURED, zip(*found[1:], strict=True), strict=True))  # the first one fills the system's cache


def _fresh(code: str, names: dict[str, str], given: Any) -> list[str]:
    command = [sys.executable, "-c", code.format(**names)]  # this file's own code in this interpreter
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise BundleError(f"a fresh process must answer with this bundle, but: {reason[0]}; see cascade inspect")
    return done.stdout.split()

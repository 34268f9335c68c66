"""What a job of `cascade predict` stands; each way of trying it is a line of figures, status 1 if one finds a fault.

kills      kill -9 at random moments, the same command again each time: the output of a run that nobody stopped, byte
           for byte, and what all stops cost together, in CPU seconds
speed      a job, reading and writing included, against `stream` from memory, in turns of --sample rows in one process
memory     what is resident after 100,000 rows, and at most later
workers    two processes of one thread against one: seconds of the whole command
full       an output on a disk that fills up (--disk: a folder on a small one), then the same command with room again
stages     rows a CPU second of each step alone: planning, reading and writing of all rows without the model, and what
           the model's call spends its time on, of --sample rows (docs/scale.md)

Texts are those of a file with at most one word in ten replaced (--like). Commands find compiled modules, as those of an
installed package do, whatever PYTHONDONTWRITEBYTECODE says here.

python -m tests.hostile.jobs models/sentiment --rows 1000000 --kills 30
python -m tests.hostile.jobs models/intents --rows 10000000 --only speed memory workers
python -m tests.hostile.jobs models/intents --rows 100000000 --only stages --folder /where/5/GB/are
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import cycle, islice
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, Final
from unittest import mock

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

import cascade
from cascade.core.results import Counts
from cascade.jobs import Settings, predict_tables, running
from cascade.jobs.answers import ask
from cascade.jobs.job import open_job
from cascade.jobs.rows import BLOCK_ROWS, Block, Rows, blocks
from tests.hostile.mixing import Mix

PROGRAM: Final = [sys.executable, "-c", "from cascade.cli import main; main()", "predict"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked for; 0 if nothing went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--like", type=Path, help="jsonl; texts like its own, by default like the demo's of the bundle")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=list(WAYS), default=["kills", "speed", "memory", "workers"])
    parser.add_argument("--folder", type=Path, help="for inputs and outputs; a temporary one by default")
    parser.add_argument("--disk", type=Path, help="of full: a folder on a disk with a few MB")
    parser.add_argument("--sample", type=int, default=10_000, help="rows of each turn of speed from memory")
    parser.add_argument("--form", choices=("parquet", "jsonl", "csv"), default="parquet")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--flags", default="", help="of cascade predict")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        trial = Trial(given, Path(folder))
        bad = [name for name in given.only if not all([*WAYS[name](trial)])]
    return 1 if bad else 0


def said(name: str, good: bool, text: str) -> bool:
    print(f"{'ok   ' if good else 'FAULT'} {name}: {text}", flush=True)
    return good


class Trial:
    """An input, and commands that answer it."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self.given, self.folder = given, folder
        self.mix = Mix.of(given.bundle, given.like)
        self.input = folder / "in.parquet"
        compiled = {"PYTHONPYCACHEPREFIX": str(folder / "pycache")}  # as those of an installed package are
        self._environment = {**os.environ, **compiled, "PYTHONDONTWRITEBYTECODE": ""}
        self.mix.write(self.input, 1, given.seed)
        if given.only != ["stages"]:
            self.whole(folder / "compiled")
        self.mix.write(self.input, given.rows, given.seed)

    def start(self, out: Path, *flags: str) -> subprocess.Popen[bytes]:
        """The command, in a session of its own."""
        options = ["--output", str(out), "--output-format", self.given.form, "--keep", "id", "--threads", "1"]
        command = [*PROGRAM, self.given.bundle, str(self.input), *options, *flags, *self.given.flags.split()]
        return subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True, env=self._environment)

    def whole(self, out: Path, *flags: str) -> tuple[float, float]:
        """Seconds, and CPU seconds, of a command that ends well."""
        begin, spent = time.monotonic(), cpu()
        process = self.start(out, *flags)
        _, told = process.communicate()
        assert process.returncode == 0, told.decode()
        return time.monotonic() - begin, cpu() - spent


def cpu() -> float:
    """CPU seconds of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def same(one: Path, other: Path) -> bool:
    """Whether two outputs have the same files with the same bytes."""
    names = [sorted(path.name for path in folder.iterdir() if path.is_file()) for folder in (one, other)]
    return names[0] == names[1] and all((one / name).read_bytes() == (other / name).read_bytes() for name in names[0])


def kills(trial: Trial) -> Iterator[bool]:
    rng, count = Random(trial.given.seed), trial.given.kills
    seconds, plain = trial.whole(trial.folder / "whole")
    _, nothing = trial.whole(trial.folder / "whole")
    out, spent, killed = trial.folder / "killed", cpu(), 0
    for _ in range(4 * count):
        process = trial.start(out)
        try:
            process.communicate(timeout=rng.random() * 2 * seconds / count + rng.random())
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            killed += 1
        if killed == count or process.returncode == 0:
            break
    trial.whole(out)
    more = cpu() - spent - plain
    again = more - killed * nothing
    yield said(
        "kills", same(trial.folder / "whole", out), f"{killed} kills of {trial.given.rows:,} rows, the same bytes"
    )
    yield said(
        "kills",
        again < 0.05 * plain or killed < count,
        f"all stops cost {more / plain:.1%} of {plain:.0f} CPU s: starting {killed * nothing / plain:.1%}, rows again "
        f"{again / plain:.1%}",
    )


def speed(trial: Trial) -> Iterator[bool]:
    sample = trial.mix.texts(trial.given.sample, trial.given.seed).to_pylist()
    file = trial.folder / "sample.parquet"
    pq.write_table(pa.table({"text": sample}), file)
    pipeline = cascade.Classifier.from_pretrained(trial.given.bundle, threads=1)
    list(pipeline.stream(sample[:1000]))
    ratios: dict[str, list[float]] = {"seconds": [], "CPU seconds": []}
    for turn in range(5):
        marks = [(time.monotonic(), time.process_time())]
        for _ in pipeline.stream(sample):
            pass
        marks.append((time.monotonic(), time.process_time()))
        predict_tables(pipeline, [file], trial.folder / f"turn{turn}")
        marks.append((time.monotonic(), time.process_time()))
        for at, name in enumerate(ratios):
            first, second, third = (mark[at] for mark in marks)
            ratios[name].append((second - first) / (third - second))
    told = " and ".join(f"{median(some):.2f} by {name}" for name, some in ratios.items())
    rate = len(sample) / (marks[2][1] - marks[1][1])
    yield said("speed", median(ratios["CPU seconds"]) > 0.9, f"{told} of stream; {rate:,.0f} rows a CPU second")


def memory(trial: Trial) -> Iterator[bool]:
    out, first, most = trial.folder / "memory", 0, 0
    process = trial.start(out, "--part-rows", "25000")
    while process.poll() is None:
        try:
            own = psutil.Process(process.pid)
            now = sum(one.memory_info().rss for one in (own, *own.children(recursive=True)))
        except psutil.NoSuchProcess:
            break
        if len(list(out.glob("part-*"))) < min(4, trial.given.rows / 50_000):
            first = max(first, now)
        most = max(most, now)
        time.sleep(0.1)
    process.communicate()
    text = f"{first / 2**20:.0f} MiB at most up to 100,000 rows, {most / 2**20:.0f} MiB in the end"
    yield said("memory", process.returncode == 0 and most - first < 100 * 2**20, text)


def workers(trial: Trial) -> Iterator[bool]:
    one, _ = trial.whole(trial.folder / "one", "--workers", "1")
    two, _ = trial.whole(trial.folder / "two", "--workers", "2", "--threads", "2")
    yield said("workers", same(trial.folder / "one", trial.folder / "two"), "the same bytes")
    yield said("workers", one / two >= 1.7, f"two are {one / two:.2f} times one: {two:.1f} s for {one:.1f} s")


def full(trial: Trial) -> Iterator[bool]:
    out = trial.given.disk / "out"
    process = trial.start(out, "--keep", "text")
    _, told = process.communicate()
    line = told.decode().splitlines()[-1]
    yield said(
        "full", process.returncode == 2 and "goes on from there" in line and "Traceback" not in told.decode(), line
    )
    whole = [path.name for path in out.iterdir() if path.is_file()]
    shutil.copytree(out, trial.folder / "room")
    trial.whole(trial.folder / "room", "--keep", "text")
    trial.whole(trial.folder / "plain", "--keep", "text")
    yield said(
        "full", same(trial.folder / "room", trial.folder / "plain"), f"{len(whole)} parts were whole; it went on"
    )


def stages(trial: Trial) -> Iterator[bool]:
    rows, settings, spent = trial.given.rows, Settings(keep=("id",)), dict[str, float]()

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        begin = time.process_time()
        yield
        spent[name] = time.process_time() - begin

    pipeline = cascade.Classifier.from_pretrained(trial.given.bundle, threads=1)
    with timed("planning"):
        job = open_job(pipeline, [trial.input], trial.folder / "stages", settings)
    with timed("reading"), closing(Rows(job.inputs, settings, job.kept)) as source:
        found = sum(len(block) for part in job.parts for block in blocks(source.read(part)))
    sample = trial.mix.texts(trial.given.sample, trial.given.seed).to_pylist()
    answers, _ = ask(pipeline, [*islice(cycle(sample), BLOCK_ROWS)], settings)

    def known(_pipeline: Any, block: Block, _settings: Settings) -> tuple[pa.Table, Counts]:
        own = answers.slice(0, len(block))
        return pa.table([*block.kept.columns, *own.columns], schema=job.schema), Counts(len(block), units=len(block))

    with timed("reading and writing"), mock.patch.object(running, "answered", known):
        running.work(job, pipeline)
    spent["writing"] = spent.pop("reading and writing") - spent["reading"]
    written = sum((job.counts(number) or Counts()).rows for number in range(len(job.parts)))
    of_model, deferred = Counter[str](), 0
    for begin in range(0, len(sample), BLOCK_ROWS):
        stats = pipeline.predict(sample[begin : begin + BLOCK_ROWS]).stats
        of_model.update(stats.seconds)
        deferred += stats.deferred
    rates = {name: rows / max(one, 1e-9) for name, one in spent.items()}
    rates |= {name: len(sample) / max(one, 1e-9) for name, one in of_model.items()}
    told = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
    size = sum(path.stat().st_size for path in (trial.folder / "stages").glob("part-*"))
    yield said("stages", found == written == rows, f"{told} rows a CPU second; {deferred / len(sample):.1%} deferred")
    yield said("stages", True, f"{trial.input.stat().st_size / rows:.0f} bytes a row read, {size / rows:.0f} written")


WAYS: Final[dict[str, Callable[[Trial], Iterator[bool]]]] = {
    "kills": kills,
    "speed": speed,
    "memory": memory,
    "workers": workers,
    "full": full,
    "stages": stages,
}

if __name__ == "__main__":
    sys.exit(main())

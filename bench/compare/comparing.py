"""Before and after: per benchmark the ratio of seconds, paired by repeat, with its interval.

Two installs of this package run one bundle in turns, a process each: at full depth and as it is configured, all texts
in one call and one text at a time. A ratio says nothing where answers differ, so the share of equal answers is noted
wherever it is below 1.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from cascade.core.statistics import Interval, Samples, speed_up
from cascade.exceptions import BundleError, DataError, OptionError
from cascade_bench.compare import worker
from cascade_bench.systems import worker as far_end
from cascade_bench.systems.local import CASCADE, FULL
from cascade_bench.systems.process import Job, ProcessClock, WorkerError, WorkerProcess
from cascade_bench.table.data import Data
from cascade_bench.timing.interleaving import PAUSE, Progress, interleave, quiet


@dataclass(frozen=True)
class Compared:
    """One benchmark in both: medians of its seconds in A and in B, and how many times as fast B is as A."""

    name: str
    before: float
    after: float
    ratio: Interval


@dataclass(frozen=True)
class Comparison:
    """A and B: benchmarks in the order of A, and what readers have to know."""

    rows: tuple[Compared, ...]
    notes: tuple[str, ...]


def paired(name: str, before: Samples, after: Samples) -> Compared:
    """One benchmark, paired by repeat as far as both have samples; without any such repeat a `DataError`."""
    count = min(len(before), len(after))
    ratio = speed_up(before[:count], after[:count])
    if ratio is None:
        raise DataError(f"{name} must have samples of the same repeats in A and B, but it has none; run more repeats")
    middle = [median(value for value in seconds if value is not None) for seconds in (before, after)]
    return Compared(name, middle[0], middle[1], ratio)


SYSTEMS = {FULL: "full depth", CASCADE: "cascade"}


@dataclass(frozen=True)
class Install:
    """An interpreter and its PYTHONPATH; an empty one for what the interpreter finds by itself."""

    python: str
    path: str = ""

    @classmethod
    def of(cls, said: str) -> Install:
        """A folder with `cascade/`, for this interpreter, or another interpreter; else an `OptionError`."""
        place = Path(said)
        if (place / "cascade" / "__init__.py").is_file():
            return cls(sys.executable, str(place.absolute()))
        if place.is_file() and os.access(place, os.X_OK):
            return cls(str(place.absolute()))  # not resolved: a virtual environment's link is what makes it one
        raise OptionError(
            f"an install must be a Python interpreter or a folder that holds cascade/, got {said}; name one"
        )

    def start(self, *, threads: int, folder: str) -> WorkerProcess:
        """A process of it, in a folder without packages, which would come before its path."""
        future, *texts = "from __future__ import annotations\n", far_end.__file__, worker.__file__
        code = "\n".join(Path(text).read_text(encoding="utf-8").replace(future, "") for text in texts)
        command = [self.python, "-c", f"{future}{code}\nobey(LOADERS, {{}})"]
        return WorkerProcess(threads=threads, command=command, environment={"PYTHONPATH": self.path}, folder=folder)


def compare_installs(
    installs: Sequence[Install],
    job: Job,
    items: Sequence[Any],
    *,
    threads: Sequence[int] = (1, 2),
    repeats: int = 9,
    single: int = 32,
    progress: Progress = quiet,
    pause: float = PAUSE,
) -> Comparison:
    """Time A and B: one comparison for each number of threads, which replaces that of the job.

    `single`: so many of the items, spread evenly, are answered one at a time. The job's folder must be there. An
    install that fails is a `BundleError` with its last words.
    """
    (Path(job.folder) / "texts.json").write_text(json.dumps(list(items)), encoding="utf-8")
    some = np.linspace(0, len(items) - 1, min(single, len(items))).astype(int).tolist()
    rows, notes, clock = [], dict[str, None](), ProcessClock()
    for count, (kind, system) in itertools.product(threads, SYSTEMS.items()):
        title = f"{system}, {count} thread{'s' * (count > 1)}"
        answers, runs = [], dict[str, Callable[[], object]]()
        with ExitStack() as stack:
            for name, install in zip("AB", installs, strict=True):
                process = stack.enter_context(install.start(threads=count, folder=job.folder))
                with _told(name):
                    found = process.load(kind, replace(job, threads=count))
                    answers.append(process.run().labels)
                notes[f"{name}: {found['said']}."] = None
                for part, asked in (("all", None), ("one by one", some)):
                    runs[f"{name}, {part}"] = partial(_run, name, process, clock, asked)
            same = Data(items, answers[0], words=job.tagging).accuracy(answers[1])
            if same < 1:
                notes[f"{title}: B answers as A on {same:.2%}."] = None
            shown = partial(lambda title, name: progress(f"{title}: {name}"), title)
            turns = interleave(runs, repeats=repeats, progress=shown, clock=clock, pause=pause)
        for part in ("all", "one by one"):
            rows.append(paired(f"{title}, {part}", turns.seconds[f"A, {part}"], turns.seconds[f"B, {part}"]))
    return Comparison(tuple(rows), tuple(notes))


def _run(name: str, process: WorkerProcess, clock: ProcessClock, asked: Sequence[int] | None) -> None:
    """All items in one call, or these one by one."""
    with _told(name):
        clock.now += process.run().seconds if asked is None else sum(process.single(asked))


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Failures of an install as an error that the command tells in one line."""
    try:
        yield
    except WorkerError as error:
        raise BundleError(f"install {name} must answer with this bundle, but: {error}; see cascade inspect") from None

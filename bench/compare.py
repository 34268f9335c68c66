"""`cascade-bench compare`: two installs of this package, per benchmark the ratio of seconds, paired by repeat.

They run one bundle in turns, a process each: at full depth and as it is configured, all texts in one call and one text
at a time. A ratio says nothing where answers differ, so the share of equal answers is noted wherever it is below 1.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np

from cascade.bundle.manifest import TAGGING
from cascade.bundle.opening import open_bundle
from cascade.core.statistics import Interval, speed_up
from cascade.exceptions import BundleError, OptionError
from cascade_bench.options import count_option
from cascade_bench.systems import worker as far_end
from cascade_bench.systems.local import CASCADE, FULL
from cascade_bench.systems.process import Job, ProcessClock, WorkerError, WorkerProcess
from cascade_bench.table.data import Data, read_items
from cascade_bench.timing.interleaving import PAUSE, Progress, interleave, quiet
from cascade_bench.timing.report import bar, grid

SINGLE = 32  # items that are answered one by one, spread evenly
CLEAR = 0.9  # of an interval's coverage, which five repeats have
SYSTEMS = {FULL: "full depth", CASCADE: "cascade"}


@click.command(short_help="Before and after: two installs in turns, as ratios of seconds with intervals.")
@click.argument("a")
@click.argument("b")
@click.option("--model", required=True, metavar="BUNDLE", help="The bundle that both load.")
@click.option("--data", "file", required=True, metavar="FILE", help="What both answer; labels are not read.")
@click.option("--threads", multiple=True, type=click.IntRange(min=1), default=(1, 2), show_default=True, metavar="N",
              help="Of each; give it again for each number.")  # fmt: skip
@count_option("--repeats", 9, "Turns of each.")
@click.option("--at-least", type=float, metavar="R", help="End with status 1 where B is less than R times as fast.")
def compare(
    a: str,
    b: str,
    model: str,
    file: str,
    threads: tuple[int, ...],
    repeats: int,
    at_least: float | None,
) -> None:
    """How many times as fast B is as A: medians of ratios that are paired by repeat, with 95 % intervals.

    A and B are two installs of this package: each a Python interpreter, or a folder that holds cascade/ for this
    interpreter. They answer a file with a bundle at full depth and as it is configured, all in one call and one by one,
    a process each, in turns. With --at-least a benchmark fails whose median is below the bound.

    \b
    Example:
      cascade-bench compare ../before . --model models/sentiment --data dev.jsonl --at-least 0.95
      cascade-bench compare old/bin/python new/bin/python --model models/pos --data dev.jsonl --threads 1
    """
    if at_least is not None and not 0 < at_least < float("inf"):
        raise OptionError(f"--at-least must be above 0 and finite, got {at_least}; 0.95 lets B take a twentieth longer")
    installs = [Install.of(a), Install.of(b)]
    tagging = open_bundle(model).manifest.task == TAGGING
    items = read_items(file, words=tagging)
    with tempfile.TemporaryDirectory(prefix="cascade-bench-") as folder, bar() as step:
        place = str(Path(model).absolute()) if Path(model).exists() else model
        job = Job(place, "", folder, 1, 0, tagging=tagging)
        found, notes = compare_installs(installs, job, items, threads=threads, repeats=repeats, progress=step)
    bound = at_least or 0.0
    ratios = {name: speed_up(*both) for name, both in found.items()}
    rows = []
    for name, both in found.items():
        middle = map(median, both)
        rows.append(
            [name, *(f"{one:.4g}" for one in middle), ratios[name].text(".3f"), _conclusion(ratios[name], bound)]
        )
    click.echo(grid(["benchmark", "A, seconds", "B, seconds", "B is times as fast", ""], rows))
    click.echo("\n".join(notes))
    if slower := sum(ratio.median < bound for ratio in ratios.values()):
        click.echo(f"{slower} of {len(rows)} are less than {bound:g} times as fast in B.", err=True)
        click.get_current_context().exit(1)


def _conclusion(ratio: Interval, at_least: float) -> str:
    clear = ratio.coverage >= CLEAR
    if ratio.median < at_least:
        return "too slow" if clear and ratio.high < at_least else "too slow, though not clearly"
    if not clear:
        return "too few repeats to say"
    return "faster" if ratio.low > 1 else "slower" if ratio.high < 1 else ""


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
        code = Path(far_end.__file__).read_text(encoding="utf-8")
        command = [self.python, "-c", f"{code}\nobey(INSTALLED, {{}})"]
        return WorkerProcess(threads=threads, command=command, environment={"PYTHONPATH": self.path}, folder=folder)


def compare_installs(
    installs: Sequence[Install],
    job: Job,
    items: Sequence[Any],
    *,
    threads: Sequence[int] = (1, 2),
    repeats: int = 9,
    progress: Progress = quiet,
    pause: float = PAUSE,
) -> tuple[dict[str, tuple[Sequence[float], Sequence[float]]], list[str]]:
    """Time A and B at each number of threads, which replaces that of the job.

    The job's folder must be there. An install that fails is a `BundleError` with its last words.

    Returns:
        Seconds of both by benchmark, paired by repeat, and what readers have to know.
    """
    (Path(job.folder) / "texts.json").write_text(json.dumps(list(items)), encoding="utf-8")
    some = np.linspace(0, len(items) - 1, min(SINGLE, len(items))).astype(int).tolist()
    found, notes, clock = dict[str, tuple[Sequence[float], Sequence[float]]](), dict[str, None](), ProcessClock()
    for count, (kind, system) in itertools.product(threads, SYSTEMS.items()):
        title = f"{system}, {count} thread{'s' * (count > 1)}"
        answers, runs, warm_up = [], dict[str, Callable[[], object]](), dict[str, float]()
        with ExitStack() as stack:
            for name, install in zip("AB", installs, strict=True):
                process = stack.enter_context(install.start(threads=count, folder=job.folder))
                with _told(name):
                    notes[f"{name}: {process.load(kind, replace(job, threads=count))['said']}."] = None
                    seconds, labels = process.run()
                    answers.append(labels)
                    warm_up |= {f"{name}, all": seconds, f"{name}, one by one": sum(process.single(some))}
                for part, asked in (("all", None), ("one by one", some)):
                    runs[f"{name}, {part}"] = partial(_run, name, process, clock, asked)
            same = Data(items, answers[0], words=job.tagging).accuracy(answers[1])
            if same < 1:
                notes[f"{title}: B answers as A on {same:.2%}."] = None
            shown = partial(lambda title, name: progress(f"{title}: {name}"), title)
            turns = interleave(runs, repeats=repeats, warm_up=warm_up, progress=shown, clock=clock, pause=pause)
        for part in ("all", "one by one"):
            found[f"{title}, {part}"] = turns[f"A, {part}"], turns[f"B, {part}"]
    return found, list(notes)


def _run(name: str, process: WorkerProcess, clock: ProcessClock, asked: Sequence[int] | None) -> None:
    """All items in one call, or these one by one."""
    with _told(name):
        clock.now += process.run()[0] if asked is None else sum(process.single(asked))


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Failures of an install as an error that the command tells in one line."""
    try:
        yield
    except WorkerError as error:
        raise BundleError(f"install {name} must answer with this bundle, but: {error}; see cascade inspect") from None

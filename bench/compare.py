"""`cascade-bench compare`: two installs of this package, per benchmark the ratio of seconds, paired by repeat.

They run one bundle in turns, a process each: at full depth and as it is configured, all texts in one call and one text
at a time. A ratio says nothing where answers differ, so the share of equal answers is noted wherever it is below 1.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import click

from cascade.bundle.manifest import TAGGING
from cascade.bundle.opening import open_bundle
from cascade.core.statistics import Interval, speed_up
from cascade.exceptions import BundleError, OptionError
from cascade_bench.options import count_option
from cascade_bench.peers.running import ALONE, GIVEN, SUFFIXES, Peers
from cascade_bench.systems import worker as far_end
from cascade_bench.systems.baselines import Baseline
from cascade_bench.systems.local import CASCADE, FULL
from cascade_bench.systems.process import Job, WorkerProcess
from cascade_bench.table.data import Data, read_items
from cascade_bench.timing.interleaving import PAUSE, Progress, quiet
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
    a: str, b: str, model: str, file: str, threads: tuple[int, ...], repeats: int, at_least: float | None
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
        raise OptionError(f"an install must be a Python interpreter or a folder with cascade/, got {said}; name one")

    def start(self, name: str, kind: str, job: Job) -> WorkerProcess:
        """A process that loads it by a name, in a folder without packages, which would come before its path."""
        code = Path(far_end.__file__).read_text(encoding="utf-8")
        command = [self.python, "-c", f"{code}\nobey({{{name!r}: INSTALLED[{kind!r}]}})"]
        environment = {"PYTHONPATH": self.path}
        return WorkerProcess(threads=job.threads, command=command, environment=environment, folder=job.folder)


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

    The job's folder must be there. An install that fails is a `BundleError` with its last words. Returned are seconds
    of both by benchmark, paired by repeat, and what readers have to know.
    """
    found, notes, names = dict[str, tuple[Sequence[float], Sequence[float]]](), dict[str, None](), ("A", "B")
    by_name = dict(zip(names, installs, strict=True))
    for count, (kind, system) in itertools.product(threads, SYSTEMS.items()):
        title, own = f"{system}, {count} thread{'s' * (count > 1)}", replace(job, threads=count)
        told = partial(lambda title, name: progress(f"{title}: {name}"), title)
        start = partial(lambda kind, own, one: by_name[one.key].start(one.key, kind, own), kind, own)
        with Peers(own, items, single=SINGLE, start=start, progress=told) as both:
            both.load([Baseline(name, name, far_end.INSTALLED[kind], own=True) for name in names])
            turns = both.take_turns(repeats, pause=pause)
        for name, why in both.absent.items():
            fault = why.removeprefix("failed: ")
            raise BundleError(f"install {name} must answer with this bundle, but: {fault}; see cascade inspect")
        notes |= {f"{name}: {both.running[name].said}.": None for name in names}
        before, after = (both.running[name].ways[GIVEN].labels for name in names)
        same = Data(items, before, words=job.tagging).accuracy(after)
        if same < 1:
            notes[f"{title}: B answers as A on {same:.2%}."] = None
        for part, suffix in (("all", SUFFIXES[GIVEN]), ("one by one", SUFFIXES[ALONE])):
            found[f"{title}, {part}"] = turns[f"A{suffix}"], turns[f"B{suffix}"]
    return found, list(notes)

"""Regression check of `make bench`: a ratio must not fall below its reference. It ends with status 1 where one does.

python -m cascade_bench.harness.check models/sentiment                      compare with the references
python -m cascade_bench.harness.check models/sentiment --write-reference    write them, on a quiet machine

What is held, as how many times as fast one work is as another:

    full / products      tier 2 at full depth, over bare int8 products: the graphs, and everything else
    cascade / full       the bundle as it is configured
    tier 1 / full        tier 1 alone
    one by one / bulk    full depth one text at a time, over the same in bulk, by text: below 1
    one, tier 1 / bulk   tier 1 alone one text at a time, over full depth in bulk, by text
    threads / one        full depth with all threads, over one thread

No seconds are ever compared with those of another run: all take turns in one run, and a ratio is the median over them.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import numpy as np

from cascade.cli.demo.texts import sentences
from cascade.core.console import finish
from cascade.core.files import write
from cascade.core.statistics import Interval, speed_up
from cascade.exceptions import DataError
from cascade.pipelines.classifier import Classifier
from cascade.policies.routing import defer_none
from cascade.runtime.threads import check_threads
from cascade_bench.options import threads_option
from cascade_bench.profile.peak import Product, runner
from cascade_bench.systems.local import Model, whole
from cascade_bench.timing import machine
from cascade_bench.timing.interleaving import Clock, Progress, interleave, quiet
from cascade_bench.timing.machine import in_words, int8_flag
from cascade_bench.timing.report import bar, grid

TURNS = 15  # so that the interval of a median may leave out three at either end and cover 96 %
TEXTS = 1024
SINGLE = 32  # texts of those that run one by one
PRODUCT = Product("int8", 1024, 384, 1536)  # 1024 tokens through the wide half of a layer
PRODUCTS = 256  # as many operations as six such layers have on about a thousand short texts
SINGLY = 0.3  # the tolerance of such: half an hour apart the same code differed by 15 and 18 %, a text being so short


@dataclass(frozen=True)
class Work:
    """Something that takes time, and how many texts it answers; ratios are of seconds by text."""

    run: Callable[[], object]
    texts: int


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one work is as another, its base; by which share another run may fall below it."""

    name: str
    work: str
    base: str
    tolerance: float | None = None


RATIOS = (
    Ratio("full / products", "full", "products"),
    Ratio("cascade / full", "cascade", "full"),
    Ratio("tier 1 / full", "tier1", "full"),
    Ratio("one by one / bulk", "one", "full", SINGLY),
    Ratio("one, tier 1 / bulk", "one-tier1", "full", SINGLY),
    Ratio("threads / one", "full", "one-thread"),
)


def texts_for(bundle: Path, count: int) -> list[str]:
    """The demo's sentences for a bundle, those about films if it has none, over and over."""
    name = bundle.resolve().name
    known = sentences(name if name in {"sentiment", "intents"} else "sentiment")
    return [sentence.text for sentence in itertools.islice(itertools.cycle(known), count)]


def works(
    classifier: Classifier, texts: Sequence[str], *, threads: int, one_thread: Classifier | None
) -> dict[str, Work]:
    """Those of a bundle; `one_thread`: the bundle with one thread, `None` if that is all there are."""
    full, first, product = whole(classifier), classifier.with_router(defer_none), runner(PRODUCT, threads=threads)
    some = [texts[place] for place in np.linspace(0, len(texts) - 1, min(SINGLE, len(texts))).astype(int)]

    def bulk(model: Model) -> Work:
        return Work(lambda: model.predict(texts), len(texts))

    def singly(model: Model) -> Work:
        return Work(lambda: [model.predict([text]) for text in some], len(some))

    def products() -> None:
        for _ in range(PRODUCTS):
            product()

    found = {
        "full": bulk(full),
        "products": Work(products, len(texts)),
        "cascade": bulk(classifier),
        "tier1": bulk(first),
        "one": singly(full),
        "one-tier1": singly(first),
    }
    return found if one_thread is None else {**found, "one-thread": bulk(whole(one_thread))}


def measure(
    running: Mapping[str, Work],
    *,
    turns: int,
    ratios: Sequence[Ratio] = RATIOS,
    progress: Progress = quiet,
    clock: Clock = time.perf_counter,
) -> dict[str, Interval]:
    """Medians over turns with their intervals, by the ratio's name; ratios of which a work is missing are left out."""
    made = interleave({name: work.run for name, work in running.items()}, repeats=turns, progress=progress, clock=clock)
    by_text = {
        name: [None if one is None else one / running[name].texts for one in seconds]
        for name, seconds in made.seconds.items()
    }
    wanted = [ratio for ratio in ratios if {ratio.work, ratio.base} <= set(running)]
    found = {ratio.name: speed_up(by_text[ratio.base], by_text[ratio.work]) for ratio in wanted}
    return {name: interval for name, interval in found.items() if interval is not None}


FILE = Path(__file__).with_name("reference_ratios.json")
"""References by the bundle's folder and the kind of CPU, as ratios differ between kinds:

{"sentiment": {"amx_int8, 2 threads": {"date": "2026-01-31", "machine": "...",
                                       "ratios": {"cascade / full": {"value": 2.4, "tolerance": 0.15}}}}}
"""

# The same code takes up to 40 % longer in some hours than in others. Of two works that ran within seconds of each other
# most of that cancels, of the median over turns more; but a neighbour that takes one of the cores slows work that waits
# for the slowest thread more than work that does not. So: well below the noise of seconds, well above 0.
TOLERANCE = 0.15


@dataclass(frozen=True)
class Reference:
    """A ratio to hold; a later run may fall below it by a share, its tolerance in [0, 1)."""

    value: float
    tolerance: float = TOLERANCE

    @property
    def floor(self) -> float:
        """What a run has to reach."""
        return self.value * (1 - self.tolerance)


@dataclass(frozen=True)
class References:
    """All of a bundle on one kind of CPU, with the run's date in UTC and its machine in words."""

    date: str
    machine: str
    ratios: Mapping[str, Reference]


def cpu_kind(facts: Mapping[str, Any]) -> str:
    """What ratios depend on: the best int8 instructions, or else the architecture, and how many threads there are."""
    return f"{int8_flag(facts) or facts['machine']}, {facts['threads']} thread{'s' * (facts['threads'] > 1)}"


def references_of(
    measured: Mapping[str, Interval], facts: Mapping[str, Any], *, tolerances: Mapping[str, float] | None = None
) -> References:
    """What a run makes of itself. `tolerances`: of ratios that need more than `TOLERANCE`.

    A ratio that scattered more than usual gets a tolerance that its own interval lies in: it holds less, and says so.
    """
    known = tolerances or {}
    ratios = {}
    for name, interval in measured.items():
        scatter = math.ceil(100 * (1 - interval.low / interval.median)) / 100
        ratios[name] = Reference(float(f"{interval.median:.3g}"), max(known.get(name, TOLERANCE), scatter))
    return References(datetime.now(timezone.utc).date().isoformat(), in_words(facts), ratios)


def shortfall(name: str, measured: Interval, references: References) -> str | None:
    """What is wrong with a ratio, in one line; `None` if it holds, or has no reference."""
    held = references.ratios.get(name)
    if held is None or measured.median >= held.floor:
        return None
    return (
        f"{name} must be at least {held.floor:.3g} ({held.value:g} on {references.date}, less {held.tolerance:.0%}), "
        f"got {measured.median:.3g} ({measured.low:.3g} to {measured.high:.3g} in {measured.samples} turns); "
        "look for what became slower, or use --write-reference if that is meant"
    )


def read_references(file: Path, bundle: str, kind: str) -> References | None:
    """Those of a bundle on a kind of CPU, `None` if there are none yet; a `DataError` for a file of another form."""
    found = _read(file).get(bundle, {})
    try:
        made = found.get(kind)
        if made is None:
            return None
        ratios = {
            name: Reference(float(held["value"]), float(held["tolerance"])) for name, held in made["ratios"].items()
        }
        references = References(str(made["date"]), str(made["machine"]), ratios)
        fine = all(0 < held.value < math.inf and 0 <= held.tolerance < 1 for held in ratios.values())
    except (AttributeError, KeyError, TypeError, ValueError):
        fine = False
    if not fine:
        raise DataError(
            f"{file}: {bundle}, {kind} must have a date, a machine, and ratios with a value above 0 and a tolerance in "
            "[0, 1), got something else; delete it and use --write-reference"
        )
    return references


def write_references(file: Path, bundle: str, kind: str, references: References) -> None:
    """Put them in the place of those of the same bundle and kind of CPU; a `DataError` for a file of another form."""
    everything = _read(file)
    everything[bundle] = {**everything.get(bundle, {}), kind: asdict(references)}
    write(file, json.dumps(everything, indent=2) + "\n")


def _read(file: Path) -> dict[str, Any]:
    try:
        made = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as fault:
        raise DataError(f"{file} must be a JSON file of reference ratios, but: {fault}; restore it") from None
    if not isinstance(made, dict) or not all(isinstance(kinds, dict) for kinds in made.values()):
        raise DataError(f"{file} must hold reference ratios by bundle and kind of CPU, got something else; restore it")
    return made


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@threads_option
@click.option("--turns", type=click.IntRange(min=1), default=TURNS, show_default=True, help="Of each.")
@click.option("--reference", "file", type=click.Path(path_type=Path), default=FILE, help="The file of ratios to hold.")
@click.option("--write-reference", "writing", is_flag=True, help="Write the ratios as they are now.")
@click.pass_context
def check(context: click.Context, bundle: Path, threads: int | None, turns: int, file: Path, writing: bool) -> None:
    """Measure the ratios of a classifier's BUNDLE and compare them with their references."""
    count = check_threads(threads)
    classifier = Classifier.from_pretrained(bundle, threads=count)
    name, facts = bundle.resolve().name, machine.facts(threads=count)
    kind = cpu_kind(facts)
    references = None if writing else read_references(file, name, kind)
    if references is None and not writing:
        click.echo(f"{name} has no reference ratios for {kind}; use --write-reference on a quiet machine.")
        return
    texts = texts_for(bundle, TEXTS)
    one_thread = None if count == 1 else Classifier.from_pretrained(bundle, threads=1)
    with bar() as step:
        running = works(classifier, texts, threads=count, one_thread=one_thread)
        measured = measure(running, turns=turns, progress=step)
    if references is None:
        tolerances = {ratio.name: ratio.tolerance for ratio in RATIOS if ratio.tolerance is not None}
        references = references_of(measured, facts, tolerances=tolerances)
        write_references(file, name, kind, references)
    rows = []
    for key, interval in measured.items():
        held = references.ratios.get(key)
        rows.append(
            [key, interval.text(".3g"), *(["", ""] if held is None else [f"{held.value:g}", f"{held.floor:.3g}"])]
        )
    click.echo(f"{name}, {kind}, references of {references.date}:")
    click.echo(grid(["ratio", "measured", "reference", "at least"], rows))
    faults = [line for key in measured if (line := shortfall(key, measured[key], references)) is not None]
    for line in faults:
        click.echo(line, err=True)
    context.exit(1 if faults else 0)


if __name__ == "__main__":
    finish(check)

"""The gains that `make bench` holds, as ratios: which systems run, and how many times as fast one is as another.

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
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cascade.cli.demo.texts import sentences
from cascade.core.statistics import Interval, speed_up
from cascade.pipelines.classifier import Classifier
from cascade.policies.routing import defer_none
from cascade_bench.profile.peak import Product, runner
from cascade_bench.systems.local import Model, whole
from cascade_bench.timing.interleaving import Clock, Progress, interleave, quiet

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

"""The gains that `make bench` holds, as ratios: which systems run, and how many times as fast one is as another.

    full / plain         tier 2 at full depth, over its graphs run plainly (`plain.Plain`): scheduling
    full / products      the same over bare int8 products (`plain.products`): the graphs, and everything else
    cascade / full       the bundle as it is configured
    tier 1 / full        tier 1 alone
    one by one / bulk    full depth one text at a time, over the same in bulk, by text: below 1
    one, tier 1 / bulk   tier 1 alone one text at a time, over full depth in bulk, by text
    threads / one        full depth with all threads, over one thread

No seconds are ever compared with those of another run: all take turns in one run, and a ratio is the median over them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cascade.core.statistics import Interval, speed_up
from cascade.pipelines.classifier import Classifier
from cascade.policies.routing import defer_none
from cascade_bench.harness.plain import Plain, products
from cascade_bench.systems.local import Model, whole
from cascade_bench.timing.interleaving import Clock, Progress, interleave

SINGLE = 32  # texts of those that run one by one
SINGLY = 0.3  # the tolerance of such: half an hour apart the same code differed by 15 and 18 %, a text being so short


@dataclass(frozen=True)
class Work:
    """Something that takes time.

    Attributes:
        run: what it does.
        texts: how many it answers; ratios are of seconds by text.
    """

    run: Callable[[], object]
    texts: int


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one work is as another.

    Attributes:
        name: for programs and readers.
        work: key of the one whose speed is held.
        base: key of the other.
        tolerance: by which share of it another run may fall below; `None`: as others.
    """

    name: str
    work: str
    base: str
    tolerance: float | None = None


RATIOS = (
    Ratio("full / plain", "full", "plain"),
    Ratio("full / products", "full", "products"),
    Ratio("cascade / full", "cascade", "full"),
    Ratio("tier 1 / full", "tier1", "full"),
    Ratio("one by one / bulk", "one", "full", SINGLY),
    Ratio("one, tier 1 / bulk", "one-tier1", "full", SINGLY),
    Ratio("threads / one", "full", "one-thread"),
)


def works(
    classifier: Classifier, plain: Plain, texts: Sequence[str], *, threads: int, one_thread: Classifier | None
) -> dict[str, Work]:
    """Those of a bundle.

    Args:
        classifier: as the bundle configures it.
        plain: the same bundle, plainly.
        texts: of all; those that run one by one get some of them.
        threads: of `classifier`, for the products.
        one_thread: the bundle with one thread; `None` if that is all there are.
    """
    full, first = whole(classifier), classifier.with_router(defer_none)
    some = [texts[place] for place in np.linspace(0, len(texts) - 1, min(SINGLE, len(texts))).astype(int)]

    def bulk(model: Model) -> Work:
        return Work(lambda: model.predict(texts), len(texts))

    def singly(model: Model) -> Work:
        return Work(lambda: [model.predict([text]) for text in some], len(some))

    found = {
        "full": bulk(full),
        "plain": Work(lambda: plain(texts), len(texts)),
        "products": Work(products(threads=threads), len(texts)),
        "cascade": bulk(classifier),
        "tier1": bulk(first),
        "one": singly(full),
        "one-tier1": singly(first),
    }
    return found if one_thread is None else {**found, "one-thread": bulk(whole(one_thread))}


def agreement(classifier: Classifier, plain: Plain, texts: Sequence[str]) -> float:
    """Share of the texts on which the reference answers as full depth does: 1, but for rounding."""
    ours = whole(classifier).predict(texts).probabilities
    return float(np.mean(ours.argmax(axis=1) == plain(texts).argmax(axis=1)))


def measure(
    running: Mapping[str, Work],
    *,
    turns: int,
    ratios: Sequence[Ratio] = RATIOS,
    progress: Progress | None = None,
    clock: Clock = time.perf_counter,
) -> dict[str, Interval]:
    """Let works take turns.

    Args:
        running: by key.
        turns: of each, but for slow ones (`interleaving.Plan`).
        ratios: wanted; those of which a work is missing are left out.
        progress: called before each turn.
        clock: gives seconds.

    Returns:
        Median over the turns, with its interval, by the ratio's name.
    """
    made = interleave({name: work.run for name, work in running.items()}, repeats=turns, progress=progress, clock=clock)
    by_text = {
        name: [None if one is None else one / running[name].texts for one in seconds]
        for name, seconds in made.seconds.items()
    }
    wanted = [ratio for ratio in ratios if {ratio.work, ratio.base} <= set(running)]
    found = {ratio.name: speed_up(by_text[ratio.base], by_text[ratio.work]) for ratio in wanted}
    return {name: interval for name, interval in found.items() if interval is not None}

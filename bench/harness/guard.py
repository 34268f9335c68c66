"""The gains that `make bench` guards, as ratios: who runs, and how many times faster one is than another.

    full / plain         tier 2 at full depth, over its graphs run plainly (`reference.Plain`): scheduling
    full / products      the same over bare int8 products (`reference.products`): the graphs, and everything else
    cascade / full       the bundle as it is configured
    tier 1 / full        tier 1 alone
    one by one / bulk    full depth one text at a time, over the same in bulk, by text: below 1
    one, tier 1 / bulk   tier 1 alone one text at a time, over full depth in bulk, by text
    threads / one        full depth with all threads, over one thread

No seconds are ever compared with those of another run: all take turns in one run, and a ratio is the median over its
turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cascade.pipelines.classifier import Classifier
from cascade.policies.exits import never
from cascade.policies.routing import defer_all, defer_none
from cascade_bench.harness.reference import Plain, products
from cascade_bench.interleaving import interleave
from cascade_bench.statistics import Interval, speed_up

__all__ = ["RATIOS", "Contender", "Ratio", "agreement", "at_full_depth", "contenders", "measure"]

SINGLE = 32  # texts of those that run one by one
SINGLY = 0.3  # the tolerance of such: half an hour apart the same code differed by 15 and 18 %, a text being so short


@dataclass(frozen=True)
class Contender:
    """Something that takes time.

    Attributes:
        run: what it does.
        texts: how many it answers; ratios are of seconds by text.
    """

    run: Callable[[], object]
    texts: int


@dataclass(frozen=True)
class Ratio:
    """How many times faster one contender is than another.

    Attributes:
        name: for programs and readers.
        contender: key of the one whose speed is guarded.
        base: key of the other.
        tolerance: by which share of it another run may fall below; `None`: as others.
    """

    name: str
    contender: str
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


def at_full_depth(classifier: Classifier) -> Classifier:
    """Tier 2 alone, nobody leaving."""
    return classifier.with_router(defer_all).with_exit_policy(never)


def contenders(
    classifier: Classifier, plain: Plain, texts: Sequence[str], *, threads: int, one_thread: Classifier | None
) -> dict[str, Contender]:
    """Those of a bundle.

    Args:
        classifier: as the bundle configures it.
        plain: the same bundle, plainly.
        texts: of all but those that run one by one, who get some of them.
        threads: of `classifier`, for the products.
        one_thread: the bundle with one thread; `None` if that is all there are.
    """
    full, first = at_full_depth(classifier), classifier.with_router(defer_none)
    some = [texts[place] for place in np.linspace(0, len(texts) - 1, min(SINGLE, len(texts))).astype(int)]

    def bulk(asked: Classifier) -> Contender:
        return Contender(lambda: asked.predict(texts), len(texts))

    def singly(asked: Classifier) -> Contender:
        return Contender(lambda: [asked.predict([text]) for text in some], len(some))

    found = {
        "full": bulk(full),
        "plain": Contender(lambda: plain(texts), len(texts)),
        "products": Contender(products(threads=threads), len(texts)),
        "cascade": bulk(classifier),
        "tier1": bulk(first),
        "one": singly(full),
        "one-tier1": singly(first),
    }
    return found if one_thread is None else {**found, "one-thread": bulk(at_full_depth(one_thread))}


def agreement(classifier: Classifier, plain: Plain, texts: Sequence[str]) -> float:
    """Share of the texts on which the reference answers as full depth does: 1, but for rounding."""
    ours = at_full_depth(classifier).predict(texts).probabilities
    return float(np.mean(ours.argmax(axis=1) == plain(texts).argmax(axis=1)))


def measure(
    running: Mapping[str, Contender],
    *,
    turns: int,
    ratios: Sequence[Ratio] = RATIOS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Interval]:
    """Let contenders take turns.

    Args:
        running: by key.
        turns: of each, but for slow ones (`interleaving.Plan`).
        ratios: wanted; those of which a contender is missing are left out.
        clock: gives seconds.

    Returns:
        Median over the turns, with its interval, by the ratio's name.
    """
    warm_up = {}
    for name, contender in running.items():
        contender.run()  # makes sessions, packs weights
        begin = clock()
        contender.run()
        warm_up[name] = clock() - begin
    runs = {name: contender.run for name, contender in running.items()}
    made = interleave(runs, repeats=turns, warm_up=warm_up, clock=clock)
    by_text = {
        name: [None if one is None else one / running[name].texts for one in seconds]
        for name, seconds in made.seconds.items()
    }
    wanted = [ratio for ratio in ratios if {ratio.contender, ratio.base} <= set(running)]
    found = {ratio.name: speed_up(by_text[ratio.base], by_text[ratio.contender]) for ratio in wanted}
    return {name: interval for name, interval in found.items() if interval is not None}

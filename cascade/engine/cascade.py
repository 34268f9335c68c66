"""The two tiers together: score with the first, route, score what was deferred with the second, merge."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from tqdm import tqdm

from cascade.core.confidence import evidence, max_probability
from cascade.core.results import Routes, Stats
from cascade.core.rows import BoolArray, FloatArray, IntArray, Rows
from cascade.engine.tiers import Scores, Tier
from cascade.policies import routing
from cascade.policies.routing import DeferAll, DeferNone, Router, RoutingState

__all__ = ["Cascade", "Clock", "FirstLook", "Outcome", "merge_windows", "stats_of"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a cascade says about rows or texts, in their order.

    Attributes:
        probabilities: shape `(rows, labels)`.
        routes: one per row.
        stats: of the whole call.
    """

    probabilities: FloatArray
    routes: Routes
    stats: Stats


@dataclass(frozen=True, eq=False)
class FirstLook:
    """What is known before tier 2 runs.

    Attributes:
        scores: of tier 1; `None` if it was not run because everything is deferred.
        deferred: which rows tier 2 has to answer. Shape `(rows,)`.
    """

    scores: Scores | None
    deferred: BoolArray


class Clock:
    """Seconds by part of the work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - begin


@dataclass(frozen=True, eq=False)
class Cascade:
    """Two tiers and the router between them.

    Attributes:
        tier1: the cheap tier. Not run if `router` is `defer_all`.
        tier2: the accurate tier. Not run if nothing is deferred.
        router: which rows tier 2 answers.
        multi_label: the labels are independent yes/no decisions.
        blend: how much tier 1's answer counts beside that of each of tier 2's exits, where both were asked
            (`confidence.evidence`); at 0 it is forgotten.
    """

    tier1: Tier
    tier2: Tier
    router: Router
    multi_label: bool = field(default=False, kw_only=True)
    blend: float = field(default=0.0, kw_only=True)

    def score(self, batch: Rows, *, show_progress: bool = False) -> Outcome:
        """Answer all rows.

        Args:
            batch: may be empty.
            show_progress: draw a bar per tier on standard error.

        Raises:
            OptionError: the router or the exit policy returned something other than a mask of one bool per row.
        """
        clock = Clock()
        first = self.first(batch, clock=clock, show_progress=show_progress)
        chosen = np.flatnonzero(first.deferred)
        second = None
        # Without a first look tier 2 runs even for no rows at all: its answer has the right shape.
        if len(chosen) or first.scores is None:
            with clock("tier2"):
                rest = batch if len(chosen) == len(batch) else batch.select(chosen)
                second = self.second(rest, prior=self.prior(first), show_progress=show_progress)
        with clock("merge"):
            probabilities, routes = self.merge(first, second)
        return Outcome(probabilities, routes, stats_of(routes, tokens=batch.tokens, seconds=clock.seconds))

    def first(self, batch: Rows, *, clock: Clock | None = None, show_progress: bool = False) -> FirstLook:
        """Run tier 1 and ask the router."""
        clock = clock or Clock()
        if isinstance(self.router, DeferAll):
            return FirstLook(None, np.ones(len(batch), dtype=np.bool_))
        with clock("tier1"):
            scores = _score(self.tier1, batch, None, "tier 1", show_progress)
        if isinstance(self.router, DeferNone):
            return FirstLook(scores, np.zeros(len(batch), dtype=np.bool_))
        with clock("route"):
            state = RoutingState(scores.probabilities, scores.confidence, batch.lengths, self.multi_label)
            return FirstLook(scores, routing.decide(self.router, state))

    def prior(self, first: FirstLook) -> FloatArray | None:
        """What tier 1's answers add to tier 2's logits, for the deferred rows. Shape `(deferred, labels)`."""
        if first.scores is None or not self.blend:
            return None
        known = first.scores.probabilities[first.deferred]
        return evidence(known, weight=self.blend, multi_label=self.multi_label)

    def second(self, batch: Rows, *, prior: FloatArray | None = None, show_progress: bool = False) -> Scores:
        """Run tier 2. `prior`: of these rows."""
        return _score(self.tier2, batch, prior, "tier 2", show_progress)

    def merge(self, first: FirstLook, second: Scores | None) -> tuple[FloatArray, Routes]:
        """Tier 2's answers where rows were deferred, tier 1's elsewhere.

        Args:
            first: of all rows.
            second: of the deferred rows, in order; `None` if there are none.

        Returns:
            Probabilities of shape `(rows, labels)` and a route per row.
        """
        tier = np.where(first.deferred, 2, 1).astype(np.int64)
        if first.scores is None or second is None:
            scores = first.scores or second
            if scores is None:
                raise ValueError("rows without a first look must have a second one")
            return scores.probabilities, Routes(tier, scores.exit_layer, scores.confidence)
        probabilities, confidence = first.scores.probabilities.copy(), first.scores.confidence.copy()
        exits = first.scores.exit_layer.copy()
        probabilities[first.deferred] = second.probabilities
        confidence[first.deferred] = second.confidence
        exits[first.deferred] = second.exit_layer
        return probabilities, Routes(tier, exits, confidence)


def stats_of(routes: Routes, *, tokens: int, seconds: Mapping[str, float] | None = None) -> Stats:
    """Counts of rows with these routes."""
    second = routes.tier == 2
    layers, counts = np.unique(routes.exit_layer[second], return_counts=True)
    return Stats(
        texts=len(routes),
        units=len(routes),
        tokens=tokens,
        deferred=int(second.sum()),
        exits=dict(zip(layers.tolist(), counts.tolist(), strict=True)),
        seconds=seconds or {},
    )


def merge_windows(outcome: Outcome, documents: IntArray, *, multi_label: bool = False) -> Outcome:
    """One answer per document from the answers for its windows.

    Probabilities are averaged. The route is that of the window that went deepest (tier 2 before tier 1, then the
    highest exit), its confidence that of the averaged probabilities.

    Args:
        outcome: of rows.
        documents: number of the document that each row belongs to, from 0, none left out, never falling. Shape
            `(rows,)`.
        multi_label: the labels are independent yes/no decisions.
    """
    rows = len(documents)
    count = int(documents[-1]) + 1 if rows else 0
    if count == rows:
        return outcome
    starts = np.searchsorted(documents, np.arange(count))
    windows = np.diff(np.append(starts, rows))
    summed = np.add.reduceat(outcome.probabilities, starts, axis=0)
    probabilities: FloatArray = (summed / windows[:, None]).astype(np.float32)
    scale = int(outcome.routes.exit_layer.max()) + 1
    deepest = np.maximum.reduceat(outcome.routes.tier * scale + outcome.routes.exit_layer, starts)
    routes = Routes(deepest // scale, deepest % scale, max_probability(probabilities, multi_label=multi_label))
    return Outcome(probabilities, routes, replace(outcome.stats, texts=count))


def _score(tier: Tier, batch: Rows, prior: FloatArray | None, name: str, show_progress: bool) -> Scores:
    if not show_progress:
        return tier.score(batch, prior=prior)
    with tqdm(total=len(batch), desc=name, unit="row") as bar:
        return tier.score(batch, prior=prior, progress=bar.update)

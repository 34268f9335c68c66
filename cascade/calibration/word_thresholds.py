"""A tagger's operating points: whom to defer, which windows tier 2 reads, at which exit words leave, how deep at most.

Tier 2 runs once for each choice of deferral and windows, with all exits, on exactly the windows that it would read;
exit policies are then replayed on what it said (`words`). That is near, not exact, so the points have to be run before
one is chosen (`word_choosing`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cascade.calibration.words import WordCosts, leave
from cascade.core.checks import check_share
from cascade.core.confidence import evidence, probabilities
from cascade.core.rows import BoolArray, FloatArray, IntArray, Units, ranges
from cascade.engine.tiers import Progress
from cascade.engine.word_tiers import WordMultiExit, WordSingleExit
from cascade.exceptions import OptionError
from cascade.policies.exits import AtExit, ExitPolicy, any_of, never
from cascade.policies.routing import Router, Threshold, defer_all, defer_none
from cascade.policies.unit_exits import TokenExit
from cascade.policies.windows import WindowPolicy, Windows, WindowState, whole_sentences

__all__ = ["WordGrid", "WordPoint", "replay_words"]


@dataclass(frozen=True)
class WordGrid:
    """Which points are replayed.

    Attributes:
        deferred: shares of the words that tier 2 answers; `defer_none` and `defer_all` come on top.
        windows: what it reads around them.
        thresholds: of `TokenExit`; `never` comes on top.
        spread: windows of `TokenExit`, in words.
        caps: also with a cap after every exit.
        blends: how much tier 1's answer counts beside tier 2's; 0 comes on top where tier 1 is not run.
    """

    deferred: tuple[float, ...] = (0.015, 0.03, 0.045, 0.06, 0.075, 0.1, 0.14, 0.19, 0.26, 0.36, 0.5)
    windows: tuple[WindowPolicy, ...] = (Windows(1), Windows(2), Windows(3), Windows(4), Windows(6), whole_sentences)
    thresholds: tuple[float, ...] = (0.005, 0.01, 0.02, 0.035, 0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4, 0.55)
    spread: tuple[int, ...] = (1, 3, 5)
    caps: bool = True
    blends: tuple[float, ...] = (0.0, 0.3, 0.6)

    def policies(self, layers: Sequence[int]) -> Iterator[tuple[ExitPolicy, list[ExitPolicy]]]:
        """Each policy without a cap, and with a cap after each exit in turn, the last of which changes nothing."""
        caps = [AtExit(layer) for layer in layers[:-1]]
        yield never, [*caps, never]
        for threshold in self.thresholds if len(layers) > 1 else ():
            for window in self.spread:
                sure = TokenExit(threshold, window=window)
                yield sure, [*(any_of(sure, cap) for cap in caps), sure]


@dataclass(frozen=True)
class WordPoint:
    """A router, windows and an exit policy, and what they did in the replay.

    Attributes:
        router, windows, exit_policy: as `Tagger`'s `with_router`, `with_windows` and `with_exit_policy` take them.
        accuracy: of words, in [0, 1].
        drop: full-depth tier 2's accuracy on the same words less this one; below 0 where it is better.
        deferred: share of the words that tier 2 answers.
        mean_layer: of the deferred; 0 where there are none.
        cost: relative to tier 2 at full depth without tier 1.
        blend: as `with_blend` takes it.
    """

    router: Router
    windows: WindowPolicy
    exit_policy: ExitPolicy
    accuracy: float
    drop: float
    deferred: float
    mean_layer: float
    cost: float
    blend: float = 0.0

    @property
    def predicted_speed_up(self) -> float:
        """Over tier 2 at full depth; infinite where nothing is paid."""
        return 1 / self.cost if self.cost else math.inf


def replay_words(
    tier1: WordSingleExit,
    tier2: WordMultiExit,
    words: Units,
    truth: IntArray,
    costs: WordCosts,
    *,
    max_drop: float = 0.02,
    grid: WordGrid | None = None,
    progress: Progress | None = None,
) -> list[WordPoint]:
    """The points of a grid that may be worth choosing, cheapest first.

    Args:
        tier1: the cheap tier.
        tier2: the accurate one, whatever its policy.
        words: sentences that fit both tiers.
        truth: number of each word's right label. Shape `(words,)`.
        costs: one for each exit.
        max_drop: points that lose more are left out, and so are those that another exit policy of the same kind (with
            the same router and windows) makes both cheaper and as accurate; the kinds are fixed depth and `TokenExit`.
        grid: `WordGrid()` if left out.
        progress: called with the number of words that tier 2 read, whenever it has.

    Raises:
        OptionError: no words, or labels or costs that do not fit.
    """
    check_share("max_drop", max_drop, "0.02 is two points")
    if not len(words) or truth.shape != (len(words),) or len(costs.active) != len(tier2.layers):
        raise OptionError(
            "there must be at least one word, a label for each and costs for each exit, were: "
            f"{len(words)} words, labels {truth.shape}, {len(costs.active)} costs for {len(tier2.layers)} exits"
        )
    grid = grid or WordGrid()
    replay = _Replay(tier2, truth, costs, grid, words, progress)
    full = replay.second(words, np.arange(len(words)))
    replay.full = int(full.right[:, -1].sum())
    replay.floor = replay.full - max_drop * len(words) - 1e-9
    first = tier1.score(words)
    right1: BoolArray = first.probabilities.argmax(axis=1) == truth
    base = (costs.always + costs.tier1) * words.rows.tokens
    points = replay.points(defer_all, whole_sentences, full, None, 0, costs.always * words.rows.tokens)
    if right1.sum() >= replay.floor:
        points.append(replay.point(defer_none, whole_sentences, never, int(right1.sum()), 0, 0.0, base))
    for threshold in _thresholds(first.confidence, grid.deferred):
        unsure: BoolArray = first.confidence < threshold
        elsewhere = int(right1[~unsure].sum())
        for windows in grid.windows:
            spans = windows(WindowState(unsure, words.offsets, words.n_tokens))
            numbers = ranges(spans.starts, spans.stops - spans.starts)
            seen = replay.second(words.spans(spans.rows, spans.starts, spans.stops), numbers)
            for blend in grid.blends:
                both = replay.blended(seen, first.probabilities[numbers], numbers, blend)
                points += [
                    replace(point, blend=blend)
                    for point in replay.points(Threshold(threshold), windows, both, unsure[numbers], elsewhere, base)
                ]
    return sorted(points, key=lambda point: (point.cost, -point.accuracy))


@dataclass(frozen=True, eq=False)
class _Seen:
    """What tier 2 says about windows.

    Attributes:
        words: what it read.
        probabilities: at every exit. Shape `(words read, exits, labels)`.
        right: whether each exit is right. Shape `(words read, exits)`.
    """

    words: Units
    probabilities: FloatArray
    right: BoolArray


class _Replay:
    """Exit policies on windows that tier 2 has read."""

    full: int
    floor: float

    def __init__(
        self,
        tier2: WordMultiExit,
        truth: IntArray,
        costs: WordCosts,
        grid: WordGrid,
        words: Units,
        progress: Progress | None,
    ) -> None:
        self.tier2 = replace(tier2, exit_policy=never)
        self.truth, self.costs, self.grid, self.progress = truth, costs, grid, progress
        self.layers = tuple(tier2.layers)
        self.words = len(words)
        self.whole = costs.full(words)
        self.policies = list(grid.policies(self.layers))

    def second(self, words: Units, numbers: IntArray) -> _Seen:
        """Run tier 2. `numbers`: of these words among all. Shape `(words read,)`."""
        made = self.tier2.all_exits(words, progress=self.progress)
        return _Seen(words, made, made.argmax(axis=2) == self.truth[numbers, None])

    def blended(self, seen: _Seen, known: FloatArray, numbers: IntArray, blend: float) -> _Seen:
        """The same with tier 1's answers `known`, shape `(words read, labels)`, counting so much."""
        if not blend:
            return seen
        prior = evidence(known, weight=blend)[:, None]
        made = probabilities(evidence(seen.probabilities, weight=1.0), prior=prior)
        return _Seen(seen.words, made, made.argmax(axis=2) == self.truth[numbers, None])

    def points(
        self,
        router: Router,
        windows: WindowPolicy,
        seen: _Seen,
        targets: BoolArray | None,
        elsewhere: int,
        base: float,
    ) -> list[WordPoint]:
        """Those of one router and windows that no other of their kind beats: fixed depth, or `TokenExit`.

        Args:
            router: which.
            windows: which.
            seen: what tier 2 says.
            targets: words that are deferred, of those it read; all if left out. Shape `(words read,)`.
            elsewhere: right answers of tier 1 for the others.
            base: cost of everything before tier 2.
        """
        wanted = np.arange(len(seen.words)) if targets is None else np.flatnonzero(targets)
        best = np.where(seen.right[wanted].any(axis=1), 1, 0).sum() + elsewhere
        if not len(wanted) or best < self.floor:
            return []
        found: dict[bool, list[tuple[float, int, ExitPolicy, float]]] = {True: [], False: []}
        depths = np.asarray(self.layers, dtype=np.float64)
        for policy, capped in self.policies:
            taken = leave(policy, seen.probabilities, seen.words, self.layers)
            last = len(self.layers) - 1
            caps = np.arange(last + 1) if self.grid.caps else np.array([last])
            each = np.minimum(taken, caps[:, None])  # shape (caps, words read)
            costs = base + self.costs.tier2(each, seen.words, targets)
            right = seen.right[wanted, each[:, wanted]].sum(axis=1) + elsewhere
            layers = depths[each[:, wanted]].mean(axis=1)
            which = [capped[cap] for cap in caps]
            found[policy == never] += zip(costs.tolist(), right.tolist(), which, layers.tolist(), strict=True)
        share = len(wanted) / self.words
        kept = []
        for kind in found.values():
            most = -1
            for cost, right_, policy, layer in sorted(kind, key=lambda one: (one[0], -one[1])):
                if right_ > most and right_ >= self.floor:
                    kept.append(self.point(router, windows, policy, right_, share, layer, cost))
                most = max(most, right_)
        return kept

    def point(
        self,
        router: Router,
        windows: WindowPolicy,
        policy: ExitPolicy,
        right: int,
        share: float,
        layer: float,
        cost: float,
    ) -> WordPoint:
        drop = (self.full - right) / self.words
        return WordPoint(router, windows, policy, right / self.words, drop, share, layer, cost / self.whole)


def _thresholds(sure: FloatArray, shares: Sequence[float]) -> list[float]:
    """Rising confidences below which about these shares of the words lie, with few digits; each share's own."""
    found: npt.NDArray[np.float64] = np.quantile(sure.astype(np.float64), shares)
    return sorted({round(float(value), 4) for value in found})

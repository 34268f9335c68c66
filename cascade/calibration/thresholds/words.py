"""A tagger's operating points: which words to defer, which windows tier 2 reads, where words exit, how deep at most.

Tier 2 runs once for each choice of deferral and windows, with all exits, on exactly the windows that it would read;
exit policies are then replayed on what it said (`leaving`). That is near, not exact, so points are run before one is
chosen (`choosing`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cascade.calibration.ranked import ROUTER, tunable_exit
from cascade.calibration.sentences import WordAnswers
from cascade.calibration.thresholds.leaving import leave
from cascade.calibration.thresholds.points import Point
from cascade.core.checks import check_share
from cascade.core.confidence import evidence, probabilities
from cascade.core.rows import BoolArray, FloatArray, IntArray, Units, ranges
from cascade.engine.tier import Progress
from cascade.exceptions import OptionError
from cascade.policies.exits import AtExit, ExitPolicy, any_of, never
from cascade.policies.routing import RoutingState, defer_all, defer_none
from cascade.policies.tuning import Tunable
from cascade.policies.unit_exits import TokenExit
from cascade.policies.windows import WindowPolicy, Windows, WindowState, whole_sentences

__all__ = ["EXITS", "WordGrid", "replay_words", "word_exits"]

EXITS: tuple[Tunable, ...] = tuple(TokenExit(0.5, window=window) for window in (1, 3, 5))


def word_exits(policy: ExitPolicy) -> tuple[Tunable, ...]:
    """The exit policies to try for a tagger that has this one: its own kind, and for `TokenExit` several windows."""
    own = tunable_exit(policy)
    return EXITS if own is None or isinstance(own, TokenExit) else (own,)


@dataclass(frozen=True)
class WordGrid:
    """Which points are replayed.

    Attributes:
        deferred: shares of the words that tier 2 answers; `defer_none` and `defer_all` come on top.
        windows: what it reads around them.
        doubts: 1 - threshold of each exit policy; `never` comes on top.
        caps: also with a cap after every exit.
        blends: how much tier 1's answer counts beside tier 2's; 0 comes on top where tier 1 is not run.
        exits: exit policies whose thresholds are replayed.
        router: the router whose thresholds are replayed.
    """

    deferred: tuple[float, ...] = (0.015, 0.03, 0.045, 0.06, 0.075, 0.1, 0.14, 0.19, 0.26, 0.36, 0.5)
    windows: tuple[WindowPolicy, ...] = (Windows(1), Windows(2), Windows(3), Windows(4), Windows(6), whole_sentences)
    doubts: tuple[float, ...] = (0.005, 0.01, 0.02, 0.035, 0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4, 0.55)
    caps: bool = True
    blends: tuple[float, ...] = (0.0, 0.3, 0.6)
    exits: tuple[Tunable, ...] = EXITS
    router: Tunable = ROUTER

    def policies(self, layers: Sequence[int]) -> Iterator[tuple[ExitPolicy, list[ExitPolicy]]]:
        """Each policy without a cap, and with a cap after each exit in turn, the last of which changes nothing."""
        caps = [AtExit(layer) for layer in layers[:-1]]
        yield never, [*caps, never]
        for doubt in self.doubts if len(layers) > 1 else ():
            for tunable in self.exits:
                sure = tunable.at(round(1 - doubt, 9))
                yield sure, [*(any_of(sure, cap) for cap in caps), sure]


def replay_words(
    answers: WordAnswers,
    goal: IntArray,
    *,
    max_drop: float = 0.02,
    grid: WordGrid | None = None,
    progress: Progress | None = None,
) -> list[Point]:
    """The points of a grid that may be worth choosing, cheapest first.

    Args:
        answers: sentences that fit both tiers, with costs.
        goal: number of the label of each word that counts as right; -1 is never right. Shape `(words,)`.
        max_drop: points that lose more are left out, and so are those that another exit policy of the same kind (with
            the same router and windows) makes both cheaper and as accurate; the kinds are fixed depth and exits.
        grid: `WordGrid()` if left out.
        progress: called with the number of words that tier 2 read, whenever it has.

    Raises:
        OptionError: no words, or labels or costs that do not fit.
    """
    check_share("max_drop", max_drop, "0.02 is two points")
    words, grid = answers.words, grid or WordGrid()
    if not len(words) or goal.shape != (len(words),) or answers.costs is None:
        raise OptionError(
            f"there must be at least one word, a label for each and costs, got {len(words)} words, labels "
            f"{goal.shape}, costs {answers.costs}; observe sentences first"
        )
    replay = _Replay(answers, goal, grid, max_drop, progress)
    costs, tokens = answers.costs, words.rows.tokens
    first = answers.tier1.score(words)
    right1: BoolArray = first.probabilities.argmax(axis=1) == goal
    base = (costs.always + costs.tier1) * tokens
    points = replay.points(replay.whole, None, 0, costs.always * tokens, router=defer_all, windows=whole_sentences)
    if right1.sum() >= replay.floor:
        points.append(
            replay.point(int(right1.sum()), 0.0, 0.0, base, never, router=defer_none, windows=whole_sentences)
        )
    state = RoutingState(first.probabilities, first.confidence, words.n_tokens)
    score = grid.router.score(state)
    # Thresholds with few digits, each share of the words with its own.
    cuts = sorted({round(float(cut), 4) for cut in np.quantile(score.astype(np.float64), grid.deferred)})
    for threshold in cuts:
        router = grid.router.at(threshold)
        unsure: BoolArray = router(state)
        elsewhere = int(right1[~unsure].sum())
        for windows in grid.windows:
            spans = windows(WindowState(unsure, words.offsets, words.n_tokens))
            numbers = ranges(spans.starts, spans.stops - spans.starts)
            seen = replay.second(words.spans(spans.rows, spans.starts, spans.stops), numbers)
            for blend in grid.blends:
                both = replay.blended(seen, first.probabilities[numbers], numbers, blend)
                points += replay.points(
                    both, unsure[numbers], elsewhere, base, router=router, windows=windows, blend=blend
                )
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

    def __init__(
        self, answers: WordAnswers, goal: IntArray, grid: WordGrid, max_drop: float, progress: Progress | None
    ) -> None:
        assert answers.costs is not None  # noqa: S101  # the caller has looked
        self.tier2, self.costs = replace(answers.tier2, exit_policy=never), answers.costs
        self.goal, self.grid, self.progress = goal, grid, progress
        self.layers, self.words = tuple(self.tier2.layers), len(answers.words)
        self.policies = list(grid.policies(self.layers))
        self.whole = self.second(answers.words, np.arange(self.words))
        self.full = int(self.whole.right[:, -1].sum())
        self.floor = self.full - max_drop * self.words - 1e-9
        deepest = np.full((1, self.words), len(self.layers) - 1)
        at_full = self.costs.of_tier2(deepest, answers.words)[0]
        self.full_cost = self.costs.always * answers.words.rows.tokens + float(at_full)

    def second(self, words: Units, numbers: IntArray) -> _Seen:
        """Run tier 2. `numbers`: of these words among all. Shape `(words read,)`."""
        made = self.tier2.all_exits(words, progress=self.progress)
        return _Seen(words, made, made.argmax(axis=2) == self.goal[numbers, None])

    def blended(self, seen: _Seen, known: FloatArray, numbers: IntArray, blend: float) -> _Seen:
        """The same with tier 1's answers `known`, shape `(words read, labels)`, counting so much."""
        if not blend:
            return seen
        prior = evidence(known, weight=blend)[:, None]
        made = probabilities(evidence(seen.probabilities, weight=1.0), prior=prior)
        return _Seen(seen.words, made, made.argmax(axis=2) == self.goal[numbers, None])

    def points(
        self, seen: _Seen, targets: BoolArray | None, elsewhere: int, base: float, **policies: Any
    ) -> list[Point]:
        """Those of one router, windows and blend that no other of their kind beats: fixed depth, or exits.

        Args:
            seen: what tier 2 says.
            targets: words that are deferred, of those it read; all if left out. Shape `(words read,)`.
            elsewhere: right answers of tier 1 for the others.
            base: cost of everything before tier 2.
            policies: router, windows and blend of these points.
        """
        wanted = np.arange(len(seen.words)) if targets is None else np.flatnonzero(targets)
        best = int(seen.right[wanted].any(axis=1).sum()) + elsewhere
        if not len(wanted) or best < self.floor:
            return []
        last, depths = len(self.layers) - 1, np.asarray(self.layers, dtype=np.float64)
        caps = np.arange(last + 1) if self.grid.caps else np.array([last])
        found: dict[bool, list[tuple[float, int, float, ExitPolicy]]] = {True: [], False: []}
        for policy, capped in self.policies:
            taken = leave(policy, seen.probabilities, seen.words, self.layers)
            each = np.minimum(taken, caps[:, None])  # shape (caps, words read)
            costs = base + self.costs.of_tier2(each, seen.words, targets)
            right = seen.right[wanted, each[:, wanted]].sum(axis=1) + elsewhere
            layers = depths[each[:, wanted]].mean(axis=1)
            which = [capped[cap] for cap in caps]
            found[policy == never] += zip(costs.tolist(), right.tolist(), layers.tolist(), which, strict=True)
        share, kept = len(wanted) / self.words, []
        for kind in found.values():
            most = -1
            for cost, right_, layer, policy in sorted(kind, key=lambda one: (one[0], -one[1])):
                if right_ > most and right_ >= self.floor:
                    kept.append(self.point(right_, share, layer, cost, policy, **policies))
                most = max(most, right_)
        return kept

    def point(
        self, right: int, share: float, layer: float, cost: float, exit_policy: ExitPolicy, **policies: Any
    ) -> Point:
        """A point from counts."""
        return Point(
            exit_policy=exit_policy,
            accuracy=right / self.words,
            drop=(self.full - right) / self.words,
            deferred=share,
            mean_layer=layer,
            cost=cost / self.full_cost,
            **policies,
        )

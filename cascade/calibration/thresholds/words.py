"""A tagger's operating points: which words to defer, which windows tier 2 reads, where words exit, how deep at most.

Tier 2 runs once for each choice of deferral and windows, with all exits, on exactly the windows that it would read;
exit policies are then replayed on what it said (`leaving`). That is near, not exact, so points are run before one is
chosen (`points`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cascade.calibration.chain import EXIT, ROUTER, tunable
from cascade.calibration.leaving import leave
from cascade.calibration.sentences import WordAnswers, all_exits
from cascade.calibration.thresholds.points import Point
from cascade.core.confidence import evidence, probabilities
from cascade.core.rows import BoolArray, FloatArray, IntArray, Units, ranges, read_only
from cascade.engine.tier import Progress
from cascade.policies import routing
from cascade.policies import windows as windowing
from cascade.policies.exits import AtExit, ExitPolicy, any_of, never
from cascade.policies.registry import Tunable
from cascade.policies.routing import Router, RoutingState, defer_none
from cascade.policies.settings import Policies
from cascade.policies.unit_exits import TokenExit
from cascade.policies.windows import WindowPolicy, Windows, WindowState, whole_sentences

EXITS: tuple[Tunable, ...] = tuple(TokenExit(0.5, window=window) for window in (1, 3, 5))


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

    def fitted(self, router: Router, exit_policy: ExitPolicy) -> WordGrid:
        """For a tagger with these policies: kinds that can be tuned, else `TokenExit` with several windows."""
        own = tunable(exit_policy, EXIT)
        usual = own == EXIT or isinstance(own, TokenExit)
        return replace(self, exits=EXITS if usual else (own,), router=tunable(router, ROUTER))

    def reads(self, answers: WordAnswers) -> int:
        """Words that tier 2 reads at most."""
        some = sum(windows != whole_sentences for windows in self.windows)
        return len(answers.words) * (1 + some * len(self.deferred))

    def policies(self, layers: Sequence[int]) -> Iterator[tuple[ExitPolicy, list[ExitPolicy]]]:
        """Each policy without a cap, and with a cap after each exit in turn, the last of which changes nothing."""
        caps = [AtExit(layer) for layer in layers[:-1]]
        yield never, [*caps, never]
        for doubt in self.doubts if len(layers) > 1 else ():
            for one in self.exits:
                sure = one.at(round(1 - doubt, 9))
                yield sure, [*(any_of(sure, cap) for cap in caps), sure]


def replay_words(
    answers: WordAnswers,
    goal: IntArray,
    *,
    max_drop: float = 0.02,
    grid: WordGrid | None = None,
    progress: Progress | None = None,
) -> list[Point]:
    """The points of a grid (`WordGrid()` if left out) that may be worth choosing, cheapest first.

    `answers`: sentences that fit both tiers, with costs; `goal`: number of the label of each word that counts as right,
    -1 is never right, shape `(words,)`. Points that lose more than `max_drop` are left out, and so are those that
    another of the same kind beats. `progress`: called with words that tier 2 read.
    """
    words, grid = answers.words, grid or WordGrid()
    replay = _Replay(answers, goal, grid)
    costs, tokens, everything = replay.costs, words.rows.tokens, np.ones(len(words), dtype=np.bool_)
    whole = answers.at_every_exit
    whole = all_exits(answers.tier2, words, progress) if whole is None else whole
    replay.full = int((whole[:, -1].argmax(axis=1) == goal).sum())
    replay.floor = replay.full - max_drop * len(words) - 1e-9
    first = answers.tier1.score(words)
    right1: BoolArray = first.probabilities.argmax(axis=1) == goal
    base = (costs.always + costs.tiers[0].full) * tokens
    alone = answers.at_full_depth
    points = replay.points(alone, whole, words, np.arange(len(words)), everything, (0, costs.always * tokens))
    if right1.sum() >= replay.floor:
        points.append(replay.point(replace(alone, routers=(defer_none,)), int(right1.sum()), 0.0, 0.0, base))
    offsets, lengths = read_only(words.offsets), read_only(words.n_tokens)
    state = RoutingState(read_only(first.probabilities), read_only(first.confidence), lengths)
    score = grid.router.score(state).astype(np.float64)
    # Thresholds with few digits, each share of the words with its own.
    for threshold in sorted({round(float(cut), 4) for cut in np.quantile(score, grid.deferred)}):
        router = grid.router.at(threshold)
        unsure = routing.decide(router, state)
        before = int(right1[~unsure].sum()), base
        for windows in grid.windows:
            spans = windowing.decide(windows, WindowState(read_only(unsure), offsets, lengths))
            numbers = ranges(spans.starts, spans.stops - spans.starts)
            read = words.spans(spans.rows, spans.starts, spans.stops)
            begins, ends = offsets[spans.rows], offsets[spans.rows + 1]
            known = np.array_equal(spans.starts, begins) and np.array_equal(spans.stops, ends)  # whole sentences
            seen = whole[numbers] if known else all_exits(answers.tier2, read, progress)
            for blend in grid.blends:
                both = seen
                if blend:
                    prior = evidence(first.probabilities[numbers], weight=blend)[:, None]
                    both = probabilities(evidence(seen, weight=1.0), prior=prior)
                kind = replace(alone, routers=(router,), windows=windows, blend=(blend,))
                points += replay.points(kind, both, read, numbers, unsure, before)
    return sorted(points, key=lambda point: (point.cost, -point.accuracy))


class _Replay:
    """Exit policies on windows that tier 2 has read."""

    full: int
    floor: float

    def __init__(self, answers: WordAnswers, goal: IntArray, grid: WordGrid) -> None:
        assert answers.costs is not None  # noqa: S101  # the caller has looked
        self.costs, self.goal, self.layers, self.words = answers.costs, goal, answers.layers, len(goal)
        self.caps = np.arange(len(self.layers))[None if grid.caps else -1 :]
        self.policies = list(grid.policies(self.layers))
        deepest = np.full((1, self.words), len(self.layers) - 1)
        full = self.costs.tiers[-1].of(deepest, answers.words)[0] + self.costs.always * answers.words.rows.tokens
        self.full_cost = float(full)

    def points(
        self,
        kind: Policies,
        seen: FloatArray,
        read: Units,
        numbers: IntArray,
        unsure: BoolArray,
        before: tuple[int, float],
    ) -> list[Point]:
        """Points that no other with this kind's router, windows and blend beats: of fixed depth, and with exits.

        Tier 2 read the words `read`, of these `numbers` among all, and says `seen`, shape `(words, exits, labels)`. Of
        all words `unsure` are deferred; `before`: right answers of tier 1 about the others, and the cost of
        everything before tier 2.
        """
        targets = unsure[numbers]
        wanted, right = np.flatnonzero(targets), seen.argmax(axis=2) == self.goal[numbers, None]
        if not len(wanted) or right[wanted].any(axis=1).sum() + before[0] < self.floor:
            return []
        found: dict[bool, list[tuple[float, int, float, ExitPolicy]]] = {True: [], False: []}
        for policy, capped in self.policies:
            each = np.minimum(leave(policy, seen, self.layers, words=read), self.caps[:, None])  # (caps, words read)
            costs = before[1] + self.costs.tiers[-1].of(each, read, targets)
            hits = right[wanted, each[:, wanted]].sum(axis=1) + before[0]
            layers = np.asarray(self.layers)[each[:, wanted]].mean(axis=1)
            which = [capped[cap] for cap in self.caps]
            found[policy == never] += zip(costs.tolist(), hits.tolist(), layers.tolist(), which, strict=True)
        kept = []
        for group in found.values():
            most = -1
            for cost, hit, layer, policy in sorted(group, key=lambda one: (one[0], -one[1])):
                if hit > most and hit >= self.floor:
                    own = replace(kind, exits=(never, policy))
                    kept.append(self.point(own, hit, len(wanted) / self.words, layer, cost))
                most = max(most, hit)
        return kept

    def point(self, policies: Policies, right: int, deferred: float, layer: float, cost: float) -> Point:
        """A point with these counts."""
        return Point(
            policies=policies,
            accuracy=right / self.words,
            drop=(self.full - right) / self.words,
            deferred=deferred,
            mean_layer=layer,
            cost=cost / self.full_cost,
        )

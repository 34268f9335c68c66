"""From what parts cost here to how a workload should run: budgets, waves, buffers, and whether a cascade pays.

Every way to run is simulated (`schedule`) on the workload's own lengths; the default stays unless another way is
predicted to be faster by more than a margin. It leaves to others: the plan itself (`plan`), costs (`measuring`,
`cost_cache`), running by a plan (`Classifier.with_plan`).

    planner = Planner.measure(classifier)                     # seconds once, then from a file
    seen = observe(classifier, some_texts)                    # `observed`: lengths, who is deferred, who leaves where
    plan = planner.plan(seen.lengths, deferred=seen.deferred, exits=seen.exits, exits_alone=seen.exits_alone)
    classifier.with_plan(plan).predict(texts)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cascade.batch import BoolArray, IntArray
from cascade.batching import POOL_FROM, BatchingPolicy, EvenBudget, TokenBudget, for_tier2
from cascade.classifier import Classifier
from cascade.cost_cache import CostKey, cache_folder, read_costs, write_costs
from cascade.cost_model import Floats, Size
from cascade.host_costs import GraphCosts, HostCosts
from cascade.measuring import measure
from cascade.plan import TOGETHER, Plan, Seconds, Stop, judge
from cascade.schedule import inside, tier1_seconds, tier2_seconds
from cascade.streaming import StreamOptions
from cascade.workload import Workload, check_shares, size_of

__all__ = ["NOISY", "Planner"]

BUDGETS = (1024, 512, 2048, 256, 4096)  # nearest to the default first, and so below
WAVES = (TOGETHER, 4, 64, 1)
POOLED_FROM = (0, 32, 64, 128, 256, 512)
BUFFERS = (64, 128, 256, 512, 1024, 2048)
POOLS = (1024, 2048, 4096, 8192, 16384, 32768)
MOST_HELD = 32768  # texts that a stream may hold back
TIE = 0.01  # of the seconds: of ways that differ by less the one nearest to the default is taken
MARGIN = 0.03  # of the seconds: what is predicted to save less is left as it is
NOISY = 0.25  # costs with a larger error decide nothing and are not kept: something else ran meanwhile


@dataclass(frozen=True)
class Planner:
    """Makes plans for one bundle on one host.

    Attributes:
        costs: of its parts here.
    """

    costs: HostCosts

    @classmethod
    def measure(
        cls,
        classifier: Classifier,
        *,
        folder: Path | None = None,
        again: bool = False,
        show_progress: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> Planner:
        """Measure a classifier on this host, or read what was measured before.

        Measure on a machine that does nothing else. Costs that fit badly (`HostCosts.error` above 0.25) are not kept,
        and plans made from them leave everything at its default.

        Args:
            classifier: any copy: its policies do not matter.
            folder: where costs are kept; the user's cache folder (`cost_cache.cache_folder`) if left out.
            again: measure even if costs were kept.
            show_progress: draw a bar on standard error.
            clock: gives seconds.
        """
        folder = cache_folder() if folder is None else folder
        manifest, threads = classifier.bundle.manifest, classifier.tier2.threads
        key = CostKey.of(manifest, threads=threads)
        costs = None if again else read_costs(folder, key)
        if costs is None:
            costs = measure(
                classifier.tier1,
                classifier.tier2,
                classifier.tokenizer.encode,
                max_length=min(manifest.tier1.max_length, manifest.tier2.max_length),
                show_progress=show_progress,
                clock=clock,
            )
            if costs.error <= NOISY:
                write_costs(folder, key, costs)
        return cls(costs)

    def plan(
        self,
        lengths: IntArray,
        *,
        deferred: float | BoolArray,
        exits: Sequence[float] | None = None,
        exits_alone: Sequence[float] | None = None,
        call: int | None = None,
        max_age: float | None = 1.0,
    ) -> Plan:
        """The fastest way to run a workload that is found.

        Args:
            lengths: tokens of each row, in the order in which they come. Shape `(rows,)`, at least one.
            deferred: share of the rows that tier 2 answers, or which rows. Shape `(rows,)`.
            exits: share of the deferred rows that leave at each exit, together 1; without it nobody leaves early.
            exits_alone: the same where tier 2 answers all rows; as `exits` if left out.
            call: rows of one call; all of them if left out.
            max_age: seconds that a text of a stream may wait.

        Raises:
            OptionError: no rows, or shares that are none.
        """
        work = Workload.of(lengths, deferred, call)
        remaining = None if exits is None else inside(check_shares("exits", exits, len(self.costs.stages)))
        alone = (
            remaining
            if exits_alone is None
            else inside(check_shares("exits_alone", exits_alone, len(self.costs.stages)))
        )
        usual1, usual2 = _Way(TokenBudget(), POOL_FROM[0]), _Way(for_tier2(self.costs.threads), POOL_FROM[1])
        first = self._best(work.calls, lambda way: self._tier1(work.calls, way), usual1, waves=(TOGETHER,))
        waves = WAVES if remaining is not None else (TOGETHER,)
        second = self._best(work.deferred, lambda way: self._tier2(work.deferred, way, remaining), usual2, waves=waves)
        predicted = self._seconds(work, first, second, remaining)
        full = self._alone(work, second, None)
        with_exits = full if alone is None else self._alone(work, second, alone)
        verdict, reason = judge(predicted, with_exits, full, share=work.share)
        unmerged = replace(second, together=1)
        return Plan(
            tier1=first.batching,
            tier2=second.batching,
            together=second.together,
            pool_from=(first.pool_from, second.pool_from),
            stream=self._stream(work, first, second, remaining, max_age),
            predicted=predicted,
            default=self._seconds(work, usual1, usual2, remaining),
            exits=with_exits,
            full=full,
            merging_saves=self._tier2(work.deferred, unmerged, remaining) * work.scale - predicted.tier2,
            stops=() if remaining is None else self._stops(work, second, remaining),
            verdict=verdict,
            reason=reason,
            error=self.costs.error,
        )

    def _best(
        self, calls: Sequence[IntArray], seconds: Callable[[_Way], float], default: _Way, *, waves: Sequence[int]
    ) -> _Way:
        """The default, or the fastest way if it is faster by more than the margin."""
        if not any(map(len, calls)) or self.costs.error > NOISY:
            return default
        base = seconds(default)
        threads, least = self.costs.threads, self._least(calls)
        ways = [
            _Way(batching, default.pool_from, together)
            for budget in BUDGETS
            for batching in (TokenBudget(budget), EvenBudget(budget, threads, min(least, budget)))
            for together in waves
        ]
        best = _nearest([default, *ways], seconds)
        best = _nearest([best, *(replace(best, pool_from=tokens) for tokens in POOLED_FROM)], seconds)
        # What the fit itself may be wrong by is no reason to leave the default.
        return best if seconds(best) < (1 - max(MARGIN, self.costs.error)) * base else default

    def _least(self, calls: Sequence[IntArray]) -> int:
        """Tokens of the smallest batch that is worth a thread of its own, by the costs of tier 2's stages."""
        threads = self.costs.threads
        mean = max(1, round(float(np.mean(np.concatenate(list(calls))))))

        def seconds(of: GraphCosts, tokens: int, *, alone: bool) -> float:
            model = of.alone if alone else of.beside
            return model(Size(max(1, tokens // mean), tokens, mean))

        for tokens in (8, 16, 32, 64, 128, 256, 512):
            together = sum(seconds(stage, tokens * threads, alone=True) for stage in self.costs.stages)
            if sum(seconds(stage, tokens, alone=False) for stage in self.costs.stages) < together:
                return tokens
        return 1024

    def _tier1(self, calls: Sequence[IntArray], way: _Way) -> float:
        return sum(tier1_seconds(self.costs, lengths, way.batching, pool_from=way.pool_from) for lengths in calls)

    def _tier2(self, calls: Sequence[IntArray], way: _Way, remaining: Floats | None) -> float:
        return sum(
            tier2_seconds(
                self.costs,
                lengths,
                way.batching,
                remaining=remaining,
                together=way.together,
                pool_from=way.pool_from,
            )
            for lengths in calls
        )

    def _seconds(self, work: Workload, first: _Way, second: _Way, remaining: Floats | None) -> Seconds:
        return Seconds(
            tokenize=self._tokenize(work),
            tier1=self._tier1(work.calls, first) * work.scale,
            tier2=self._tier2(work.deferred, second, remaining) * work.scale,
            call=sum(self.costs.call(size_of(lengths)) for lengths in work.calls) * work.scale,
        )

    def _alone(self, work: Workload, second: _Way, remaining: Floats | None) -> Seconds:
        return Seconds(self._tokenize(work), 0.0, self._tier2(work.calls, second, remaining) * work.scale, 0.0)

    def _tokenize(self, work: Workload) -> float:
        return sum(self.costs.tokenize(size_of(lengths)) for lengths in work.calls) * work.scale

    def _stops(self, work: Workload, second: _Way, remaining: Floats) -> tuple[Stop, ...]:
        """Of a full batch at each exit but the last."""
        tokens = int(getattr(second.batching, "max_tokens", TokenBudget().max_tokens))
        mean = max(1, round(float(np.mean(np.concatenate(work.deferred))))) if any(map(len, work.deferred)) else 1
        size = Size(max(1, tokens // mean), tokens, mean)
        costs = self.costs
        asked = max(costs.stop.beside(size) - costs.between.beside(size), 0.0)
        found = []
        for number, layer in enumerate(costs.layers[:-1]):
            there, after = float(remaining[number]), float(remaining[number + 1])
            leaving = 1 - after / there if there else 0.0
            found.append(Stop(layer, leaving, asked, leaving * costs.stages[number + 1].beside(size)))
        return tuple(found)

    def _stream(
        self, work: Workload, first: _Way, second: _Way, remaining: Floats | None, max_age: float | None
    ) -> StreamOptions:
        """The least that is held back and costs no more than the margin."""
        rows = np.resize(np.concatenate(work.calls), max(BUFFERS))
        per_text = {
            size: (self._tier1([rows[:size]], first) + self.costs.call(size_of(rows[:size]))) / size for size in BUFFERS
        }
        buffer = _least_that_does(per_text)
        some = np.concatenate(work.deferred) if any(map(len, work.deferred)) else rows
        mean = float(np.mean(some))
        pools = {size: np.resize(some, max(1, round(size / mean))) for size in POOLS}
        per_token = {
            size: self._tier2([lengths], second, remaining) / float(lengths.sum()) for size, lengths in pools.items()
        }
        pool = _least_that_does(per_token)
        texts = pool / mean / work.share if work.share else buffer
        ahead = min(max(2 * buffer, 2 ** math.ceil(math.log2(texts + buffer))), MOST_HELD)
        return StreamOptions(buffer_size=buffer, pool_tokens=pool, look_ahead=ahead, max_age=max_age)


@dataclass(frozen=True)
class _Way:
    batching: BatchingPolicy
    pool_from: int
    together: int = TOGETHER


def _nearest(ways: Sequence[_Way], seconds: Callable[[_Way], float]) -> _Way:
    taken = [seconds(way) for way in ways]
    return next(way for way, one in zip(ways, taken, strict=True) if one <= min(taken) * (1 + TIE))


def _least_that_does(cost: dict[int, float]) -> int:
    best = min(cost.values())
    return min(size for size, one in cost.items() if one <= best * (1 + MARGIN))

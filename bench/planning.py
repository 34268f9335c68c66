"""Plans beside what they predict: a bundle with its default batching and by its plan, at several sizes of a call.

Every second text is looked at, to learn who is deferred and where rows leave; the others run, in turns. It leaves to
others: plans (`cascade.planner`), taking turns (`interleaving`), how it looks (`plan_cli`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from cascade.classifier import Classifier
from cascade.exceptions import DataError
from cascade.exits import never
from cascade.observed import observe
from cascade.plan import Plan, Verdict
from cascade.planner import Planner
from cascade.routing import defer_all
from cascade.tokenizer import Text
from cascade_bench.interleaving import Turns, interleave
from cascade_bench.statistics import Interval, speed_up

__all__ = ["DEFAULT", "PLANNED", "Line", "Planned", "measure"]

DEFAULT, PLANNED = "default", "plan"


@dataclass(frozen=True)
class Line:
    """One way to run all texts.

    Attributes:
        key: for programs.
        name: for readers.
        call: texts of a call; `None`: all of them.
        predicted: seconds.
        seconds: measured, by repeat.
    """

    key: str
    name: str
    call: int | None
    predicted: float
    seconds: Sequence[float | None]

    @property
    def measured(self) -> float:
        """Median of the seconds."""
        return median(value for value in self.seconds if value is not None)

    @property
    def error(self) -> float:
        """By what part the prediction is above what was measured; below 0 where it is under it."""
        return self.predicted / self.measured - 1


@dataclass(frozen=True)
class Planned:
    """What came out.

    Attributes:
        texts: that ran.
        plans: by size of a call; `None`: all at once.
        lines: every way that ran.
        gains: how many times as fast as the default the plan is, by size of a call.
        turns: who ran when.
    """

    texts: int
    plans: Mapping[int | None, Plan]
    lines: tuple[Line, ...]
    gains: Mapping[int | None, Interval]
    turns: Turns


def measure(
    classifier: Classifier,
    planner: Planner,
    texts: Sequence[Text],
    sizes: Sequence[int],
    *,
    repeats: int,
    progress: Callable[[str], object] | None = None,
) -> Planned:
    """Plan for each size of a call, and run the default and the plan.

    Args:
        classifier: as the bundle configures it.
        planner: for it.
        texts: at least two.
        sizes: texts of a call; all of them at once come besides.
        repeats: turns of each.
        progress: called before each turn with its name.

    Raises:
        DataError: fewer than two texts.
    """
    if len(texts) < 2:
        raise DataError(f"a plan needs texts to look at and others to run, had {len(texts)}; give a longer file")
    seen, run = observe(classifier, texts[::2]), texts[1::2]
    lengths = classifier.tokenizer.encode(run).batch.lengths
    share = float(seen.deferred.mean())
    calls = [*(size for size in dict.fromkeys(sizes) if size < len(run)), None]
    plans = {
        call: planner.plan(lengths, deferred=share, exits=seen.exits, exits_alone=seen.exits_alone, call=call)
        for call in calls
    }
    ways: dict[str, tuple[str, int | None, float, Classifier]] = {}
    for call, plan in plans.items():
        ways[_key(DEFAULT, call)] = ("cascade", call, plan.default.total, classifier)
        if not plan.is_default:
            ways[_key(PLANNED, call)] = ("cascade, planned", call, plan.predicted.total, classifier.with_plan(plan))
    whole = plans[None]
    alone = classifier.with_router(defer_all).with_plan(whole)
    ways["exits"] = (Verdict.EXITS.value, None, whole.exits.total, alone)
    ways["full"] = (Verdict.FULL.value, None, whole.full.total, alone.with_exit_policy(never))
    contenders = {key: _runner(one, run, call) for key, (_, call, _, one) in ways.items()}
    turns = interleave(contenders, repeats=repeats, warm_up=_warm_up(contenders), progress=progress)
    lines = tuple(Line(key, name, call, s, turns.seconds[key]) for key, (name, call, s, _) in ways.items())
    gains = {}
    for call, plan in plans.items():
        gain = (
            None
            if plan.is_default
            else speed_up(turns.seconds[_key(DEFAULT, call)], turns.seconds[_key(PLANNED, call)])
        )
        if gain is not None:
            gains[call] = gain
    return Planned(len(run), plans, lines, gains, turns)


def _key(kind: str, call: int | None) -> str:
    return f"{kind} {'all' if call is None else call}"


def _runner(classifier: Classifier, texts: Sequence[Text], call: int | None) -> Callable[[], object]:
    size = len(texts) if call is None else call
    parts = [texts[start : start + size] for start in range(0, len(texts), size)]

    def run() -> None:
        for part in parts:
            classifier.predict(part)

    return run


def _warm_up(contenders: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    seconds = {}
    for name, run in contenders.items():
        run()
        begin = time.perf_counter()
        run()
        seconds[name] = time.perf_counter() - begin
    return seconds

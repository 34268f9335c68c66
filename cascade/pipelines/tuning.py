"""Times token budgets on a user's own texts in turns; keeps what is faster beyond noise.

It takes about as long as it is given: of the texts it times as many, from the first on, as that allows.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from tqdm import tqdm

from cascade.bundle.opening import Bundle
from cascade.core import files
from cascade.core.checks import check_whole, is_number, is_whole
from cascade.core.statistics import Interval, in_turns, median_interval
from cascade.exceptions import InputError, OptionError
from cascade.runtime.host import cache_folder, host
from cascade.runtime.kernels import KINDS, kind

BUDGETS: Final = (256, 512, 1024, 2048, 4096)
LEAST_REPEATS: Final = 5  # the extremes of fewer pairs cover less than 90 %
FORMAT: Final = 1


@dataclass(frozen=True)
class Timing:
    """A budget of each tier, timed in turns with those that are set: median seconds, and how many times as fast."""

    name: str
    seconds: float
    speed_up: Interval


@dataclass(frozen=True)
class Tuned:
    """What `tune` found: `max_tokens`, the token budget of each tier that was kept, which alone is written.

    `budgets`: timings, that of the turns that decided comes last; `texts`: how many were timed, from the first on.
    """

    max_tokens: tuple[int, ...]
    budgets: tuple[Timing, ...] = field(default=(), compare=False)
    texts: int = field(default=0, compare=False)

    def write(self, bundle: Bundle, *, threads: int) -> Path:
        """Keep it for this bundle, host and number of threads, whole or not at all, or an `OptionError`; the file."""
        file = cache_file(bundle, threads=threads)
        written = {"format": FORMAT, "host": _here(), "threads": threads, "max_tokens": self.max_tokens}
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OptionError(f"the cache must be a folder, but {error}; set XDG_CACHE_HOME to another one") from error
        files.write(file, json.dumps(written, indent=2) + "\n")
        return file

    @classmethod
    def read(cls, bundle: Bundle, *, threads: int) -> Tuned | None:
        """What was kept for this bundle, host and number of threads; `None` without a file that can be used."""
        try:
            written = json.loads(cache_file(bundle, threads=threads).read_bytes())
            budgets = tuple(written["max_tokens"])
            fits = written["format"] == FORMAT and all(is_whole(one) and one > 0 for one in budgets)
            return cls(budgets) if fits else None
        except (OSError, ValueError, TypeError, KeyError):
            return None


def _here() -> dict[str, str | int]:
    return {**host(), "kernels": KINDS[kind()]}


def cache_file(bundle: Bundle, *, threads: int) -> Path:
    """Where it is kept: the name changes with everything that decides how long batches take."""
    hashes = sorted((file, record.sha256) for file, record in bundle.manifest.files.items())
    key = hashlib.sha256(json.dumps([hashes, _here(), threads]).encode()).hexdigest()
    return cache_folder() / "tuned" / f"{key[:32]}.json"


def tune(
    pipeline: Any,  # a Classifier or a Tagger, which have no common type that gives answers
    texts: Iterable[Any],
    *,
    minutes: float = 2.0,
    repeats: int = 5,
    show_progress: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> Tuned:
    """Measure how a pipeline is fastest on this host, without a change of any answer.

    The budgets of all tiers, each changed by itself, run in turns with the pipeline as it is. The fastest of each tier
    are kept, together, if they are faster again, in twice as many turns with the pipeline alone: the whole interval of
    the paired ratios lies above 1. A budget with which a probability differs in a bit is left out.

    `texts`: as `predict` takes them, of a tagger texts or sentences of words; as many as a usual call has. Those that
    do not fit into about so many `minutes` are left out. `repeats`: turns, at least 5; of those that decide there are
    twice as many, so that their interval covers 95 %. No texts, or one that cannot be read, are an `InputError`; an
    impossible option, too little time for the first text, or a batching policy without a token budget an `OptionError`.
    """
    check_whole("repeats", repeats, "fewer show nothing beyond noise", least=LEAST_REPEATS)
    if not is_number(minutes) or not 0 < minutes < math.inf:
        raise OptionError(f"minutes must be above 0 and finite, got {minutes!r}; 2 are usual")
    given, now = list(texts), pipeline.max_tokens
    if not given:
        raise InputError("texts must be at least one, got none; give some like yours")
    every = [pipeline]
    for tier, own in enumerate(now):
        others = sorted({*BUDGETS} - {own})
        every += [pipeline.with_max_tokens(*now[:tier], tokens, *now[tier + 1 :]) for tokens in others]
    # A way has a first run, which is slower, and one in each turn.
    runs = len(every) * (repeats + 1) + 4 * repeats + 1
    timer = _Timer(given, repeats, clock)
    count = timer.fitting(pipeline, 60 * minutes, runs=runs)
    with tqdm(total=runs, desc="tune", unit="run", disable=not show_progress, leave=False) as bar:
        pipeline, timings = replace(timer, texts=given[:count], progress=bar.update).best_budgets(every)
    return Tuned(pipeline.max_tokens, timings, count)


@dataclass(frozen=True)
class _Timer:
    texts: Sequence[Any]
    repeats: int
    clock: Callable[[], float]
    progress: Callable[[int], object] = bool  # of no account

    def answers(self, pipeline: Any, count: int | None = None) -> Any:
        """The predictions for the first `count` texts, for all by default."""
        self.progress(1)
        words = not isinstance(self.texts[0], str)
        return (pipeline.predict if words else getattr(pipeline, "predict_texts", pipeline.predict))(self.texts[:count])

    def seconds(self, pipeline: Any, count: int | None = None) -> float:
        """What these answers take."""
        begin = self.clock()
        self.answers(pipeline, count)
        return max(self.clock() - begin, 1e-9)

    def fitting(self, pipeline: Any, seconds: float, *, runs: int) -> int:
        """How many texts fit into `seconds` in so many runs: found by doubling."""
        begin, count = self.clock(), 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a router sees few texts
            self.answers(pipeline, count)  # its first run, which is slower
            while True:
                needed = runs * self.seconds(pipeline, count)
                left = seconds - (self.clock() - begin)
                if needed > left:
                    break
                if count == len(self.texts):
                    return count
                count = min(2 * count, len(self.texts))
        fits = max(int(count * left / needed), count // 2)  # half of them did fit
        if not fits:
            raise OptionError(
                f"minutes must be at least {needed / 60:.2g} for one of these texts, got {seconds / 60:g}; give more, "
                "or shorter texts"
            )
        return fits

    def in_turns(self, pipelines: Sequence[Any], than: str, turns: int) -> dict[str, Timing]:
        """Run them all; by name."""
        seconds = in_turns(
            {_named(one): partial(self.answers, one) for one in pipelines}, turns=turns, clock=self.clock
        )
        ratios = {name: [b / a for a, b in zip(own, seconds[than], strict=True)] for name, own in seconds.items()}
        return {name: Timing(name, median(seconds[name]), median_interval(own)) for name, own in ratios.items()}

    def best_budgets(self, every: Sequence[Any]) -> tuple[Any, tuple[Timing, ...]]:
        """The pipeline with the best budgets, and what was timed. `every`: itself first, the others of one change."""
        pipeline, *others = every
        expected = self.answers(pipeline).probabilities

        def same(other: Any) -> bool:  # its first run, which is slower, too
            return np.array_equal(self.answers(other).probabilities, expected)

        exact, own = [pipeline, *filter(same, others)], _named(pipeline)
        timings = self.in_turns(exact, own, self.repeats)
        self.progress(self.repeats * (len(every) - len(exact)))
        best = []
        for tier, now in enumerate(pipeline.max_tokens):
            found = {one.max_tokens[tier]: timings[_named(one)].speed_up.median for one in exact} | {now: 1.0}
            best.append(max(found, key=found.__getitem__))
        faster = pipeline.with_max_tokens(*best)
        changed = faster.max_tokens != pipeline.max_tokens
        if not changed or not same(faster):
            self.progress(4 * self.repeats + (not changed))
            return pipeline, tuple(timings.values())
        # The best of several owes something to luck: only new turns say whether it is faster, and enough for 95 %.
        again = self.in_turns([pipeline, faster], own, 2 * self.repeats)[_named(faster)]
        return faster if again.speed_up.low > 1 else pipeline, (*timings.values(), again)


def _named(pipeline: Any) -> str:
    return ", ".join(map(str, pipeline.max_tokens))

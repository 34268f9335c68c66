"""Works with one key go through the tiers together: look at them, or finish them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import chain
from typing import Final

import numpy as np

from cascade.core.rows import IntArray, offsets_of, ranges
from cascade.engine.cascade import Meter
from cascade.engine.inputs import Inputs
from cascade.engine.looks import part_of
from cascade.engine.tier import Scores
from cascade.serving.errors import Failed, TooLong
from cascade.serving.limits import Limits
from cascade.serving.load import FINISH, LOOK, Load
from cascade.serving.metrics import ModelMetrics
from cascade.serving.served import Form
from cascade.serving.work import Answers, Ended, Looked, Work

_ONE: Final = np.arange(2, dtype=np.int64)


class Runner:
    """Runs the tiers. It keeps nothing of the works; what it measures goes to the load and the metrics."""

    def __init__(self, limits: Limits, load: Load, metrics: ModelMetrics) -> None:
        self._limits, self._load, self._metrics = limits, load, metrics

    def look(self, works: Sequence[Work], level: int) -> list[Ended]:
        """Encode works with one key and run the first tier; what it defers has no answers yet.

        Raises:
            InputError: an item of any of them cannot be read.
        """
        served, form, truncation = works[0].request.key
        level = min(level, len(served.levels) - 1)
        begun = time.perf_counter()
        inputs, pieces = served.read(form, [work.items for work in works], truncation)
        counts = offsets_of(np.array([len(work.items) for work in works], dtype=np.int64))
        long = self._too_long(works, inputs, counts)
        if long:
            rest = [work for work in works if work not in long]
            return [*long.items(), *(self.look(rest, level) if rest else [])]
        read, meter, cascade = time.perf_counter(), Meter(), served.at(level, truncation)[1]
        look = cascade.look(inputs, meter=meter)
        done = time.perf_counter()
        encoded = inputs.encode()
        offsets = encoded.units.offsets if served.words else np.arange(encoded.n_items + 1)
        units, rows = offsets[counts], counts
        if encoded.n_units != len(encoded.units):
            rows = np.searchsorted(encoded.numbers, counts)
        tokens = np.diff(encoded.units.rows.offsets[rows]).tolist()
        lost = np.diff(np.searchsorted(cascade.lost(inputs), counts)).tolist()
        waiting = [0] * len(works)
        if look.rest is not None:
            numbers = np.arange(look.rest.n_units) if look.numbers is None else look.numbers
            weights = np.bincount(numbers, look.rest.lengths, minlength=encoded.n_units)
            # A sentence without words waits as well where the first tier was not asked.
            waiting = np.maximum(np.diff(offsets_of(weights.astype(np.int64))[units]), look.scores is None).tolist()
        looked = Looked(look, level, begun, read, done, len(waiting) - waiting.count(0))
        edges, items, rank = units.tolist(), counts.tolist(), 0
        for place, work in enumerate(works):
            work.begin, work.end = edges[place], edges[place + 1]
            one = len(work.items) == 1 and not served.words
            work.made = {
                "served": served,
                "offsets": _ONE if one else offsets[items[place] : items[place + 1] + 1] - work.begin,
                "tokens": tokens[place],
                "truncated": lost[place],
                "extra": (pieces[place],) if pieces else (),
            }
            if waiting[place]:
                work.looked, work.tokens, work.rank = looked, waiting[place], rank
                rank += 1
        self._load.ran(LOOK, encoded.units.rows.tokens, done - begun)
        self._metrics.ran(meter.seconds, encoded.units.rows.tokens, encoded.n_items)
        found: list[Ended] = [(work, None) for work, later in zip(works, waiting, strict=True) if later]
        answered = [work for work, later in zip(works, waiting, strict=True) if not later]
        if look.scores is not None and answered:
            found += self._made(answered, look.scores, 0, looked, level, done - read)
        return found

    def finish(self, works: Sequence[Work], level: int) -> list[Ended]:
        """Run the later tiers on what was deferred of works with one key."""
        served, _, truncation = works[0].request.key
        level, begun, meter = min(level, len(served.levels) - 1), time.perf_counter(), Meter()
        runs: list[tuple[Looked, list[Work]]] = []
        for work in sorted(works, key=lambda one: (id(one.looked), one.rank)):
            assert work.looked is not None  # noqa: S101  # for the type checker: it was looked at
            if not (runs and work.looked is runs[-1][0] and work.rank == runs[-1][1][-1].rank + 1):
                runs.append((work.looked, []))
            runs[-1][1].append(work)
        begins, looks = [], []
        for looked, own in runs:
            whole = len(own) == looked.waiting
            begin, end = (0, looked.look.inputs.n_units) if whole else (own[0].begin, own[-1].end)
            begins.append(begin)
            looks.append(part_of(looked.look, begin, end, words=served.words))
        made = served.at(level, truncation)[1].finish(looks, meter=meter)
        took, tokens = time.perf_counter() - begun, sum(work.tokens for work in works)
        self._load.ran(FINISH, tokens, took)
        self._metrics.ran(meter.seconds, tokens)
        found: list[Ended] = []
        for (looked, own), scores, begin in zip(runs, made, begins, strict=True):
            found += self._made(own, scores, begin, looked, level, took + looked.done - looked.read)
        return found

    def _made(
        self, works: Sequence[Work], scores: Scores, first: int, looked: Looked, level: int, inference: float
    ) -> list[Ended]:
        """Answers of works from scores of which the first is of unit `first`."""
        now, tokenize = time.perf_counter(), looked.read - looked.begun
        bad = (scores.tier == 0) | ~np.isfinite(scores.probabilities).all(axis=1)
        begins = np.array([work.begin - first for work in works], dtype=np.int64)
        counts = np.array([work.end - work.begin for work in works], dtype=np.int64)
        every = ranges(begins, counts)
        self._metrics.answered(scores.tier[every], scores.exit_layer[every], scores.confidence[every])
        faulty, degraded, found = bool(bad[every].any()), level > 0 or looked.level > 0, list[Ended]()
        for work in works:
            own = slice(work.begin - first, work.end - first)
            if faulty and bad[own].any():
                found.append((work, Failed("Backend error: score is NaN")))
                continue
            waited = max(now - work.request.arrived - tokenize - inference, 0.0)
            answers = Answers(
                probabilities=scores.probabilities[own],
                tier=scores.tier[own],
                exit_layer=scores.exit_layer[own],
                confidence=scores.confidence[own],
                degraded=degraded,
                seconds={"tokenize": tokenize, "queue": waited, "inference": inference},
                **work.made,
            )
            found.append((work, answers))
        served, form, _ = works[0].request.key
        if served.watch is not None and not degraded and not faulty:
            sizes = np.concatenate([np.diff(work.made["offsets"]) for work in works])
            items = list(chain.from_iterable(work.items for work in works))
            served.watch.offer(items, sizes, words=form is Form.WORDS)
        return found

    def _too_long(self, works: Sequence[Work], inputs: Inputs, counts: IntArray) -> dict[Work, TooLong]:
        """Works with an item that the model cannot read whole, though it must, or that does not fit a batch."""
        served, form, _ = works[0].request.key
        encoded, limit = inputs.encode(), served.max_input_length
        sizes = encoded.units.rows.lengths
        if len(sizes) == encoded.n_items and not len(encoded.truncated) and not (sizes > limit).any():
            return {}
        if len(sizes) != encoded.n_items:
            sizes = np.bincount(encoded.numbers, sizes, minlength=encoded.n_items).astype(np.int64)
        cut = np.isin(np.arange(encoded.n_items), encoded.truncated)
        found: dict[Work, TooLong] = {}
        for work, begin, end in zip(works, counts[:-1].tolist(), counts[1:].tolist(), strict=True):
            strict = work.request.strict
            most = limit if strict else max(self._limits.max_batch_tokens, limit)
            over = np.flatnonzero((sizes[begin:end] > most) | (cut[begin:end] & strict))
            if len(over):
                item = work.items[int(over[0])]
                tokens = served.tokens_of(item) if form is Form.TEXT else int(sizes[begin + over[0]])
                found[work] = TooLong(tokens, most)
        return found

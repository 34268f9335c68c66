"""Works with one key go through the tiers together: look at them, or finish them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import chain
from typing import Final

import numpy as np

from cascade.core.rows import IntArray, offsets_of, ranges
from cascade.engine.cascade import Look, Meter
from cascade.engine.inputs import Inputs
from cascade.engine.looks import part_of
from cascade.engine.tier import Scores
from cascade.serving.errors import Failed, TooLong
from cascade.serving.load import FINISH, LOOK, Load
from cascade.serving.metrics import Metrics
from cascade.serving.served import Form
from cascade.serving.work import Answers, Ended, Looked, Work

_ONE: Final = np.arange(2, dtype=np.int64)


class Runner:
    """Runs the tiers. It keeps nothing of the works; what it measures goes to the load and the metrics.

    `most`: tokens of a batch; an item with more is refused unless the model reads so much at once.
    """

    def __init__(self, most: int, load: Load, metrics: Metrics) -> None:
        self._most, self._load, self._metrics = most, load, metrics

    def look(self, works: Sequence[Work], level: int) -> list[Ended]:
        """Encode works with one key and run the first tier; what it defers has no answers yet.

        An item of any of them that cannot be read is an `InputError`.
        """
        served, form, truncation = works[0].request.key
        level, begun = min(level, len(served.levels) - 1), time.perf_counter()
        inputs, pieces = served.read(form, [work.items for work in works], truncation)
        counts = offsets_of(np.array([len(work.items) for work in works], dtype=np.int64))
        long = self._too_long(works, inputs, counts)
        if long:
            rest = [work for work in works if work not in long]
            return [*long.items(), *(self.look(rest, level) if rest else [])]
        read, meter, cascade = time.perf_counter(), Meter(), served.at(level, truncation)[1]
        look, encoded = cascade.look(inputs, meter=meter), inputs.encode()
        done, read_tokens = time.perf_counter(), encoded.units.rows.tokens
        offsets = encoded.units.offsets if served.words else np.arange(encoded.n_items + 1)
        units, rows = offsets[counts], counts
        if encoded.n_units != len(encoded.units):
            rows = np.searchsorted(encoded.numbers, counts)
        tokens = np.diff(encoded.units.rows.offsets[rows]).tolist()
        waiting = [0] * len(works)
        if look.rest is not None:
            numbers = np.arange(look.rest.n_units) if look.numbers is None else look.numbers
            weights = np.bincount(numbers, look.rest.lengths, minlength=encoded.n_units)
            # A sentence without words waits as well where the first tier was not asked.
            waiting = np.maximum(np.diff(offsets_of(weights.astype(np.int64))[units]), look.scores is None).tolist()
        looked = Looked(look, level, read - begun, done - read, len(waiting) - waiting.count(0))
        edges, items, rank = units.tolist(), counts.tolist(), 0
        for place, work in enumerate(works):
            work.begin, work.end, work.looked = edges[place], edges[place + 1], looked
            one = len(work.items) == 1 and not served.words
            work.made = {
                "served": served,
                "offsets": _ONE if one else offsets[items[place] : items[place + 1] + 1] - work.begin,
                "tokens": tokens[place],
                "extra": (pieces[place],) if pieces else (),
            }
            if waiting[place]:
                work.tokens, work.rank = waiting[place], rank
                rank += 1
        self._load.ran(LOOK, read_tokens, done - begun)
        self._metrics.ran(served.name, meter.seconds, read_tokens, encoded.n_items)
        found: list[Ended] = [(work, None) for work, later in zip(works, waiting, strict=True) if later]
        answered = [work for work, later in zip(works, waiting, strict=True) if not later]
        if look.scores is not None and answered:
            found += self._made(answered, look.scores, 0, level)
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
        found, left, looks = list[Ended](), list[tuple[list[Work], int]](), list[Look]()
        for looked, own in runs:
            scores, whole = looked.look.scores, len(own) == looked.waiting
            if level == len(served.levels) - 1 and scores is not None and scores.tier.all():
                found += self._made(own, scores, 0, level)  # no tier defers here: what the first one said is the answer
                continue
            begin, end = (0, looked.look.inputs.n_units) if whole else (own[0].begin, own[-1].end)
            left.append((own, begin))
            looks.append(part_of(looked.look, begin, end, words=served.words))
        made = served.at(level, truncation)[1].finish(looks, meter=meter) if looks else []
        took, tokens = time.perf_counter() - begun, sum(work.tokens for own, _ in left for work in own)
        self._load.ran(FINISH, tokens, took)
        self._metrics.ran(served.name, meter.seconds, tokens)
        for (own, begin), scores in zip(left, made, strict=True):
            found += self._made(own, scores, begin, level, took)
        return found

    def _made(self, works: Sequence[Work], scores: Scores, first: int, level: int, took: float = 0.0) -> list[Ended]:
        """Answers of works of one look, from scores of which the first is of unit `first`. `took`: the later tiers."""
        now, looked, (served, form, _) = time.perf_counter(), works[0].looked, works[0].request.key
        assert looked is not None  # noqa: S101  # for the type checker: they were looked at
        bad = (scores.tier == 0) | ~np.isfinite(scores.probabilities).all(axis=1)
        begins = np.array([work.begin - first for work in works], dtype=np.int64)
        every = ranges(begins, np.array([work.end - work.begin for work in works], dtype=np.int64))
        self._metrics.answered(served.name, scores.tier[every], scores.exit_layer[every], scores.confidence[every])
        faulty, degraded, found = bool(bad[every].any()), level > 0 or looked.level > 0, list[Ended]()
        inference = looked.inference + took
        for work in works:
            own = slice(work.begin - first, work.end - first)
            if faulty and bad[own].any():
                found.append((work, Failed("Backend error: score is NaN")))
                continue
            assert work.made is not None  # noqa: S101  # as above
            waited = max(now - work.request.arrived - looked.tokenize - inference, 0.0)
            seconds = {"tokenize": looked.tokenize, "queue": waited, "inference": inference}
            found.append((work, Answers(**vars(scores[own]), **work.made, degraded=degraded, seconds=seconds)))
        if served.watch is not None and not degraded and not faulty:
            served.watch.offer(list(chain.from_iterable(work.items for work in works)), words=form is Form.WORDS)
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
            most = limit if work.request.strict else max(self._most, limit)
            over = np.flatnonzero((sizes[begin:end] > most) | (cut[begin:end] & work.request.strict))
            if len(over):
                item = work.items[int(over[0])]
                tokens = served.tokens_of(item) if form is Form.TEXT else int(sizes[begin + over[0]])
                found[work] = TooLong(tokens, most)
        return found

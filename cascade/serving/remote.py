"""A tier that another process runs: what is sent to it, and what runs there."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from cascade.core.rows import BoolArray, Encoded, FloatArray
from cascade.engine.inputs import Encoder, Inputs
from cascade.engine.looks import between, runs_of
from cascade.engine.tier import Leaf, Progress, Scores
from cascade.exceptions import CascadeWarning
from cascade.pipelines.loading import load
from cascade.pipelines.parts import with_options
from cascade.policies.exits import ExitPolicy, never
from cascade.serving.work import settle

CALL_TOKENS: Final = 4096
"""Tokens of one call at most: what is more goes to several replicas at once."""
ANSWER_SECONDS: Final = 30.0
"""A later tier that takes longer has no answer; the tier before has."""


@dataclass(frozen=True, eq=False)
class Asked:
    """What a later tier is asked in one call: rows with their targets and prior, and the policies of its exits.

    `behind`: tokens that wait for the tier where the call comes from.
    """

    encoded: Encoded
    targets: BoolArray | None
    prior: FloatArray | None
    exit_policy: ExitPolicy
    temperatures: tuple[float, ...]
    behind: int = 0

    @property
    def key(self) -> tuple[object, ...]:
        """Calls with the same one are answered together."""
        return self.exit_policy, self.temperatures, self.prior is None

    @property
    def tokens(self) -> int:
        """How many there are to read, now and afterwards."""
        return self.encoded.units.rows.tokens + self.behind


@dataclass(frozen=True, eq=False, kw_only=True)
class RemoteTier(Leaf):
    """A tier that another process runs. Where that fails, the tier before answers, and `failed` says so.

    `ask`: sends a call, and gives what has its `result`; `layers`: numbers of the layers after which there are exits,
    none in a tier without; `encoder`: makes its rows, that of the inputs if left out; `words`: units are words;
    `behind`: how many tokens wait for it here; `exit_policy`, `temperatures`: of its exits, which go with each call.
    """

    ask: Any
    labels: int
    layers: tuple[int, ...]
    encoder: Encoder | None
    words: bool
    behind: Callable[[], int] = int
    exit_policy: ExitPolicy = never
    temperatures: tuple[float, ...] = (1.0,)

    def score(self, inputs: Inputs, *, progress: Progress | None = None) -> Scores:
        """Scores of all units, from as many calls as there are `CALL_TOKENS` in them."""
        parts = [
            between(inputs, begin, end, words=self.words)
            for begin, end in runs_of(inputs, CALL_TOKENS, words=self.words)
        ]
        policies, behind = (self.exit_policy, self.temperatures), self.behind()
        calls = [
            self.ask(Asked(part.encode(self.encoder), part.targets, part.prior, *policies, behind if own == 0 else 0))
            for own, part in enumerate(parts)
        ]
        found = [self._answer(call, part.n_units) for call, part in zip(calls, parts, strict=True)]
        columns = zip(*(vars(scores).values() for scores in found), strict=True)
        scores = Scores(*map(np.concatenate, columns)) if found else self._nothing(0)
        if progress is not None:
            progress(len(scores) if inputs.targets is None else int(inputs.targets.sum()))
        return scores

    def _answer(self, call: Any, units: int) -> Scores:
        try:
            scores: Scores = call.result(timeout_s=ANSWER_SECONDS)
        except Exception as error:  # noqa: BLE001  # of a replica that is gone, or of whatever it raised
            why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            warnings.warn(f"a later tier has no answer, the tier before gives it ({why})", CascadeWarning, stacklevel=2)
            return self._nothing(units)
        return scores

    def _nothing(self, units: int) -> Scores:
        scores = Scores.of(np.zeros((units, self.labels), dtype=np.float32))
        none = np.zeros(units, dtype=np.int64)
        return replace(scores, tier=none, failed=none + 1, confidence=np.full(units, np.nan, dtype=np.float32))


class LaterTier:
    """One tier of a bundle, behind a queue of its own: what waits when it is free is answered together.

    `path`: the bundle; `number`: of the tier, from 0; `threads`: it runs on.
    """

    def __init__(self, path: str, number: int, threads: int, revision: str | None = None) -> None:
        pipeline = load(path, threads=threads, revision=revision)
        for place, tier in enumerate(pipeline.tiers):
            if place != number:
                replace(pipeline, tiers=(tier,)).close()
        self._tier = with_options(pipeline.tiers[number], {"encoder": None})
        self._waiting: list[tuple[Asked, asyncio.Future[Scores]]] = []
        self._runs: asyncio.Task[None] | None = None
        self._tokens = 0

    async def score(self, asked: Asked) -> Scores:
        """The tier's scores of all units of a call."""
        future: asyncio.Future[Scores] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        self._tokens += asked.tokens
        if self._runs is None or self._runs.done():
            self._runs = asyncio.create_task(self._run())
        try:
            return await future
        finally:
            self._tokens -= asked.tokens

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What decides how many replicas there are: tokens that wait or are under way. The name is Ray's."""
        return {"tokens": float(self._tokens)}

    async def _run(self) -> None:
        while self._waiting:
            key = self._waiting[0][0].key
            together = [one for one in self._waiting if one[0].key == key]
            self._waiting = [one for one in self._waiting if one[0].key != key]
            live = [one for one in together if not one[1].done()]  # nobody waits for the others any more
            try:
                found: list[Any] = await asyncio.to_thread(self._scores, [asked for asked, _ in live])
            except Exception as error:  # noqa: BLE001  # whoever asks next must be answered
                found = [error] * len(live)
            for (_, future), scores in zip(live, found, strict=True):
                settle(future, scores)

    def _scores(self, asked: Sequence[Asked]) -> list[Scores]:
        if not asked:
            return []
        one = asked[0]
        options = {
            "exit_policy": one.exit_policy, "temperatures": one.temperatures, "temperature": one.temperatures[0]
        }  # fmt: skip
        parts = [Inputs.encoded(own.encoded).asking(own.targets, own.prior) for own in asked]
        scores = with_options(self._tier, options).score(Inputs.join(parts))
        ends = np.cumsum([part.n_units for part in parts]).tolist()
        return [scores[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True)]

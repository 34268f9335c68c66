"""A tier of one padded graph, without exits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cascade.core.checks import check_logits, check_names, check_temperature
from cascade.core.confidence import probabilities
from cascade.core.rows import Encoded, FloatArray, IntArray, ranges
from cascade.engine.long_rows import Reading, RowTier
from cascade.engine.packing import padded
from cascade.engine.tier import Progress, Readable, Scores
from cascade.policies.batching import POOL_FROM, batches
from cascade.runtime.backend import Backend


@dataclass(frozen=True, eq=False, kw_only=True)
class SingleExit(RowTier):
    """A tier of one padded graph. Rows of texts that are longer than it takes lose their middle (see `packing.padded`).

    Attributes:
        backend: `input_ids`, `attention_mask` and perhaps `token_type_ids`, int64 of shape `(rows, longest)`, to
            `logits` of shape `(rows, labels)`, or `(rows, longest, labels)` where it answers `per_unit`.
        per_unit: whether each token has logits, of which those of a word's first token count.
        temperature: logits are divided by it.
    """

    backend: Backend
    per_unit: bool = False
    temperature: float = 1.0
    pool_from: int = POOL_FROM[0]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_temperature(self.temperature)
        known = {"input_ids", "attention_mask", "token_type_ids"}
        check_names("tier 1", self.backend.inputs, self.backend.outputs, known=known, needed=("logits",))

    def lost(self, encoded: Encoded) -> IntArray:
        """Numbers of the items that have tokens that this tier does not read, perhaps twice. `encoded`: their rows."""
        if self.per_unit:
            return super().lost(encoded)
        return encoded.numbers[encoded.units.rows.lengths > self.max_length]

    def score(self, inputs: Readable, *, progress: Progress | None = None) -> Scores:
        """Scores of all units; see `Tier.score`. Rows without a target are not run, and their scores are 0."""
        reading = Reading.of(inputs, self)
        result = np.zeros((len(reading.units), self.labels), dtype=np.float32)
        lengths = np.minimum(reading.units.rows.lengths[reading.rows], self.max_length)
        waiting = batches(self.batching, lengths)
        pooled = self._pooled(len(waiting), lengths)
        backend = self.backend if pooled else self.backend.serial
        report = reading.reporter(progress)

        def run(group: IntArray) -> None:
            numbers, logits = self._logits(backend, reading, reading.rows[group])
            result[numbers] = probabilities(
                logits,
                multi_label=self.multi_label,
                temperature=self.temperature,
                prior=None if reading.prior is None else reading.prior[numbers],
            )
            report(numbers)

        for _ in self.executor.run_each(run, waiting, pooled=pooled):
            pass
        return reading.scores(result, None, multi_label=self.multi_label)

    def _logits(self, backend: Backend, reading: Reading, rows: IntArray) -> tuple[IntArray, FloatArray]:
        """Logits of the units in some rows, and the units' numbers."""
        units = reading.units
        part = units.rows.select(rows)
        ids, mask, types = padded(part, max_length=self.max_length)
        made = backend.run({"input_ids": ids, "attention_mask": mask, "token_type_ids": types})["logits"]
        if not self.per_unit:
            return rows, check_logits(made, (len(rows), self.labels), "tier 1")
        logits = check_logits(made, (*ids.shape, self.labels), "tier 1")
        counts = units.counts[rows]
        numbers = ranges(units.offsets[rows], counts)
        starts = np.repeat(units.rows.offsets[rows], counts)
        return numbers, logits[np.repeat(np.arange(len(rows)), counts), units.first_token[numbers] - starts]

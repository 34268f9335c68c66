"""A tier of one padded graph, without exits."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cascade.core.checks import check_logits, check_names, check_temperature, check_whole
from cascade.core.confidence import probabilities
from cascade.core.rows import BoolArray, FloatArray, IntArray, ranges
from cascade.engine.inputs import Encoder
from cascade.engine.long_rows import Reading
from cascade.engine.packing import padded
from cascade.engine.tier import Leaf, Progress, Readable, Scores, as_inputs
from cascade.policies.batching import POOL_FROM, BatchingPolicy, TokenBudget, batches
from cascade.runtime.backend import Backend
from cascade.runtime.executor import Executor


@dataclass(frozen=True, eq=False, kw_only=True)
class SingleExit(Leaf):
    """A tier of one padded graph.

    Attributes:
        backend: `input_ids`, `attention_mask` and perhaps `token_type_ids`, int64 of shape `(rows, longest)`, to
            `logits` of shape `(rows, labels)`, or `(rows, longest, labels)` where it answers `per_unit`.
        labels: how many.
        max_length: tokens of a row at most. Longer rows of words are cut into several; other rows that are longer lose
            their middle (see `packing.padded`).
        per_unit: whether each token has logits, of which those of a word's first token count.
        encoder: makes rows of items; that of the inputs if left out.
        overlap: tokens that two rows of a sentence that is too long share at most.
        temperature: logits are divided by it.
        batching: which rows run together.
        multi_label: the labels are independent yes/no decisions.
        executor: runs several batches at once; shared by the tiers of a bundle.
        pool_from: tokens from which a batch that runs alone gets all threads; below, starting them costs more than it
            brings.
    """

    backend: Backend
    labels: int
    max_length: int
    per_unit: bool = False
    encoder: Encoder | None = None
    overlap: int = 64
    temperature: float = 1.0
    batching: BatchingPolicy = field(default_factory=TokenBudget)
    multi_label: bool = False
    executor: Executor = field(default_factory=Executor)
    pool_from: int = POOL_FROM[0]

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        check_whole("overlap", self.overlap, "0 cuts long sentences without an overlap", least=0)
        known = {"input_ids", "attention_mask", "token_type_ids"}
        check_names("tier 1", self.backend.inputs, self.backend.outputs, known=known, needed=("logits",))

    def score(
        self,
        inputs: Readable,
        *,
        targets: BoolArray | None = None,
        context_layers: int | None = None,  # there is one depth
        prior: FloatArray | None = None,
        progress: Progress | None = None,
    ) -> Scores:
        """Scores of all units; see `Tier.score`. Rows without a target are not run, and their scores are 0.

        Raises:
            OptionError: targets are something other than one bool per unit.
        """
        reading = Reading.of(
            as_inputs(inputs).encode(self.encoder),
            max_length=self.max_length if self.per_unit else None,
            overlap=self.overlap,
            targets=targets,
            prior=prior,
        )
        result = np.zeros((len(reading.units), self.labels), dtype=np.float32)
        lengths = np.minimum(reading.units.rows.lengths[reading.rows], self.max_length)
        waiting = batches(self.batching, lengths)
        pooled = self.executor.threads == 1 or (len(waiting) < 2 and int(lengths.sum()) >= self.pool_from)
        backend = self.backend if pooled else self.backend.serial
        counted = None if progress is None else reading.counted()

        def run(group: IntArray) -> int:
            numbers, logits = self._logits(backend, reading, reading.rows[group])
            result[numbers] = probabilities(
                logits,
                multi_label=self.multi_label,
                temperature=self.temperature,
                prior=None if reading.prior is None else reading.prior[numbers],
            )
            return 0 if counted is None else int(np.count_nonzero(counted[numbers]))

        for answered in self.executor.run_each(run, waiting, pooled=pooled):
            if progress is not None and answered:
                progress(answered)
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

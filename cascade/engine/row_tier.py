"""What tiers of graphs share: rows of tokens, cut where they are too long, in batches on a common thread budget."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from cascade.core.checks import check_whole
from cascade.core.rows import Encoded, IntArray
from cascade.engine.inputs import Encoder
from cascade.engine.long_rows import Reading, shortened
from cascade.engine.tier import Leaf, Progress, Readable, as_inputs
from cascade.policies.batching import BatchingPolicy, TokenBudget
from cascade.runtime.executor import Executor, in_turn


@dataclass(frozen=True, eq=False, kw_only=True)
class RowTier(Leaf, ABC):
    """A tier that reads rows of tokens.

    Attributes:
        labels: how many.
        max_length: tokens of a row at most. Longer rows of words are cut into several.
        encoder: makes rows of items; that of the inputs if left out.
        overlap: tokens that two rows of a sentence that is too long share at most.
        batching: which rows start together.
        multi_label: the labels are independent yes/no decisions.
        executor: runs several batches at once; shared by the tiers of a bundle.
        pool_from: tokens from which what runs alone gets all threads; below, starting them costs more than it brings.
    """

    labels: int
    max_length: int
    encoder: Encoder | None = None
    overlap: int = 64
    batching: BatchingPolicy = field(default_factory=TokenBudget)
    multi_label: bool = False
    executor: Executor = field(default_factory=Executor)
    pool_from: int

    def __post_init__(self) -> None:
        check_whole("overlap", self.overlap, "0 cuts long sentences without an overlap", least=0)

    @property
    @abstractmethod
    def per_unit(self) -> bool:
        """Whether rows hold several units, each with logits of its own."""

    def lost(self, encoded: Encoded) -> IntArray:
        """Numbers of the items that have tokens that this tier does not read, perhaps twice. `encoded`: their rows."""
        return shortened(encoded.units, self.max_length) if self.per_unit else np.empty(0, dtype=np.int64)

    def _read(self, inputs: Readable) -> Reading:
        longest = self.max_length if self.per_unit else None
        return Reading.of(as_inputs(inputs), encoder=self.encoder, max_length=longest, overlap=self.overlap)

    def _pooled(self, groups: int, tokens: int) -> bool:
        """Whether graphs run on all threads: where there is one, or one group of batches that is worth them."""
        return self.executor.threads == 1 or (groups < 2 and tokens >= self.pool_from)


def reporter(progress: Progress | None, reading: Reading) -> Callable[[IntArray], None]:
    """Tells a caller's `progress` how many of its units are among the row units that were answered."""
    if progress is None:
        return lambda _gone: None
    counted, report = reading.counted(), in_turn(progress)

    def tell(gone: IntArray) -> None:
        answered = int(np.count_nonzero(counted[gone]))
        if answered:
            report(answered)

    return tell

"""The order in which training takes its rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from cascade.core.rows import IntArray


class LengthGroups(Sampler[int]):
    """Rows of like length side by side, so that batches hold little padding, in batches of random order.

    transformers' own `group_by_length` sorts each group of fifty batches from long to short: where labels depend on
    length, the last steps of an epoch teach only the shortest rows (models/README.md has a run).

    The order follows from `seed` and the epoch's number; the rows of `group` batches are sorted together.
    """

    def __init__(self, *, lengths: Sequence[int], batch_size: int, seed: int, group: int = 50) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.group = group
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch, also after a resumption."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(len(self.lengths))
        batches: list[IntArray] = []
        for rows in np.split(order, range(self.batch_size * self.group, len(order), self.batch_size * self.group)):
            like = rows[np.argsort(self.lengths[rows], kind="stable")]
            batches += np.split(like, range(self.batch_size, len(like), self.batch_size))
        # A batch that is not full must come last: the loader cuts the stream of rows every `batch_size` rows.
        full = [rows for rows in batches if len(rows) == self.batch_size]
        rest = [rows for rows in batches if len(rows) < self.batch_size]
        for position in rng.permutation(len(full)):
            yield from full[position].tolist()
        for rows in rest:
            yield from rows.tolist()

"""Drawing exits for training: which words of a batch stop after which layer (TOKEE's self-sampling).

Each row draws a window and a threshold; where its words would exit is simulated from uncertainties that were kept
from an earlier pass, by the rule of `cascade.policies.TokenExit`. Some rows of each batch run at full depth and some
exit as early as the ranges allow (a sandwich).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cascade.core.rows import FloatArray, IntArray
from cascade.exceptions import OptionError
from cascade.training.data.encoding import Pad

UPPER_FACTOR, CAP = 2.0, 0.5  # thresholds of the upper half of the layers are twice as large, but for what is above 0.5
FASTEST = 0.2  # share of a batch's rows with the smallest window or, by a coin, the largest threshold
FULL_DEPTH = 0.4  # share of a batch's rows whose words all go through all layers


@dataclass(frozen=True)
class ExitRanges:
    """What rows draw from; the defaults, as the numbers above, are the paper's.

    Attributes:
        windows: words that TOKEE's window may have, odd.
        thresholds: of normalised entropy, in (0, 1].
    """

    windows: tuple[int, ...] = (5, 7, 9, 11, 13, 15)
    thresholds: tuple[float, ...] = (0.01, 0.03, 0.05, 0.10, 0.15, 0.20, 0.25)

    def __post_init__(self) -> None:
        if not self.windows or any(window < 1 or window % 2 == 0 for window in self.windows):
            raise OptionError(f"windows must be odd numbers of words, got {self.windows}; 1 looks at a word alone")
        if not self.thresholds or any(not 0 < threshold <= 1 for threshold in self.thresholds):
            raise OptionError(f"thresholds must be in (0, 1], got {self.thresholds}; they bound normalised entropy")

    def per_exit(self, threshold: float, layers: Sequence[int]) -> FloatArray:
        """One threshold for each exit. Shape `(exits,)`."""
        upper = max(threshold, min(threshold * UPPER_FACTOR, CAP))
        return np.array([upper if layer > layers[-1] / 2 else threshold for layer in layers], dtype=np.float32)

    def draw(self, rows: int, layers: Sequence[int], rng: np.random.Generator) -> tuple[IntArray, FloatArray]:
        """Windows and thresholds of a batch's rows. Shapes `(rows,)` and `(rows, exits)`.

        Full depth is a threshold of 0, below which no uncertainty lies.
        """
        windows = rng.choice(self.windows, rows)
        thresholds = rng.choice(self.thresholds, rows)
        order = rng.permutation(rows)
        fastest, deepest = round(rows * FASTEST), round(rows * FULL_DEPTH)
        if rng.integers(2):
            windows[order[:fastest]] = min(self.windows)
        else:
            thresholds[order[:fastest]] = max(self.thresholds)
        wanted = np.stack([self.per_exit(threshold, layers) for threshold in thresholds])
        wanted[order[rows - deepest :]] = 0
        return windows.astype(np.int64), wanted


def exit_numbers(uncertainty: FloatArray, rows: IntArray, windows: IntArray, thresholds: FloatArray) -> IntArray:
    """The exit of each word by TOKEE's rule, from 0; the last where it is never sure. Shape `(words,)`.

    Words that have exited count as sure. `uncertainty`: normalised entropy at each exit, shape `(words, exits)`;
    `rows`: number of each word's row, never falling, shape `(words,)`; `windows`: of each row, odd, shape `(rows,)`;
    `thresholds`: of each row at each exit, shape `(rows, exits)`.
    """
    words, exits = uncertainty.shape
    reach = windows[rows] // 2
    found = np.full(words, exits - 1, dtype=np.int64)
    for number in range(exits - 1):
        unsure = np.where(found < exits - 1, np.float32(0), uncertainty[:, number])
        most = unsure.copy()
        for step in range(1, min(int(windows.max(initial=1)) // 2, words - 1) + 1):
            near = (rows[step:] == rows[:-step]) & (reach[step:] >= step)
            np.maximum(most[step:], unsure[:-step], out=most[step:], where=near)
            np.maximum(most[:-step], unsure[step:], out=most[:-step], where=near)
        found[(found == exits - 1) & (most < thresholds[rows, number])] = number
    return found


def token_layers(words: IntArray, is_first: Tensor, lengths: IntArray, *, suffix: int, depth: int) -> Tensor:
    """The last layer of every token: all pieces of a word stop with it, special tokens never. Shape `(rows, longest)`.

    `words`: last layer of each word, in the order in which `is_first` (True at a word's first token, shape
    `(rows, longest)`) counts them; `lengths`: tokens of each row; `suffix`: special tokens at its end; `depth`: layers.
    """
    begins = is_first.numpy()
    word = np.cumsum(begins).reshape(begins.shape) - 1  # of the whole batch; at a prefix the row before's last
    places = np.arange(begins.shape[1])
    piece = (np.cumsum(begins, axis=1) > 0) & (places < lengths[:, None] - suffix)
    return torch.from_numpy(np.where(piece, words[np.maximum(word, 0)], depth))


@dataclass(frozen=True)
class PadWithExits:
    """Collates rows as `Pad` does; rows with `uncertainty` draw exits.

    The batch then has `exit_layers` `(rows, longest)` for the model and `exits` `(words,)` for the loss. Draws follow
    torch's seed, so that a resumed run draws what it would have drawn.
    """

    padding: int
    suffix: int
    layers: tuple[int, ...]
    ranges: ExitRanges

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        batch = Pad(self.padding)(items)
        if "exits" not in batch and "uncertainty" in batch:
            rng = np.random.default_rng(int(torch.randint(2**31, ())))
            windows, thresholds = self.ranges.draw(len(items), self.layers, rng)
            rows = np.repeat(np.arange(len(items)), [len(item["uncertainty"]) for item in items])
            batch["exits"] = torch.from_numpy(exit_numbers(batch.pop("uncertainty").numpy(), rows, windows, thresholds))
        if "exits" in batch:
            last = np.array(self.layers)[batch["exits"].numpy()]
            lengths = batch["attention_mask"].sum(1).numpy()
            batch["exit_layers"] = token_layers(
                last, batch["is_first"], lengths, suffix=self.suffix, depth=self.layers[-1]
            )
        return batch

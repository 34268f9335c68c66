"""One pass of a trained tagger over every word: what teachers say, and what self-sampling simulates from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cascade.core.rows import FloatArray
from cascade.training.data import Rows
from cascade.training.models.tagging import MultiExitTagger
from cascade.training.tag_encoding import PadTags

__all__ = ["over_words", "split_words", "word_logits"]


def word_logits(logits: Tensor, firsts: Tensor) -> Tensor:
    """Logits at each word's first piece, row by row.

    Shapes: `logits` `(rows, exits, longest, labels)`, `firsts` `(rows, longest)`; result `(words, exits, labels)`.
    """
    return logits.transpose(1, 2)[firsts]


@torch.inference_mode()
def over_words(
    model: MultiExitTagger, rows: Rows, *, read: Callable[[Tensor, Tensor], Tensor], batch_size: int = 64
) -> FloatArray:
    """What the model says of every word at full depth, in the order of the rows.

    Args:
        model: a trained tagger.
        rows: with the targets `labels` and `firsts`, as `tag_encoding.encode` makes them.
        read: from logits `(words, exits, labels)` and label numbers `(words,)` to what is kept, `(words, ...)`.
        batch_size: rows at once.
    """
    model.eval()
    pad = PadTags(model.config.pad_token_id or 0)
    ends = np.cumsum([0, *(int(firsts.sum()) for firsts in rows.targets["firsts"])])
    order = np.argsort([len(row) for row in rows.ids], kind="stable")
    kept: FloatArray | None = None
    for start in tqdm(range(0, len(order), batch_size), desc="all words", unit="batch"):
        own = order[start : start + batch_size]
        batch = pad([{name: rows[int(row)][name] for name in ("input_ids", "labels", "firsts")} for row in own])
        firsts = batch["firsts"]
        logits = word_logits(model(batch["input_ids"], batch["attention_mask"])["logits"], firsts)
        found = read(logits, batch["labels"][firsts]).numpy()
        if kept is None:
            kept = np.empty((ends[-1], *found.shape[1:]), dtype=np.float32)
        kept[np.concatenate([np.arange(ends[row], ends[row + 1]) for row in own])] = found
    return kept if kept is not None else np.empty((0,), dtype=np.float32)


def split_words(values: FloatArray, rows: Rows) -> list[FloatArray]:
    """Values of all words as one array per row. Shape `(words, ...)` -> `(words of the row, ...)` each."""
    counts = [int(firsts.sum()) for firsts in rows.targets["firsts"]]
    return np.split(values, np.cumsum(counts)[:-1])

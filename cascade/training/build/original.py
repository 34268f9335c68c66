"""What the original model answers: through transformers, in fp32, cut where it cuts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from cascade.core.rows import FloatArray, IntArray, Units, offsets_of
from cascade.training.build.looking import Checkpoint
from cascade.training.checkpoint import byte_level_parts, load_tokenizer_text
from cascade.training.data.encoding import TrainingRows, rows_of
from cascade.training.models.config import load_model
from cascade.training.models.teacher import WholeModel
from cascade.training.units import teacher_logits


class Original:
    """The model, loaded, on a GPU where there is one."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        kind = checkpoint.task.model
        self.checkpoint, self.model = checkpoint, WholeModel(load_model(kind.whole, checkpoint.source), kind.task)

    def record(self, items: Sequence[Any]) -> FloatArray:
        """Logits of every text, or of every word of sentences at its first piece, in order. Shape `(units, labels)`.

        NaN of words beyond what the model reads.
        """
        rows, units = _encoded(self.checkpoint, items)
        count = sum(map(len, items)) if self.checkpoint.tags else len(items)
        found = np.full((count, len(self.checkpoint.labels)), np.nan, dtype=np.float32)
        found[units] = teacher_logits(self.model, rows, bool)
        return found


def read_whole(checkpoint: Checkpoint, items: Sequence[Any], logits: FloatArray) -> IntArray:
    """Numbers of the sentences of which the model read every word; of texts all. `logits`: as `record` gives them."""
    if not checkpoint.tags:
        return np.arange(len(items), dtype=np.int64)
    known = np.isfinite(logits).all(axis=1)
    cut = np.add.reduceat(~known, offsets_of(np.array([len(item) for item in items], dtype=np.int64))[:-1])
    return np.flatnonzero(cut == 0).astype(np.int64)


def _encoded(checkpoint: Checkpoint, items: Sequence[Any]) -> tuple[TrainingRows, IntArray]:
    """What the model reads of each item by its own tokenizer, and numbers of the units that it reads."""
    spaced = checkpoint.tags and any(byte_level_parts(json.loads(load_tokenizer_text(checkpoint.source))))
    given = {"add_prefix_space": True} if spaced else {}
    given |= {"split_special_tokens": True} if checkpoint.encode_special_tokens else {}
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint.source, use_fast=True, **given)
    pairs = not checkpoint.tags and any(isinstance(item, tuple) for item in items)
    first = [item[0] if isinstance(item, tuple) else item for item in items]
    second = [item[1] if isinstance(item, tuple) else "" for item in items] if pairs else None
    found = tokenizer(first, second, truncation=True, max_length=checkpoint.limit, is_split_into_words=checkpoint.tags)
    rows = rows_of(found["input_ids"], found.get("token_type_ids"))
    if not checkpoint.tags:
        return TrainingRows(Units.whole(rows)), np.arange(len(rows))
    firsts, units, start = list[IntArray](), list[IntArray](), 0
    for number, item in enumerate(items):
        words, places = np.unique([-1 if own is None else own for own in found.word_ids(number)], return_index=True)
        firsts.append(rows.offsets[number] + places[words >= 0])
        units.append(start + words[words >= 0])
        start += len(item)
    first, counts = np.concatenate(firsts), np.array([len(own) for own in firsts], np.int64)
    return TrainingRows(Units(rows, first, np.ones_like(first), offsets_of(counts))), np.concatenate(units)

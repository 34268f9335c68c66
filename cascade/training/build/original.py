"""What the original model answers: through transformers, in fp32, cut where it cuts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from cascade.core.confidence import answers, probabilities
from cascade.core.rows import FloatArray, IntArray, offsets_of
from cascade.training.build.looking import Checkpoint
from cascade.training.checkpoint import byte_level_parts, load_tokenizer_text
from cascade.training.data.encoding import padded
from cascade.training.models.loading import load_model
from cascade.training.models.whole import inputs_of

TOKENS = {"cuda": 8192, "cpu": 1024}  # of a batch, padding included; a CPU's caches hold little


class Original:
    """The model, loaded, on a GPU where there is one."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = load_model(checkpoint.task.model.whole, checkpoint.source).to(self.device)

    @torch.inference_mode()
    def record(self, items: Sequence[Any]) -> FloatArray:
        """Logits of every text, or of every word of sentences at its first piece, in order. Shape `(units, labels)`.

        NaN of words beyond what the model reads.
        """
        tags, rows = self.checkpoint.tags, _encoded(self.checkpoint, items)
        counts = np.array([len(item) if tags else 1 for item in items], dtype=np.int64)
        offsets = offsets_of(counts)
        found = np.full((counts.sum(), len(self.checkpoint.labels)), np.nan, dtype=np.float32)
        filler = {"input_ids": self.checkpoint.config.pad_token_id or 0}
        for chosen in _batches([len(row["input_ids"]) for row in rows], TOKENS[self.device.type]):
            batch = {
                name: padded([rows[number][name] for number in chosen], filler.get(name, 0)).to(self.device)
                for name in inputs_of(self.model)
                if name in rows[0]
            }
            for own, number in zip(self.model(**batch).logits.float().cpu().numpy(), chosen, strict=True):
                if not tags:
                    found[number] = own
                    continue
                words, first = np.unique(rows[number]["words"], return_index=True)
                found[offsets[number] + words[words >= 0]] = own[first[words >= 0]]
        return found


def read_whole(checkpoint: Checkpoint, items: Sequence[Any], logits: FloatArray) -> IntArray:
    """Numbers of the sentences of which the model read every word; of texts all. `logits`: as `record` gives them."""
    if not checkpoint.tags:
        return np.arange(len(items), dtype=np.int64)
    known = np.isfinite(logits).all(axis=1)
    cut = np.add.reduceat(~known, offsets_of(np.array([len(item) for item in items], dtype=np.int64))[:-1])
    return np.flatnonzero(cut == 0).astype(np.int64)


def answered(checkpoint: Checkpoint, logits: FloatArray) -> IntArray:
    """What these logits answer, in the form of `confidence.answers`."""
    several = checkpoint.multi_label
    return answers(probabilities(logits, multi_label=several), multi_label=several)


def _encoded(checkpoint: Checkpoint, items: Sequence[Any]) -> list[dict[str, Any]]:
    """What the model reads of each item, by the names of its tokenizer; of sentences also the word of each token."""
    spaced = checkpoint.tags and any(byte_level_parts(json.loads(load_tokenizer_text(checkpoint.source))))
    given = {"add_prefix_space": True} if spaced else {}
    given |= {"split_special_tokens": True} if checkpoint.encode_special_tokens else {}
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint.source, use_fast=True, **given)
    pairs = not checkpoint.tags and any(isinstance(item, tuple) for item in items)
    first = [item[0] if isinstance(item, tuple) else item for item in items]
    second = [item[1] if isinstance(item, tuple) else "" for item in items] if pairs else None
    found = tokenizer(first, second, truncation=True, max_length=checkpoint.limit, is_split_into_words=checkpoint.tags)
    rows = [{name: found[name][number] for name in found} for number in range(len(items))]
    if checkpoint.tags:
        for number, row in enumerate(rows):
            row["words"] = np.array([-1 if word is None else word for word in found.word_ids(number)])
    return rows


def _batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Rows of like length together, at most so many tokens."""
    order, start = np.argsort(lengths, kind="stable")[::-1].tolist(), 0
    while start < len(order):
        stop = start + max(tokens // max(lengths[order[start]], 1), 1)
        yield order[start:stop]
        start = stop

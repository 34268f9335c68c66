"""What the original model answers: through transformers, in fp32, cut where it cuts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer

from cascade.core.confidence import answers, probabilities
from cascade.core.rows import FloatArray, IntArray, offsets_of
from cascade.training.build.looking import Checkpoint
from cascade.training.checkpoint import byte_level_parts, load_tokenizer_text

TOKENS = 8192  # of a batch, padding included


@torch.inference_mode()
def record(checkpoint: Checkpoint, items: Sequence[Any], *, progress: Callable[[float], object]) -> FloatArray:
    """Logits of every text, or of every word of sentences at its first piece, in order. Shape `(units, labels)`.

    NaN of words beyond what the model reads. On a GPU where there is one.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = checkpoint.task.model.whole.from_pretrained(checkpoint.source).float().eval().to(device)
    rows = _encoded(checkpoint, items)
    counts = np.array([len(item) if checkpoint.tags else 1 for item in items], dtype=np.int64)
    offsets, found = offsets_of(counts), np.full((counts.sum(), len(checkpoint.labels)), np.nan, dtype=np.float32)
    padding = checkpoint.config.pad_token_id or 0
    for share, chosen in _batches([len(row["input_ids"]) for row in rows]):
        batch = {
            name: _padded([rows[number][name] for number in chosen], padding if name == "input_ids" else 0).to(device)
            for name in rows[0]
            if name != "words"
        }
        logits = model(**batch).logits.float().cpu().numpy()
        for own, number in zip(logits, chosen, strict=True):
            if checkpoint.tags:
                words, first = np.unique(rows[number]["words"], return_index=True)
                inside = words >= 0
                found[offsets[number] + words[inside]] = own[first[inside]]
            else:
                found[number] = own
        progress(share)
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
    import json

    spaced = checkpoint.tags and any(byte_level_parts(json.loads(load_tokenizer_text(checkpoint.source))))
    given = {"add_prefix_space": True} if spaced else {}
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint.source, use_fast=True, **given)
    limit = min(tokenizer.model_max_length, checkpoint.longest)
    pairs = not checkpoint.tags and any(isinstance(item, tuple) for item in items)
    first = [item[0] if isinstance(item, tuple) else item for item in items]
    second = [item[1] if isinstance(item, tuple) else "" for item in items] if pairs else None
    found = tokenizer(first, second, truncation=True, max_length=limit, is_split_into_words=checkpoint.tags)
    rows = [{name: found[name][number] for name in found} for number in range(len(items))]
    if checkpoint.tags:
        for number, row in enumerate(rows):
            row["words"] = np.array([-1 if word is None else word for word in found.word_ids(number)])
    return rows


def _batches(lengths: Sequence[int]) -> Iterator[tuple[float, list[int]]]:
    """Rows of like length together, at most so many tokens, and the share that is done with them."""
    order = np.argsort(lengths, kind="stable")[::-1].tolist()
    start, done, total = 0, 0, sum(lengths)
    while start < len(order):
        stop = start + max(TOKENS // max(lengths[order[start]], 1), 1)
        chosen = order[start:stop]
        done += sum(lengths[number] for number in chosen)
        yield done / max(total, 1), chosen
        start = stop


def _padded(values: Sequence[Sequence[int]], filler: int) -> Tensor:
    made = torch.full((len(values), max(map(len, values))), filler)
    for row, own in enumerate(values):
        made[row, : len(own)] = torch.as_tensor(own)
    return made

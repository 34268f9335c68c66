"""Texts as padded rows and logits as labels, for peers that are a bare graph: what a user of one writes around it.

It leaves to others: the graphs (`peer_kinds`). The tokenizer is the Rust one by itself, the fastest that they can have.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers

from cascade.batch import FloatArray, IntArray
from cascade.tokenizer import Text
from cascade_bench.peer_process import Job, Model

__all__ = ["Rows", "in_batches"]


@dataclass(frozen=True, eq=False)
class Rows:
    """Texts to padded rows, logits to labels.

    Attributes:
        tokenizer: cuts and pads.
        labels: their names.
        multi_label: the labels are independent yes/no decisions.
    """

    tokenizer: tokenizers.Tokenizer
    labels: Sequence[str]
    multi_label: bool

    @classmethod
    def read(cls, job: Job) -> Rows:
        """As `peer_files` wrote them."""
        folder = Path(job.folder)
        facts = json.loads((folder / "plain.json").read_text(encoding="utf-8"))
        inner = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        inner.enable_truncation(job.max_length)
        inner.enable_padding(pad_id=facts["pad_id"], pad_token=facts["pad_token"])
        return cls(inner, facts["labels"], job.multi_label)

    def padded(self, texts: Sequence[Text]) -> dict[str, IntArray]:
        """Ids, mask and types of shape `(rows, longest)`."""
        made = self.tokenizer.encode_batch(list(texts))
        return {
            "input_ids": np.array([row.ids for row in made], dtype=np.int64),
            "attention_mask": np.array([row.attention_mask for row in made], dtype=np.int64),
            "token_type_ids": np.array([row.type_ids for row in made], dtype=np.int64),
        }

    def named(self, logits: FloatArray) -> list[Any]:
        """Labels of rows. `logits`: shape `(rows, labels)`."""
        if not self.multi_label:
            return [self.labels[number] for number in logits.argmax(axis=1)]
        return [tuple(name for name, value in zip(self.labels, row, strict=True) if value >= 0) for row in logits]


def in_batches(
    rows: Rows, run: Callable[[Mapping[str, npt.NDArray[Any]]], FloatArray], names: Sequence[str] | None = None
) -> Model:
    """A graph as a peer.

    Args:
        rows: makes its inputs, names its answers.
        run: padded rows by name to logits of shape `(rows, labels)`.
        names: of its inputs; all that `Rows.padded` gives if left out.
    """

    def model(texts: Sequence[Text], batch_size: int) -> list[Any]:
        labels: list[Any] = []
        for begin in range(0, len(texts), batch_size):
            feeds = rows.padded(texts[begin : begin + batch_size])
            labels += rows.named(run({name: feeds[name] for name in names or feeds}))
        return labels

    return model

"""Texts as padded rows and logits as labels, for peers that are a bare graph: what a user of one writes around it.

A word of a sentence has the tag of its first piece; one that the tokenizer drops, or beyond the length read, the first.
 The tokenizer is the Rust one by itself, the fastest that they can have.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
import tokenizers

from cascade.core.rows import FloatArray, IntArray
from cascade_bench.peer_process import Input, Job, Model

__all__ = ["Rows", "WordRows", "in_batches"]

Graph: TypeAlias = Callable[[Mapping[str, npt.NDArray[Any]]], FloatArray]
"""Padded rows by name to logits."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Texts to padded rows, logits to labels.

    Attributes:
        tokenizer: cuts and pads.
        labels: their names.
        multi_label: the labels are independent yes/no decisions.
    """

    words: ClassVar[bool] = False

    tokenizer: tokenizers.Tokenizer
    labels: Sequence[str]
    multi_label: bool = False

    @staticmethod
    def read(job: Job) -> Rows:
        """As `peer_files` wrote them."""
        folder = Path(job.folder)
        facts = json.loads((folder / "plain.json").read_text(encoding="utf-8"))
        inner = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        inner.enable_truncation(job.max_length)
        inner.enable_padding(pad_id=facts["pad_id"], pad_token=facts["pad_token"])
        return (WordRows if job.tagging else Rows)(inner, facts["labels"], job.multi_label)

    def encoded(self, texts: Sequence[Input]) -> list[tokenizers.Encoding]:
        """The tokenizer's own rows."""
        made: list[tokenizers.Encoding] = self.tokenizer.encode_batch(list(texts), is_pretokenized=self.words)
        return made

    @staticmethod
    def padded(made: Sequence[tokenizers.Encoding]) -> dict[str, IntArray]:
        """Ids, mask and types of shape `(rows, longest)`."""
        return {
            "input_ids": np.array([row.ids for row in made], dtype=np.int64),
            "attention_mask": np.array([row.attention_mask for row in made], dtype=np.int64),
            "token_type_ids": np.array([row.type_ids for row in made], dtype=np.int64),
        }

    def named(self, logits: FloatArray, made: Sequence[tokenizers.Encoding], texts: Sequence[Input]) -> list[Any]:
        """Labels of rows.

        Args:
            logits: shape `(rows, labels)`; of words `(rows, longest, labels)`.
            made: the rows.
            texts: what they were made from.
        """
        if not self.multi_label:
            return [self.labels[number] for number in logits.argmax(axis=1)]
        return [tuple(name for name, value in zip(self.labels, row, strict=True) if value >= 0) for row in logits]


class WordRows(Rows):
    """Sentences of words to padded rows, logits to a tag for each word."""

    words = True

    def named(self, logits: FloatArray, made: Sequence[tokenizers.Encoding], texts: Sequence[Input]) -> list[Any]:
        """As in `Rows`."""
        tags = []
        for best, row, words in zip(logits.argmax(axis=-1).tolist(), made, texts, strict=True):
            own = [self.labels[0]] * len(words)
            before = None
            for place, word in enumerate(row.word_ids):
                if word is not None and word != before:
                    own[word] = self.labels[best[place]]
                before = word
            tags.append(own)
        return tags


def in_batches(rows: Rows, run: Graph, names: Sequence[str] | None = None) -> Model:
    """A graph as a peer.

    Args:
        rows: makes its inputs, names its answers.
        run: the graph.
        names: of its inputs; all that `Rows.padded` gives if left out.
    """

    def model(texts: Sequence[Input], batch_size: int) -> list[Any]:
        labels: list[Any] = []
        for begin in range(0, len(texts), batch_size):
            some = texts[begin : begin + batch_size]
            made = rows.encoded(some)
            feeds = rows.padded(made)
            labels += rows.named(run({name: feeds[name] for name in names or feeds}), made, some)
        return labels

    return model

"""Texts as padded rows and logits as labels, for baselines that are a bare graph: what a user of one writes around it.

A word has the tag of its first piece; one that the tokenizer drops, or beyond the length read, the first label.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import tokenizers

from cascade_bench.systems.process import Answerer, Item, Job

Graph: TypeAlias = Callable[[Mapping[str, npt.NDArray[Any]]], npt.NDArray[np.float32]]
"""Padded rows by name to logits."""


@dataclass(frozen=True, eq=False)
class Padded:
    """Items to padded rows, logits to answers. `multi_label`: the labels are independent yes/no decisions."""

    tokenizer: tokenizers.Tokenizer
    labels: Sequence[str]
    multi_label: bool = False
    tagging: bool = False

    @staticmethod
    def read(job: Job) -> Padded:
        """As `conversion` wrote it."""
        folder = Path(job.folder)
        facts = json.loads((folder / "plain.json").read_text(encoding="utf-8"))
        inner = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        inner.enable_truncation(job.max_length)
        inner.enable_padding(pad_id=facts["pad_id"], pad_token=facts["pad_token"])
        return Padded(inner, facts["labels"], job.multi_label, job.tagging)

    def encoded(self, items: Sequence[Item]) -> list[tokenizers.Encoding]:
        """The tokenizer's own rows."""
        made: list[tokenizers.Encoding] = self.tokenizer.encode_batch(list(items), is_pretokenized=self.tagging)
        return made

    @staticmethod
    def feeds(made: Sequence[tokenizers.Encoding]) -> dict[str, npt.NDArray[np.int64]]:
        """Ids, mask and types of shape `(rows, longest)`."""
        return {
            "input_ids": np.array([row.ids for row in made], dtype=np.int64),
            "attention_mask": np.array([row.attention_mask for row in made], dtype=np.int64),
            "token_type_ids": np.array([row.type_ids for row in made], dtype=np.int64),
        }

    def answers(
        self, logits: npt.NDArray[np.float32], made: Sequence[tokenizers.Encoding], items: Sequence[Item]
    ) -> list[Any]:
        """Labels from logits of shape `(rows, labels)`; tags from those of shape `(rows, longest, labels)`."""
        if self.multi_label:
            return [tuple(name for name, value in zip(self.labels, row, strict=True) if value >= 0) for row in logits]
        best = logits.argmax(axis=-1).tolist()
        if not self.tagging:
            return [self.labels[number] for number in best]
        tags = []
        for numbers, row, words in zip(best, made, items, strict=True):
            own = [self.labels[0]] * len(words)
            before = None
            for place, word in enumerate(row.word_ids):
                if word is not None and word != before:
                    own[word] = self.labels[numbers[place]]
                before = word
            tags.append(own)
        return tags


def in_batches(padded: Padded, run: Graph, names: Sequence[str] | None = None) -> Answerer:
    """A graph as a system. `names`: of its inputs; all that `Padded.feeds` gives if left out."""

    def model(items: Sequence[Item], batch_size: int) -> list[Any]:
        answers: list[Any] = []
        for begin in range(0, len(items), batch_size):
            some = items[begin : begin + batch_size]
            made = padded.encoded(some)
            feeds = padded.feeds(made)
            answers += padded.answers(run({name: feeds[name] for name in names or feeds}), made, some)
        return answers

    return model

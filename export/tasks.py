"""What classifiers and taggers do not have in common when they are exported: one value for each."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from cascade.core.rows import IntArray, Units
from cascade.engine.long_rows import cut
from cascade.policies.exits import MaxProbability
from cascade.policies.unit_exits import TokenExit
from cascade.text.tokenizer import Tokenizer
from cascade.text.word_encoding import encode_words
from cascade.training.models.backbone import CLASSIFICATION, TAGGING
from cascade.training.models.multi_exit import MultiExitModel
from cascade.training.models.static import StaticForSequenceClassification
from cascade.training.models.static_tagger import StaticForTokenClassification
from cascade.training.models.tagging import MultiExitTagger

__all__ = ["TASKS", "Task"]


@dataclass(frozen=True, eq=False)
class Task:
    """What a bundle does.

    Attributes:
        name: as transformers calls it.
        item: what a caller gives: `text` or `sentence`.
        unit: what gets an answer: `text` or `word`.
        label: what the answer is called.
        multi_exit: torch class of a second tier.
        auto: transformers' class for a first tier; its name ends as the names of all such models do.
        static: torch class of a static first tier.
        exit_policy: a bundle's default.
        encode: items, a tokenizer and a row's greatest length to rows and their units, and the number of the item's
            unit that each of these belongs to.
        split: a text as an item, for when no items are given.
    """

    name: str
    item: str
    unit: str
    label: str
    multi_exit: type[MultiExitModel | MultiExitTagger]
    auto: Any
    static: Any
    exit_policy: MaxProbability | TokenExit
    encode: Callable[[Sequence[Any], Tokenizer, int], tuple[Units, IntArray]]
    split: Callable[[str], Any]

    @property
    def tags(self) -> bool:
        """Whether units are words."""
        return self.unit == "word"


def _texts(texts: Sequence[Any], tokenizer: Tokenizer, _max_length: int) -> tuple[Units, IntArray]:
    encoded = tokenizer.encode(texts)
    return encoded.units, encoded.numbers


def _sentences(sentences: Sequence[Any], tokenizer: Tokenizer, max_length: int) -> tuple[Units, IntArray]:
    """A sentence that no row holds becomes several rows, which do not overlap; those without words are left out."""
    return cut(encode_words(tokenizer, [words for words in sentences if len(words)]), max_length, 0)


TASKS = {
    CLASSIFICATION: Task(
        CLASSIFICATION,
        item="text",
        unit="text",
        label="label",
        multi_exit=MultiExitModel,
        auto=AutoModelForSequenceClassification,
        static=StaticForSequenceClassification,
        exit_policy=MaxProbability(0.9),
        encode=_texts,
        split=str,
    ),
    TAGGING: Task(
        TAGGING,
        item="sentence",
        unit="word",
        label="tag",
        multi_exit=MultiExitTagger,
        auto=AutoModelForTokenClassification,
        static=StaticForTokenClassification,
        exit_policy=TokenExit(0.05),
        encode=_sentences,
        split=re.compile(r"\w+|[^\w\s]").findall,
    ),
}
"""By transformers' names."""

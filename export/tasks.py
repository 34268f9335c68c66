"""What classifiers and taggers do not have in common when they are exported: one value for each."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from cascade.engine.inputs import Encoder
from cascade.policies.exits import MaxProbability
from cascade.policies.unit_exits import TokenExit
from cascade.text.tokenizer import Tokenizer
from cascade.text.word_encoding import WordEncoder
from cascade.training.models.config import CLASSIFICATION, TAGGING
from cascade.training.models.multi_exit import MultiExitModel, MultiExitTagger
from cascade.training.models.static import StaticForSequenceClassification, StaticForTokenClassification


@dataclass(frozen=True, eq=False)
class Task:
    """What a bundle does.

    Attributes:
        name: as transformers calls it.
        item: what a caller gives: `text` or `sentence`.
        unit: what gets an answer: `text` or `word`.
        multi_exit, auto, static: classes of a second tier, of a first tier (its name ends as those of all such models
            of transformers do), and of a static one.
        exit_policy: a bundle's default.
        encoder: what makes rows of items.
        split: a text as an item, for when no items are given.
    """

    name: str
    item: str
    unit: str
    multi_exit: type[MultiExitModel | MultiExitTagger]
    auto: Any
    static: Any
    exit_policy: MaxProbability | TokenExit
    encoder: Callable[[Tokenizer], Encoder]
    split: Callable[[str], Any]

    @property
    def tags(self) -> bool:
        """Whether units are words."""
        return self.unit == "word"


TASKS = {
    CLASSIFICATION: Task(
        *(CLASSIFICATION, "text", "text"),
        *(MultiExitModel, AutoModelForSequenceClassification, StaticForSequenceClassification),
        exit_policy=MaxProbability(0.9),
        encoder=lambda tokenizer: tokenizer,
        split=str,
    ),
    TAGGING: Task(
        *(TAGGING, "sentence", "word"),
        *(MultiExitTagger, AutoModelForTokenClassification, StaticForTokenClassification),
        exit_policy=TokenExit(0.05),
        encoder=WordEncoder,
        split=re.compile(r"\w+|[^\w\s]").findall,
    ),
}
"""By transformers' names."""

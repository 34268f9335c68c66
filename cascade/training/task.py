"""What a model is for, as one value: all in which training and export of classifiers and taggers differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cascade.policies.exits import MaxProbability
from cascade.policies.unit_exits import TokenExit
from cascade.training.checkpoint import spaced
from cascade.training.data import TrainingRows, encode_sentences, encode_texts
from cascade.training.models.multi_exit import MultiExitModel, MultiExitTagger
from cascade.training.models.students import Static, StaticTagger


@dataclass(frozen=True)
class Task:
    """What a model is for.

    Attributes:
        name: as `--task` takes it.
        item: what a caller gives: `text` or `sentence`.
        unit: what gets an answer: `text` or `word`.
        encode: examples as rows, with a tokenizer and the model's labels; takes `multi_label`.
        tokenizer: the text of a `tokenizer.json` as the model needs it.
        model: the multi-exit second tier.
        student: the default first tier.
        exit_policy: a bundle's default.
    """

    name: str
    item: str
    unit: str
    encode: Callable[..., TrainingRows]
    tokenizer: Callable[[str], str]
    model: type[MultiExitModel | MultiExitTagger]
    student: Static
    exit_policy: MaxProbability | TokenExit

    @property
    def tags(self) -> bool:
        """Whether units are words."""
        return self.unit == "word"


CLASSIFICATION = Task(
    "classification", "text", "text", encode_texts, str, MultiExitModel, Static(), MaxProbability(0.9)
)
TAGGING = Task(
    "tagging", "sentence", "word", encode_sentences, spaced, MultiExitTagger, StaticTagger(), TokenExit(0.05)
)
TASKS = {task.name: task for task in (CLASSIFICATION, TAGGING)}
BY_NAME = {task.model.task: task for task in (CLASSIFICATION, TAGGING)}
"""By transformers' names."""

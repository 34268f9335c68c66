"""What a model is trained for, as one value: everything in which classification and tagging differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cascade.training.checkpoint import spaced
from cascade.training.data.encoding import TrainingRows, encode_sentences, encode_texts
from cascade.training.data.examples import Examples, read_sentences, read_texts
from cascade.training.models.multi_exit import MultiExitModel, MultiExitTagger
from cascade.training.models.students import Static, StaticTagger


@dataclass(frozen=True)
class Task:
    """What a model is trained for.

    Attributes:
        name: as `--task` takes it.
        item: what a row of data is called in a message.
        read: a file as examples; takes `columns` and `require_labels`.
        encode: examples as rows, with a tokenizer and the model's labels; takes `multi_label`.
        tokenizer: the text of a `tokenizer.json` as the model needs it.
        model: the multi-exit second tier.
        student: the default first tier.
    """

    name: str
    item: str
    read: Callable[..., Examples]
    encode: Callable[..., TrainingRows]
    tokenizer: Callable[[str], str]
    model: type[MultiExitModel | MultiExitTagger]
    student: Static

    @property
    def option(self) -> str:
        """What a command line says of it."""
        return "" if self is CLASSIFICATION else f" --task {self.name}"


CLASSIFICATION = Task("classification", "text", read_texts, encode_texts, str, MultiExitModel, Static())
TAGGING = Task("tagging", "sentence", read_sentences, encode_sentences, spaced, MultiExitTagger, StaticTagger())
TASKS = {task.name: task for task in (CLASSIFICATION, TAGGING)}

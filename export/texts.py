"""Calibration texts or sentences as token ids, with their targets, and what is measured on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from cascade.calibration.examples import tag_numbers
from cascade.calibration.temperature import fit_temperature
from cascade.core.confidence import answers, probabilities
from cascade.core.rows import FloatArray, IntArray, Units, ranges
from cascade.engine.long_rows import cut
from cascade.exceptions import DataError, OptionError
from cascade.text.entity_f1 import has_entities
from cascade.text.tokenizer import Tokenizer
from cascade.text.word_encoding import WordEncoder
from cascade.training.data import Examples, TrainingRows, targets_of
from cascade.training.task import Task
from cascade.training.units import ENTITY_F1, UnitMetrics

Targets: TypeAlias = npt.NDArray[Any]
ALIKE = 0.1  # standard deviations of a regression's numbers within which two count as the same answer


@dataclass(frozen=True, eq=False)
class Calibration:
    """Texts, or sentences, of the kind that the bundle will see.

    Attributes:
        texts: as `Classifier` takes them; for a tagger sentences, each a list of words.
        labels: the name of each text's label, for a multi-label head a tuple of names; for a tagger each word's tag,
            a list per sentence; None where they have none: then temperatures stay 1 and no accuracy is told. Those of a
            regression are numbers, which may be written as strings.
        source: what the model card calls them.
        sha256: of the file that they came from, so that `cascade calibrate` can tell whether it certifies on the same.
    """

    texts: Sequence[Any]
    labels: Sequence[str | Sequence[str]] | None = None
    source: str = "the project's own sample sentences"
    sha256: str | None = None

    @property
    def inputs(self) -> str | None:
        """What the texts are: `text`, `pair`; `None` where some are the one and some the other."""
        kinds = {"pair" if isinstance(text, tuple) else "text" for text in self.texts}
        return kinds.pop() if len(kinds) == 1 else None

    def described(self, task: Task) -> dict[str, Any]:
        """What the manifest says of them."""
        words = {"words": sum(map(len, self.texts))} if task.tags else {}
        found = {"source": self.source, "sha256": self.sha256, "texts": len(self.texts)}
        return found | words | {"labelled": self.labels is not None}


@dataclass(frozen=True)
class Agreement:
    """The share of units or sentences with the same answer, in [0, 1], the number of others; how far logits differ."""

    share: float
    different: int
    largest: float

    def meets(self, bar: float) -> bool:
        """Whether the share reaches the bar; a single unit never fails it, however few there are."""
        return self.share >= bar or self.different <= 1


@dataclass(frozen=True, eq=False)
class Sample:
    """Calibration texts as token ids.

    Attributes:
        units: the rows, and what in them gets an answer: whole rows, or words.
        targets: numbers of labels, of a regression numbers, shape `(units,)`, or zeros and ones, shape `(units,
            labels)`, for a multi-label head; the rows of a long text share theirs. None without labels.
        labels: names, in the order of the logits.
        multi_label: the labels are independent yes/no decisions.
        sentences: for a tagger, words of all sentences up to the end of each. Shape `(sentences,)`.
    """

    units: Units
    targets: Targets | None = None
    labels: Sequence[str] = ()
    multi_label: bool = False
    sentences: IntArray | None = None

    @property
    def regression(self) -> bool:
        """Whether the one output is a number."""
        return len(self.labels) == 1 and not self.multi_label

    def spread(self, most: int) -> tuple[Units, IntArray]:
        """At most so many rows, evenly spread, as `part` gives them."""
        rows = self.units.n_rows
        return self.part(np.unique(np.linspace(0, rows - 1, min(rows, most)).astype(np.int64)))

    def part(self, rows: IntArray) -> tuple[Units, IntArray]:
        """These rows, and the numbers of their units in the whole."""
        return self.units.select(rows), ranges(self.units.offsets[rows], self.units.counts[rows])

    def compare(self, logits: FloatArray, reference: FloatArray, *, by_sentence: bool = False) -> Agreement:
        """Compare two arrays of logits, shapes `(units, labels)`; by units, or of a tagger by whole sentences."""
        if self.regression:
            apart = np.abs(logits - reference) > ALIKE * reference.std()
        else:
            apart = self._answers(logits) != self._answers(reference)
        differs = apart.any(axis=-1)
        if by_sentence and self.sentences is not None:
            differs = np.logical_or.reduceat(differs, np.append(0, self.sentences[:-1]))
        different = int(differs.sum())
        return Agreement(1 - different / len(differs), different, float(np.abs(logits - reference).max()))

    def temperature(self, logits: FloatArray) -> float:
        """The best one for these logits, 1 without targets and of a regression."""
        if self.targets is None or self.regression:
            return 1.0
        return fit_temperature(logits, self.targets, multi_label=self.multi_label)

    def figures(self, logits: FloatArray, reference: FloatArray) -> dict[str, Any]:
        """How the shipped form's logits compare to the fp32 checkpoint's, and how right both are.

        F1 of entities too where tags are BIO; of a regression R squared in the place of the accuracy.
        """
        found = self.compare(logits, reference)
        figures: dict[str, Any] = {"agreement": round(found.share, 4), "max_difference": round(found.largest, 4)}
        if self.targets is None:
            return figures
        rows, spans = TrainingRows(self.units, {"labels": self.targets}), self.sentences is not None
        metrics = UnitMetrics(self.labels, multi_label=self.multi_label, spans=spans and has_entities(self.labels))
        names = {"accuracy": "r2" if self.regression else "accuracy", ENTITY_F1: "f1"}
        for ending, own in (("", logits), ("_fp32", reference)):
            scores = metrics(metrics.answers(torch.from_numpy(own[:, None])).numpy(), rows)
            figures |= {f"{names[name]}{ending}": round(score, 4) for name, score in scores.items()}
        return figures

    def _answers(self, logits: FloatArray) -> IntArray:
        return answers(probabilities(logits, multi_label=self.multi_label), multi_label=self.multi_label)


def encode(
    calibration: Calibration, task: Task, tokenizer: Tokenizer, labels: Sequence[str], *, multi_label: bool = False
) -> Sample:
    """Encode calibration texts as the engine will, and number their labels, which are both tiers'.

    A text that is longer than the tokenizer allows becomes several rows, or loses the rest where it truncates. An
    `OptionError`: there is nothing that gets an answer; a `DataError`: a label that the tiers do not have, or not one
    per text or word.
    """
    counts = np.array([len(text) if task.tags else 1 for text in calibration.texts], np.int64)
    if not counts.sum():
        raise OptionError(f"calibration must hold at least one {task.unit}, has none; leave it out or add {task.item}s")
    encoded = (WordEncoder(tokenizer) if task.tags else tokenizer).encode(calibration.texts)
    units, numbers = cut(encoded.units, tokenizer.max_length, 0)  # sentences that no row holds, without an overlap
    targets = None if calibration.labels is None else _targets(calibration, task, labels, multi_label)
    if targets is not None:
        targets = targets[encoded.numbers[numbers]]
    return Sample(units, targets, labels, multi_label, np.cumsum(counts[counts > 0]) if task.tags else None)


def _targets(calibration: Calibration, task: Task, labels: Sequence[str], multi_label: bool) -> Targets:
    if task.tags:
        try:
            return tag_numbers(calibration.texts, calibration.labels or (), labels)
        except DataError as error:
            raise DataError(f"{calibration.source}: {error}") from None
    given = [own if isinstance(own, str) else tuple(own) for own in calibration.labels or ()]
    if len(given) != len(calibration.texts):
        raise DataError(f"calibration must have a label per text, got {len(given)} for {len(calibration.texts)} texts")
    found: Targets = targets_of(Examples(calibration.texts, given, calibration.source), labels, multi_label=multi_label)
    return found

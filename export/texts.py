"""Calibration texts or sentences as token ids, with their targets, and what is measured on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import tokenizers

from cascade.core.rows import FloatArray, IntArray, Units, ranges
from cascade.exceptions import DataError, OptionError
from cascade.text.texts import Text
from cascade.text.tokenizer import Tokenizer
from cascade.training.tag_data import has_entities
from cascade_export.int8.calibrate import Targets, accuracy, compare, fit_temperature
from cascade_export.tasks import Task

__all__ = ["Calibration", "Sample", "encode", "shortened"]

VERIFY_ROWS = 64


@dataclass(frozen=True, eq=False)
class Calibration:
    """Texts, or sentences, of the kind that the bundle will see.

    Attributes:
        texts: as `Classifier` takes them; for a tagger sentences, each a list of words.
        labels: the name of each text's label, for a multi-label head a tuple of names; for a tagger each word's tag,
            a list per sentence; None where they have none: then temperatures stay 1 and no accuracy is told.
        source: what the model card calls them.
        sha256: of the file that they came from, so that `cascade calibrate` can tell whether it certifies on the same.
    """

    texts: Sequence[Text] | Sequence[Sequence[str]]
    labels: Sequence[str | Sequence[str]] | None = None
    source: str = "the project's own sample sentences"
    sha256: str | None = None

    def described(self, task: Task) -> dict[str, Any]:
        """What the manifest says of them."""
        words = {"words": sum(map(len, self.texts))} if task.tags else {}
        found = {"source": self.source, "sha256": self.sha256, "texts": len(self.texts)}
        return found | words | {"labelled": self.labels is not None}


@dataclass(frozen=True, eq=False)
class Sample:
    """Calibration texts as token ids.

    Attributes:
        units: the rows, and what in them gets an answer: whole rows, or words.
        targets: per unit; the rows of a long text share its target. None without labels.
        labels: names, in the order of the logits.
        multi_label: the labels are independent yes/no decisions.
        ends: units of all texts or sentences up to each one. Shape `(texts,)`.
        tags: whether units are words.
    """

    units: Units
    targets: Targets | None
    labels: Sequence[str]
    multi_label: bool
    ends: IntArray
    tags: bool

    @property
    def verified(self) -> tuple[Units, IntArray]:
        """The rows on which graphs are compared with torch, and the numbers of their units."""
        rows = self.units.n_rows
        chosen = np.unique(np.linspace(0, rows - 1, min(rows, VERIFY_ROWS)).astype(np.int64))
        return self.units.select(chosen), ranges(self.units.offsets[chosen], self.units.counts[chosen])

    def temperature(self, logits: FloatArray) -> float:
        """The best one for these logits, 1 without targets."""
        if self.targets is None:
            return 1.0
        return round(fit_temperature(logits, self.targets, multi_label=self.multi_label), 4)

    def figures(self, logits: FloatArray, reference: FloatArray) -> dict[str, Any]:
        """How the shipped form's logits compare to the fp32 checkpoint's, and how right both are.

        F1 of entities too where tags are BIO and `seqeval` is installed.
        """
        found = compare(logits, reference, multi_label=self.multi_label)
        figures: dict[str, Any] = {"agreement": round(found.share, 4), "max_difference": round(found.largest, 4)}
        if self.targets is None:
            return figures
        scores = {"accuracy": self._accuracy}
        if self.tags and has_entities(self.labels) and find_spec("seqeval") is not None:
            scores["f1"] = self._f1
        for name, score in scores.items():
            figures |= {name: round(score(logits), 4), f"{name}_fp32": round(score(reference), 4)}
        return figures

    def _accuracy(self, logits: FloatArray) -> float:
        return accuracy(logits, np.asarray(self.targets), multi_label=self.multi_label)

    def _f1(self, logits: FloatArray) -> float:
        measure: Any = import_module("seqeval.metrics").f1_score
        right, given = self._tags(np.asarray(self.targets)), self._tags(logits.argmax(axis=-1))
        return float(measure(right, given, zero_division=0))

    def _tags(self, numbers: np.ndarray) -> list[list[str]]:
        return [part.tolist() for part in np.split(np.array(self.labels, object)[numbers], self.ends[:-1])]


def encode(
    calibration: Calibration,
    task: Task,
    tokenizer_text: str,
    labels: Sequence[str],
    *,
    max_length: int,
    multi_label: bool = False,
) -> Sample:
    """Encode calibration texts as the engine will, and number their labels.

    Args:
        calibration: texts or sentences, as the task has them.
        task: of the bundle.
        tokenizer_text: of the common `tokenizer.json`.
        labels: of both tiers.
        max_length: tokens of a row at most; a longer text becomes several rows.
        multi_label: the labels are independent yes/no decisions.

    Raises:
        OptionError: there is nothing that gets an answer.
        DataError: a label that the tiers do not have, or not one per text or word.
    """
    counts = np.array([len(text) if task.tags else 1 for text in calibration.texts], np.int64)
    if not counts.sum():
        raise OptionError(f"calibration must hold at least one {task.unit}, has none; leave it out or add {task.item}s")
    tokenizer = Tokenizer(tokenizers.Tokenizer.from_str(tokenizer_text), max_length=max_length)
    units, numbers = task.encode(calibration.texts, tokenizer, max_length)
    targets = None if calibration.labels is None else _targets(calibration, task, labels, multi_label=multi_label)
    return Sample(
        units=units,
        targets=None if targets is None else targets[numbers],
        labels=labels,
        multi_label=multi_label,
        ends=np.cumsum(counts[counts > 0]),
        tags=task.tags,
    )


def _targets(calibration: Calibration, task: Task, labels: Sequence[str], *, multi_label: bool) -> Targets:
    """Labels as numbers `(units,)`, or as zeros and ones `(texts, labels)` for a multi-label head."""
    given = [(own,) if isinstance(own, str) else tuple(own) for own in calibration.labels or ()]
    if len(given) != len(calibration.texts):
        raise DataError(
            f"calibration must have one {'list of tags' if task.tags else 'label'} per {task.item}, got {len(given)} "
            f"for {len(calibration.texts)} {task.item}s"
        )
    number = {name: position for position, name in enumerate(labels)}
    for position, (text, own) in enumerate(zip(calibration.texts, given, strict=True), start=1):
        wanted = len(text) if task.tags else 1
        if not multi_label and len(own) != wanted:
            raise DataError(
                f"{calibration.source}: {task.item} {position} must have {wanted} {task.label}(s), one per "
                f"{task.unit}, got {len(own)}"
            )
        unknown = next((name for name in own if name not in number), None)
        if unknown is not None:
            raise DataError(
                f"{calibration.source}: the {task.label}s of {task.item} {position} must be among {shortened(labels)}, "
                f"got {unknown}; calibrate on data with the {task.label}s of the tiers"
            )
    if multi_label:
        return np.array([[name in own for name in labels] for own in given], np.int64)
    return np.array([number[name] for own in given for name in own], np.int64)


def shortened(labels: Sequence[str]) -> str:
    """The first labels and their number, for a message."""
    shown = ", ".join(labels[:6])
    return f"[{shown}{', ...' if len(labels) > 6 else ''}] ({len(labels)})"

"""Calibration texts as token ids, with their targets, and what is measured on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tokenizers

from cascade.core.rows import FloatArray, IntArray
from cascade.exceptions import DataError, OptionError
from cascade.text.tokenizer import Text, Tokenizer
from cascade_export.int8.calibrate import Targets, accuracy, compare, fit_temperature
from cascade_export.packed.chain import Encoded, tokens

__all__ = ["Calibration", "Rows", "encode", "shortened"]

VERIFY_ROWS = 64


@dataclass(frozen=True, eq=False)
class Calibration:
    """Texts of the kind that the bundle will see.

    Attributes:
        texts: as `Classifier` takes them.
        labels: the name of each text's label, for a multi-label head a tuple of names; None where they have none:
            then temperatures stay 1 and no accuracy is told.
        source: what the model card calls them.
        sha256: of the file that they came from, so that `cascade calibrate` can tell whether it certifies on the same.
    """

    texts: Sequence[Text]
    labels: Sequence[str | tuple[str, ...]] | None = None
    source: str = "the project's own sample sentences"
    sha256: str | None = None


@dataclass(frozen=True, eq=False)
class Rows:
    """Calibration texts as token ids. `targets` is per row; a long text's rows share its target."""

    batch: Encoded
    targets: Targets | None
    multi_label: bool

    @property
    def verified(self) -> IntArray:
        """The rows on which graphs are compared with torch."""
        rows = len(tokens(self.batch))
        return np.unique(np.linspace(0, rows - 1, min(rows, VERIFY_ROWS)).astype(np.int64))

    def temperature(self, logits: FloatArray) -> float:
        """The best one for these logits, 1 without targets."""
        if self.targets is None:
            return 1.0
        return round(fit_temperature(logits, self.targets, multi_label=self.multi_label), 4)

    def figures(self, logits: FloatArray, reference: FloatArray) -> dict[str, Any]:
        """How the shipped form's logits compare to the fp32 checkpoint's, and how right both are."""
        found = compare(logits, reference, multi_label=self.multi_label)
        figures: dict[str, Any] = {"agreement": round(found.share, 4), "max_difference": round(found.largest, 4)}
        if self.targets is not None:
            figures["accuracy"] = round(accuracy(logits, self.targets, multi_label=self.multi_label), 4)
            figures["accuracy_fp32"] = round(accuracy(reference, self.targets, multi_label=self.multi_label), 4)
        return figures


def encode(
    calibration: Calibration, tokenizer_text: str, labels: Sequence[str], *, max_length: int, multi_label: bool
) -> Rows:
    """Encode calibration texts as the engine will, and number their labels.

    Raises:
        OptionError: there are no texts.
        DataError: a label that the tiers do not have, or not one per text.
    """
    if not len(calibration.texts):
        raise OptionError("calibration must hold at least one text, has none; leave it out or add texts")
    inner = tokenizers.Tokenizer.from_str(tokenizer_text)
    encoded = Tokenizer(inner, max_length=max_length).encode(calibration.texts)
    if calibration.labels is None:
        return Rows(encoded.units.rows, None, multi_label)
    targets = _targets(calibration, labels, multi_label=multi_label)
    return Rows(encoded.units.rows, targets[encoded.numbers], multi_label)


def _targets(calibration: Calibration, labels: Sequence[str], *, multi_label: bool) -> Targets:
    """Labels as numbers `(texts,)`, or as zeros and ones `(texts, labels)` for a multi-label head."""
    given = [(own,) if isinstance(own, str) else tuple(own) for own in calibration.labels or ()]
    if len(given) != len(calibration.texts):
        raise DataError(
            f"calibration must have one label per text, has {len(given)} labels for {len(calibration.texts)} texts"
        )
    number = {name: position for position, name in enumerate(labels)}
    targets = np.zeros((len(given), len(labels)), np.int64)
    for position, own in enumerate(given, start=1):
        if not multi_label and len(own) != 1:
            raise DataError(f"{calibration.source}: text {position} must have 1 label, has {len(own)}")
        for name in own:
            if name not in number:
                raise DataError(
                    f"{calibration.source}: the label of text {position} must be one of {shortened(labels)}, "
                    f"was: {name}; calibrate on data with the labels of the tiers"
                )
            targets[position - 1, number[name]] = 1
    return targets if multi_label else targets.argmax(axis=1)


def shortened(labels: Sequence[str]) -> str:
    """The first labels and their number, for a message."""
    shown = ", ".join(labels[:6])
    return f"[{shown}{', ...' if len(labels) > 6 else ''}] ({len(labels)})"

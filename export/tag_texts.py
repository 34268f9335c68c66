"""Calibration sentences as rows of words, with their tags, and what is measured on them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import tokenizers

from cascade.core.rows import FloatArray, IntArray, Units
from cascade.engine.word_cascade import cut
from cascade.exceptions import DataError, OptionError
from cascade.text.tokenizer import Tokenizer
from cascade.text.word_encoding import encode_words
from cascade.training.tag_data import has_entities
from cascade_export.texts import Rows, shortened

__all__ = ["TagCalibration", "TagRows", "encode_sentences", "split"]


@dataclass(frozen=True, eq=False)
class TagCalibration:
    """Sentences of the kind that a tagger's bundle will see.

    Attributes:
        sentences: each a list of words. Those without words are left out.
        tags: the name of each word's tag; None where they have none: then temperatures stay 1 and no accuracy is told.
        source: what the model card calls them.
        sha256: of the file that they came from, as in `texts.Calibration`.
    """

    sentences: Sequence[Sequence[str]]
    tags: Sequence[Sequence[str]] | None = None
    source: str = "the project's own sample sentences"
    sha256: str | None = None


@dataclass(frozen=True, eq=False)
class TagRows(Rows):
    """Calibration sentences as token ids. `targets` is per word.

    Attributes:
        labels: names of the tags, in the order of the logits.
        ends: words of all sentences up to each one. Shape `(sentences,)`.
    """

    labels: tuple[str, ...]
    ends: IntArray

    def figures(self, logits: FloatArray, reference: FloatArray) -> dict[str, Any]:
        """As for texts, of words; and F1 of entities where tags are BIO and `seqeval` is installed."""
        figures = super().figures(logits, reference)
        if self.targets is not None and has_entities(self.labels) and find_spec("seqeval") is not None:
            figures["f1"] = round(self._f1(logits), 4)
            figures["f1_fp32"] = round(self._f1(reference), 4)
        return figures

    def _f1(self, logits: FloatArray) -> float:
        measure: Any = import_module("seqeval.metrics").f1_score
        return float(measure(self._tags(np.asarray(self.targets)), self._tags(logits.argmax(axis=-1)), zero_division=0))

    def _tags(self, numbers: np.ndarray) -> list[list[str]]:
        parts = np.split(np.array(self.labels, object)[numbers], self.ends[:-1])
        return [part.tolist() for part in parts]


def encode_sentences(
    calibration: TagCalibration, tokenizer_text: str, labels: tuple[str, ...], *, max_length: int
) -> TagRows:
    """Encode calibration sentences as the engine will, and number their tags.

    Args:
        calibration: sentences, and tags where there are some.
        tokenizer_text: of the common `tokenizer.json`.
        labels: of both tiers.
        max_length: tokens of a row at most; a longer sentence becomes several rows, which do not overlap.

    Raises:
        OptionError: there are no words.
        DataError: a tag that the tiers do not have, or not one per word.
    """
    counts = np.array([len(sentence) for sentence in calibration.sentences], np.int64)
    if not counts.sum():
        raise OptionError("calibration must hold at least one word, has none; leave it out or add sentences")
    targets = None if calibration.tags is None else _targets(calibration, labels)
    inner = Tokenizer(tokenizers.Tokenizer.from_str(tokenizer_text), max_length=max_length)
    words: Units = encode_words(inner, [sentence for sentence in calibration.sentences if len(sentence)])
    rows, _ = cut(words, max_length, 0)
    return TagRows(rows, targets, multi_label=False, labels=labels, ends=np.cumsum(counts[counts > 0]))


def split(texts: Sequence[str]) -> tuple[list[str], ...]:
    """Texts as words and marks, for when no sentences are given."""
    return tuple(re.findall(r"\w+|[^\w\s]", text) for text in texts)


def _targets(calibration: TagCalibration, labels: Sequence[str]) -> IntArray:
    """Tags as numbers `(words,)`."""
    given, number = calibration.tags or (), {name: position for position, name in enumerate(labels)}
    if len(given) != len(calibration.sentences):
        raise DataError(
            f"calibration must have one list of tags per sentence, has {len(given)} for "
            f"{len(calibration.sentences)} sentences"
        )
    for position, (words, tags) in enumerate(zip(calibration.sentences, given, strict=True), start=1):
        if len(words) != len(tags):
            raise DataError(
                f"{calibration.source}: sentence {position} must have one tag per word, has {len(tags)} tags for "
                f"{len(words)} words"
            )
        unknown = next((tag for tag in tags if tag not in number), None)
        if unknown is not None:
            raise DataError(
                f"{calibration.source}: the tags of sentence {position} must be among {shortened(labels)}, "
                f"was: {unknown}; calibrate on data with the tags of the tiers"
            )
    return np.array([number[tag] for tags in given for tag in tags], np.int64)

"""What the original model answers, through transformers, in fp32, cut where it cuts; what the last steps know."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from cascade.core.confidence import answers, probabilities
from cascade.core.rows import BoolArray, FloatArray, IntArray, Units, offsets_of, ranges
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.loading import load
from cascade.pipelines.tagger import Tagger
from cascade.training.build.looking import BuildOptions, Checkpoint, Texts, picked
from cascade.training.checkpoint import byte_level_parts, load_tokenizer_text
from cascade.training.data.encoding import TrainingRows, rows_of
from cascade.training.models.config import load_model
from cascade.training.models.teacher import WholeModel
from cascade.training.units import teacher_logits
from cascade_export.texts import ALIKE

TOLERANCE = 1e-4  # of a probability, in fp32


class Original:
    """The model, loaded, on a GPU where there is one."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        kind = checkpoint.task.model
        self.checkpoint, self.model = checkpoint, WholeModel(load_model(kind.whole, checkpoint.source), kind.task)

    def record(self, items: Sequence[Any]) -> FloatArray:
        """Logits of every text, or of every word of sentences at its first piece, in order. Shape `(units, labels)`.

        NaN of words beyond what the model reads.
        """
        rows, units = _encoded(self.checkpoint, items)
        count = sum(map(len, items)) if self.checkpoint.tags else len(items)
        found = np.full((count, len(self.checkpoint.labels)), np.nan, dtype=np.float32)
        found[units] = teacher_logits(self.model, rows, bool)
        return found


@dataclass(frozen=True, eq=False)
class Answered:
    """Items with what the original model says: logits of their units, shape `(units, labels)`.

    `tolerance`: by how much numbers of a regression may differ and count as the same answer; `truth`: the right
    answers, if they are needed, as `Texts` has them.
    """

    checkpoint: Checkpoint
    items: Sequence[Any]
    logits: FloatArray
    tolerance: float = 0.0
    truth: Any = None

    @classmethod
    def of(cls, checkpoint: Checkpoint, items: Sequence[Any], logits: FloatArray, *, others: int) -> Answered:
        """With a tolerance that is a tenth of the standard deviation of all numbers but the first `others`."""
        spread = float(logits[others:].std()) if checkpoint.regression else 0.0
        return cls(checkpoint, items, logits, float(f"{ALIKE * spread:.2g}"))

    @property
    def counts(self) -> IntArray:
        """Units of each item. Shape `(items,)`."""
        return np.array([len(item) if self.checkpoint.tags else 1 for item in self.items], dtype=np.int64)

    def select(self, numbers: IntArray) -> Answered:
        """These items."""
        places = ranges(offsets_of(self.counts)[:-1][numbers], self.counts[numbers])
        some = replace(self, items=picked(self.items, numbers), logits=self.logits[places])
        return replace(some, truth=picked(self.truth, numbers))

    def read_whole(self) -> Answered:
        """Those of which the model read every word; texts are all read as far as it reads."""
        if not self.checkpoint.tags:
            return self
        known = np.isfinite(self.logits).all(axis=1)
        return self.select(np.flatnonzero(np.add.reduceat(~known, offsets_of(self.counts)[:-1]) == 0))

    @property
    def answers(self) -> IntArray:
        """Of the original, in the form of `confidence.answers`."""
        several = self.checkpoint.multi_label
        return answers(probabilities(self.logits, multi_label=several), multi_label=several)

    def alike(self, found: FloatArray) -> BoolArray:
        """Where these probabilities (of a regression: numbers) answer as the original. Shape `(units,)`."""
        if self.checkpoint.regression:
            near: BoolArray = np.abs(found - self.logits)[:, 0] <= self.tolerance
            return near
        same: BoolArray = (answers(found, multi_label=self.checkpoint.multi_label) == self.answers).all(axis=1)
        return same

    def fitting(self, pipeline: Classifier | Tagger) -> Answered:
        """Without texts that are longer than the model reads: they are cut by the original, read in windows here."""
        if self.checkpoint.tags:
            return self.read_whole()
        rows = np.bincount(pipeline.tokenizer.encode(list(self.items)).numbers, minlength=len(self.items))
        return self.select(np.flatnonzero(rows == 1).astype(np.int64)) if (rows == 1).any() else self

    def compared(self, pipeline: Classifier | Tagger) -> tuple[float, float]:
        """Share of the units that a pipeline answers alike, and the largest difference of a probability.

        Of numbers the difference is relative to the largest of them, if that is above 1. Only texts count that fit.
        """
        some, several = self.fitting(pipeline), self.checkpoint.multi_label
        found, wanted = pipeline.predict(some.items).probabilities, probabilities(some.logits, multi_label=several)
        differences = np.abs(found - wanted)
        if self.checkpoint.regression:
            differences /= max(1.0, float(np.abs(wanted).max()))
            alike = some.alike(found)
        elif several:
            alike = (((found >= 0.5) == (wanted >= 0.5)) | (differences < TOLERANCE)).all(axis=1)
        else:
            rows, best = np.arange(len(found)), found.argmax(axis=1)
            # A tie is broken by rounding.
            alike = wanted[rows, best] >= wanted.max(axis=1) - TOLERANCE
        return float(alike.mean()), float(differences.max())


@dataclass(frozen=True, eq=False)
class Given:
    """What the last steps know.

    `choose`, `certify`: texts with the original's answers, each of which took `each` seconds; `output`: what the bundle
    will be called.
    """

    checkpoint: Checkpoint
    texts: Texts
    options: BuildOptions
    choose: Answered
    certify: Answered
    each: float
    output: Path

    def load(self, bundle: Path) -> Any:
        """The pipeline of a bundle."""
        return load(bundle, threads=self.options.threads, tuned=False)

    def full_depth(self, bundle: Path) -> Any:
        """The same, its last tier alone at full depth."""
        pipeline = self.load(bundle)
        return pipeline.with_policies(pipeline.policies.full_depth())


def _encoded(checkpoint: Checkpoint, items: Sequence[Any]) -> tuple[TrainingRows, IntArray]:
    """What the model reads of each item by its own tokenizer, and numbers of the units that it reads."""
    spaced = checkpoint.tags and any(byte_level_parts(json.loads(load_tokenizer_text(checkpoint.source))))
    given = {"add_prefix_space": True} if spaced else {}
    given |= {"split_special_tokens": True} if checkpoint.encode_special_tokens else {}
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint.source, use_fast=True, **given)
    pairs = not checkpoint.tags and any(isinstance(item, tuple) for item in items)
    first = [item[0] if isinstance(item, tuple) else item for item in items]
    second = [item[1] if isinstance(item, tuple) else "" for item in items] if pairs else None
    found = tokenizer(first, second, truncation=True, max_length=checkpoint.limit, is_split_into_words=checkpoint.tags)
    rows = rows_of(found["input_ids"], found.get("token_type_ids"))
    if not checkpoint.tags:
        return TrainingRows(Units.whole(rows)), np.arange(len(rows))
    firsts, units, start = list[IntArray](), list[IntArray](), 0
    for number, item in enumerate(items):
        words, places = np.unique([-1 if own is None else own for own in found.word_ids(number)], return_index=True)
        firsts.append(rows.offsets[number] + places[words >= 0])
        units.append(start + words[words >= 0])
        start += len(item)
    first, counts = np.concatenate(firsts), np.array([len(own) for own in firsts], np.int64)
    return TrainingRows(Units(rows, first, np.ones_like(first), offsets_of(counts))), np.concatenate(units)

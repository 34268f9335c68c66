"""A build's texts: which teach, choose and certify, always the same, and what the original model answers to them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from cascade.calibration.certify.bounds import examples_needed
from cascade.calibration.certify.claims import Claim
from cascade.core.confidence import answers, probabilities
from cascade.core.rows import BoolArray, FloatArray, IntArray, Units, offsets_of, ranges
from cascade.exceptions import DataError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.loading import load
from cascade.pipelines.tagger import Tagger
from cascade.training.build.looking import BuildOptions, Checkpoint, Texts, picked
from cascade.training.checkpoint import byte_level_parts, load_tokenizer_text
from cascade.training.data import TrainingRows, rows_of
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
    places, counts = np.concatenate(firsts), np.array([len(own) for own in firsts], np.int64)
    return TrainingRows(Units(rows, places, np.ones_like(places), offsets_of(counts))), np.concatenate(units)


LEARN, CHOOSE = 50, 30  # texts, at least
MOST = 1000  # that choose
SHARE = 0.12  # of the words
FEW = 3  # words, below which characters are left out: not every script has spaces


@dataclass(frozen=True, eq=False)
class Shares:
    """Numbers of the texts of each share, no text in two of them. Shape `(texts,)` each."""

    learn: IntArray
    choose: IntArray
    certify: IntArray

    @classmethod
    def of(cls, items: Sequence[Any], claim: Claim, *, seed: int) -> Shares:
        """Split distinct items: a third certifies, as far as that helps, a tenth chooses, the others teach.

        Fewer items than the claim takes are a `DataError`, which says what can be claimed with them.
        """
        total, bound = len(items), claim.ask.bound
        least = examples_needed(bound, confidence=claim.confidence)
        if total < least + LEARN + CHOOSE:
            raise DataError(_too_few(total, least, claim))
        plenty = 2 * examples_needed(bound, confidence=claim.confidence, rate=bound / 2)
        testing = min(max(least, min(round(0.3 * total), plenty)), total - LEARN - CHOOSE)
        choosing = min(max(round(0.1 * total), CHOOSE), MOST, total - LEARN - testing)
        keys = [hashlib.sha256(f"{seed}{json.dumps(item, ensure_ascii=False)}".encode()) for item in items]
        order = np.array(sorted(range(total), key=lambda number: keys[number].digest()), dtype=np.int64)
        return cls(order[testing + choosing :], order[testing : testing + choosing], order[:testing])

    @property
    def order(self) -> IntArray:
        """All of them: those that certify, those that choose, the others."""
        return np.concatenate([self.certify, self.choose, self.learn])


def _too_few(total: int, least: int, claim: Claim) -> str:
    what, name = f"{claim.unit.value}s", "max-disagreement" if not claim.ask.needs_labels else "max-drop"
    told = (
        f"there must be at least {least + LEARN + CHOOSE:,} distinct {what}, got {total:,}: a bound of "
        f"{claim.ask.bound:g} at {100 * claim.confidence:.4g} % takes {least:,} that certify, {CHOOSE} that choose and "
        f"{LEARN} to learn from"
    )
    testing = total - LEARN - CHOOSE
    possible = 1 - (1 - claim.confidence) ** (1 / testing) if testing > 0 else 1.0
    if possible >= 0.5:
        return f"{told}; give more"
    rounded = math.ceil(1000 * possible) / 1000
    return f"{told}; give more, or ask for --{name} {rounded:g}, which {total:,} can show"


def with_gaps(items: Sequence[Any], *, copies: int, seed: int) -> tuple[list[Any], list[BoolArray]]:
    """Copies of texts, pairs or sentences of words, each with some words left out.

    A model is surer of the texts that trained it than of new ones, and so are tiers that learned from its answers: what
    a setting does on the given texts says too little about new ones. (Of a MiniLM on TREC a cut after layer 4 answered
    0.3 % of the given texts differently, 1.7 % of texts with gaps, and 2.2 % of new ones.)

    Returned are the first copy of each item, then the second, and so on; and which of its words each has kept, shape
    `(words,)`, of a pair those of its first text.
    """
    rng = np.random.default_rng(seed)
    made = [_with_gaps(item, rng) for _ in range(copies) for item in items]
    return [item for item, _ in made], [kept for _, kept in made]


def _with_gaps(item: Any, rng: np.random.Generator) -> tuple[Any, BoolArray]:
    if isinstance(item, tuple):
        (first, kept), (second, _) = (_with_gaps(text, rng) for text in item)
        return (first, second), kept
    words, joint = item, ""
    if isinstance(item, str):
        words, joint = item.split(), " "
        if len(words) < FEW:
            words, joint = list(item), ""
    kept = rng.random(len(words)) >= SHARE
    if len(words) > 1:
        kept[rng.integers(len(words))] = False  # one at least
    if not kept.any():
        kept[:1] = True
    left = [word for word, here in zip(words, kept.tolist(), strict=True) if here]
    return joint.join(left) if isinstance(item, str) else left, kept

"""Second tiers and first tiers as bundles, and how often their full depth answers as the original model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cascade.bundle.opening import Bundle, open_bundle
from cascade.bundle.tiers import MultiExitSpec, TierSpec
from cascade.bundle.writing import write_bundle
from cascade.core.confidence import answers, probabilities
from cascade.core.rows import BoolArray, FloatArray, IntArray, offsets_of, ranges
from cascade.exceptions import BundleError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.loading import load
from cascade.pipelines.tagger import Tagger
from cascade.policies.settings import Policies
from cascade.training.build.looking import BuildOptions, Checkpoint, Texts, picked
from cascade.training.build.original import read_whole
from cascade.training.build.shares import Shares
from cascade_export import Calibration, ExportOptions, Int8, export_bundle
from cascade_export.checkpoints import load_tier
from cascade_export.texts import ALIKE
from cascade_export.tiers import export_tier1

TOLERANCE = 1e-4  # of a probability, in fp32
CALIBRATION = 512  # texts that give int8 its ranges
CHECKED = 500  # texts on which full depth is compared with the original


@dataclass(frozen=True, eq=False)
class Answered:
    """Items with what the original model says: logits of their units, shape `(units, labels)`.

    `tolerance`: by how much numbers of a regression may differ and count as the same answer.
    """

    checkpoint: Checkpoint
    items: Sequence[Any]
    logits: FloatArray
    tolerance: float = 0.0

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
        return replace(self, items=picked(self.items, numbers), logits=self.logits[places])

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
            return self.select(read_whole(self.checkpoint, self.items, self.logits))
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

    `every`: all texts with the original's answers, each of which took `each` seconds; `output`: what the bundle will be
    called.
    """

    checkpoint: Checkpoint
    texts: Texts
    shares: Shares
    options: BuildOptions
    every: Answered
    each: float
    output: Path

    def truth(self, numbers: IntArray) -> Any:
        """The right answers of these texts, if they are needed."""
        return picked(self.texts.truth, numbers)

    def load(self, bundle: Path) -> Any:
        """The pipeline of a bundle."""
        return load(bundle, threads=self.options.threads, tuned=False)

    def full_depth(self, bundle: Path) -> Any:
        """The same, its last tier alone at full depth."""
        pipeline = self.load(bundle)
        return pipeline.with_policies(pipeline.policies.full_depth())


def check_traced(checkpoint: Checkpoint) -> None:
    """Refuse a model that can be no tier without exits, before it teaches anything.

    Raises:
        OptionError: torch cannot trace it.
    """
    export_tier1(load_tier(checkpoint.source, checkpoint.task), checkpoint.task, number=2)


def export(
    given: Given, folder: Path, exits: str | Path, first: Path | None, texts: Sequence[Any], *, int8: bool = True
) -> Bundle:
    """A bundle of these checkpoints, or of the last tier's alone.

    In int8 a quarter of the bound may be spent, or layers stay fp32.
    """
    some = list(texts[:CALIBRATION])
    options = ExportOptions(
        int8=Int8.STATIC if int8 else Int8.NONE,
        agreement=1 - given.options.bound / 4,
        by_sentence=given.checkpoint.tags,
        max_length=given.checkpoint.limit,
        truncation=given.options.truncation,
        encode_special_tokens=given.checkpoint.encode_special_tokens,
        fp32=False,
    )
    calibration = Calibration([*some, *mixed(some)], None, "texts of the build, and mixtures of two of them")
    return export_bundle(exits, first, folder, calibration=calibration, options=options)


def mixed(items: Sequence[Any]) -> list[Any]:
    """Half of each item before half of the next: what a model is less sure of than of the texts that trained it.

    Of pairs the first text with the next pair's second one. int8 that answers as fp32 on a model's own training texts
    may still differ on new ones: of a MiniLM on TREC on 0 of 512 of the first and 6 of 500 of the second kind, and of
    mixtures on 6 of 500.
    """

    def joined(one: Any, other: Any) -> Any:
        if isinstance(one, tuple):
            return one[0], other[1]
        first, second = (item if isinstance(item, list) else item.split() for item in (one, other))
        words = [*first[: (len(first) + 1) // 2], *second[len(second) // 2 :]]
        return words if isinstance(one, list) else " ".join(words)

    return [joined(one, other) for one, other in zip(items, [*items[1:], *items[:1]], strict=True)]


def form_of(tier: TierSpec) -> str:
    """How a last tier was exported, in words: int8 or, where that changes too many answers, fp32 in part."""
    if not isinstance(tier, MultiExitSpec):
        return f"in {tier.precision}"
    small, count = sum(stage.precision == "int8" for stage in tier.stages), len(tier.stages)
    if small in (0, count):
        return f"packed in {'int8' if small else 'fp32'}"
    return f"packed, {small} of {count} stages in int8"


def check_fp32(share: float, largest: float) -> float:
    """What `compared` says of full depth in fp32: it answers as the original, or a `BundleError` says what differs."""
    if share < 1 or not largest <= TOLERANCE:
        raise BundleError(
            f"full depth in fp32 must answer as the original model within {TOLERANCE:g}, got the same answer for "
            f"{100 * share:.2f} % and a difference of {largest:.2g}; its tokenizer or a part of it is not read as "
            "transformers reads it"
        )
    return share


def composed(folder: Path, exits: Path, first: Path) -> Bundle:
    """A bundle of the second tier of one and the first tier of another one; both are of the same checkpoint."""
    both = [open_bundle(one, verify=False) for one in (exits, first)]
    second, other = (bundle.manifest for bundle in both)
    files: dict[str, bytes | Path] = {path: both[0].path(path) for path in second.files}
    files = {path: source for path, source in files.items() if path not in second.tier1.graphs}
    files |= {path: both[1].path(path) for path in other.tier1.graphs}
    temperatures = (other.policies.temperatures[0], second.policies.temperatures[1])
    manifest = replace(
        second,
        tiers=(other.tier1, second.tier2),
        policies=replace(second.policies, temperatures=temperatures),
        figures={**second.figures, "tier1": other.figures.get("tier1")},
    )
    return write_bundle(folder, files, manifest)


def alone(policies: Policies) -> Policies:
    """Those of the last tier, by itself."""
    return replace(policies, routers=(), blend=(), exits=policies.exits[-1:], temperatures=policies.temperatures[-1:])


def without_first(folder: Path, bundle: Bundle, policies: Policies) -> Bundle:
    """A bundle of the last tier alone; `policies`: of both."""
    manifest = bundle.manifest
    gone = set(manifest.tier1.graphs) - set(manifest.tier2.graphs)
    files: dict[str, bytes | Path] = {path: bundle.path(path) for path in manifest.files if path not in gone}
    return write_bundle(folder, files, replace(manifest, tiers=manifest.tiers[1:], policies=alone(policies)))

"""What both tiers say about every example, at every exit, so that any setting can be replayed without running a model.

A document is what the caller calls a text; a row is one window of it, the two being the same but for long texts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from cascade.calibration.examples import Costs
from cascade.calibration.observing import run_both
from cascade.calibration.temperature import Temperatures, logits_of, rescale
from cascade.core.confidence import answers, evidence, probabilities
from cascade.core.rows import Encoded, FloatArray, IntArray, offsets_of, ranges
from cascade.engine.tiers import MultiExit, Progress, SingleExit
from cascade.exceptions import OptionError

__all__ = ["Answers", "observe"]


@dataclass(frozen=True, eq=False)
class Answers:
    """Probabilities of both tiers, at all exits.

    Attributes:
        tier1: shape `(rows, labels)`.
        tier2: shape `(rows, exits, labels)`.
        documents: number of the document that each row belongs to, from 0, none left out, never falling. Shape
            `(rows,)`.
        lengths: tokens of each row. Shape `(rows,)`.
        layers: number of the layer below each exit, counted from 1; the last is full depth.
        truth: number of the right label of each document, shape `(documents,)`; 0 and 1 per label where the labels are
            independent, shape `(documents, labels)`; `None` where nobody knows.
        temperatures: that the probabilities were made with.
        multi_label: the labels are independent yes/no decisions.
    """

    tier1: FloatArray
    tier2: FloatArray
    documents: IntArray
    lengths: IntArray
    layers: tuple[int, ...]
    truth: IntArray | None
    temperatures: Temperatures
    multi_label: bool = False
    _blended: dict[float, FloatArray] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        rows, exits, labels = self.tier2.shape
        truth = (len(self), labels) if self.binary else (len(self),)
        wanted = {
            "tier1": (self.tier1.shape, (rows, labels)),
            "documents": (self.documents.shape, (rows,)),
            "lengths": (self.lengths.shape, (rows,)),
            "layers": ((len(self.layers),), (exits,)),
            "truth": (truth if self.truth is None else self.truth.shape, truth),
        }
        wrong = [f"{name} {was} instead of {shape}" for name, (was, shape) in wanted.items() if was != shape]
        if rows == 0 or wrong:
            raise OptionError(
                f"answers must be about one example at least and of fitting shapes, was: tier2 {self.tier2.shape}"
                f"{''.join(f', {fault}' for fault in wrong)}; give one row per window, one truth per document"
            )

    def __len__(self) -> int:
        return int(self.documents[-1]) + 1 if len(self.documents) else 0

    @property
    def binary(self) -> bool:
        """Whether an answer is a set of labels, or yes or no, rather than the likeliest label."""
        return self.multi_label or self.tier2.shape[-1] == 1

    @property
    def starts(self) -> IntArray:
        """First row of each document, and the number of rows. Shape `(documents + 1,)`."""
        return offsets_of(np.bincount(self.documents, minlength=len(self)).astype(np.int64))

    def select(self, documents: IntArray) -> Answers:
        """Of these documents, numbered anew in this order. Shape `(chosen,)`."""
        windows = np.diff(self.starts)[documents]
        rows = ranges(self.starts[:-1][documents], windows)
        return replace(
            self,
            tier1=self.tier1[rows],
            tier2=self.tier2[rows],
            documents=np.repeat(np.arange(len(documents), dtype=np.int64), windows),
            lengths=self.lengths[rows],
            truth=None if self.truth is None else self.truth[documents],
        )

    def with_temperatures(self, temperatures: Temperatures) -> Answers:
        """The same answers with other temperatures, of each tier and exit."""
        if temperatures == self.temperatures:
            return self
        was, several = self.temperatures, self.multi_label
        tier2 = [
            rescale(self.tier2[:, exit_], was=old, now=new, multi_label=several)
            for exit_, (old, new) in enumerate(zip(was.exits, temperatures.exits, strict=True))
        ]
        tier1 = rescale(self.tier1, was=was.tier1, now=temperatures.tier1, multi_label=several)
        return replace(self, tier1=tier1, tier2=np.stack(tier2, axis=1), temperatures=temperatures)

    def blended(self, blend: float) -> FloatArray:
        """Probabilities at every exit where tier 1's answer counts so much beside it, as the engine adds them up.

        Shape `(rows, exits, labels)`.
        """
        if not blend:
            return self.tier2
        if blend in self._blended:
            return self._blended[blend]
        known = evidence(self.tier1, weight=blend, multi_label=self.multi_label)[:, None]
        own = logits_of(self.tier2, multi_label=self.multi_label)
        # A path has one blend, and every setting of it is replayed.
        self._blended.clear()
        self._blended[blend] = probabilities(own, multi_label=self.multi_label, prior=known)
        return self._blended[blend]

    def merged(self, rows: FloatArray) -> FloatArray:
        """Probabilities of documents from those of their rows: the mean (`engine.merge_windows`).

        Shape `(rows, labels)` to `(documents, labels)`.
        """
        windows = np.diff(self.starts)
        if len(windows) == len(rows):
            return rows
        summed = np.add.reduceat(rows, self.starts[:-1], axis=0)
        return np.asarray(summed / windows[:, None], dtype=np.float32)

    def answered(self, rows: FloatArray) -> IntArray:
        """What documents are answered if their rows have these probabilities. Shape `(documents, columns)`."""
        return answers(self.merged(rows), multi_label=self.multi_label)

    def full(self) -> IntArray:
        """What tier 2 answers at full depth. Shape `(documents, columns)`."""
        return self.answered(self.tier2[:, -1])

    def goal(self) -> IntArray:
        """The right answers, in the form of `full`, which stands in where there are no labels."""
        if self.truth is None:
            return self.full()
        return self.truth if self.binary else self.truth[:, None]


def observe(
    tier1: SingleExit,
    tier2: MultiExit,
    encoded: Encoded,
    truth: IntArray | None,
    *,
    tokenize_seconds: float = 0.0,
    progress: Progress | None = None,
) -> tuple[Answers, Costs]:
    """Run both tiers once, nobody leaving early.

    Args:
        tier1: as it stands in the bundle.
        tier2: the same; its exit policy does not count.
        encoded: the documents' windows.
        truth: see `Answers`.
        tokenize_seconds: what encoding took; every setting pays it.
        progress: called with rows done, twice for each row: once per tier.

    Returns:
        The answers, and costs in seconds per token, measured on this machine in this one pass.
    """
    first, second, costs = run_both(
        tier1, tier2, encoded.units.rows, tokenize_seconds=tokenize_seconds, progress=progress
    )
    found = Answers(
        tier1=first,
        tier2=second,
        documents=encoded.numbers,
        lengths=encoded.units.rows.lengths,
        layers=tuple(tier2.layers),
        truth=truth,
        temperatures=Temperatures(tier1.temperature, tuple(tier2.temperatures)),
        multi_label=tier2.multi_label,
    )
    return found, costs

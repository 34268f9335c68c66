"""Distilling a first tier: the options, the loss, the teacher's answers on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cascade.core.rows import FloatArray
from cascade.exceptions import OptionError
from cascade.training.augmentation import Augmentation
from cascade.training.loop import LoopOptions
from cascade.training.recipes.objectives import divergence

__all__ = ["Imitation"]


@dataclass(frozen=True, kw_only=True)
class Imitation:
    """What a user chooses of any first tier but its kind.

    Attributes:
        imitation: share in [0, 1] of the loss that is the divergence from the teacher; the rest is cross-entropy on
            the labels of labelled rows or words.
        temperature: softens both distributions (Hinton et al. 2015, section 2).
        augmentation: unlabelled rows made from the training rows.
        freeze_embeddings: keep the token embeddings as they came from the teacher: a small student with a large table
            learns its training words by heart.
        max_length: tokens per row at most, in training; longer sentences of a tagger are cut between words.
    """

    imitation: float = 0.7
    temperature: float = 2.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    freeze_embeddings: bool = False
    max_length: int = 128
    loop: LoopOptions = field(default_factory=lambda: LoopOptions(epochs=8, learning_rate=5e-4, head_factor=1.0))

    def __post_init__(self) -> None:
        if not 0 <= self.imitation <= 1:
            raise OptionError(f"imitation must be in [0, 1], was: {self.imitation}")
        if self.temperature <= 0:
            raise OptionError(f"temperature must be above 0, was: {self.temperature}")

    @property
    def reported(self) -> dict[str, Any]:
        """What a report says of them."""
        return asdict(self.loop) | {
            "imitation": self.imitation,
            "temperature": self.temperature,
            "freeze_embeddings": self.freeze_embeddings,
            "augmentation": repr(self.augmentation),
        }

    def loss(
        self, logits: Tensor, teacher: Tensor | None, plain: Callable[[], Tensor | None], *, multi_label: bool = False
    ) -> Tensor:
        """The loss of a batch.

        Args:
            logits: the student's. Shape `(rows, labels)`; rows of a tagger are words.
            teacher: the teacher's; evaluation rows have none, and their loss is the plain one. Shape `(rows, labels)`.
            plain: the summed cross-entropy on the labels; `None` where no row has one.
            multi_label: the labels are independent yes/no decisions.
        """
        share = 0.0 if teacher is None else self.imitation
        total = logits.new_zeros(())
        if teacher is not None and share:
            imitated = divergence(logits.unsqueeze(1), teacher, multi_label, temperature=self.temperature)
            total = share * imitated.sum()
        known = plain() if share < 1 else None
        return total if known is None else total + (1 - share) * known / len(logits)

    def answers(self, run_folder: Path, count: int, make: Callable[[], FloatArray]) -> FloatArray:
        """The teacher's logits, kept on disk, so that a resumed run need not wait.

        Args:
            run_folder: where.
            count: of rows or words; what is there of another number is made again.
            make: asks the teacher. Shape `(count, labels)`.
        """
        cache = run_folder / "teacher.npy"
        if self.loop.resume and cache.exists():
            known: FloatArray = np.load(cache)
            if len(known) == count:
                return known
        made = make()
        run_folder.mkdir(parents=True, exist_ok=True)
        np.save(cache, made)
        return made

"""What the exits are trained on: a frozen value that turns all exits' logits into one loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.exceptions import OptionError


def supervised(logits: Tensor, labels: Tensor, multi_label: bool) -> Tensor:
    """Mean loss of each exit against the labels, of a regression the squared error. Shape of the result `(exits,)`."""
    if labels.is_floating_point() and labels.ndim == 1:
        return (logits[..., 0] - labels[:, None]).square().mean(0)
    if multi_label:
        wanted = labels.to(logits.dtype).unsqueeze(1).expand_as(logits)
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean((0, 2))
    exits = logits.shape[1]
    wanted = labels.repeat_interleave(exits, 0)
    return F.cross_entropy(logits.flatten(0, 1), wanted, reduction="none").view(-1, exits).mean(0)


def divergence(logits: Tensor, teacher: Tensor, multi_label: bool, *, temperature: float = 1.0) -> Tensor:
    """Mean KL divergence of each exit from the teacher's distribution, times the temperature squared (Hinton 2015).

    Of a regression, one output that is no label, the squared error. Shapes: `logits` `(units, exits, labels)`,
    `teacher` `(units, labels)`; result `(exits,)`.
    """
    if logits.shape[-1] == 1 and not multi_label:
        return (logits - teacher.unsqueeze(1)).square().mean((0, 2))
    if multi_label:
        wanted = torch.sigmoid(teacher / temperature).unsqueeze(1).expand_as(logits)
        loss = F.binary_cross_entropy_with_logits(logits / temperature, wanted, reduction="none").mean((0, 2))
        floor = F.binary_cross_entropy(wanted, wanted, reduction="none").mean((0, 2))
        return (loss - floor) * temperature**2
    wanted = F.log_softmax(teacher / temperature, dim=-1).unsqueeze(1)
    found = F.log_softmax(logits / temperature, dim=-1)
    return (wanted.exp() * (wanted - found)).sum(-1).mean(0) * temperature**2


@dataclass(frozen=True)
class Objective:
    """What one run of training minimises: the sum of w_i times exit i's loss, over the sum of w_i.

    Attributes:
        exits: that learn. `all` at once; the `last`, the first step of two-stage training (DeeBERT, section 3.2); the
            `earlier` ones alike, on a frozen backbone, the second step: full depth answers as before.
        imitate: earlier exits imitate the last one, without labels (FastBERT, section 3.3).
        detach: gradients stop between exits: no conflict between heads (SWEET, ACL 2023, section 4).
        weights: of all exits, one each; rising 1, 2, 3, ... by default (PABEE, section 3.2; TOKEE's first stage).
    """

    exits: str = "all"
    imitate: bool = False
    detach: bool = False
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.weights is not None and (min(self.weights, default=0) < 0 or sum(self.weights) <= 0):
            raise OptionError(f"layer weights must not be negative and not all zero, got {self.weights}")

    @property
    def frozen(self) -> bool:
        """Whether only the heads before the last learn."""
        return self.exits == "earlier"

    def __call__(self, logits: Tensor, labels: Tensor, multi_label: bool) -> Tensor:
        """One loss from logits `(units, exits, labels)` and labels.

        Labels are their numbers `(units,)`, of a regression floats, or zeros and ones `(units, labels)` for
        multi-label, or probabilities `(units, labels)`; not read where exits imitate.
        """
        some = {"all": logits, "last": logits[:, -1:], "earlier": logits[:, :-1]}[self.exits]
        if self.imitate:
            return divergence(some, logits[:, -1].detach(), multi_label).mean()
        losses = supervised(some, labels, multi_label)
        if self.exits != "all":
            return losses.mean()
        exits = logits.shape[1]
        if self.weights is not None and len(self.weights) != exits:
            raise OptionError(f"layer weights must be one per exit, {exits}, got {len(self.weights)}")
        weights = logits.new_tensor(self.weights or range(1, exits + 1))
        return (losses * weights).sum() / weights.sum()


OBJECTIVES = {
    "joint": (Objective(),),
    "two-stage": (Objective("last"), Objective("earlier")),
    "detached": (Objective(detach=True),),
    "distil": (Objective("earlier", imitate=True),),
}
"""As `cascade-train exits --objective` takes them, one after the other."""

"""The second tier for tagging: an encoder with one linear layer over every token at every exit.

A word's tag is read at its first token. Tokens may stop before the last layer (`exit_layers`): the masked form of
halt-and-copy, by which the packed ONNX form is checked and with which self-sampling trains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from transformers import AutoModelForTokenClassification, PretrainedConfig, PreTrainedModel

from cascade.training.models.backbone import ExitBackbone
from cascade.training.models.config import TAGGING


class MultiExitTagger(ExitBackbone):
    """A backbone whose every exit layer has a linear head on each token's state (SENTEE and TOKEE, ACL 2021)."""

    task = TAGGING
    whole = AutoModelForTokenClassification

    def __init__(self, backbone: PreTrainedModel, *, layers: Sequence[int] | None = None, dropout: float = 0.1) -> None:
        super().__init__(backbone, layers)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleList(nn.Linear(self.config.hidden_size, self.config.num_labels) for _ in self.layers)

    def read(self, state: Tensor, attention_mask: Tensor) -> Tensor:  # every token is read
        """Every token's state, some of it dropped in training."""
        return self.dropout(state)  # type: ignore[no-any-return]  # torch's modules are untyped calls

    @property
    def exits(self) -> dict[str, Any]:
        return {"task": TAGGING, "layers": list(self.layers)}

    @classmethod
    def _head_weights(cls, config: PretrainedConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: weights[f"classifier.{name}"] for name in ("weight", "bias")}  # in every family

"""The second tier for tagging: an encoder with one linear layer over every token at every exit.

A word's tag is read at its first token. Tokens may stop before the last layer (`exit_layers`): the masked form of
halt-and-copy, by which the packed ONNX form is checked and with which self-sampling trains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
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

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        exit_layers: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """All exits' logits for every token.

        Args:
            input_ids: shape `(rows, longest)`.
            attention_mask: 0 at padding. Shape `(rows, longest)`.
            token_type_ids: shape `(rows, longest)`, or None.
            exit_layers: the last layer in which each token is active, counted from 1; in later ones it keeps its
                state, so that its logits there are those heads' of an old state. Shape `(rows, longest)`. None: all
                tokens go through all layers.

        Returns:
            `logits` of shape `(rows, exits, longest, labels)`.
        """
        states = self.states(input_ids, attention_mask, token_type_ids, exit_layers)
        logits = [head(self.dropout(states[layer])) for head, layer in zip(self.heads, self.layers, strict=True)]
        return {"logits": torch.stack(logits, dim=1)}

    @property
    def exits(self) -> dict[str, Any]:
        return {"task": TAGGING, "layers": list(self.layers)}

    @classmethod
    def _head_weights(cls, config: PretrainedConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: weights[f"classifier.{name}"] for name in ("weight", "bias")}  # in every family

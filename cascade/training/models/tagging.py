"""The second tier for tagging: an encoder with one linear layer over every token at every exit.

A word's tag is read at its first token. Tokens may stop before the last layer (`exit_layers`): the masked form of
halt-and-copy, by which the packed ONNX form is checked and with which self-sampling trains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from transformers import AutoModelForTokenClassification, PreTrainedModel

from cascade.training.models.backbone import ExitBackbone
from cascade.training.models.config import TAGGING
from cascade.training.models.families import Family, HeadParts
from cascade.training.models.multi_exit import activation_of, new_head


class MultiExitTagger(ExitBackbone):
    """A backbone whose every exit layer has a head on each token's state (SENTEE and TOKEE, ACL 2021).

    It is one linear layer, or what the family's own token classifiers have.
    """

    task = TAGGING
    whole = AutoModelForTokenClassification

    def __init__(self, backbone: PreTrainedModel, *, layers: Sequence[int] | None = None, dropout: float = 0.1) -> None:
        super().__init__(backbone, layers)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleList(self._new_head() for _ in self.layers)

    def _new_head(self) -> nn.Module:
        config, parts = self.config, self.family.tag_head
        if parts.dense is None:
            return nn.Linear(config.hidden_size, config.num_labels)
        # `read` has dropped some of the state already.
        return new_head(config, parts, dropout=0.0, activation=activation_of(config, parts))

    def read(self, state: Tensor, attention_mask: Tensor, exit_index: int) -> Tensor:  # every token is read
        """Every token's state, some of it dropped in training."""
        return self.dropout(state)  # type: ignore[no-any-return]  # torch's modules are untyped calls

    @property
    def exits(self) -> dict[str, Any]:
        return {"task": TAGGING, "layers": list(self.layers)}

    @classmethod
    def _head_parts(cls, family: Family) -> HeadParts:
        return family.tag_head

"""The second tier for tagging: an encoder with one linear layer over every token at every exit.

A word's tag is read at its first piece. Tokens may stop before the last layer (`exit_layers`): the masked form of
halt-and-copy, by which the packed ONNX form is checked and with which self-sampling trains.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForTokenClassification, PretrainedConfig, PreTrainedModel

from cascade.exceptions import DataError
from cascade.training.models.backbone import (
    TAGGING,
    ExitBackbone,
    check_labels,
    load_config,
    load_weights,
    name_labels,
    named_labels,
    read_exits,
    without_pooler,
)

__all__ = ["MultiExitTagger"]


class MultiExitTagger(ExitBackbone):
    """A backbone whose every exit layer has a linear head on each token's state (SENTEE and TOKEE, ACL 2021)."""

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

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str | Path,
        *,
        labels: Sequence[str],
        layers: Sequence[int] | None = None,
        dropout: float | None = None,
    ) -> MultiExitTagger:
        """Start from a pre-trained or fine-tuned checkpoint, or go on from a multi-exit one.

        A fine-tuned tagger (`...ForTokenClassification`) keeps its head as the last exit, so full depth answers as
        before. It, and a multi-exit checkpoint, also keep their labels and the labels' order.

        Args:
            checkpoint: a folder or a Hub id.
            labels: names of the labels that the data have; some may be missing of a fine-tuned checkpoint's.
            layers: the exits' layers; every layer by default.
            dropout: in the backbone; the checkpoint's by default. 0 trains a fifth faster on a CPU.

        Raises:
            DataError: a label that the fine-tuned checkpoint does not have; no label set at all.
        """
        config = load_config(checkpoint, dropout=dropout)
        if getattr(config, "cascade_exits", None):
            model = cls.from_pretrained(checkpoint, config=config)
            check_labels(labels, model.labels)
            return model
        fine_tuned = any("ForTokenClassification" in name for name in config.architectures or ())
        if fine_tuned:
            check_labels(labels, named_labels(config))
            labels = named_labels(config)
        elif len(labels) < 2:
            raise DataError(
                f"the training data must have at least two tags, have: {list(labels) or 'none'}; check the column"
            )
        backbone = AutoModel.from_pretrained(checkpoint, config=config, **without_pooler(config))
        name_labels(backbone.config, labels)
        backbone.config.problem_type = None
        backbone.config.architectures = None
        model = cls(backbone, layers=layers)
        if fine_tuned:
            whole = AutoModelForTokenClassification.from_pretrained(checkpoint).state_dict()
            last = {name: whole[f"classifier.{name}"] for name in ("weight", "bias")}  # in all five families
            model.heads[-1].load_state_dict(last)
        return model

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, config: PretrainedConfig | None = None) -> MultiExitTagger:
        """Load what `save_pretrained` wrote: a folder or a Hub id; `config` in place of the one that stands there."""
        config = config or load_config(folder)
        exits = read_exits(config, source=folder, task=TAGGING)
        model = cls(AutoModel.from_config(config, **without_pooler(config)), layers=exits["layers"])
        load_weights(model, folder)
        return model.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`, each renamed into place when whole."""
        self._save(folder, {"task": TAGGING, "layers": list(self.layers)})

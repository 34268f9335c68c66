"""The second tier for classification: an encoder with a classification head at every exit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN

from cascade.exceptions import DataError, OptionError
from cascade.training.models.backbone import (
    CLASSIFICATION,
    ExitBackbone,
    check_labels,
    load_config,
    load_weights,
    name_labels,
    named_labels,
    read_exits,
    without_pooler,
)
from cascade.training.models.families import FAMILIES

__all__ = ["MULTI_LABEL", "ExitHead", "MultiExitModel", "pool"]

SINGLE_LABEL, MULTI_LABEL = "single_label_classification", "multi_label_classification"


def pool(hidden: Tensor, attention_mask: Tensor, pooling: str) -> Tensor:
    """One vector per row. Shapes `(rows, longest, width)`, `(rows, longest)` -> `(rows, width)`.

    `first` takes the first token's state, `mean` the mean over the row's tokens, special ones included.
    """
    if pooling == "first":
        return hidden[:, 0]
    weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


class ExitHead(nn.Module):
    """Dropout, linear, activation, dropout, linear, on a pooled vector: the form of BERT's own classifier."""

    def __init__(self, width: int, labels: int, *, dropout: float = 0.1, activation: str = "tanh") -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(width, width)
        self.activation = ACT2FN[activation]
        self.out = nn.Linear(width, labels)

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits. Shapes `(rows, width)` -> `(rows, labels)`."""
        return self.out(self.dropout(self.activation(self.dense(self.dropout(pooled)))))  # type: ignore[no-any-return]  # torch's modules are untyped calls


class MultiExitModel(ExitBackbone):
    """A backbone whose every exit layer has a head on a pooled vector.

    Attributes:
        pooling: `mean` or `first`.
        activation: of the heads.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        *,
        layers: Sequence[int] | None = None,
        pooling: str = "mean",
        activation: str = "tanh",
        dropout: float = 0.1,
    ) -> None:
        super().__init__(backbone, layers)
        if pooling not in ("mean", "first"):
            raise OptionError(f"pooling must be mean or first, was: {pooling}")
        self.pooling = pooling
        self.activation = activation
        config = self.config
        self.heads = nn.ModuleList(
            ExitHead(config.hidden_size, config.num_labels, dropout=dropout, activation=activation) for _ in self.layers
        )

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """All exits' logits: `input_ids`, `attention_mask` `(rows, longest)` -> `logits` `(rows, exits, labels)`.

        `labels` is accepted for the Trainer's sake; the loss is the objective's.
        """
        states = self.states(input_ids, attention_mask, token_type_ids)
        logits = [
            head(pool(states[layer], attention_mask, self.pooling))
            for head, layer in zip(self.heads, self.layers, strict=True)
        ]
        return {"logits": torch.stack(logits, dim=1)}

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str | Path,
        *,
        labels: Sequence[str],
        layers: Sequence[int] | None = None,
        pooling: str | None = None,
        multi_label: bool = False,
        dropout: float | None = None,
    ) -> MultiExitModel:
        """Start from a pre-trained or fine-tuned checkpoint, or go on from a multi-exit one.

        A fine-tuned classifier (`...ForSequenceClassification`) keeps its head as the last exit, so full depth answers
        as before. It, and a multi-exit checkpoint, also keep their labels, the labels' order and the `problem_type`.

        Args:
            checkpoint: a folder or a Hub id.
            labels: names of the labels that the data have; some may be missing of a fine-tuned checkpoint's.
            layers: the exits' layers; every layer by default.
            pooling: `mean`, `first`; by default what the checkpoint has, else `mean`.
            multi_label: ask for a sigmoid per label. A checkpoint that says it has one keeps it without being asked.
            dropout: in the backbone; the checkpoint's by default. 0 trains a fifth faster on a CPU.

        Raises:
            DataError: a label that the fine-tuned checkpoint does not have; no label set at all.
            OptionError: a checkpoint for another problem: regression, or a single label where several are asked for.
        """
        config = load_config(checkpoint, dropout=dropout)
        going_on = bool(getattr(config, "cascade_exits", None))
        if going_on or _fine_tuned(config):
            problem = _kept_problem(config, multi_label)
            check_labels(labels, named_labels(config))
            labels = named_labels(config)
        else:
            problem = MULTI_LABEL if multi_label else SINGLE_LABEL
            if len(labels) < 2 and not (labels and multi_label):
                raise DataError(f"the training data must have at least two labels, have: {list(labels) or 'none'}")
        if going_on:
            return cls.from_pretrained(checkpoint, config=config)
        backbone, head = _backbone_and_head(checkpoint, config)
        config = backbone.config
        name_labels(config, labels)
        config.problem_type = problem
        config.architectures = None
        activation = FAMILIES[config.model_type].head[1] if config.model_type in FAMILIES else "tanh"
        model = cls(
            backbone,
            layers=layers,
            pooling=pooling or ("first" if head else "mean"),
            activation=activation if head else "tanh",
        )
        if head:
            model.heads[-1].load_state_dict(head)
        return model

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, config: PretrainedConfig | None = None) -> MultiExitModel:
        """Load what `save_pretrained` wrote: a folder or a Hub id; `config` in place of the one that stands there."""
        config = config or load_config(folder)
        exits = read_exits(config, source=folder, task=CLASSIFICATION)
        model = cls(
            AutoModel.from_config(config, **without_pooler(config)),
            layers=exits["layers"],
            pooling=exits["pooling"],
            activation=exits["activation"],
        )
        load_weights(model, folder)
        return model.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`, each renamed into place when whole."""
        self._save(folder, {"layers": list(self.layers), "pooling": self.pooling, "activation": self.activation})


def _fine_tuned(config: PretrainedConfig) -> bool:
    """Whether a checkpoint has a classifier's head that this module reads."""
    named = any("ForSequenceClassification" in name for name in config.architectures or ())
    return named and config.model_type in FAMILIES


def _kept_problem(config: PretrainedConfig, multi_label: bool) -> str:
    """The `problem_type` of a checkpoint with a head: its own, and where it says nothing what is asked for."""
    own: str | None = config.problem_type
    if own == "regression" or (config.num_labels == 1 and own != MULTI_LABEL):
        raise OptionError(
            f"the checkpoint must be a classifier, was for regression: {own}, {config.num_labels} output(s); "
            "start from the pre-trained checkpoint with labels"
        )
    if own == SINGLE_LABEL and multi_label:
        raise OptionError(
            f"--multi-label must fit the checkpoint's problem_type, which is {own}; leave it out, or start from the "
            "pre-trained checkpoint"
        )
    return own or (MULTI_LABEL if multi_label else SINGLE_LABEL)


def _backbone_and_head(
    checkpoint: str | Path, config: PretrainedConfig
) -> tuple[PreTrainedModel, dict[str, Tensor] | None]:
    """The encoder, and the fine-tuned head where the checkpoint has one."""
    backbone = AutoModel.from_pretrained(checkpoint, config=config, **without_pooler(config))
    if not _fine_tuned(config):
        return backbone, None
    from transformers import AutoModelForSequenceClassification

    whole = AutoModelForSequenceClassification.from_pretrained(checkpoint).state_dict()
    dense, _, out = FAMILIES[config.model_type].head
    head = {
        "dense.weight": whole[f"{dense}.weight"],
        "dense.bias": whole[f"{dense}.bias"],
        "out.weight": whole[f"{out}.weight"],
        "out.bias": whole[f"{out}.bias"],
    }
    return backbone, head

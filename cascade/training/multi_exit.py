"""The second tier as a torch model: a Hugging Face backbone with a classification head at every exit.

It leaves to others: what the heads are trained on (`objectives`), the packed ONNX form (`export/stages.py`).

A checkpoint is a plain folder: `config.json` (the backbone's, with a `cascade_exits` entry), `model.safetensors`
(`backbone.*` and `heads.*`) and the tokenizer's files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.utils.hub import cached_file

from cascade.exceptions import DataError, OptionError

__all__ = ["FAMILIES", "ExitHead", "MultiExitModel", "pool"]

# Where each family keeps its fine-tuned head: (first linear, activation, second linear). Sources: the
# `*ForSequenceClassification` classes of transformers.
FAMILIES = {
    "bert": ("bert.pooler.dense", "tanh", "classifier"),
    "roberta": ("classifier.dense", "tanh", "classifier.out_proj"),
    "electra": ("classifier.dense", "gelu", "classifier.out_proj"),
    "distilbert": ("pre_classifier", "relu", "classifier"),
    "albert": ("albert.pooler", "tanh", "classifier"),
}


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


class MultiExitModel(nn.Module):
    """A backbone whose every exit layer has a head.

    Attributes:
        backbone: a transformers encoder without its pooler.
        heads: one `ExitHead` per exit.
        layers: the layer after which each exit lies, counted from 1; the last is the number of layers.
        pooling: `mean` or `first`.
        detach: whether gradients stop between exits (SWEET, section 4 of the paper).
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
        super().__init__()
        config = backbone.config
        depth: int = config.num_hidden_layers
        if config.model_type not in FAMILIES:
            raise OptionError(
                f"the checkpoint's model_type must be one of {', '.join(FAMILIES)}, was: {config.model_type}"
            )
        chosen = tuple(range(1, depth + 1)) if layers is None else tuple(layers)
        if list(chosen) != sorted(set(chosen)) or not chosen or chosen[0] < 1 or chosen[-1] != depth:
            raise OptionError(f"exits must rise from 1 or more and end at the last layer, {depth}; were: {chosen}")
        if pooling not in ("mean", "first"):
            raise OptionError(f"pooling must be mean or first, was: {pooling}")
        self.backbone = backbone
        self.layers = chosen
        self.pooling = pooling
        self.activation = activation
        self.detach = False
        self.heads = nn.ModuleList(
            ExitHead(config.hidden_size, config.num_labels, dropout=dropout, activation=activation) for _ in chosen
        )
        self._hook_layers()

    @property
    def config(self) -> Any:
        """The backbone's `PretrainedConfig`, with the labels; untyped, because its fields differ by family."""
        return self.backbone.config

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels, in the order of the logits."""
        return tuple(self.config.id2label[i] for i in range(self.config.num_labels))

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
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None and self.config.model_type != "distilbert":
            inputs["token_type_ids"] = token_type_ids
        self._seen = 0
        states = self.backbone(**inputs, output_hidden_states=True, return_dict=True).hidden_states
        logits = [
            head(pool(states[layer], attention_mask, self.pooling))
            for head, layer in zip(self.heads, self.layers, strict=True)
        ]
        return {"logits": torch.stack(logits, dim=1)}

    def _hook_layers(self) -> None:
        """Stop gradients at the input of each layer that follows an exit, while `detach` is set."""
        encoder: Any = self.backbone.transformer if self.config.model_type == "distilbert" else self.backbone.encoder
        modules = encoder.albert_layer_groups if self.config.model_type == "albert" else encoder.layer
        self._seen = 0

        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            # ALBERT calls the same group again and again, so layers are counted rather than named.
            position, self._seen = self._seen, self._seen + 1
            if not self.detach or position not in self.layers:
                return None
            if args:
                return (args[0].detach(), *args[1:]), kwargs
            name = "x" if "x" in kwargs else "hidden_states"
            return args, {**kwargs, name: kwargs[name].detach()}

        for module in modules:
            module.register_forward_pre_hook(before, with_kwargs=True)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str | Path,
        *,
        labels: Sequence[str],
        layers: Sequence[int] | None = None,
        pooling: str | None = None,
        problem_type: str = "single_label_classification",
        dropout: float | None = None,
    ) -> MultiExitModel:
        """Start from a pre-trained or fine-tuned checkpoint, or go on from a multi-exit one.

        A fine-tuned classifier (`...ForSequenceClassification`) of the same labels keeps its head as the last exit,
        so full depth answers as before.

        Args:
            checkpoint: a folder or a Hub id.
            labels: names of the labels.
            layers: the exits' layers; every layer by default.
            pooling: `mean`, `first`; by default what the checkpoint has, else `mean`.
            problem_type: transformers' name for a softmax or a sigmoid over the labels.
            dropout: in the backbone; the checkpoint's by default. 0 trains a fifth faster on a CPU.
        """
        config = AutoConfig.from_pretrained(checkpoint)
        if dropout is not None:
            for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"):
                if hasattr(config, name):
                    setattr(config, name, dropout)
        if getattr(config, "cascade_exits", None):
            model = cls.from_pretrained(checkpoint, config=config)
            if model.labels != tuple(labels):
                raise DataError(
                    f"the data's labels must be the checkpoint's, {list(model.labels)}, were: {list(labels)}; "
                    "train on the same label set or start from the pre-trained checkpoint"
                )
            return model
        backbone, head = _backbone_and_head(checkpoint, config, labels)
        config = backbone.config
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: i for i, label in enumerate(labels)}
        config.problem_type = problem_type
        config.architectures = None
        activation = FAMILIES[config.model_type][1] if config.model_type in FAMILIES else "tanh"
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
        config = config or AutoConfig.from_pretrained(folder)
        exits = getattr(config, "cascade_exits", None)
        if not exits:
            raise OptionError(
                f"{folder} must hold a multi-exit model (config.json with cascade_exits); "
                "make one with cascade-train exits"
            )
        model = cls(
            AutoModel.from_config(config, **_without_pooler(config)),
            layers=exits["layers"],
            pooling=exits["pooling"],
            activation=exits["activation"],
        )
        model.load_state_dict(load_file(str(cached_file(folder, "model.safetensors"))))
        return model.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`, each renamed into place when whole."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = self.config.to_dict()
        config["cascade_exits"] = {
            "layers": list(self.layers),
            "pooling": self.pooling,
            "activation": self.activation,
        }
        tensors = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        part = folder / "model.safetensors.part"
        save_file(tensors, str(part), metadata={"format": "pt"})
        part.replace(folder / "model.safetensors")
        part = folder / "config.json.part"
        part.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        part.replace(folder / "config.json")


def _without_pooler(config: PretrainedConfig) -> dict[str, bool]:
    """Only these families' constructors know the option; the others have no pooler."""
    return {"add_pooling_layer": False} if config.model_type in ("bert", "roberta", "albert") else {}


def _backbone_and_head(
    checkpoint: str | Path, config: PretrainedConfig, labels: Sequence[str]
) -> tuple[PreTrainedModel, dict[str, Tensor] | None]:
    """The encoder, and the fine-tuned head where the checkpoint has one for these labels."""
    backbone = AutoModel.from_pretrained(checkpoint, config=config, **_without_pooler(config))
    fine_tuned = any("ForSequenceClassification" in name for name in config.architectures or ())
    if not fine_tuned or config.model_type not in FAMILIES:
        return backbone, None
    names: Any = config.id2label
    named = tuple(names[i] for i in range(config.num_labels))
    if named != tuple(labels):
        raise DataError(
            f"the data's labels must be the fine-tuned checkpoint's, {list(named)}, were: {list(labels)}; rename the "
            "labels in the data or in the checkpoint's config.json, or start from the pre-trained checkpoint"
        )
    from transformers import AutoModelForSequenceClassification

    whole = AutoModelForSequenceClassification.from_pretrained(checkpoint).state_dict()
    dense, _, out = FAMILIES[config.model_type]
    head = {
        "dense.weight": whole[f"{dense}.weight"],
        "dense.bias": whole[f"{dense}.bias"],
        "out.weight": whole[f"{out}.weight"],
        "out.bias": whole[f"{out}.bias"],
    }
    return backbone, head

"""What both second tiers share: a Hugging Face encoder whose layers can be watched, with heads at some of them.

It runs the encoder and says where exits lie; gradients stop between exits where asked, and tokens may stop before the
last layer.

A checkpoint is a plain folder: `config.json` (the encoder's, with a `cascade_exits` entry), `model.safetensors`
(`backbone.*` and `heads.*`) and the tokenizer's files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.utils.hub import cached_file

from cascade.core.files import staged, write
from cascade.exceptions import DataError, OptionError
from cascade.training.models.families import FAMILIES, family_of, max_length

__all__ = [
    "CLASSIFICATION",
    "TAGGING",
    "ExitBackbone",
    "check_labels",
    "default_names",
    "load_config",
    "load_weights",
    "name_labels",
    "named_labels",
    "read_exits",
    "without_pooler",
]

CLASSIFICATION, TAGGING = "text-classification", "token-classification"


class ExitBackbone(nn.Module):
    """An encoder, and the layers after which exits lie.

    Attributes:
        backbone: a transformers encoder without its pooler.
        heads: one per exit; whoever inherits from this makes them.
        layers: the layer after which each exit lies, counted from 1; the last is the number of layers.
        detach: whether gradients stop between exits (SWEET, section 4 of the paper).
    """

    heads: nn.ModuleList

    def __init__(self, backbone: PreTrainedModel, layers: Sequence[int] | None) -> None:
        super().__init__()
        config = backbone.config
        depth: int = config.num_hidden_layers
        self.family = family_of(config)
        chosen = tuple(range(1, depth + 1)) if layers is None else tuple(layers)
        if list(chosen) != sorted(set(chosen)) or not chosen or chosen[0] < 1 or chosen[-1] != depth:
            raise OptionError(f"exits must rise from 1 or more and end at the last layer, {depth}; were: {chosen}")
        self.backbone = backbone
        self.layers = chosen
        self.detach = False
        self._seen = 0
        self._exit_layers: Tensor | None = None
        self._hook_layers()

    @property
    def config(self) -> Any:
        """The backbone's `PretrainedConfig`, with the labels; untyped, because its fields differ by family."""
        return self.backbone.config

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels, in the order of the logits."""
        return named_labels(self.config)

    @property
    def longest(self) -> int:
        """Tokens that a row may have."""
        return max_length(self.config)

    def learn(self, *, detach: bool, frozen: bool) -> None:
        """Choose what the next training changes.

        Args:
            detach: gradients stop between exits.
            frozen: the backbone keeps its weights. So does the last head: full depth must answer as before.
        """
        self.detach = detach
        self.backbone.requires_grad_(not frozen)
        self.heads.requires_grad_(True)
        self.heads[-1].requires_grad_(not frozen)

    def states(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None,
        exit_layers: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Hidden states before the first layer and after every layer. Each of shape `(rows, longest, width)`.

        Args:
            input_ids: shape `(rows, longest)`.
            attention_mask: 0 at padding. Shape `(rows, longest)`.
            token_type_ids: shape `(rows, longest)`, or None.
            exit_layers: the last layer in which each token is active, counted from 1. Shape `(rows, longest)`. After
                it a token keeps its state, and others go on attending to it (halt-and-copy).
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None and getattr(self.config, "type_vocab_size", 0) > 1:  # a single type says nothing
            inputs["token_type_ids"] = token_type_ids
        self._seen, self._exit_layers = 0, exit_layers
        try:
            found: tuple[Tensor, ...] = self.backbone(
                **inputs, output_hidden_states=True, return_dict=True
            ).hidden_states
        finally:
            self._exit_layers = None
        return found

    def _hook_layers(self) -> None:
        """Watch the layers: what goes in is detached after an exit, what comes out is kept where tokens have halted."""

        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            # ALBERT calls the same layer again and again, so layers are counted rather than named.
            position, self._seen = self._seen, self._seen + 1
            if not self.detach or position not in self.layers:
                return None
            if args:
                return (args[0].detach(), *args[1:]), kwargs
            name = _first_name(kwargs)
            return args, {**kwargs, name: kwargs[name].detach()}

        def after(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            if self._exit_layers is None:
                return None
            old = args[0] if args else kwargs[_first_name(kwargs)]
            active = (self._exit_layers >= self._seen).unsqueeze(-1)
            if isinstance(output, tuple):  # the state is the only tensor: nobody asks for attention
                return (torch.where(active, output[0], old), *output[1:])
            return torch.where(active, output, old)

        for module in dict.fromkeys(self.family.layers(self.backbone)):
            module.register_forward_pre_hook(before, with_kwargs=True)
            module.register_forward_hook(after, with_kwargs=True)

    def _save(self, folder: str | Path, exits: Mapping[str, Any]) -> None:
        """Write `config.json` and `model.safetensors`, each renamed into place when whole."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = self.config.to_dict()
        config["cascade_exits"] = dict(exits)
        tensors = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        with staged(folder / "model.safetensors") as path:
            save_file(tensors, str(path), metadata={"format": "pt"})
        write(folder / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")


def load_config(checkpoint: str | Path, *, dropout: float | None = None) -> Any:
    """A checkpoint's configuration; `dropout` in place of every one that stands there.

    Raises:
        OptionError: there is none that transformers knows.
    """
    try:
        config = AutoConfig.from_pretrained(checkpoint)
    except ValueError as error:
        reason = str(error).split(". ", 1)[0]  # transformers goes on with the names of all its models
        remedy = "give the folder of a whole model"
        if (Path(checkpoint) / "adapter_config.json").is_file():
            remedy = "it holds an adapter: merge it into its model first (merge_and_unload) and save that"
        raise OptionError(
            f"{checkpoint} must be a checkpoint that transformers reads, but: {reason}; {remedy}"
        ) from None
    if dropout is not None:
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"):
            if hasattr(config, name):
                setattr(config, name, dropout)
    return config


def read_exits(config: Any, *, source: str | Path, task: str) -> dict[str, Any]:
    """The `cascade_exits` of a configuration.

    Raises:
        OptionError: there are none, or they are another task's.
    """
    exits: dict[str, Any] | None = getattr(config, "cascade_exits", None)
    if not exits:
        raise OptionError(
            f"{source} must hold a multi-exit model (config.json with cascade_exits); make one with cascade-train exits"
        )
    found = exits.get("task", CLASSIFICATION)
    if found != task:
        raise OptionError(
            f"{source} must hold a multi-exit model for {task}, was for: {found}; "
            f"choose its task, or make one with cascade-train exits --task {_OPTION[task]}"
        )
    return exits


_OPTION = {CLASSIFICATION: "classification", TAGGING: "tagging"}


def load_weights(model: nn.Module, folder: str | Path) -> None:
    """Fill a model from the `model.safetensors` of a folder or Hub id."""
    model.load_state_dict(load_file(str(cached_file(folder, "model.safetensors"))))


def named_labels(config: Any) -> tuple[str, ...]:
    """The names of a configuration's labels, in the order of the logits."""
    return tuple(config.id2label[i] for i in range(config.num_labels))


def default_names(labels: Sequence[str]) -> bool:
    """Whether these are the names that transformers gives to labels without names: `LABEL_0`, `LABEL_1`, ..."""
    return list(labels) == [f"LABEL_{number}" for number in range(len(labels))]


def check_labels(found: Sequence[str], known: Sequence[str]) -> None:
    """Refuse labels that a checkpoint does not have; the number i stands for the default name `LABEL_i`.

    Raises:
        DataError: naming the first of them.
    """
    numbers = {str(number) for number in range(len(known))} if default_names(known) else set()
    unknown = [label for label in found if label not in known and label not in numbers]
    if not unknown:
        return
    shown = f"{list(known[:8])}{f' and {len(known) - 8} more' if len(known) > 8 else ''}"
    remedy = "rename it in the data"
    if numbers:  # the names may be given, but not in another order
        remedy = "name labels in the data by these names or their numbers, in the order in which the checkpoint learned"
    raise DataError(
        f"the data's labels must be among the checkpoint's, {shown}, but there was: {unknown[0]}; {remedy}, or start "
        "from the pre-trained checkpoint"
    )


def name_labels(config: Any, labels: Sequence[str]) -> None:
    """Give a configuration these labels."""
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}


def without_pooler(config: PretrainedConfig) -> dict[str, bool]:
    """Only these families' constructors know the option; the others have no pooler."""
    family = FAMILIES.get(config.model_type)
    return {"add_pooling_layer": False} if family is not None and family.pooler else {}


def _first_name(kwargs: Mapping[str, Any]) -> str:
    return "x" if "x" in kwargs else "hidden_states"

"""What both second tiers share: a Hugging Face encoder whose layers can be watched, with heads at some of them.

A checkpoint is a plain folder: `config.json` (the encoder's, with a `cascade_exits` entry), `model.safetensors`
(`backbone.*` and `heads.*`) and the tokenizer's files.
"""

from __future__ import annotations

import copy
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel
from transformers.utils.hub import cached_file
from typing_extensions import Self

from cascade.core.files import staged, write
from cascade.exceptions import OptionError
from cascade.training.checkpoint import FewerRows
from cascade.training.models.config import (
    check_new,
    has_head,
    load_config,
    load_model,
    name_labels,
    named_labels,
    read_exits,
)
from cascade.training.models.families import HeadParts, family_of
from cascade.training.models.teacher import Teacher


class ExitBackbone(Teacher):
    """An encoder, and the layers after which exits lie.

    Attributes:
        whole: the class of transformers that reads a fine-tuned checkpoint.
        head: field of the family that says where such a checkpoint has the parts of its head.
        backbone: a transformers encoder without its pooler.
        heads: one per exit, made by the subclass.
        norms: one per exit, before its head: LayerNorms in families with one behind the last layer, else nothing.
        layers: the layer after which each exit lies, counted from 1; the last is the number of layers.
        detach: whether gradients stop between exits (SWEET, section 4 of the paper).
    """

    whole: ClassVar[Any]
    head: ClassVar[str]
    heads: nn.ModuleList

    def __init__(self, backbone: PreTrainedModel, layers: Sequence[int] | None) -> None:
        super().__init__()
        config = backbone.config
        depth: int = config.num_hidden_layers
        self.family = family_of(config)
        chosen = tuple(range(1, depth + 1)) if layers is None else tuple(layers)
        if list(chosen) != sorted(set(chosen)) or not chosen or chosen[0] < 1 or chosen[-1] != depth:
            raise OptionError(f"exits must rise from 1 or more and end at the last layer, {depth}, got {chosen}")
        self.backbone = backbone
        self.layers = chosen
        self.detach = False
        name = self.family.final_norm
        norm = nn.Identity() if name is None else backbone.get_submodule(name)
        self.norms = nn.ModuleList(copy.deepcopy(norm) for _ in chosen)
        self._states: list[Tensor] | None = None
        self._exit_layers: Tensor | None = None
        self._hook_layers()

    def configure_training(self, *, detach: bool, frozen: bool, frozen_layers: int = 0) -> None:
        """Choose what the next training changes.

        Args:
            detach: gradients stop between exits.
            frozen: the backbone keeps its weights. So does the last head: full depth must answer as before.
            frozen_layers: so many of the lowest layers keep their weights, and the embeddings below them do.
        """
        self.detach = detach
        self.backbone.requires_grad_(not frozen)
        if frozen_layers:
            layers = self.family.layers(self.backbone)
            if not 0 < frozen_layers < len(layers):
                raise OptionError(f"frozen layers must be 1 to {len(layers) - 1}, got {frozen_layers}; freeze fewer")
            self.backbone.requires_grad_(False)
            for layer in () if frozen else layers[frozen_layers:]:
                layer.requires_grad_(True)
        for parts in (self.heads, self.norms):
            parts.requires_grad_(True)
            parts[-1].requires_grad_(not frozen)

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
    ) -> Self:
        """Start from a pre-trained or fine-tuned checkpoint, or go on from a multi-exit one.

        A fine-tuned model (`...ForSequenceClassification`, `...ForTokenClassification`) keeps its head as the last
        exit, so full depth answers as before. It, and a multi-exit checkpoint, also keep their labels, the labels'
        order and the `problem_type`.

        Args:
            checkpoint: a folder or a Hub id.
            labels: names of the labels that the data have, for new heads; a fine-tuned checkpoint has its own.
            layers: the exits' layers; every layer by default.
            pooling: of a classifier, `mean` or `first`; by default what the checkpoint has, else `mean`. The last exit
                of a fine-tuned checkpoint reads what it always read.
            multi_label: of a classifier, ask for a sigmoid per label. A checkpoint that says it has one keeps it
                without being asked.
            dropout: in the backbone; the checkpoint's by default. 0 trains a fifth faster on a CPU.

        Raises:
            DataError: labels that new heads cannot have.
            OptionError: a checkpoint for another task or problem: a regression of several numbers, or a single label
                where several are asked for; one of another family (`family_of`).
        """
        config = load_config(checkpoint, dropout=dropout)
        family = family_of(config)
        going_on = bool(getattr(config, "cascade_exits", None))
        fine_tuned = has_head(config, cls.whole)
        known = going_on or fine_tuned
        problem, options = cls._heads_for(config, multi_label=multi_label, known=known, layers=layers, pooling=pooling)
        if known:
            labels = named_labels(config)
        else:
            check_new(labels, multi_label=multi_label)
        if going_on:
            return cls.from_pretrained(checkpoint, config=config)
        if fine_tuned:
            whole = load_model(cls.whole, checkpoint, config=config)
        else:
            whole = load_model(AutoModel, checkpoint, config=config, options=family.options)
        head = whole.state_dict()
        backbone = whole.base_model.train()
        if family.pooler:  # it is part of the head, or nobody reads it
            backbone.pooler = None
        config = backbone.config
        name_labels(config, labels)
        config.problem_type = problem
        config.architectures = None
        model = cls(backbone, layers=layers, **options)
        if fine_tuned:
            model.heads[-1].load_state_dict(_head_weights(getattr(family, cls.head), head))
        return model

    @classmethod
    def answers(cls, checkpoint: str | Path) -> bool:
        """Whether a checkpoint has a head for this task, so that its answers can stand for labels.

        An `OptionError`: it is of another family.
        """
        config = load_config(checkpoint)
        family_of(config)  # before any file is read
        return bool(getattr(config, "cascade_exits", None)) or has_head(config, cls.whole)

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, config: PretrainedConfig | None = None) -> Self:
        """Load what `save_pretrained` wrote: a folder or a Hub id; `config` in place of the one that stands there."""
        config = config or load_config(folder)
        exits = read_exits(config, source=folder, task=cls.task)
        options = {name: value for name, value in exits.items() if name not in ("task", "rows")}
        model = cls(AutoModel.from_config(config, **family_of(config).options), **options)
        if "rows" in exits:
            table: Any = model.backbone.get_input_embeddings()
            fewer = FewerRows(table.num_embeddings, exits["rows"], table.embedding_dim)
            model.backbone.set_input_embeddings(fewer)
        model.load_state_dict(load_file(str(cached_file(folder, "model.safetensors"))))
        return model.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`, each renamed into place when whole."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        with staged(folder / "model.safetensors") as path:
            save_file(tensors, str(path), metadata={"format": "pt"})
        table = self.backbone.get_input_embeddings()
        rows = {"rows": table.num_embeddings} if isinstance(table, FewerRows) else {}
        config = self.config.to_dict() | {"cascade_exits": self.exits | rows}
        write(folder / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")

    @classmethod
    def _heads_for(
        cls, config: Any, *, multi_label: bool, known: bool, layers: Sequence[int] | None, pooling: str | None
    ) -> tuple[str | None, dict[str, Any]]:
        """The `problem_type` of the model, and options of its constructor; `known`: like a head that is there."""
        return None, {}

    @abstractmethod
    def read(self, state: Tensor, attention_mask: Tensor, exit_index: int) -> Tensor:
        """What the head of an exit reads of its layer's states, of shape `(rows, longest, width)`."""

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        exit_layers: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """All exits' `logits`, for the arguments of `states`.

        Shape `(rows, exits, labels)`, of words `(rows, exits, longest, labels)`; those of a token that has halted are
        of an old state.
        """
        read = self.reads(input_ids, attention_mask, token_type_ids, exit_layers)
        return {"logits": torch.stack([head(own) for head, own in zip(self.heads, read, strict=True)], dim=1)}

    def reads(self, input_ids: Tensor, attention_mask: Tensor, *others: Tensor | None) -> list[Tensor]:
        """What each head reads, for the arguments of `states`."""
        states, places = self.states(input_ids, attention_mask, *others), zip(self.norms, self.layers, strict=True)
        return [self.read(norm(states[layer]), attention_mask, n) for n, (norm, layer) in enumerate(places)]

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
        # What the layers give is kept here: what transformers calls hidden states differs by version and family.
        found: list[Tensor] = []
        self._states, self._exit_layers = found, exit_layers
        try:
            self.backbone(**inputs, return_dict=True)
        finally:
            self._states = self._exit_layers = None
        return tuple(found)

    def _hook_layers(self) -> None:
        """Watch the layers: what goes in is detached after an exit, what comes out is kept where tokens have halted."""

        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if self._states is None:
                return None
            if not self._states:
                self._states.append(args[0] if args else kwargs[_first_name(kwargs)])
            # ALBERT calls the same layer again and again, so layers are counted rather than named.
            if not self.detach or len(self._states) - 1 not in self.layers:
                return None
            if args:
                return (args[0].detach(), *args[1:]), kwargs
            name = _first_name(kwargs)
            return args, {**kwargs, name: kwargs[name].detach()}

        def after(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            if self._states is None:
                return None
            new = output[0] if isinstance(output, tuple) else output  # a tuple's only tensor: nobody asks for attention
            if self._exit_layers is not None:
                old = args[0] if args else kwargs[_first_name(kwargs)]
                new = torch.where((self._exit_layers >= len(self._states)).unsqueeze(-1), new, old)
            self._states.append(new)
            return (new, *output[1:]) if isinstance(output, tuple) else new

        for module in dict.fromkeys(self.family.layers(self.backbone)):
            module.register_forward_pre_hook(before, with_kwargs=True)
            module.register_forward_hook(after, with_kwargs=True)


def _first_name(kwargs: Mapping[str, Any]) -> str:
    return "x" if "x" in kwargs else "hidden_states"


def _head_weights(parts: HeadParts, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of an exit's head among those of a fine-tuned checkpoint; a bias that is not there is 0."""
    names = {"": parts.out} if parts.dense is None else {"dense.": parts.dense, "norm.": parts.norm, "out.": parts.out}
    found: dict[str, Tensor] = {}
    for own, name in names.items():
        if name is not None:
            weight = found[f"{own}weight"] = weights[f"{name}.weight"]
            found[f"{own}bias"] = weights.get(f"{name}.bias", weight.new_zeros(len(weight)))
    return found

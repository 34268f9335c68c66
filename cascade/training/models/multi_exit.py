"""The second tiers: an encoder with a head at every exit, on a vector per text or on every token.

A word's tag is read at its first token. Tokens may stop before the last layer (`exit_layers`): the masked form of
halt-and-copy, by which the packed ONNX form is checked. With adapters a few weights learn beside frozen ones, and are
merged before the model is saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, PreTrainedModel
from transformers.activations import ACT2FN

from cascade.core.checks import check_whole
from cascade.exceptions import OptionError
from cascade.training.models.backbone import ExitBackbone
from cascade.training.models.config import (
    CLASSIFICATION,
    MULTI_LABEL,
    REGRESSION,
    SINGLE_LABEL,
    TAGGING,
    peft_for,
    problem_of,
)
from cascade.training.models.families import HeadParts, family_of


def pool(hidden: Tensor, attention_mask: Tensor, pooling: str) -> Tensor:
    """One vector per row. Shapes `(rows, longest, width)`, `(rows, longest)` -> `(rows, width)`.

    `first` takes the first token's state, `mean` the mean over the row's tokens, special ones included.
    """
    if pooling == "first":
        return hidden[:, 0]
    weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


class ExitHead(nn.Module):
    """Dropout, linear, activation, LayerNorm in some families, dropout, linear: the form of a fine-tuned head."""

    def __init__(self, config: Any, parts: HeadParts, *, dropout: float, activation: str) -> None:
        super().__init__()
        width = config.hidden_size
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(width, width)
        self.activation = ACT2FN[activation]
        self.norm = nn.Identity() if parts.norm is None else nn.LayerNorm(width, eps=config.norm_eps)
        self.out = nn.Linear(width, config.num_labels)

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits. Shapes `(..., width)` -> `(..., labels)`."""
        inner = self.norm(self.activation(self.dense(self.dropout(pooled))))
        return self.out(self.dropout(inner))  # type: ignore[no-any-return]  # torch's modules are untyped calls


def activation_of(config: Any, parts: HeadParts) -> str:
    """Name of the activation of a fine-tuned head."""
    return str(getattr(config, parts.activation, parts.activation))


class MultiExitModel(ExitBackbone):
    """A backbone whose every exit layer has a head on a pooled vector.

    `pooling`: `mean` or `first`, one per exit; `activation`: of the heads.
    """

    task = CLASSIFICATION
    whole = AutoModelForSequenceClassification
    head = "head"

    def __init__(
        self,
        backbone: PreTrainedModel,
        *,
        layers: Sequence[int] | None = None,
        pooling: str | Sequence[str] = "mean",
        activation: str = "tanh",
        dropout: float = 0.1,
    ) -> None:
        super().__init__(backbone, layers)
        self.pooling = (pooling,) * len(self.layers) if isinstance(pooling, str) else tuple(pooling)
        if len(self.pooling) != len(self.layers) or not {*self.pooling} <= {"mean", "first"}:
            raise OptionError(f"pooling must be mean or first, for all exits or one per exit, got {pooling}")
        self.activation = activation
        parts = self.family.head
        self.heads = nn.ModuleList(
            ExitHead(self.config, parts, dropout=dropout, activation=activation) for _ in self.layers
        )

    def read(self, state: Tensor, attention_mask: Tensor, exit_index: int) -> Tensor:
        """One vector per row."""
        return pool(state, attention_mask, self.pooling[exit_index])

    @property
    def exits(self) -> dict[str, Any]:
        pooling: str | list[str] = self.pooling[0] if len({*self.pooling}) == 1 else list(self.pooling)
        return {"layers": list(self.layers), "pooling": pooling, "activation": self.activation}

    @classmethod
    def _heads_for(
        cls, config: Any, *, multi_label: bool, known: bool, layers: Sequence[int] | None, pooling: str | None
    ) -> tuple[str, dict[str, Any]]:
        asked = MULTI_LABEL if multi_label else SINGLE_LABEL
        if not known:
            return asked, {"pooling": pooling or "mean"}
        own = problem_of(config)
        if own == REGRESSION and config.num_labels > 1:
            raise OptionError(f"a regression must have one output, got {config.num_labels}; fine-tune one for each")
        if multi_label and own != MULTI_LABEL and config.problem_type:
            raise OptionError(f"--multi-label must fit the checkpoint's problem_type, which is {own}; leave it out")
        family, earlier = family_of(config), len(layers or range(config.num_hidden_layers)) - 1
        last = family.pooling(config)
        options = {"pooling": (*[pooling or last] * earlier, last), "activation": activation_of(config, family.head)}
        return own if config.problem_type or own == MULTI_LABEL else asked, options


class MultiExitTagger(ExitBackbone):
    """A backbone whose every exit layer has a head on each token's state (SENTEE and TOKEE, ACL 2021).

    It is one linear layer, or what the family's own token classifiers have.
    """

    task = TAGGING
    whole = AutoModelForTokenClassification
    head = "tag_head"

    def __init__(self, backbone: PreTrainedModel, *, layers: Sequence[int] | None = None, dropout: float = 0.1) -> None:
        super().__init__(backbone, layers)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleList(self._new_head() for _ in self.layers)

    def _new_head(self) -> nn.Module:
        config, parts = self.config, self.family.tag_head
        if parts.dense is None:
            return nn.Linear(config.hidden_size, config.num_labels)
        # `read` has dropped some of the state already.
        return ExitHead(config, parts, dropout=0.0, activation=activation_of(config, parts))

    def read(self, state: Tensor, attention_mask: Tensor, exit_index: int) -> Tensor:  # every token is read
        """Every token's state, some of it dropped in training."""
        return self.dropout(state)  # type: ignore[no-any-return]  # torch's modules are untyped calls

    @property
    def exits(self) -> dict[str, Any]:
        return {"task": TAGGING, "layers": list(self.layers)}


ADAPTERS = ("lora", "ia3")


def adapt(model: ExitBackbone, kind: str, *, rank: int = 8) -> None:
    """Put adapters into the layers of a model, which is changed in place and answers as before until they learn.

    `kind`: `lora`, two thin matrices of `rank` columns beside every linear layer (Hu et al., ICLR 2022), or `ia3`, a
    factor for each channel of keys, values and what the second linear layer of the feed-forward part reads (Liu et al.,
    NeurIPS 2022, section 3.3; their recipe, T-Few, takes a learning rate of 3e-3). Without `peft` a
    `MissingExtraError`; another kind, an impossible rank, or a family that does not tell its keys from its queries is
    an `OptionError`.
    """
    if kind not in ADAPTERS:
        raise OptionError(f"adapter must be one of {', '.join(ADAPTERS)}, got {kind}")
    check_whole("rank", rank, "8 is usual", least=1)
    peft = peft_for("--adapter")
    parts, layers = model.family.parts, dict.fromkeys(model.family.layers(model.backbone))
    names = {module: name for name, module in model.backbone.named_modules()}
    linear = {
        f"{names[layer]}.{name}": name
        for layer in layers
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear)
    }
    if kind == "lora":
        config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=[*linear])
    else:
        scaled = [full for full, name in linear.items() if name in (parts.key, parts.value, parts.contract)]
        read = [full for full in scaled if linear[full] == parts.contract]
        if len(scaled) != 3 * len(read) or not read:
            told = f"--adapter ia3 needs keys and values of their own, which a {model.config.model_type} does not have"
            raise OptionError(f"{told}; use --adapter lora")
        config = peft.IA3Config(target_modules=scaled, feedforward_modules=read)
    peft.inject_adapter_in_model(config, model.backbone)


def freeze_all_but_adapters(model: ExitBackbone) -> None:
    """Of what may learn in the backbone, only the adapters go on to, if there are some."""
    learning = {name: own for name, own in model.backbone.named_parameters() if own.requires_grad}
    adapters = {name for name in learning if ".lora_" in name or ".ia3_" in name}
    for name, parameter in learning.items():
        parameter.requires_grad_(not adapters or name in adapters)


def merge(model: ExitBackbone) -> None:
    """Put what adapters have learned into the weights beside them, and take the adapters out."""
    kind: Any = peft_for("--adapter").tuners.tuners_utils.BaseTunerLayer
    for name, module in [*model.backbone.named_modules()]:
        if isinstance(module, kind):
            adapter: Any = module
            adapter.merge()
            parent, _, own = name.rpartition(".")
            setattr(model.backbone.get_submodule(parent), own, adapter.get_base_layer().requires_grad_(True))

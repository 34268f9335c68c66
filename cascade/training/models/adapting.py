"""Adapters while a model is trained: a few weights learn beside frozen ones, and are merged before it is saved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from cascade.core.checks import check_whole
from cascade.exceptions import OptionError
from cascade.training.models.backbone import ExitBackbone
from cascade.training.models.config import peft_for

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
            raise OptionError(
                f"--adapter ia3 needs keys and values of their own, which a {model.config.model_type} does not have; "
                "use --adapter lora"
            )
        config = peft.IA3Config(target_modules=scaled, feedforward_modules=read)
    peft.inject_adapter_in_model(config, model.backbone)


@contextmanager
def adapted(model: ExitBackbone, kind: str | None, *, rank: int = 8) -> Iterator[None]:
    """Adapters in a model while this goes on, merged at its end; none where `kind` is None. See `adapt`."""
    if kind is None:
        yield
        return
    adapt(model, kind, rank=rank)
    yield
    merge(model)


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

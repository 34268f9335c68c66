"""The first tier: any classifier or tagger of transformers, or a static one, as one padded ONNX graph."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from cascade.exceptions import BundleError, OptionError
from cascade.training.models.backbone import CLASSIFICATION, TAGGING
from cascade.training.models.families import max_length
from cascade.training.models.static import StaticForSequenceClassification
from cascade.training.models.static_tagger import StaticForTokenClassification
from cascade_export.tracing import trace

__all__ = ["TierOne", "export_tier1", "first_line", "load_tier1"]

STATIC: dict[str, Any] = {
    "cascade_static": StaticForSequenceClassification,
    "cascade_static_tagger": StaticForTokenClassification,
}
TASKS: dict[str, Any] = {CLASSIFICATION: AutoModelForSequenceClassification, TAGGING: AutoModelForTokenClassification}


@dataclass(frozen=True, eq=False)
class TierOne:
    """A first tier in torch.

    Attributes:
        model: in evaluation mode and fp32.
        task: as transformers names it.
        kind: `static` or `transformer`.
        labels: names of its outputs, in order.
        problem_type: transformers' name; single-label where the checkpoint says nothing.
        max_length: tokens of a row at most, special tokens included.
        inputs: names of what its graph takes; `input_ids`, `attention_mask` and perhaps `token_type_ids`.
    """

    model: Any
    task: str
    kind: str
    labels: tuple[str, ...]
    problem_type: str
    max_length: int
    inputs: tuple[str, ...]


def load_tier1(folder: str | Path, *, task: str = CLASSIFICATION) -> TierOne:
    """Read a checkpoint: a folder whose `config.json` says what it is.

    Args:
        folder: of the checkpoint.
        task: that of tier 2.

    Raises:
        OptionError: there is no such checkpoint.
        BundleError: it is one for another task.
    """
    file = Path(folder) / "config.json"
    if not file.is_file():
        raise OptionError(f"tier 1 must be a checkpoint folder with a config.json, was: {folder}")
    found = json.loads(file.read_text(encoding="utf-8"))
    own = _task(found)
    if own not in (None, task):
        raise BundleError(
            f"both tiers must have the same task, tier 2 has {task}, tier 1 {own}; distil tier 1 from this tier 2"
        )
    static = STATIC.get(found.get("model_type"))
    try:
        # Eager attention: its graph is the smallest, and every family has it. fp32 whatever the weights are stored in.
        model = (static or TASKS[task]).from_pretrained(str(folder), attn_implementation="eager").float().eval()
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise OptionError(f"tier 1 must be a checkpoint that transformers reads, but {first_line(error)}") from None
    config = model.config
    typed = (getattr(config, "type_vocab_size", 0) or 0) > 1 and "token_type_ids" in _arguments(model)
    return TierOne(
        model=model,
        task=task,
        kind="static" if static else "transformer",
        labels=tuple(config.id2label[i] for i in range(config.num_labels)),
        problem_type=config.problem_type or "single_label_classification",
        max_length=max_length(config),
        inputs=("input_ids", "attention_mask", *(["token_type_ids"] if typed else [])),
    )


def export_tier1(tier: TierOne) -> onnx.ModelProto:
    """The graph `input_ids`, `attention_mask`[, `token_type_ids`] -> `logits`, in fp32.

    Raises:
        OptionError: torch cannot trace this model.
    """
    ids = torch.full((2, 8), tier.model.config.pad_token_id or 0)  # two rows, the second with padding
    mask = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    example = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    grid = ("batch_size", "sequence_length")
    try:
        return trace(
            _Logits(tier.model, tier.inputs),
            tuple(example[name] for name in tier.inputs),
            inputs=dict.fromkeys(tier.inputs, grid),
            outputs={"logits": grid if tier.task == TAGGING else grid[:1]},
        )
    except (RuntimeError, TypeError, ValueError) as error:  # of any of the hundred architectures
        raise OptionError(
            f"tier 1's model_type must be one that torch can trace, got {tier.model.config.model_type}; "
            f"{first_line(error)}"
        ) from None


class _Logits(nn.Module):
    """A model of transformers as a function of tensors, in the order of their names, to logits."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *tensors: Tensor) -> Tensor:
        logits: Tensor = self.model(**dict(zip(self.names, tensors, strict=True))).logits
        return logits


def _arguments(model: Any) -> Mapping[str, Any]:
    return inspect.signature(model.forward).parameters


def _task(config: Mapping[str, Any]) -> str | None:
    """What a checkpoint was trained for; None where its configuration does not say."""
    names = [*(config.get("architectures") or ()), getattr(STATIC.get(config.get("model_type", "")), "__name__", "")]
    if any("ForTokenClassification" in name for name in names):
        return TAGGING
    return CLASSIFICATION if any("ForSequenceClassification" in name for name in names) else None


def first_line(error: BaseException) -> str:
    """What an error of another library says, as far as it fits into one line."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__

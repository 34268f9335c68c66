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

from cascade.exceptions import BundleError, OptionError
from cascade.training.models.families import max_length
from cascade_export.tasks import TASKS, Task
from cascade_export.tracing import trace

__all__ = ["TierOne", "export_tier1", "first_line", "load_tier1"]


@dataclass(frozen=True, eq=False)
class TierOne:
    """A first tier in torch.

    Attributes:
        model: in evaluation mode and fp32.
        task: of the bundle.
        kind: `static` or `transformer`.
        labels: names of its outputs, in order.
        problem_type: transformers' name; single-label where the checkpoint says nothing.
        max_length: tokens of a row at most, special tokens included.
        inputs: names of what its graph takes; `input_ids`, `attention_mask` and perhaps `token_type_ids`.
    """

    model: Any
    task: Task
    kind: str
    labels: tuple[str, ...]
    problem_type: str
    max_length: int
    inputs: tuple[str, ...]


def load_tier1(folder: str | Path, *, task: Task) -> TierOne:
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
            f"both tiers must have the same task, tier 2 has {task.name}, tier 1 {own.name}; "
            "distil tier 1 from this tier 2"
        )
    static = found.get("model_type") == task.static.config_class.model_type
    try:
        # Eager attention: its graph is the smallest, and every family has it. fp32 whatever the weights are stored in.
        kind = task.static if static else task.auto
        model = kind.from_pretrained(str(folder), attn_implementation="eager").float().eval()
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise OptionError(f"tier 1 must be a checkpoint that transformers reads, but {first_line(error)}") from None
    config = model.config
    typed = (getattr(config, "type_vocab_size", 0) or 0) > 1 and "token_type_ids" in inspect.signature(
        model.forward
    ).parameters
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
            outputs={"logits": grid if tier.task.tags else grid[:1]},
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


def _task(config: Mapping[str, Any]) -> Task | None:
    """What a checkpoint was trained for; None where its configuration does not say."""
    for task in TASKS.values():
        ending = task.auto.__name__.removeprefix("AutoModel")
        named = any(ending in name for name in config.get("architectures") or ())
        if named or config.get("model_type") == task.static.config_class.model_type:
            return task
    return None


def first_line(error: BaseException) -> str:
    """What an error of another library says, as far as it fits into one line."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__

"""The first tier: an ordinary classifier or tagger or a static one, through optimum to one padded ONNX graph."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from optimum.exporters.onnx import export
from optimum.exporters.onnx.config import TextEncoderOnnxConfig
from optimum.exporters.tasks import TasksManager
from optimum.utils import NormalizedTextConfig
from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from cascade.exceptions import BundleError, OptionError
from cascade.training.models.backbone import CLASSIFICATION, TAGGING
from cascade.training.models.static import StaticForSequenceClassification
from cascade.training.models.static_tagger import StaticForTokenClassification

__all__ = ["StaticOnnxConfig", "TierOne", "export_tier1", "first_line", "load_tier1"]

OPSET = 20  # the first in which Gelu is one operator
STATIC: dict[str, Any] = {
    "cascade_static": StaticForSequenceClassification,
    "cascade_static_tagger": StaticForTokenClassification,
}
TASKS: dict[str, Any] = {CLASSIFICATION: AutoModelForSequenceClassification, TAGGING: AutoModelForTokenClassification}


class StaticOnnxConfig(TextEncoderOnnxConfig):  # type: ignore[misc]  # optimum ships no types
    """What optimum has to know about a static first tier."""

    NORMALIZED_CONFIG_CLASS = NormalizedTextConfig
    DEFAULT_ONNX_OPSET = OPSET

    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        """Names of the inputs and of their free axes."""
        axes = {0: "batch_size", 1: "sequence_length"}
        return {"input_ids": axes, "attention_mask": axes}


@dataclass(frozen=True, eq=False)
class TierOne:
    """A first tier in torch.

    Attributes:
        model: in evaluation mode.
        task: as transformers names it.
        kind: `static` or `transformer`.
        labels: names of its outputs, in order.
        problem_type: transformers' name; single-label where the checkpoint says nothing.
        max_length: tokens of a row at most, special tokens included.
    """

    model: Any
    task: str
    kind: str
    labels: tuple[str, ...]
    problem_type: str
    max_length: int


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
        model = (static or TASKS[task]).from_pretrained(str(folder)).eval()
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise OptionError(f"tier 1 must be a checkpoint that transformers reads, but {first_line(error)}") from None
    config = model.config
    offset = config.pad_token_id + 1 if config.model_type == "roberta" else 0
    return TierOne(
        model=model,
        task=task,
        kind="static" if static else "transformer",
        labels=tuple(config.id2label[i] for i in range(config.num_labels)),
        problem_type=config.problem_type or "single_label_classification",
        max_length=config.max_position_embeddings - offset,
    )


def export_tier1(tier: TierOne) -> onnx.ModelProto:
    """The graph `input_ids`, `attention_mask`[, `token_type_ids`] -> `logits`, in fp32.

    Raises:
        OptionError: optimum does not know this kind of model.
    """
    config = tier.model.config
    if tier.kind == "static":
        make = StaticOnnxConfig
    else:
        try:
            make = TasksManager.get_exporter_config_constructor(
                exporter="onnx", model=tier.model, task=tier.task, library_name="transformers"
            )
        except (KeyError, ValueError) as error:
            raise OptionError(
                f"tier 1's model_type must be one that optimum exports for {tier.task}, was: {config.model_type}; "
                f"{first_line(error)}"
            ) from None
    with tempfile.TemporaryDirectory(prefix="cascade-export-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, about constants of the models' own code
        file = Path(folder) / "model.onnx"
        export(tier.model, make(config, task=tier.task), file, opset=OPSET)
        return onnx.load(file)


def _task(config: Mapping[str, Any]) -> str | None:
    """What a checkpoint was trained for; None where its configuration does not say."""
    names = [*(config.get("architectures") or ()), getattr(STATIC.get(config.get("model_type", "")), "__name__", "")]
    if any("ForTokenClassification" in name for name in names):
        return TAGGING
    return CLASSIFICATION if any("ForSequenceClassification" in name for name in names) else None


def first_line(error: BaseException) -> str:
    """What an error of another library says, as far as it fits into one line."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__

"""A tier without exits, any classifier or tagger of transformers or a static one, as one padded ONNX graph."""

from __future__ import annotations

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from cascade.exceptions import MissingExtraError, OptionError
from cascade.training.models.whole import inputs_of
from cascade_export.checkpoints import first_line
from cascade_export.tasks import Task
from cascade_export.tracing import trace


def export_tier1(model: Any, task: Task, *, number: int = 1) -> onnx.ModelProto:
    """The graph `input_ids`, `attention_mask`[, `token_type_ids`] -> `logits`, in fp32. `number`: of the tier.

    Raises:
        OptionError: torch cannot trace this model.
    """
    names = inputs_of(model)
    if hasattr(model.base_model, "set_attention_type"):  # BigBird reads rows of up to 704 tokens so anyway
        model.base_model.set_attention_type("original_full")
    filler = getattr(model.config, "pad_token_id", None) or 0
    ids = torch.full((2, 8), filler)  # two rows, the second with padding
    mask = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    example = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    grid = ("batch_size", "sequence_length")
    try:
        return trace(
            _Logits(model, names),
            {name: example[name] for name in names},
            inputs=dict.fromkeys(names, grid),
            outputs={"logits": grid if task.tags else grid[:1]},
        )
    except (RuntimeError, TypeError, ValueError) as error:  # of any of the hundred architectures
        raise OptionError(
            f"tier {number}'s model_type must be one that torch can trace, got {model.config.model_type}; "
            f"{first_line(error)}"
        ) from None


def export_by_optimum(model: Any, task: Task, *, number: int = 1) -> onnx.ModelProto:
    """The same by optimum-onnx, whose configurations know which inputs an architecture has.

    Raises:
        MissingExtraError: it is not installed.
        OptionError: it does not know this architecture.
    """
    try:
        from optimum.exporters.onnx import onnx_export_from_model
    except ImportError as error:
        raise MissingExtraError(
            f"--exporter optimum needs the optimum extra, but {error.name} is missing; "
            'pip install "cascade-encoder[optimum]"'
        ) from None
    with TemporaryDirectory(prefix="cascade-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            onnx_export_from_model(model, folder, task=task.name, do_validation=False)
        except (RuntimeError, TypeError, ValueError, KeyError) as error:
            raise OptionError(
                f"tier {number}'s model_type must be one that optimum exports, got {model.config.model_type}; "
                f"{first_line(error)}"
            ) from None
        return onnx.load(Path(folder) / "model.onnx")


class _Logits(nn.Module):
    """A model of transformers as a function of tensors, in the order of their names, to logits."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names
        self.padding = getattr(model.config, "pad_token_id", None)

    def forward(self, *tensors: Tensor) -> Tensor:
        given = dict(zip(self.names, tensors, strict=True))
        if self.padding:  # some find the last token by it; the engine pads with 0
            given["input_ids"] = given["input_ids"].masked_fill(given["attention_mask"] == 0, self.padding)
        logits: Tensor = self.model(**given).logits
        return logits

"""One tier of a bundle in its final form: exported, verified against torch, quantised, and what is said of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from cascade.bundle.tiers import MultiExitSpec, SingleExitSpec, StageSpec, TierSpec
from cascade.exceptions import OptionError, need
from cascade.training.models.config import inputs_of
from cascade.training.task import Task
from cascade_export import ExportOptions
from cascade_export.checkpoints import first_line
from cascade_export.int8.quantise import quantise_tier
from cascade_export.packed.chain import chain_logits
from cascade_export.packed.stages import TierGraphs, export_tier2, pack, trace
from cascade_export.texts import Sample
from cascade_export.verify import check_tier


def export_tier1(model: Any, task: Task, *, number: int = 1) -> onnx.ModelProto:
    """The graph `input_ids`, `attention_mask`[, `token_type_ids`] -> `logits`, in fp32. `number`: of the tier.

    An `OptionError`: torch cannot trace this model.
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
        told = f"got {model.config.model_type}; {first_line(error)}"
        raise OptionError(f"tier {number}'s model_type must be one that torch can trace, {told}") from None


def export_by_optimum(model: Any, task: Task, *, number: int = 1) -> onnx.ModelProto:
    """The same by optimum-onnx, whose configurations know which inputs an architecture has.

    A `MissingExtraError`: it is not installed; an `OptionError`: it does not know this architecture.
    """
    need("--exporter optimum", "optimum", "optimum.exporters.onnx")
    from optimum.exporters.onnx import onnx_export_from_model

    with TemporaryDirectory(prefix="cascade-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            onnx_export_from_model(model, folder, task=task.model.task, do_validation=False)
        except (RuntimeError, TypeError, ValueError, KeyError) as error:
            told = f"got {model.config.model_type}; {first_line(error)}"
            raise OptionError(f"tier {number}'s model_type must be one that optimum exports, {told}") from None
        graph = onnx.load(Path(folder) / "model.onnx")
    graph.graph.output[0].type.tensor_type.shape.dim[-1].dim_value = model.config.num_labels
    return graph


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


FORMS = {"fp32": "model.onnx", **dict.fromkeys(("int8", "int7"), "model_quantized.onnx")}


@dataclass(frozen=True, eq=False)
class Tier:
    """A tier.

    Attributes:
        spec: what the manifest says of it.
        graphs: by path inside the bundle.
        temperatures: one for each exit.
        figures: how the shipped form compares with the fp32 checkpoint: a dict; of a tier with exits one for each.
        smoothed: whether int8 had to be smoothed.
    """

    spec: TierSpec
    graphs: Mapping[str, onnx.ModelProto]
    temperatures: tuple[float, ...]
    figures: Any
    smoothed: bool


def make_tier(
    model: Any,
    task: Task,
    sample: Sample,
    options: ExportOptions,
    *,
    number: int,
    max_length: int,
    progress: Callable[[str], None],
) -> Tier:
    """A tier in its final form: the graphs of `model`, a checkpoint with exits or of any model of transformers.

    The first tier's padded graph lies where other tools look for it, and its fp32 form beside it if `options` say so.
    What decides last must answer each row alone as beside longer ones. `number`: of the tier, from 1; `max_length`:
    tokens of a row at most; `progress`: called with the name of each step when it begins. An `OptionError`: torch
    cannot trace the model; a `BundleError`: a graph does not answer as the checkpoint.
    """
    progress(f"export tier {number}")
    folder, static, packed = f"tier{number}", isinstance(model, task.student.model), None
    if isinstance(model, task.model):
        packed = pack(model)
        graphs = export_tier2(packed)
        names = [f"{folder}/stage_{stage:02d}.onnx" for stage in range(len(packed.layers))]
    else:
        traced = export_by_optimum if options.optimum and not static else export_tier1
        graph = traced(model, task, number=number)
        graphs = TierGraphs(None, (graph,), max_length=max_length)
        folder = "onnx" if number == 1 else folder
        names = [f"{folder}/{FORMS['fp32']}"]
    reference = chain_logits(graphs, sample.units)
    alone = packed is None and not static
    verified = check_tier(names, model, graphs, sample, reference, max_length=max_length, alone=alone)
    progress(f"quantise tier {number}")
    made = quantise_tier(graphs, reference, sample, options)
    spec: TierSpec
    if packed is not None:
        spec = MultiExitSpec(
            embed=f"{folder}/embed.onnx",
            stages=tuple(map(StageSpec, names, packed.layers, made.precisions)),
            width=packed.width,
            heads=packed.heads,
            max_length=max_length,
            position_offset=packed.position_offset,
        )
        files = dict(zip((spec.embed, *names), made.graphs.parts, strict=True))
    else:
        (precision,) = made.precisions
        file = f"{folder}/{FORMS[precision]}"
        spec = SingleExitSpec(file, max_length, "static" if static else "transformer", precision)
        files = {names[0]: graph} if number == 1 and options.fp32 else {}
        files |= zip((file,), made.graphs.parts, strict=True)
    figures = [
        {"precision": precision, "verified_within": float(f"{verified[i]:.1e}")}
        | sample.figures(made.logits[:, i], reference[:, i])
        for i, precision in enumerate(made.precisions)
    ]
    temperatures = tuple(sample.temperature(made.logits[:, i]) for i in range(len(names)))
    if isinstance(spec, MultiExitSpec):
        figures = [{"layer": stage.layer} | own for stage, own in zip(spec.stages, figures, strict=True)]
    return Tier(spec, files, temperatures, figures if packed is not None else figures[0], made.smoothed)

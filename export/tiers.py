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
from cascade.core.rows import FloatArray
from cascade.exceptions import MissingExtraError, OptionError
from cascade.training.models.whole import inputs_of
from cascade_export.checkpoints import TierTwo, first_line
from cascade_export.int8.calibrate import quantise_tier1, quantise_tier2
from cascade_export.options import ExportOptions
from cascade_export.packed.chain import chain_logits, padded_logits
from cascade_export.packed.graphs import export_tier2, trace
from cascade_export.packed.stages import PackedModel
from cascade_export.tasks import Task
from cascade_export.texts import Sample
from cascade_export.verify import check_tier1, check_tier2


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


FORMS = {"fp32": "model.onnx", "int8": "model_quantized.onnx"}


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


@dataclass(frozen=True, eq=False)
class Making:
    """What every tier of a bundle is made with.

    Attributes:
        task: of the bundle.
        sample: calibration texts.
        options: see there.
        progress: called with the name of each step when it begins.
    """

    task: Task
    sample: Sample
    options: ExportOptions
    progress: Callable[[str], None]

    def tier(self, model: Any, packed: PackedModel | None, *, number: int, max_length: int) -> Tier:
        """A tier in its final form.

        Args:
            model: the checkpoint.
            packed: its packed form; None: it has no exits.
            number: of the tier, from 1.
            max_length: tokens of a row at most.

        Raises:
            OptionError: torch cannot trace the model.
            BundleError: a graph does not answer as the checkpoint.
        """
        self.progress(f"export tier {number}")
        if packed is None:
            return self._single_exit(model, number, max_length)
        return self._multi_exit(model, packed, number, max_length)

    def _multi_exit(self, model: TierTwo, packed: PackedModel, number: int, max_length: int) -> Tier:
        sample, folder = self.sample, f"tier{number}"
        graphs = export_tier2(packed)
        reference = chain_logits(graphs, sample.units)
        files = [f"{folder}/stage_{stage:02d}.onnx" for stage in range(len(packed.layers))]
        verified = check_tier2(files, model, graphs, sample, reference, max_length=max_length)
        self.progress(f"quantise tier {number}")
        made = quantise_tier2(graphs, reference, sample, self.options)
        by_exit = [(made.logits[:, i], reference[:, i]) for i in range(len(packed.layers))]
        rows = zip(packed.layers, made.precisions, verified, by_exit, strict=True)
        spec = MultiExitSpec(
            embed=f"{folder}/embed.onnx",
            stages=tuple(map(StageSpec, files, packed.layers, made.precisions)),
            width=packed.width,
            heads=packed.heads,
            max_length=max_length,
            position_offset=packed.position_offset,
        )
        return Tier(
            spec,
            {spec.embed: made.graphs.embed, **dict(zip(files, made.graphs.stages, strict=True))},
            tuple(sample.temperature(logits) for logits, _ in by_exit),
            [{"layer": layer} | _figures(own, within, sample, *logits) for layer, own, within, logits in rows],
            made.smoothed,
        )

    def _single_exit(self, model: Any, number: int, max_length: int) -> Tier:
        """Of any model of transformers or a static one.

        The first tier's graph lies where other tools look for it, and its fp32 form beside it if `options` say so. What
        decides last must answer each row alone as beside longer ones.
        """
        sample, options, folder = self.sample, self.options, "onnx" if number == 1 else f"tier{number}"
        static = isinstance(model, self.task.static)
        export = export_by_optimum if options.optimum and not static else export_tier1
        graph = export(model, self.task, number=number)
        reference = padded_logits(graph, sample.units, max_length=max_length)
        name = f"{folder}/{FORMS['fp32']}"
        verified = check_tier1(name, model, sample, reference, max_length=max_length, alone=not static)
        self.progress(f"quantise tier {number}")
        made = quantise_tier1(graph, reference, sample, options, max_length=max_length)
        (precision,) = made.precisions
        file = f"{folder}/{FORMS[precision]}"
        kept = {name: graph} if number == 1 and options.fp32 else {}
        return Tier(
            SingleExitSpec(file, max_length, "static" if static else "transformer", precision),
            kept | {file: made.graphs},
            (sample.temperature(made.logits),),
            _figures(precision, verified, sample, made.logits, reference),
            made.smoothed,
        )


def _figures(
    precision: str, verified: float, sample: Sample, logits: FloatArray, reference: FloatArray
) -> dict[str, Any]:
    form = {"precision": precision, "verified_within": float(f"{verified:.1e}")}
    return form | sample.figures(logits, reference)

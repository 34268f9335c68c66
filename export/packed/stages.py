"""From a multi-exit model to packed torch modules, and to ONNX graphs by tracing: the form that tier 2 is exported in.

In a tagger, words leave one by one. A token whose word has left keeps its last state and is still attended to: keys
and values are made of all tokens, queries and everything after attention of the active ones only (halt-and-copy).
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cascade.engine.packing import ACTIVE_FEEDS, FEEDS, Actives, Packing
from cascade.training.models.families import family_of, position_offset
from cascade.training.models.multi_exit import MultiExitModel, MultiExitTagger
from cascade_export.packed.deberta import DistanceLayer, Distances
from cascade_export.packed.layers import BucketBias, PackedEmbed, PackedLayer
from cascade_export.packed.modernbert import GatedLayer

FORMS: Mapping[str, tuple[Callable[..., nn.Module], Callable[[Any], nn.Module] | None]] = {
    "post_norm": (PackedLayer, None),
    "mpnet": (PackedLayer, BucketBias),
    "distances": (DistanceLayer, Distances),
    "gated": (GatedLayer, None),
}
"""By the key that a `Family` names: the packed form of a layer, made of the layer, its family, backbone and number and
called as `PackedLayer.forward` is; and, made of a backbone, what a stage does once for all of its layers: from its
inputs beside `hidden`, by name, to inputs that are added or replaced."""

_ATTENTION = ("hidden", "head_gather", "bias", "head_scatter")
_INPUTS = {
    "first": (*_ATTENTION, "firsts"),
    "mean": (*_ATTENTION, "gather", "weights", "counts"),
    "words": ("hidden", "head_gather", "bias", "active", "query_head_gather", "head_scatter", "words"),
}


class PackedStage(nn.Module):
    """The layers between two exits and the head at their end.

    Args:
        layers: in order, packed.
        head, norm: of the exit; the norm comes before pooling.
        pooling: what the head reads: the `first` token of a row, the `mean` of its tokens, or of a tagger the first
            pieces of the `words` that are still inside.
        inputs: names of the family's own inputs; those of active tokens are for taggers alone.
        shared: what is made once for all layers.
        last: whether nothing comes after the stage.

    Attributes:
        inputs: names of the inputs of `forward`, in order.
        narrow: whether the last layer computes the first token of each row alone, because nothing else is read:
            the stage then has no new states.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        head: nn.Module,
        norm: nn.Module,
        *,
        pooling: str,
        inputs: Sequence[str] = (),
        shared: nn.Module | None = None,
        last: bool = False,
    ) -> None:
        super().__init__()
        self.layers, self.head, self.norm, self.pooling = nn.ModuleList(layers), head, norm, pooling
        own = inputs if pooling == "words" else (name for name in inputs if name in FEEDS)
        self.narrow = last and pooling == "first" and getattr(layers[-1], "narrows", False)
        unread = ("head_scatter",) if self.narrow and len(layers) == 1 else ()
        self.inputs = tuple(name for name in (*_INPUTS[pooling], *own) if name not in unread)
        self.shared = shared

    def forward(self, hidden: Tensor, *index: Tensor) -> tuple[Tensor, Tensor] | Tensor:
        """New states, if there are any, and logits; shapes and indices as in ARCHITECTURE.md."""
        given: dict[str, Tensor] = dict(zip(self.inputs[1:], index, strict=True))
        given.setdefault("query_head_gather", given["head_gather"])
        if self.shared is not None:
            given |= self.shared(given)
        if self.pooling == "words":
            asking = new = F.embedding(given["active"], hidden)
            for i, layer in enumerate(self.layers):
                if i:
                    hidden = hidden.index_put((given["active"],), new)
                    asking = F.embedding(given["active"], hidden)
                new = layer(asking, new, hidden, given)
            return new, self.head(self.norm(F.embedding(given["words"], new)))
        for layer in self.layers[: len(self.layers) - self.narrow]:
            hidden = layer(hidden, hidden, hidden, given)
        if self.narrow:
            first = F.embedding(given["firsts"], hidden)
            del given["query_head_gather"]
            given["bias"] = given["bias"][:, :, :1]
            return self.head(self.norm(self.layers[-1](first, first, hidden, given)))  # type: ignore[no-any-return]
        if self.pooling == "first":
            return hidden, self.head(self.norm(F.embedding(given["firsts"], hidden)))
        summed = (given["weights"] @ F.embedding(given["gather"], self.norm(hidden)))[:, 0]
        return hidden, self.head(summed / given["counts"])


@dataclass(frozen=True)
class PackedModel:
    """A whole second tier in packed form.

    Attributes:
        embed, stages: token ids to hidden states; what follows, in the order in which it runs.
        layers: number of the last layer of each stage, from 1.
        width, heads: size of a hidden state; heads of attention.
        position_offset: position id of a row's first token.
    """

    embed: PackedEmbed
    stages: tuple[PackedStage, ...]
    layers: tuple[int, ...]
    width: int
    heads: int
    position_offset: int


def pack(model: MultiExitModel | MultiExitTagger) -> PackedModel:
    """Turn a multi-exit model, which is left as it is, into packed modules that hold copies of its weights.

    An `OptionError` tells a family that is unknown, or what packed layers do not do (`family_of`).
    """
    model = copy.deepcopy(model).eval().float()
    config, backbone = model.config, model.backbone
    family = family_of(config)
    packed, once = FORMS[family.layer]
    layers = [packed(layer, family, backbone, number) for number, layer in enumerate(family.layers(backbone))]
    shared = None if once is None else once(backbone)
    pooling = ("words",) * len(model.layers) if isinstance(model, MultiExitTagger) else model.pooling
    places = zip((0, *model.layers[:-1]), model.layers, model.heads, model.norms, pooling, strict=True)
    stages = [
        PackedStage(
            layers[start:stop],
            head,
            norm,
            pooling=own,
            inputs=family.inputs,
            shared=shared,
            last=stop == model.layers[-1],
        )
        for start, stop, head, norm, own in places
    ]
    return PackedModel(
        embed=PackedEmbed(backbone, family).eval(),
        stages=tuple(stage.eval() for stage in stages),
        layers=tuple(model.layers),
        width=config.hidden_size,
        heads=config.num_attention_heads,
        position_offset=position_offset(config),
    )


OPSET = 20
"""The first in which Gelu (erf or tanh) is one operator; ONNX Runtime reads it since 1.17."""

Axes: TypeAlias = tuple[str, ...]
"""Names of the axes of a tensor whose sizes are free; those that are "" or left out have the example's size."""


def trace(
    module: nn.Module, example: Mapping[str, torch.Tensor], *, inputs: Mapping[str, Axes], outputs: Mapping[str, Axes]
) -> onnx.ModelProto:
    """Run a module on an example, inputs by name in the order of `forward`, and write down what it does.

    `inputs` and `outputs` give the free axes, and the latter the names of what `forward` returns, in order.
    """
    module.eval()  # the tracer restores the mode that it found, in all modules inside
    names = {*example, *outputs}
    buffer = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        # The older of torch's two exporters is the one wanted: it makes the smaller graph and needs no onnxscript. It
        # warns about constants in the code of models, too.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(example.values()),
            buffer,  # type: ignore[arg-type]  # the older exporter writes to open files too
            dynamo=False,
            opset_version=OPSET,
            input_names=list(example),
            output_names=list(outputs),
            dynamic_axes={name: _free(axes) for name, axes in {**inputs, **outputs}.items() if name in names},
        )
        given = module(*example.values())
    model = onnx.load_from_string(buffer.getvalue())
    # The exporter loses sizes behind operators that only ONNX Runtime has.
    for value, tensor in zip(model.graph.output, [given] if isinstance(given, torch.Tensor) else given, strict=True):
        free = _free(outputs[value.name])
        for axis, size in enumerate(tensor.shape):
            if axis not in free:
                value.type.tensor_type.shape.dim[axis].dim_value = size
    # Names of source lines, with the exporter's folders in them, do not belong into a bundle.
    for node in model.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    onnx.checker.check_model(model)
    return model


def _free(axes: Axes) -> dict[int, str]:
    return {axis: size for axis, size in enumerate(axes) if size}


AXES: dict[str, Axes] = {
    "hidden": ("tokens",),
    "head_gather": ("rows", "", "longest"),
    "bias": ("rows", "", "", "longest"),
    "firsts": ("rows",),
    "gather": ("rows", "longest"),
    "weights": ("rows", "", "longest"),
    "counts": ("rows",),
    "buckets": ("bucket_rows", "longest_asking", "longest"),
    "active": ("actives",),
    "query_head_gather": ("rows", "", "longest_active"),
    "words": ("words",),
    "distances": ("distances",),
    "placed_query_head_gather": ("rows", "", "longest"),
    "position_ids": ("tokens",),
    "local_head_gather": ("blocks", "", "keys"),
    "local_bias": ("blocks", "", "seen_from", "keys"),
    "local_query_head_gather": ("blocks", "", "queries"),
}


@dataclass(frozen=True)
class TierGraphs:
    """The graphs of a tier, of which ARCHITECTURE.md tells inputs and outputs.

    `embed`: of a packed tier; None: the only stage is one padded graph; `stages`: in the order in which they run;
    `position_offset`: position id of a row's first token; `max_length`: tokens of a row at most, more are cut.
    """

    embed: onnx.ModelProto | None
    stages: tuple[onnx.ModelProto, ...]
    position_offset: int = 0
    max_length: int = 1 << 30

    @property
    def parts(self) -> tuple[onnx.ModelProto, ...]:
        """All graphs, in the order in which they run."""
        return self.stages if self.embed is None else (self.embed, *self.stages)

    def of(self, parts: Iterable[onnx.ModelProto]) -> TierGraphs:
        """The tier with other graphs in the places of its parts."""
        made, count = tuple(parts), len(self.stages)
        return replace(self, embed=None if self.embed is None else made[0], stages=made[-count:])

    @property
    def heads(self) -> int:
        """Of attention, as packed stages declare them."""
        return _axis(self.stages[0].graph.input, "head_gather", 1)

    @property
    def labels(self) -> int:
        """How many, as the stages declare them."""
        return _axis(self.stages[0].graph.output, "logits", -1)


def _axis(values: Iterable[onnx.ValueInfoProto], name: str, axis: int) -> int:
    return next(int(value.type.tensor_type.shape.dim[axis].dim_value) for value in values if value.name == name)


def export_tier2(packed: PackedModel) -> TierGraphs:
    """Write a packed model as ONNX graphs with free sizes for tokens, rows, the longest row, words."""
    ids = torch.zeros(3, dtype=torch.int64)
    example = dict.fromkeys(packed.embed.inputs, ids)
    embed = trace(packed.embed, example, inputs=dict.fromkeys(example, ("tokens",)), outputs={"hidden": ("tokens",)})
    return TierGraphs(embed, tuple(_stage(stage, packed) for stage in packed.stages), packed.position_offset)


def _stage(stage: PackedStage, packed: PackedModel) -> onnx.ModelProto:
    # Nothing reads a size while the graph is traced, so any example does: two rows of two and one tokens. Of a tagger
    # the first token of each row is active, and a word begins with the second of them.
    rows = Packing.of(np.array([2, 1]), heads=packed.heads)
    feeds: dict[str, npt.NDArray[Any]] = {"hidden": np.zeros((3, packed.width), np.float32), **rows.feeds(stage.inputs)}
    new, answered = "tokens", "rows"
    if stage.pooling == "words":
        actives = Actives(rows, Packing.of(np.array([1, 1]), heads=packed.heads), np.array([0, 2]))
        feeds |= {name: actives.array(name) for name in stage.inputs if name in ACTIVE_FEEDS}
        feeds["words"] = np.array([1])
        new, answered = "actives", "words"
    return trace(
        stage,
        {name: torch.from_numpy(feeds[name]) for name in stage.inputs},
        inputs=AXES | dict.fromkeys(("head_scatter", "placed_head_scatter", "local_head_scatter"), (new,)),
        outputs=({} if stage.narrow else {"hidden_out": (new,)}) | {"logits": (answered,)},
    )

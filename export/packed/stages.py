"""From a multi-exit model to packed torch modules: the form that tier 2 is exported in.

In a tagger, words leave one by one. A token whose word has left keeps its last state and is still attended to: keys
and values are made of all tokens, queries and everything after attention of the active ones only (halt-and-copy).
Layers are packed by the form that a `Family` names. MPNet's differs from BERT's by relative positions: a learned number
per head and distance, added to the scores.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.nn import functional as F

from cascade.engine.packing import FEEDS, MASKED
from cascade.training.models.families import Family, family_of, max_length, position_offset
from cascade.training.models.multi_exit import MultiExitModel
from cascade.training.models.tagging import MultiExitTagger
from cascade_export.packed.deberta import DistanceLayer, Distances
from cascade_export.packed.layers import PackedEmbed, PackedLayer, activation
from cascade_export.packed.modernbert import gated_layers

Index: TypeAlias = dict[str, Tensor]
"""A stage's inputs beside `hidden`, by name. `query_head_gather` is there in a classifier too: it is `head_gather`."""

Shared: TypeAlias = Callable[[Index], Index]
"""What a stage makes of its inputs once for all of its layers: inputs to add or to replace. A torch module."""


@dataclass(frozen=True)
class Form:
    """How the layers of one kind are packed.

    `layers`: from a backbone and its family to its packed layers in the order in which they run, each of which is
    called as `PackedLayer.forward` is; `shared`: from a backbone to what its stages make once, None: nothing.
    """

    layers: Callable[[Any, Family], Sequence[nn.Module]]
    shared: Callable[[Any], Shared | None] = lambda _backbone: None


def post_norm(backbone: Any, family: Family) -> list[PackedLayer]:
    """Layers as BERT has them."""
    config = backbone.config
    act = activation(getattr(config, family.activation))
    heads = config.num_attention_heads
    return [PackedLayer(one, family.parts, heads=heads, activation=act) for one in family.layers(backbone)]


class BucketBias(nn.Module):
    """`bias` with the numbers of the `buckets` added, made once for all layers of a stage: they share one table.

    What masks padding grows by the table's largest spread within a head. A padding place repeats the key of its row's
    first token, but has the number of its own distance: without this its score could exceed the row's largest.
    """

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        table: Tensor = backbone.encoder.relative_attention_bias.weight.detach().T.contiguous()
        self.register_buffer("table", table)
        self.growth = 1 - float((table.amax(1) - table.amin(1)).max()) / float(MASKED)

    def forward(self, given: dict[str, Tensor]) -> dict[str, Tensor]:
        """`bias` of shape `(rows, heads, longest asking, longest)`, of `(rows, 1, 1, longest)`.

        `buckets`: shape `(1 or rows, longest asking, longest)`.
        """
        table: Any = self.table
        return {"bias": given["bias"] * self.growth + table[:, given["buckets"]].transpose(0, 1)}


FORMS: Mapping[str, Form] = {
    "post_norm": Form(post_norm),
    "mpnet": Form(post_norm, BucketBias),
    "distances": Form(
        lambda backbone, family: [DistanceLayer(one, family, backbone) for one in family.layers(backbone)], Distances
    ),
    "gated": Form(gated_layers),
}


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
        shared: Shared | None = None,
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
        given: Index = dict(zip(self.inputs[1:], index, strict=True))
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
        max_length: tokens of a row at most, special tokens included.
    """

    embed: PackedEmbed
    stages: tuple[PackedStage, ...]
    layers: tuple[int, ...]
    width: int
    heads: int
    position_offset: int
    max_length: int


def pack(model: MultiExitModel | MultiExitTagger) -> PackedModel:
    """Turn a multi-exit model, which is left as it is, into packed modules that hold copies of its weights.

    An `OptionError` tells a family that is unknown, or what packed layers do not do (`family_of`).
    """
    model = copy.deepcopy(model).eval().float()
    config, backbone = model.config, model.backbone
    family = family_of(config)
    form = FORMS[family.layer]
    layers, shared = form.layers(backbone, family), form.shared(backbone)
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
        max_length=max_length(config),
    )

"""From a multi-exit model to packed torch modules: the form that tier 2 is exported in.

In a tagger, words leave one by one. A token whose word has left keeps its last state and is still attended to: keys
and values are made of all tokens, queries and everything after attention of the active ones only (halt-and-copy).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from cascade.engine.packing import FEEDS
from cascade.training.models.families import family_of, position_offset
from cascade.training.models.multi_exit import MultiExitModel, MultiExitTagger
from cascade_export.packed.families import DistanceLayer, Distances, GatedLayer
from cascade_export.packed.layers import BucketBias, PackedEmbed, PackedLayer

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

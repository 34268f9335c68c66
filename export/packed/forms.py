"""The packed forms of layers, by the key that a `Family` names: how the exporter makes them of a backbone.

MPNet's differs from BERT's by relative positions: a learned number per head and distance, added to the scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor, nn

from cascade.engine.packing import MASKED
from cascade.training.models.families import Family
from cascade_export.packed.deberta import Distances, distance_layers
from cascade_export.packed.layers import PackedLayer, activation
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
    "distances": Form(distance_layers, Distances),
    "gated": Form(gated_layers),
}

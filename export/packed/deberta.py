"""Attention of DeBERTa-v2 and -v3 on packed tokens: it also weighs how far two tokens are from each other.

Disentangled attention (He et al., ICLR 2021, section 3.1; shared projections and buckets: ICLR 2023): the score of
query i and key j is q_i k_j + q_i K[i - j] + k_j Q[i - j], over the root of three times the size of a head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from cascade.training.models.families import Family
from cascade_export.packed.layers import PackedLayer

MASK = 1.5
"""By what the mask grows, from -40 to -60.

A padding place has the key of its row's first token, but a distance of its own: its score may exceed the row's largest
by what distances weigh. This leaves room for 36 of that before a sum changes, and exponentials stay normal floats.
"""


class Distances(nn.Module):
    """Once for all layers of a stage: the rows of the tables of K and Q, the sizes of the skew, the mask."""

    key_rows: Tensor
    query_rows: Tensor

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        reach = backbone.config.max_position_embeddings
        distances = torch.cat((torch.arange(reach), torch.arange(-reach, 0)))  # as Python's indices count
        self.register_buffer("key_rows", rows_of(distances, backbone.config))
        self.register_buffer("query_rows", rows_of(-distances, backbone.config))

    def forward(self, given: dict[str, Tensor]) -> dict[str, Tensor]:
        """The inputs that layers read instead or in addition; `distances` and the like: `cascade.engine.packing`."""
        found = {name: self.get_buffer(name)[given["distances"]] for name in ("key_rows", "query_rows")}
        sizes = ("skew_start", "skew_lines", "skew_longest")
        found |= zip(sizes, given["skew_shapes"].split([1, 4, 1]), strict=True)
        # Where some tokens have halted, a query must still be in the line of its own place.
        found |= {name: given[f"placed_{name}"] for name in PLACED if f"placed_{name}" in given}
        return found | {"bias": given["bias"] * MASK}


PLACED = ("query_head_gather", "head_scatter")


class DistanceLayer(PackedLayer):
    """One layer. K and Q are the same for all texts: constants, made when it is. Shapes `(heads, rows, size)`."""

    narrows = False
    far_keys: Tensor
    far_queries: Tensor

    def __init__(self, layer: nn.Module, family: Family, backbone: Any, number: int) -> None:
        super().__init__(layer, family, backbone, number)
        with torch.no_grad():
            for parameter in self.query.parameters():
                parameter.mul_(3**-0.5)
            table = backbone.encoder.get_rel_embedding()
            for name, linear in (("far_keys", self.key), ("far_queries", self.query)):
                vectors = linear(table).unflatten(1, (self.heads, self.size)).transpose(0, 1)
                self.register_buffer(name, vectors.contiguous())

    def scores(self, queries: Tensor, keys: Tensor, index: Mapping[str, Tensor]) -> Tensor:
        """What the softmax is of: shapes `(rows, heads, longest, size)` -> `(rows, heads, longest, longest)`."""
        sizes = (index["skew_start"], index["skew_lines"], index["skew_longest"])
        far_keys = self.far_keys.index_select(1, index["key_rows"])
        far_queries = self.far_queries.index_select(1, index["query_rows"])
        skew: Any = Skew.apply
        of_keys: Tensor = skew(queries @ far_keys.transpose(-1, -2), *sizes)
        of_queries: Tensor = skew(keys @ far_queries.transpose(-1, -2), *sizes)
        return queries @ keys.transpose(-1, -2) + of_keys + of_queries.transpose(-1, -2) + index["bias"]


class Skew(torch.autograd.Function):
    """From a column per distance to a column per token: `[i, j]` of the result is `[i, longest - 1 - i + j]`.

    Shapes `(rows, heads, longest, 2 * longest)` -> `(rows, heads, longest, longest)`. Cut into lines that are one place
    shorter, the same numbers begin one place earlier in each line. Looking places up took ten times as long.
    """

    @staticmethod
    def forward(_context: Any, scores: Tensor, start: Tensor, lines: Tensor, longest: Tensor) -> Tensor:
        flat = scores.flatten(2)[..., int(start) : -1]
        return flat.reshape(*flat.shape[:2], -1, int(lines[3]))[..., : int(longest)]

    @staticmethod
    def symbolic(graph: Any, scores: Any, start: Any, lines: Any, longest: Any) -> Any:
        """The same as nodes that read sizes from inputs: a stage computes none."""

        def constant(*values: int) -> Any:
            return graph.op("Constant", value_t=torch.tensor(values))

        flat = graph.op("Reshape", scores, constant(0, 0, -1))
        shorter = graph.op("Reshape", graph.op("Slice", flat, start, constant(-1), constant(2)), lines)
        return graph.op("Slice", shorter, constant(0), longest, constant(3))


def rows_of(distances: Tensor, config: Any) -> Tensor:
    """The row of the table of distances for each, query minus key, as transformers' `build_relative_position` has it.

    Near ones have a row each, far ones share rows that become wider with the logarithm. Any shape, the same one.
    """
    buckets, most = getattr(config, "position_buckets", -1), config.max_relative_positions
    most = config.max_position_embeddings if most < 1 else most
    if buckets > 0:
        distances = make_log_bucket_position(distances, buckets, most).long()
    span = buckets if buckets > 0 else most
    return (distances + span).clamp(0, 2 * span - 1)

"""Layers of DeBERTa-v2 and -v3 and of ModernBERT on packed tokens.

DeBERTa's attention also weighs how far two tokens are from each other (disentangled attention: He et al., ICLR 2021,
section 3.1; shared projections and buckets: ICLR 2023): the score of query i and key j is q_i k_j + q_i K[i - j] +
k_j Q[i - j], over the root of three times the size of a head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from cascade.training.models.families import Family, rope_theta
from cascade_export.packed.layers import PackedLayer, activation

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


class GatedLayer(nn.Module):
    """One layer: the backbone's own modules, two of them split, the scaling of attention folded into the queries."""

    def __init__(self, layer: Any, family: Family, backbone: Any, number: int) -> None:
        super().__init__()
        config = backbone.config
        kinds = getattr(config, "layer_types", None)  # transformers 5 has a list, before it a rule
        local = (
            bool(number % config.global_attn_every_n_layers) if kinds is None else kinds[number] == "sliding_attention"
        )
        self.heads, self.places = config.num_attention_heads, config.max_position_embeddings
        self.size, self.theta = config.hidden_size // self.heads, rope_theta(config, local=local)
        self.prefix, self.activation = "local_" if local else "", activation(getattr(config, family.activation))
        self.attention_norm, self.norm = layer.attn_norm, layer.mlp_norm
        self.query, self.key, self.value = _split(layer.attn.Wqkv, 3)
        self.expand, self.gate = _split(layer.mlp.Wi, 2)
        self.output, self.contract = layer.attn.Wo, layer.mlp.Wo
        with torch.no_grad():
            for parameter in self.query.parameters():
                parameter.mul_(self.size**-0.5)  # the same before a rotation as after it

    def forward(self, asking: Tensor, residual: Tensor, hidden: Tensor, index: Mapping[str, Tensor]) -> Tensor:
        """New states of the active tokens; see `PackedLayer.forward`.

        `asking` is not read: queries are made of rows of the normalised states, whose int8 form all three share.
        """
        names = ("head_gather", "bias", "query_head_gather", "head_scatter")
        grid, bias, query_grid, scatter = (index[f"{self.prefix}{name}"] for name in names)
        states, places = self.attention_norm(hidden), index["position_ids"]
        own, own_places = states, places
        if "active" in index:
            own, own_places = F.embedding(index["active"], states), places[index["active"]]
        queries = self._by_head(self._rotated(self.query(own), own_places), query_grid)
        keys = self._by_head(self._rotated(self.key(states), places), grid)
        weights = torch.softmax(queries @ keys.transpose(-1, -2) + bias, dim=-1)
        context = self._by_head(weights @ self._by_head(self.value(states), grid), scatter)
        new = residual + self.output(context.reshape(-1, self.heads * self.size))
        states = self.norm(new)
        result: Tensor = new + self.contract(self.activation(self.expand(states)) * self.gate(states))
        return result

    def _rotated(self, states: Tensor, places: Tensor) -> Tensor:
        found: Tensor = _Rotation.apply(states, places, self.theta, self.places, self.size)  # type: ignore[no-untyped-call]  # torch's
        return found

    def _by_head(self, states: Tensor, index: Tensor) -> Tensor:
        """The heads in `states`, of any shape, by their numbers: `(...)` -> `(..., size)`."""
        return F.embedding(index, states.reshape(-1, self.size))


class _Rotation(torch.autograd.Function):
    """Rotary embedding of all heads by the places of their tokens (Su et al., 2021, section 3.4.2).

    The two halves of a head are the pairs. In a graph it is ONNX Runtime's own operator, which read 1,000 x 768 states
    in 0.28 ms. Its tables are made of a range when a graph is loaded: those of 8,192 places are 4 MB for each stage.
    """

    @staticmethod
    def forward(_: Any, states: Tensor, places: Tensor, theta: float, _count: int, size: int) -> Tensor:
        first, second = states.view(len(states), -1, 2, size // 2).unbind(2)
        angles = places[:, None, None] * _frequencies(theta, size)
        cosine, sine = angles.cos(), angles.sin()
        return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1).view_as(states)

    @staticmethod
    def symbolic(g: Any, states: Any, places: Any, theta: float, count: int, size: int) -> Any:
        def constant(value: Any) -> Any:
            return g.op("Constant", value_t=torch.as_tensor(value))

        axis = constant([1])
        ones = g.op("ConstantOfShape", constant([count, 1]), value_t=torch.ones(1))
        steps = g.op("Sub", g.op("CumSum", ones, constant(0)), constant(1.0))
        angles = g.op("Mul", steps, constant(_frequencies(theta, size)))
        tables = g.op("Cos", angles), g.op("Sin", angles)
        # Sequences of one token each: of one sequence the operator refuses more tokens than there are places.
        alone = g.op("Unsqueeze", states, axis), g.op("Unsqueeze", places, axis)
        made = g.op("com.microsoft::RotaryEmbedding", *alone, *tables)
        return g.op("Squeeze", made, axis)


def _frequencies(theta: float, size: int) -> Tensor:
    """Radians per place of each pair in a head. Shape `(size // 2,)`."""
    # Not 1 / x: of that torch's exporter loses a constant.
    return torch.reciprocal(theta ** (torch.arange(0, size, 2, dtype=torch.float32) / size))


def _split(linear: nn.Linear, count: int) -> list[nn.Linear]:
    """A linear layer as several, each with its share of the outputs: one result would have to be split."""
    found = {name: parameter.detach().chunk(count) for name, parameter in linear.named_parameters()}
    made = []
    for number in range(count):
        part = nn.Linear(linear.in_features, linear.out_features // count, bias="bias" in found)
        part.load_state_dict({name: parts[number] for name, parts in found.items()})
        made.append(part)
    return made

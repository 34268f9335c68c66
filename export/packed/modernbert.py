"""ModernBERT's layers on packed tokens (Warner et al., 2024, section 2.1).

They are pre-norm, with a gated feed-forward part; queries and keys are rotated by their place in the row (RoPE). Every
few layers attention is global, in the others a token sees its neighbours only (`cascade.engine.local_attention`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cascade.training.models.families import Family, rope_theta
from cascade_export.packed.layers import activation


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

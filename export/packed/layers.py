"""The embeddings and one layer of a post-norm encoder on packed tokens.

Hidden states are one matrix of the tokens of all rows, without padding (ARCHITECTURE.md, contracts). Linear layers,
LayerNorm and the feed-forward part run on it as it is; only attention gathers the heads of tokens into a padded grid
and scatters them back. All indices come from outside: a layer makes none.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from cascade.training.models.families import Family, LayerParts


class PackedEmbed(nn.Module):
    """Word, position and type embeddings, LayerNorm and, where there is one, a projection to the layers' width."""

    def __init__(self, backbone: Any, family: Family) -> None:
        super().__init__()
        table = backbone.embeddings
        self.words, self.positions, self.norm = table.word_embeddings, table.position_embeddings, table.LayerNorm
        self.types: nn.Embedding | None = getattr(table, "token_type_embeddings", None)
        self.projection: nn.Module | None = None
        if family.projection is not None and hasattr(backbone, family.projection.split(".")[0]):
            self.projection = backbone.get_submodule(family.projection)
        if self.types is not None and self.types.num_embeddings == 1:
            # A single type says nothing (RoBERTa): it is a constant, and the graph needs no input for it.
            self.positions = nn.Embedding.from_pretrained(self.positions.weight.detach() + self.types.weight.detach())
            self.types = None

    def forward(self, input_ids: Tensor, position_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Shapes `(tokens,)` three times -> `(tokens, width)`."""
        hidden: Tensor = self.words(input_ids) + self.positions(position_ids)
        if self.types is not None and token_type_ids is not None:
            hidden = hidden + self.types(token_type_ids)
        hidden = self.norm(hidden)
        return hidden if self.projection is None else self.projection(hidden)


class PackedLayer(nn.Module):
    """One layer. Its modules are the backbone's own, but for the queries', which are scaled."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    output: nn.Linear
    attention_norm: nn.LayerNorm
    expand: nn.Linear
    contract: nn.Linear
    output_norm: nn.LayerNorm

    def __init__(
        self, layer: nn.Module, parts: LayerParts, *, heads: int, activation: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        for name, path in asdict(parts).items():
            setattr(self, name, layer.get_submodule(path))
        self.width = self.query.out_features
        self.size = self.width // heads
        # The scaling of attention is folded into the queries. (A copy: ALBERT's layers share their parts.)
        self.query = copy.deepcopy(self.query)
        with torch.no_grad():
            for parameter in self.query.parameters():
                parameter.mul_(self.size**-0.5)
        self.activation = activation

    def forward(
        self,
        asking: Tensor,
        residual: Tensor,
        hidden: Tensor,
        head_gather: Tensor,
        bias: Tensor,
        query_head_gather: Tensor,
        head_scatter: Tensor,
    ) -> Tensor:
        """New states of the active tokens, which attend to all tokens. Shape `(actives, width)`.

        Queries are made of `asking`, shape `(actives, width)`, keys and values of `hidden`, shape `(tokens, width)`.
        The layer adds to `residual`: the values of `asking`, which may be another node of the graph, one that shares
        its int8 form with `hidden`. The indices are those of a tagger's stage (ARCHITECTURE.md).
        """
        # One merged product for all three was 5 % slower per layer: its result has to be split again. Each head of each
        # token is a row of its own, gathered straight to its place: no transposes, 5 % off a stage.
        queries = self._by_head(self.query(asking), query_head_gather)
        keys, values = (self._by_head(linear(hidden), head_gather) for linear in (self.key, self.value))
        weights = torch.softmax(queries @ keys.transpose(-1, -2) + bias, dim=-1)
        context = self._by_head(weights @ values, head_scatter).reshape(-1, self.width)
        new = self.attention_norm(self.output(context) + residual)
        result: Tensor = self.output_norm(self.contract(self.activation(self.expand(new))) + new)
        return result

    def _by_head(self, states: Tensor, index: Tensor) -> Tensor:
        """The heads in `states`, of any shape, by their numbers: `(...)` -> `(..., size)`."""
        return F.embedding(index, states.reshape(-1, self.size))


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """Transformers' activation of this name, in the form that exports as a single operator."""
    if name in ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"):
        return nn.GELU(approximate="tanh")
    if name in ("gelu", "gelu_python"):
        return nn.GELU()
    return ACT2FN[name]  # type: ignore[no-any-return]  # transformers ships no types

"""The embeddings, and one layer of a post-norm encoder, on packed tokens.

Hidden states are one matrix of the tokens of all rows, without padding (ARCHITECTURE.md, contracts). Linear layers,
LayerNorm and the feed-forward part run on it as it is; only attention gathers the heads of tokens into a padded grid
and scatters them back. All indices come from outside: a layer makes none.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from cascade.engine.packing import MASKED
from cascade.training.models.families import Family


class PackedEmbed(nn.Module):
    """Word embeddings, those of positions and types where there are some, LayerNorm, perhaps a projection.

    Attributes:
        inputs: names of the inputs of `forward`, in order.
    """

    def __init__(self, backbone: nn.Module, family: Family) -> None:
        super().__init__()
        modules, parts = dict(backbone.named_modules()), family.embeddings
        self.norm, self.projection = modules[parts.norm], modules.get(parts.projection or "-")
        named = {"input_ids": parts.words, "position_ids": parts.positions, "token_type_ids": parts.types}
        tables: dict[str, Any] = {name: modules[part] for name, part in named.items() if part in modules}
        types = tables.get("token_type_ids")
        if types is not None and types.num_embeddings == 1:
            # A single type says nothing (RoBERTa): it is a constant, and the graph needs no input for it.
            del tables["token_type_ids"]
            last = tables[list(tables)[-1]]
            tables[list(tables)[-1]] = nn.Embedding.from_pretrained(last.weight.detach() + types.weight.detach())
        self.inputs, self.tables = tuple(tables), nn.ModuleList(tables.values())

    def forward(self, *ids: Tensor) -> Tensor:
        """Shapes `(tokens,)`, of each input -> `(tokens, width)`."""
        parts = [table(own) for table, own in zip(self.tables, ids, strict=True)]
        hidden: Tensor = self.norm(sum(parts[1:], start=parts[0]))
        return hidden if self.projection is None else self.projection(hidden)


class PackedLayer(nn.Module):
    """One layer. Its modules are the backbone's own, but for the queries', which are scaled.

    `narrows`: whether it can compute one token of each row alone.
    """

    narrows = True
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    output: nn.Linear
    attention_norm: nn.LayerNorm
    expand: nn.Linear
    contract: nn.Linear
    output_norm: nn.LayerNorm

    def __init__(self, layer: nn.Module, family: Family, backbone: Any, _number: int) -> None:
        super().__init__()
        for name, path in asdict(family.parts).items():
            setattr(self, name, layer.get_submodule(path))
        config = backbone.config
        self.heads, self.width = config.num_attention_heads, self.query.out_features
        self.size = self.width // self.heads
        # The scaling of attention is folded into the queries. (A copy: ALBERT's layers share their parts.)
        self.query = copy.deepcopy(self.query)
        with torch.no_grad():
            for parameter in self.query.parameters():
                parameter.mul_(self.size**-0.5)
        self.activation = activation(getattr(config, family.activation))

    def forward(
        self,
        asking: Tensor,
        residual: Tensor,
        hidden: Tensor,
        index: Mapping[str, Tensor],
    ) -> Tensor:
        """New states of the active tokens, which attend to all tokens. Shape `(actives, width)`.

        Queries are made of `asking`, shape `(actives, width)`, keys and values of `hidden`, shape `(tokens, width)`.
        The layer adds to `residual`: the values of `asking`, which may be another node of the graph, one that shares
        its int8 form with `hidden`. `index` has a tagger's stage's inputs by name (ARCHITECTURE.md); without
        `query_head_gather` one token of each row is active, and its heads are in their places as they are.
        """
        alone = "query_head_gather" not in index
        # One merged product for all three was 5 % slower per layer: its result has to be split again. Each head of each
        # token is a row of its own, gathered straight to its place: no transposes, 5 % off a stage.
        queries = self.query(asking)
        if alone:
            queries = queries.reshape(-1, self.heads, 1, self.size)
        else:
            queries = self._by_head(queries, index["query_head_gather"])
        keys, values = (self._by_head(linear(hidden), index["head_gather"]) for linear in (self.key, self.value))
        weights = torch.softmax(self.scores(queries, keys, index), dim=-1)
        context = weights @ values
        if not alone:
            context = self._by_head(context, index["head_scatter"])
        context = context.reshape(-1, self.width)
        new = self.attention_norm(self.output(context) + residual)
        result: Tensor = self.output_norm(self.contract(self.activation(self.expand(new))) + new)
        return result

    def scores(self, queries: Tensor, keys: Tensor, index: Mapping[str, Tensor]) -> Tensor:
        """What the softmax is of: shapes `(rows, heads, longest, size)` -> `(rows, heads, longest, longest)`."""
        return queries @ keys.transpose(-1, -2) + index["bias"]

    def _by_head(self, states: Tensor, index: Tensor) -> Tensor:
        """The heads in `states`, of any shape, by their numbers: `(...)` -> `(..., size)`."""
        return F.embedding(index, states.reshape(-1, self.size))


class BucketBias(nn.Module):
    """MPNet's `bias`: the numbers of the `buckets` are added, once for all layers of a stage, which share one table.

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


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """Transformers' activation of this name, in the form that exports as a single operator."""
    if name in ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"):
        return nn.GELU(approximate="tanh")
    if name in ("gelu", "gelu_python"):
        return nn.GELU()
    return ACT2FN[name]  # type: ignore[no-any-return]  # transformers ships no types

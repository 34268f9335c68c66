"""From a family's backbone to packed torch modules: the form that tier 2 is exported in.

Hidden states are one matrix of the tokens of all rows, without padding (ARCHITECTURE.md, contracts). Linear layers,
LayerNorm and the feed-forward part run on it as it is; only attention gathers the heads of tokens into a padded grid
and scatters them back. All indices come from outside: a stage makes none.

In a tagger, words leave one by one. A token whose word has left keeps its last state and is still attended to: keys
and values are made of all tokens, queries and everything after attention of the active ones only (halt-and-copy).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from cascade.exceptions import OptionError
from cascade.training.models.multi_exit import MultiExitModel
from cascade.training.models.tagging import MultiExitTagger
from cascade_export.families import FAMILIES, LayerParts, PackedEmbed

__all__ = ["PackedLayer", "PackedModel", "PackedStage", "PackedTagStage", "pack"]


class PackedLayer(nn.Module):
    """One post-norm encoder layer on packed tokens."""

    def __init__(self, parts: LayerParts, *, heads: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.size, self.width = parts.query.out_features // heads, parts.query.out_features
        # The scaling of attention is folded into the queries. (A copy: ALBERT's layers share their parts.)
        self.query, self.key, self.value = copy.deepcopy(parts.query), parts.key, parts.value
        with torch.no_grad():
            for parameter in self.query.parameters():
                parameter.mul_(self.size**-0.5)
        self.output, self.attention_norm = parts.output, parts.attention_norm
        self.expand, self.contract, self.output_norm = parts.expand, parts.contract, parts.output_norm
        self.activation = activation

    def forward(self, hidden: Tensor, head_gather: Tensor, bias: Tensor, head_scatter: Tensor) -> Tensor:
        """New states of all tokens; shapes as of `partly`."""
        return self.partly(hidden, hidden, hidden, head_gather, bias, head_gather, head_scatter)

    def partly(
        self,
        asking: Tensor,
        before: Tensor,
        hidden: Tensor,
        head_gather: Tensor,
        bias: Tensor,
        query_head_gather: Tensor,
        head_scatter: Tensor,
    ) -> Tensor:
        """New states of some tokens, which attend to all of them.

        Args:
            asking: what queries are made of. Shape `(actives, width)`.
            before: the states of the same tokens, to which the layer adds. Shape `(actives, width)`. Equal to
                `asking`, which may be another node of the graph: one that shares its int8 form with `hidden`.
            hidden: what keys and values are made of. Shape `(tokens, width)`.
            head_gather: number of the head of the token at each place of the padded grid. Shape
                `(rows, heads, longest)`.
            bias: 0 where a token is, else `cascade.engine.packing.MASKED`. Shape `(rows, 1, 1, longest)`.
            query_head_gather: as `head_gather`, for the actives. Shape `(rows, heads, longest_active)`.
            head_scatter: place of each head of each active in the flattened grid of actives. Shape `(actives, heads)`.

        Returns:
            Shape `(actives, width)`.
        """
        # One merged product for all three was 5 % slower per layer: its result has to be split again. Each head of each
        # token is a row of its own, gathered straight to its place: no transposes, 5 % off a stage.
        queries = self._by_head(self.query(asking), query_head_gather)
        keys, values = (self._by_head(linear(hidden), head_gather) for linear in (self.key, self.value))
        weights = torch.softmax(queries @ keys.transpose(-1, -2) + bias, dim=-1)
        context = self._by_head(weights @ values, head_scatter).reshape(-1, self.width)
        new = self.attention_norm(self.output(context) + before)
        result: Tensor = self.output_norm(self.contract(self.activation(self.expand(new))) + new)
        return result

    def _by_head(self, states: Tensor, index: Tensor) -> Tensor:
        """The heads in `states`, of any shape, by their numbers: `(...)` -> `(..., size)`."""
        return F.embedding(index, states.reshape(-1, self.size))


class PackedStage(nn.Module):
    """The layers between two exits and the head at their end."""

    def __init__(self, layers: list[PackedLayer], head: nn.Module, *, pooling: str) -> None:
        super().__init__()
        self.layers, self.head, self.pooling = nn.ModuleList(layers), head, pooling

    def forward(
        self, hidden: Tensor, head_gather: Tensor, bias: Tensor, head_scatter: Tensor, *pooled_by: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Shapes as in ARCHITECTURE.md; returns hidden `(tokens, width)` and logits `(rows, labels)`.

        `pooled_by`: `firsts` where pooling is "first"; `gather`, `weights` and `counts` where it is "mean".
        """
        for layer in self.layers:
            hidden = layer(hidden, head_gather, bias, head_scatter)
        if self.pooling == "first":
            (firsts,) = pooled_by
            return hidden, self.head(F.embedding(firsts, hidden))
        gather, weights, counts = pooled_by
        return hidden, self.head((weights @ F.embedding(gather, hidden)).squeeze(1) / counts)


class PackedTagStage(nn.Module):
    """The layers between two exits for the words that are still inside, and the head on their first pieces."""

    def __init__(self, layers: list[PackedLayer], head: nn.Module) -> None:
        super().__init__()
        self.layers, self.head = nn.ModuleList(layers), head

    def forward(
        self,
        hidden: Tensor,
        head_gather: Tensor,
        bias: Tensor,
        active: Tensor,
        query_head_gather: Tensor,
        head_scatter: Tensor,
        words: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Shapes as in ARCHITECTURE.md; returns hidden of the actives `(actives, width)`, logits `(words, labels)`."""
        asking = new = F.embedding(active, hidden)
        for i, layer in enumerate(self.layers):
            if i:
                hidden = hidden.index_put((active,), new)
                asking = F.embedding(active, hidden)
            new = layer.partly(asking, new, hidden, head_gather, bias, query_head_gather, head_scatter)  # type: ignore[operator]  # torch types a list's modules as tensors too
        return new, self.head(F.embedding(words, new))


@dataclass(frozen=True)
class PackedModel:
    """A whole second tier in packed form.

    Attributes:
        embed: token ids to hidden states.
        stages: in the order in which they run; all of one kind.
        layers: number of the last layer of each stage, from 1.
        width: size of a hidden state.
        heads: of attention.
        position_offset: position id of a row's first token.
        max_length: tokens of a row at most, special tokens included.
        takes_types: whether `embed` reads token type ids.
    """

    embed: PackedEmbed
    stages: tuple[PackedStage, ...] | tuple[PackedTagStage, ...]
    layers: tuple[int, ...]
    width: int
    heads: int
    position_offset: int
    max_length: int

    @property
    def takes_types(self) -> bool:
        return self.embed.types is not None


def pack(model: MultiExitModel | MultiExitTagger) -> PackedModel:
    """Turn a multi-exit model into packed modules that hold copies of its weights.

    Args:
        model: a classifier or a tagger of one of `FAMILIES`; left as it is.

    Raises:
        OptionError: the backbone's family is unknown, or it does something that packed layers do not.
    """
    model = copy.deepcopy(model).eval().float()
    config = model.config
    family = config.model_type
    if family not in FAMILIES:
        raise OptionError(f"tier 2's model_type must be one of {', '.join(FAMILIES)}, was: {family}")
    positions = getattr(config, "position_embedding_type", "absolute")
    if positions != "absolute":
        raise OptionError(f"tier 2's position_embedding_type must be absolute, was: {positions}")
    embed, layers = FAMILIES[family](model.backbone)
    activation = _activation(config.activation if family == "distilbert" else config.hidden_act)
    packed = [PackedLayer(parts, heads=config.num_attention_heads, activation=activation) for parts in layers]
    starts = (0, *model.layers[:-1])
    parts = [(packed[a:b], head) for a, b, head in zip(starts, model.layers, model.heads, strict=True)]
    stages: tuple[PackedStage, ...] | tuple[PackedTagStage, ...]
    if isinstance(model, MultiExitTagger):
        stages = tuple(PackedTagStage(own, head).eval() for own, head in parts)
    else:
        stages = tuple(PackedStage(own, head, pooling=model.pooling).eval() for own, head in parts)
    offset = config.pad_token_id + 1 if family == "roberta" else 0
    return PackedModel(
        embed=embed.eval(),
        stages=stages,
        layers=tuple(model.layers),
        width=config.hidden_size,
        heads=config.num_attention_heads,
        position_offset=offset,
        max_length=config.max_position_embeddings - offset,
    )


def _activation(name: str) -> Callable[[Tensor], Tensor]:
    """The same function in the form that exports as a single operator."""
    if name in ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"):
        return nn.GELU(approximate="tanh")
    if name in ("gelu", "gelu_python"):
        return nn.GELU()
    return ACT2FN[name]  # type: ignore[no-any-return]  # transformers ships no types

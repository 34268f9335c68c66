"""From a family's backbone to packed torch modules: the form that tier 2 is exported in.

All five families (BERT, RoBERTa, ELECTRA, DistilBERT, ALBERT) are post-norm encoders of the same shape, so an adapter
only says where a checkpoint keeps its parts. It leaves to others: writing the modules as ONNX (`graphs`), int8
(`quantise`), the index arrays that feed them (`cascade.packing`).

Hidden states are one matrix of the tokens of all rows, without padding (ARCHITECTURE.md, contracts). Linear layers,
LayerNorm and the feed-forward part run on it as it is; only attention gathers it into a padded grid and scatters back.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from cascade.exceptions import OptionError
from cascade.training.multi_exit import MultiExitModel

__all__ = ["FAMILIES", "LayerParts", "PackedEmbed", "PackedLayer", "PackedModel", "PackedStage", "pack"]


@dataclass(frozen=True)
class LayerParts:
    """The parts of one encoder layer, wherever its family keeps them."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    output: nn.Linear
    attention_norm: nn.LayerNorm
    expand: nn.Linear
    contract: nn.Linear
    output_norm: nn.LayerNorm


class PackedEmbed(nn.Module):
    """Word, position and type embeddings, LayerNorm and, where there is one, a projection to the layers' width."""

    def __init__(
        self,
        words: nn.Embedding,
        positions: nn.Embedding,
        types: nn.Embedding | None,
        norm: nn.LayerNorm,
        projection: nn.Linear | None,
    ) -> None:
        super().__init__()
        self.words, self.positions, self.types, self.norm, self.projection = words, positions, types, norm, projection
        if types is not None and types.num_embeddings == 1:
            # A single type says nothing (RoBERTa): it is a constant, and the graph needs no input for it.
            self.positions = nn.Embedding.from_pretrained(positions.weight.detach() + types.weight.detach())
            self.types = None

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None, position_ids: Tensor) -> Tensor:
        """Shapes `(tokens,)` three times -> `(tokens, width)`."""
        hidden = self.words(input_ids) + self.positions(position_ids)
        if self.types is not None and token_type_ids is not None:
            hidden = hidden + self.types(token_type_ids)
        hidden = self.norm(hidden)
        if self.projection is not None:
            hidden = self.projection(hidden)
        return hidden  # type: ignore[no-any-return]  # torch's modules are untyped calls


class PackedLayer(nn.Module):
    """One post-norm encoder layer on packed tokens."""

    def __init__(self, parts: LayerParts, *, heads: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.heads, self.size, self.width = heads, parts.query.out_features // heads, parts.query.out_features
        # The scaling of attention is folded into the queries. (A copy: ALBERT's layers share their parts.)
        self.query, self.key, self.value = copy.deepcopy(parts.query), parts.key, parts.value
        with torch.no_grad():
            for parameter in self.query.parameters():
                parameter.mul_(self.size**-0.5)
        self.output, self.attention_norm = parts.output, parts.attention_norm
        self.expand, self.contract, self.output_norm = parts.expand, parts.contract, parts.output_norm
        self.activation = activation

    def forward(self, hidden: Tensor, gather: Tensor, bias: Tensor, scatter: Tensor) -> Tensor:
        """Shapes `(tokens, width)`, `(rows, longest)`, `(rows, 1, 1, longest)`, `(tokens,)` -> `(tokens, width)`."""
        # One merged product for all three was 5 % slower per layer: its result has to be split again. Giving heads
        # their axis before gathering keeps every reshape free of the grid's changing sizes.
        queries, keys, values = (
            linear(hidden).reshape(-1, self.heads, self.size)[gather].permute(0, 2, 1, 3)
            for linear in (self.query, self.key, self.value)
        )
        weights = torch.softmax(queries @ keys.transpose(-1, -2) + bias, dim=-1)
        context = (weights @ values).permute(0, 2, 1, 3).reshape(-1, self.width)
        hidden = self.attention_norm(self.output(F.embedding(scatter, context)) + hidden)
        result: Tensor = self.output_norm(self.contract(self.activation(self.expand(hidden))) + hidden)
        return result


class PackedStage(nn.Module):
    """The layers between two exits and the head at their end."""

    def __init__(self, layers: list[PackedLayer], head: nn.Module, *, pooling: str) -> None:
        super().__init__()
        self.layers, self.head, self.pooling = nn.ModuleList(layers), head, pooling

    def forward(self, hidden: Tensor, gather: Tensor, mask: Tensor, scatter: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes as in ARCHITECTURE.md; returns hidden `(tokens, width)` and logits `(rows, labels)`."""
        # The lowest float, not minus infinity: its exponential is exactly 0 too, and it cannot turn into a NaN.
        bias = torch.where(mask, 0.0, torch.finfo(torch.float32).min)[:, None, None, :]
        for layer in self.layers:
            hidden = layer(hidden, gather, bias, scatter)
        if self.pooling == "first":
            pooled = F.embedding(gather[:, 0], hidden)
        else:
            weights = mask.to(torch.float32)
            total = (weights[:, None, :] @ F.embedding(gather, hidden)).squeeze(1)
            pooled = total / weights.sum(dim=1, keepdim=True)
        return hidden, self.head(pooled)


@dataclass(frozen=True)
class PackedModel:
    """A whole second tier in packed form.

    Attributes:
        embed: token ids to hidden states.
        stages: in the order in which they run.
        layers: number of the last layer of each stage, from 1.
        width: size of a hidden state.
        position_offset: position id of a row's first token.
        max_length: tokens of a row at most, special tokens included.
        takes_types: whether `embed` reads token type ids.
    """

    embed: PackedEmbed
    stages: tuple[PackedStage, ...]
    layers: tuple[int, ...]
    width: int
    position_offset: int
    max_length: int

    @property
    def takes_types(self) -> bool:
        return self.embed.types is not None


def pack(model: MultiExitModel) -> PackedModel:
    """Turn a multi-exit model into packed modules that hold copies of its weights.

    Args:
        model: of one of `FAMILIES`; left as it is.

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
    stages = tuple(
        PackedStage(packed[start:end], head, pooling=model.pooling).eval()
        for start, end, head in zip(starts, model.layers, model.heads, strict=True)
    )
    offset = config.pad_token_id + 1 if family == "roberta" else 0
    return PackedModel(
        embed=embed.eval(),
        stages=stages,
        layers=tuple(model.layers),
        width=config.hidden_size,
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


def _bert(backbone: Any) -> tuple[PackedEmbed, list[LayerParts]]:
    table = backbone.embeddings
    embed = PackedEmbed(
        table.word_embeddings,
        table.position_embeddings,
        table.token_type_embeddings,
        table.LayerNorm,
        getattr(backbone, "embeddings_project", None),  # ELECTRA, where its embeddings are narrower than its layers
    )
    return embed, [
        LayerParts(
            query=layer.attention.self.query,
            key=layer.attention.self.key,
            value=layer.attention.self.value,
            output=layer.attention.output.dense,
            attention_norm=layer.attention.output.LayerNorm,
            expand=layer.intermediate.dense,
            contract=layer.output.dense,
            output_norm=layer.output.LayerNorm,
        )
        for layer in backbone.encoder.layer
    ]


def _distilbert(backbone: Any) -> tuple[PackedEmbed, list[LayerParts]]:
    table = backbone.embeddings
    embed = PackedEmbed(table.word_embeddings, table.position_embeddings, None, table.LayerNorm, None)
    return embed, [
        LayerParts(
            query=layer.attention.q_lin,
            key=layer.attention.k_lin,
            value=layer.attention.v_lin,
            output=layer.attention.out_lin,
            attention_norm=layer.sa_layer_norm,
            expand=layer.ffn.lin1,
            contract=layer.ffn.lin2,
            output_norm=layer.output_layer_norm,
        )
        for layer in backbone.transformer.layer
    ]


def _albert(backbone: Any) -> tuple[PackedEmbed, list[LayerParts]]:
    table, encoder, config = backbone.embeddings, backbone.encoder, backbone.config
    if config.inner_group_num != 1:
        raise OptionError(f"tier 2's inner_group_num must be 1, was: {config.inner_group_num}")
    embed = PackedEmbed(
        table.word_embeddings,
        table.position_embeddings,
        table.token_type_embeddings,
        table.LayerNorm,
        encoder.embedding_hidden_mapping_in,
    )
    # Layers share the weights of their group: each stage gets a copy, and runs like any other.
    groups = [int(i / (config.num_hidden_layers / config.num_hidden_groups)) for i in range(config.num_hidden_layers)]
    shared = [encoder.albert_layer_groups[group].albert_layers[0] for group in groups]
    return embed, [
        LayerParts(
            query=layer.attention.query,
            key=layer.attention.key,
            value=layer.attention.value,
            output=layer.attention.dense,
            attention_norm=layer.attention.LayerNorm,
            expand=layer.ffn,
            contract=layer.ffn_output,
            output_norm=layer.full_layer_layer_norm,
        )
        for layer in shared
    ]


FAMILIES: dict[str, Callable[[Any], tuple[PackedEmbed, list[LayerParts]]]] = {
    "bert": _bert,
    "roberta": _bert,
    "electra": _bert,
    "distilbert": _distilbert,
    "albert": _albert,
}

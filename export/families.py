"""Where each family keeps its parts: a backbone as embeddings and layers of one shape.

All five families (BERT, RoBERTa, ELECTRA, DistilBERT, ALBERT) are post-norm encoders of the same shape, so an adapter
only says where a checkpoint keeps its parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from cascade.exceptions import OptionError

__all__ = ["FAMILIES", "LayerParts", "PackedEmbed"]


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

"""Where each family of encoders keeps its parts: the one list that training and the exporter read.

All five families are post-norm encoders of the same shape, so a family is a set of names. A new one is one entry here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from cascade.exceptions import OptionError


@dataclass(frozen=True)
class LayerParts:
    """Dotted names of the parts of one encoder layer, by default BERT's: six linear layers, and two LayerNorms."""

    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    output: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    expand: str = "intermediate.dense"
    contract: str = "output.dense"
    output_norm: str = "output.LayerNorm"


@dataclass(frozen=True)
class Family:
    """One `model_type` of transformers.

    Attributes:
        head: of its `...ForSequenceClassification`: first linear, activation, second linear.
        layers: a backbone's layers in the order in which they run; one that runs several times (ALBERT) is there
            several times. By default where BERT has them.
        parts: of a layer.
        projection: dotted name of the linear layer from the embeddings' width to the layers', if there may be one.
        pooler: whether its constructor knows `add_pooling_layer`.
        activation: field of the configuration with the name of the feed-forward part's activation.
    """

    head: tuple[str, str, str]
    layers: Callable[[Any], list[nn.Module]] = lambda backbone: list(backbone.encoder.layer)
    parts: LayerParts = LayerParts()
    projection: str | None = None
    pooler: bool = False
    activation: str = "hidden_act"


def _albert_layers(backbone: Any) -> list[nn.Module]:
    config = backbone.config
    if config.inner_group_num != 1:
        raise OptionError(f"an ALBERT's inner_group_num must be 1, got {config.inner_group_num}")
    per_group = config.num_hidden_layers / config.num_hidden_groups
    groups = backbone.encoder.albert_layer_groups
    return [groups[int(layer / per_group)].albert_layers[0] for layer in range(config.num_hidden_layers)]


FAMILIES = {
    "bert": Family(("bert.pooler.dense", "tanh", "classifier"), pooler=True),
    "roberta": Family(("classifier.dense", "tanh", "classifier.out_proj"), pooler=True),
    "electra": Family(("classifier.dense", "gelu", "classifier.out_proj"), projection="embeddings_project"),
    "distilbert": Family(
        ("pre_classifier", "relu", "classifier"),
        lambda backbone: list(backbone.transformer.layer),
        LayerParts(
            query="attention.q_lin",
            key="attention.k_lin",
            value="attention.v_lin",
            output="attention.out_lin",
            attention_norm="sa_layer_norm",
            expand="ffn.lin1",
            contract="ffn.lin2",
            output_norm="output_layer_norm",
        ),
        activation="activation",
    ),
    "albert": Family(
        ("albert.pooler", "tanh", "classifier"),
        _albert_layers,
        LayerParts(
            query="attention.query",
            key="attention.key",
            value="attention.value",
            output="attention.dense",
            attention_norm="attention.LayerNorm",
            expand="ffn",
            contract="ffn_output",
            output_norm="full_layer_layer_norm",
        ),
        projection="encoder.embedding_hidden_mapping_in",
        pooler=True,
    ),
}

# Families of transformers whose position ids begin after that of padding, first tiers included.
_AFTER_PADDING = {"camembert", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"}


def family_of(config: Any) -> Family:
    """The family of a configuration.

    Raises:
        OptionError: it is not among `FAMILIES`.
    """
    if config.model_type not in FAMILIES:
        raise OptionError(f"the checkpoint's model_type must be one of {', '.join(FAMILIES)}, got {config.model_type}")
    return FAMILIES[config.model_type]


def position_offset(config: Any) -> int:
    """Position id of a row's first token, for any model of transformers."""
    return config.pad_token_id + 1 if config.model_type in _AFTER_PADDING else 0


def max_length(config: Any) -> int:
    """Tokens that a row may have, special tokens included, for any model of transformers."""
    positions: int = config.max_position_embeddings
    return positions - position_offset(config)

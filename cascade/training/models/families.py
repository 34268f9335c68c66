"""What each family of encoders is: the one list that training and the exporter read.

A family is one `Family` value: names of parts, what its configuration must say, and the key of the packed form of its
layers, which the exporter makes (`cascade_export.packed.stages`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from cascade.engine.local_attention import HALF, LOCAL
from cascade.exceptions import OptionError

REMEDY = "any other encoder gets in as a tier without exits: cascade-export --tier2"

ABSOLUTE: Mapping[str, tuple[Any, ...]] = {"position_embedding_type": ("absolute",), "is_decoder": (False,)}
"""What most families ask of a configuration: no relative positions, and tokens that see each other both ways."""


@dataclass(frozen=True)
class EmbeddingParts:
    """Dotted names of the parts of a backbone's embeddings, by default BERT's.

    `positions`, `types` and `projection` (a linear layer from the embeddings' width to the layers') may be missing in a
    backbone; None: the family has none.
    """

    words: str = "embeddings.word_embeddings"
    norm: str = "embeddings.LayerNorm"
    positions: str | None = "embeddings.position_embeddings"
    types: str | None = "embeddings.token_type_embeddings"
    projection: str | None = None


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
class HeadParts:
    """Dotted names of the parts of a fine-tuned head, in the order in which they run.

    Attributes:
        dense: first linear layer; None: the head is one linear layer.
        activation: its name, or the field of the configuration that names it.
        norm: LayerNorm after the activation, if there is one; its epsilon is the configuration's `norm_eps`.
        out: linear layer to the labels.
    """

    dense: str | None = None
    activation: str = "tanh"
    norm: str | None = None
    out: str = "classifier"


@dataclass(frozen=True, eq=False)
class Family:
    """One `model_type` of transformers.

    Attributes:
        head: of its `...ForSequenceClassification`.
        tag_head: of its `...ForTokenClassification`.
        pooling: what a fine-tuned classifier of this configuration reads: the `first` token or the `mean`.
        layers: a backbone's layers in the order in which they run; one that runs several times (ALBERT) is there
            several times. By default where BERT has them.
        parts: of a layer.
        embeddings: their parts.
        final_norm: dotted name of a LayerNorm behind the last layer; every exit has a copy of its own.
        layer: key of the packed form of its layers, in the exporter's table of forms.
        inputs: names of what its stages read beside what those of BERT do (`cascade.engine.packing`).
        pooler: whether its constructor knows `add_pooling_layer`.
        activation: field of the configuration with the name of the feed-forward part's activation.
        first_position: position id of a row's first token.
        required: values that a field of the configuration may have, where it is there; perhaps made of the others.
    """

    head: HeadParts
    tag_head: HeadParts = HeadParts()
    pooling: Callable[[Any], str] = lambda _config: "first"
    layers: Callable[[Any], list[nn.Module]] = lambda backbone: list(backbone.encoder.layer)
    parts: LayerParts = LayerParts()
    embeddings: EmbeddingParts = EmbeddingParts()
    final_norm: str | None = None
    layer: str = "post_norm"
    inputs: tuple[str, ...] = ()
    pooler: bool = False
    activation: str = "hidden_act"
    first_position: Callable[[Any], int] = lambda _config: 0
    required: Mapping[str, tuple[Any, ...] | Callable[[Any], tuple[Any, ...]]] = field(default_factory=lambda: ABSOLUTE)

    @property
    def options(self) -> dict[str, bool]:
        """Options of its constructor by which a backbone has no pooler."""
        return {"add_pooling_layer": False} if self.pooler else {}


def _albert_layers(backbone: Any) -> list[nn.Module]:
    config = backbone.config
    per_group = config.num_hidden_layers / config.num_hidden_groups
    groups = backbone.encoder.albert_layer_groups
    return [groups[int(layer / per_group)].albert_layers[0] for layer in range(config.num_hidden_layers)]


def _modernbert_layers(backbone: Any) -> list[nn.Module]:
    for local in (False, True):
        rope_theta(backbone.config, local=local)
    return list(backbone.layers)


def _after_padding(config: Any) -> int:
    offset: int = config.pad_token_id + 1
    return offset


_CLASSIFIER = HeadParts("classifier.dense", out="classifier.out_proj")
_NORMED = HeadParts("head.dense", "classifier_activation", "head.norm")
_DISTILBERT = LayerParts("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "sa_layer_norm",
                         "ffn.lin1", "ffn.lin2", "output_layer_norm")  # fmt: skip
_ALBERT = LayerParts("attention.query", "attention.key", "attention.value", "attention.dense", "attention.LayerNorm",
                     "ffn", "ffn_output", "full_layer_layer_norm")  # fmt: skip
_MPNET = LayerParts("attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o",
                    "attention.LayerNorm")  # fmt: skip
_ROBERTA = Family(_CLASSIFIER, pooler=True, first_position=_after_padding)

FAMILIES = {
    "bert": Family(HeadParts("bert.pooler.dense"), pooler=True),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "electra": Family(
        HeadParts("classifier.dense", "gelu", out="classifier.out_proj"),
        embeddings=EmbeddingParts(projection="embeddings_project"),
    ),
    "distilbert": Family(
        HeadParts("pre_classifier", "relu"),
        layers=lambda backbone: list(backbone.transformer.layer),
        parts=_DISTILBERT,
        activation="activation",
    ),
    "albert": Family(
        HeadParts("albert.pooler"),
        layers=_albert_layers,
        parts=_ALBERT,
        embeddings=EmbeddingParts(projection="encoder.embedding_hidden_mapping_in"),
        pooler=True,
        required={**ABSOLUTE, "inner_group_num": (1,)},
    ),
    "mpnet": Family(
        _CLASSIFIER,
        parts=_MPNET,
        embeddings=EmbeddingParts(types=None),
        layer="mpnet",
        inputs=("buckets",),
        pooler=True,
        first_position=lambda _config: 2,  # transformers' code has it so, whatever the padding's id
    ),
    "deberta-v2": Family(
        HeadParts("pooler.dense", "pooler_hidden_act"),
        parts=LayerParts("attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj"),
        layer="distances",
        inputs=("distances", "skew_shapes", "placed_query_head_gather", "placed_head_scatter"),
        required={
            "relative_attention": (True,),
            "share_att_key": (True,),
            "pos_att_type": (["p2c", "c2p"], ["c2p", "p2c"]),
            "conv_kernel_size": (0,),
            "is_decoder": (False,),
            "embedding_size": lambda config: (config.hidden_size,),
            "pooler_hidden_size": lambda config: (config.hidden_size,),
            "attention_head_size": lambda config: (config.hidden_size // config.num_attention_heads,),
        },
    ),
    "modernbert": Family(
        _NORMED,
        _NORMED,
        pooling=lambda config: "mean" if config.classifier_pooling == "mean" else "first",
        layers=_modernbert_layers,
        embeddings=EmbeddingParts("embeddings.tok_embeddings", "embeddings.norm", positions=None, types=None),
        final_norm="final_norm",
        layer="gated",
        inputs=("position_ids", *LOCAL),
        activation="hidden_activation",
        required={**ABSOLUTE, "local_attention": (2 * HALF,)},
    ),
}

# Other models of transformers, for first tiers, whose position ids begin after that of padding.
_AFTER_PADDING = {"roberta-prelayernorm", "xlm-roberta-xl", "xmod"}


def family_of(config: Any) -> Family:
    """The family of a configuration.

    One that is not among `FAMILIES`, or says something that the family's packed form does not do, is an `OptionError`.
    """
    if config.model_type not in FAMILIES:
        raise OptionError(f"the model_type must be one of {', '.join(FAMILIES)}, got {config.model_type}; {REMEDY}")
    family = FAMILIES[config.model_type]
    for name, values in family.required.items():
        allowed = values(config) if callable(values) else values
        if (value := getattr(config, name, allowed[0])) not in allowed:
            choices = " or ".join(map(str, allowed))
            raise OptionError(f"{config.model_type}'s {name} must be {choices}, got {value}; {REMEDY}")
    return family


def rope_theta(config: Any, *, local: bool) -> float:
    """The base of the rotary embedding in ModernBERT's global or local layers (Su et al., 2021, section 3.2.2).

    A scaled embedding, which the packed form does not do, is an `OptionError`.
    """
    found = getattr(config, "rope_scaling", None) or {}  # in transformers 5 one for each kind of layer, with the base
    found = found.get("sliding_attention" if local else "full_attention", found)
    kind = found.get("rope_type", found.get("type", "default"))
    if kind != "default":
        raise OptionError(f"{config.model_type}'s rope_scaling must be default, got {kind}; {REMEDY}")
    if "rope_theta" in found:
        return float(found["rope_theta"])
    own = config.local_rope_theta if local else None
    return float(config.global_rope_theta if own is None else own)


def position_offset(config: Any) -> int:
    """Position id of a row's first token, for any model of transformers."""
    family = FAMILIES.get(config.model_type)
    if family is not None:
        return family.first_position(config)
    return _after_padding(config) if config.model_type in _AFTER_PADDING else 0


def max_length(config: Any) -> int:
    """Tokens that a row may have, special tokens included, for any model of transformers."""
    positions: int = getattr(config, "max_position_embeddings", None) or 512  # there are some without a limit
    return positions - position_offset(config)

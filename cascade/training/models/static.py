"""The cheapest first tiers: a weighted mean of token embeddings and a small MLP, or of what short runs of tokens say.

A learned scalar per token decides how much it counts, so that function words can count for nothing (the idea of
smooth inverse frequency, Arora et al. 2017, learned instead of counted). With a `reach`, each token is read with its
neighbours on both sides before the mean, and the maximum counts beside it ("Convolutional Neural Networks for
Sentence Classification", Kim 2014, section 2): where negation decides, words alone say too little. It is a
`PreTrainedModel`, so that it is saved, loaded and exported like any other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

__all__ = [
    "StaticConfig",
    "StaticForSequenceClassification",
    "neighbourhoods",
    "side_by_side",
    "with_zero",
]


class StaticConfig(PretrainedConfig):
    """Sizes of a static first tier.

    Args:
        vocab_size: rows of the embedding table.
        width: size of an embedding.
        hidden: size of the MLP's layer.
        dropout: on embeddings (whole tokens) and on the hidden layer, while training.
        reach: neighbours on each side that a token is read with; 0 reads each token alone.
    """

    model_type = "cascade_static"
    attribute_map = {"hidden_size": "hidden"}  # noqa: RUF012  # the form that transformers reads

    def __init__(
        self,
        vocab_size: int = 30522,
        width: int = 256,
        hidden: int = 256,
        dropout: float = 0.1,
        reach: int = 0,
        max_position_embeddings: int = 512,
        **kwargs: Any,  # transformers' own contract: the rest of config.json
    ) -> None:
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.width = width
        self.hidden = hidden
        self.dropout = dropout
        self.reach = reach
        self.max_position_embeddings = max_position_embeddings


class StaticForSequenceClassification(PreTrainedModel):
    """Weighted mean of token embeddings (or of runs, and their maximum), LayerNorm, one hidden layer, logits."""

    config_class = StaticConfig
    base_model_prefix = "static"
    main_input_name = "input_ids"

    def __init__(self, config: StaticConfig) -> None:
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.width)
        self.importance = nn.Embedding(config.vocab_size, 1)
        pooled = config.width
        if config.reach:
            self.runs = nn.Linear((2 * config.reach + 1) * config.width, config.hidden)
            pooled = 2 * config.hidden
        self.norm = nn.LayerNorm(pooled)
        self.hidden = nn.Linear(pooled, config.hidden)
        self.out = nn.Linear(config.hidden, config.num_labels)
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()  # type: ignore[no-untyped-call]  # transformers types in parts only

    def get_input_embeddings(self) -> nn.Embedding:
        """The table of token embeddings."""
        return self.embeddings

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.05 if module.embedding_dim > 1 else 0.0)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Logits. Shapes `(rows, longest)`, `(rows, longest)` -> `(rows, labels)`; the others are not read."""
        there = attention_mask > 0
        if self.training:  # drop whole tokens: the mean must not lean on one rare word
            there = there & (torch.rand(there.shape, device=there.device) >= self.config.dropout)
        ids = torch.where(there, input_ids, self.config.vocab_size)  # the row of zeros where no token is
        table = with_zero(self.embeddings.weight)
        weight = F.embedding(ids, with_zero(torch.exp(self.importance.weight))).squeeze(-1)
        if self.config.reach:
            around = neighbourhoods(ids, self.config.reach, absent=self.config.vocab_size)
            # Padding places repeat the row's first token, whose state is among those of the maximum anyway.
            around = torch.where(there.unsqueeze(-1), around, around[:, :1])
            states = F.gelu(self.runs(side_by_side(table, around)))
        else:
            states = F.embedding(ids, table)
        pooled = (weight.unsqueeze(1) @ states).squeeze(1) / (weight.sum(-1, keepdim=True) + 1e-6)
        if self.config.reach:
            pooled = torch.cat((pooled, states.amax(1)), dim=-1)
        hidden = self.dropout(F.gelu(self.hidden(self.norm(pooled))))
        return SequenceClassifierOutput(logits=self.out(hidden))


def neighbourhoods(ids: Tensor, reach: int, *, absent: int) -> Tensor:
    """The id of each token beside those of its neighbours, `absent` outside the row.

    Shapes `(rows, longest)` -> `(rows, longest, 2 reach + 1)`. Numbers are moved about here, not embeddings: a few
    bytes for each token in place of a thousand.
    """
    padded = F.pad(ids, (reach, reach), value=absent)
    places = torch.arange(ids.shape[1], device=ids.device)[:, None] + torch.arange(2 * reach + 1, device=ids.device)
    return padded[:, places]


def with_zero(table: Tensor) -> Tensor:
    """A table with a row of zeros behind it, for places where no token is. `(rows, width)` -> `(rows + 1, width)`."""
    return torch.cat((table, table.new_zeros(1, table.shape[1])))


def side_by_side(table: Tensor, ids: Tensor) -> Tensor:
    """The rows of several tokens as one long vector.

    Shapes `(rows of the table, width)`, `(rows, longest, several)` -> `(rows, longest, several * width)`. A product
    with constant weights then reads a constant table, which becomes int8 beforehand (`cascade_export.quantise`).
    """
    # Not flatten(2): the exporter would ask the float rows for their shape, and so keep them beside the int8 ones.
    return F.embedding(ids, table).reshape(ids.shape[0], ids.shape[1], ids.shape[2] * table.shape[1])

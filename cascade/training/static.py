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
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

__all__ = ["StaticConfig", "StaticForSequenceClassification", "runs"]


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
    ) -> SequenceClassifierOutput:
        """Logits. Shapes `(rows, longest)`, `(rows, longest)` -> `(rows, labels)`; `labels` is not read."""
        mask = attention_mask.to(torch.float32)
        if self.training:  # drop whole tokens: the mean must not lean on one rare word
            mask = mask * (torch.rand_like(mask) >= self.config.dropout)
        weight = torch.exp(self.importance(input_ids).squeeze(-1)) * mask
        states = self.embeddings(input_ids)
        if self.config.reach:
            states = torch.nn.functional.gelu(self.runs(runs(states * mask.unsqueeze(-1), self.config.reach)))
        total = (weight.unsqueeze(1) @ states).squeeze(1)
        pooled = total / (weight.sum(-1, keepdim=True) + 1e-6)
        if self.config.reach:
            # GELU is above -0.2 everywhere, so -1 at padding places never is the maximum of a row with tokens.
            highest = torch.where(mask.unsqueeze(-1) > 0, states, -1.0).amax(1)
            pooled = torch.cat((pooled, highest), dim=-1)
        hidden = self.dropout(torch.nn.functional.gelu(self.hidden(self.norm(pooled))))
        return SequenceClassifierOutput(logits=self.out(hidden))


def runs(states: Tensor, reach: int) -> Tensor:
    """Each token's state beside its neighbours', zeros outside.

    Shapes `(rows, longest, width)` -> `(rows, longest, (2 reach + 1) width)`. Written as slices for one product, not as
    a convolution: a product with constant weights is what becomes int8.
    """
    longest = states.shape[1]
    padded = torch.nn.functional.pad(states, (0, 0, reach, reach))
    return torch.cat([padded[:, shift : shift + longest] for shift in range(2 * reach + 1)], dim=-1)

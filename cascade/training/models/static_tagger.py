"""The cheapest first tier for tagging: an MLP on the embeddings of each piece and its nearest neighbours.

No attention: a piece sees `reach` neighbours on each side, with two layers twice as many (the window approach of
Collobert et al. 2011, section 3.3.1). With `sentence` it also sees the mean over its whole sentence: what that is about
decides what a name in it stands for. It is a `PreTrainedModel`, so that it is saved, loaded and exported like any
other. Layers are linear over shifted copies side by side rather than convolutions, because int8 knows matrix products.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import TokenClassifierOutput

from cascade.training.models.static import neighbourhoods, side_by_side, with_zero

__all__ = ["StaticForTokenClassification", "StaticTaggerConfig", "runs"]


class StaticTaggerConfig(PretrainedConfig):
    """Sizes of a static first tier for tagging.

    Args:
        vocab_size: rows of the embedding table.
        width: size of an embedding.
        hidden: size of a hidden layer.
        reach: neighbours on each side that a layer reads.
        layers: hidden layers, each of which reads neighbours.
        dropout: on embeddings (whole tokens) and on hidden layers, while training.
        sentence: whether each hidden layer is also given the mean of the layer below over the sentence.
    """

    model_type = "cascade_static_tagger"
    attribute_map = {"hidden_size": "hidden"}  # noqa: RUF012  # the form that transformers reads

    def __init__(
        self,
        vocab_size: int = 30522,
        width: int = 192,
        hidden: int = 256,
        reach: int = 2,
        layers: int = 1,
        dropout: float = 0.1,
        sentence: bool = False,
        max_position_embeddings: int = 512,
        **kwargs: Any,  # transformers' own contract: the rest of config.json
    ) -> None:
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.width = width
        self.hidden = hidden
        self.reach = reach
        self.layers = layers
        self.dropout = dropout
        self.sentence = sentence
        self.max_position_embeddings = max_position_embeddings


class StaticForTokenClassification(PreTrainedModel):
    """Embeddings, one or more hidden layers over each piece's neighbourhood, logits."""

    config_class = StaticTaggerConfig
    base_model_prefix = "static"
    main_input_name = "input_ids"

    def __init__(self, config: StaticTaggerConfig) -> None:
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.width)
        widths = [config.width, *[config.hidden] * config.layers]
        span = 2 * config.reach + 1
        self.hidden = nn.ModuleList(nn.Linear(span * before, after) for before, after in pairwise(widths))
        # No bias: the layer beside it has one.
        about = pairwise(widths) if config.sentence else ()
        self.about = nn.ModuleList(nn.Linear(before, after, bias=False) for before, after in about)
        self.out = nn.Linear(config.hidden, config.num_labels)
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()  # type: ignore[no-untyped-call]  # transformers types in parts only

    def get_input_embeddings(self) -> nn.Embedding:
        """The table of token embeddings."""
        return self.embeddings

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor | None = None,
    ) -> TokenClassifierOutput:
        """Logits. Shapes `(rows, longest)`, `(rows, longest)` -> `(rows, longest, labels)`; `labels` is not read."""
        inside = attention_mask > 0
        known = inside
        if self.training:  # drop whole tokens: a tag must not lean on one neighbour
            known = inside & (torch.rand(inside.shape, device=inside.device) >= self.config.dropout)
        ids = torch.where(known, input_ids, self.config.vocab_size)  # the row of zeros where no token is
        table = with_zero(self.embeddings.weight)
        there = inside.to(torch.float32).unsqueeze(-1)
        share = there / there.sum(1, keepdim=True).clamp_min(1)
        states = F.embedding(ids, table)
        for number, layer in enumerate(self.hidden):
            if number:
                read = runs(states * there, self.config.reach)
            else:
                read = side_by_side(table, neighbourhoods(ids, self.config.reach, absent=self.config.vocab_size))
            inner = layer(read)
            if self.config.sentence:
                inner = inner + self.about[number](share.transpose(1, 2) @ states)
            states = self.dropout(F.gelu(inner))
        return TokenClassifierOutput(logits=self.out(states))


def runs(states: Tensor, reach: int) -> Tensor:
    """Each token's state beside its neighbours', zeros outside.

    Shapes `(rows, longest, width)` -> `(rows, longest, (2 reach + 1) width)`. Written as slices for one product, not as
    a convolution: a product with constant weights is what becomes int8.
    """
    longest = states.shape[1]
    padded = F.pad(states, (0, 0, reach, reach))
    return torch.cat([padded[:, shift : shift + longest] for shift in range(2 * reach + 1)], dim=-1)

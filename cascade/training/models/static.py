"""The cheapest first tiers: embeddings of tokens and of their neighbours, and a small MLP; no attention.

They are `PreTrainedModel`s, so that they are saved, loaded and exported like any other. Layers are linear over shifted
copies side by side rather than convolutions, because int8 knows matrix products.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput, TokenClassifierOutput


class StaticConfig(PretrainedConfig):
    """Sizes of a static first tier.

    Attributes:
        vocab_size: token ids that there are; as many rows has the embedding table.
        width: size of an embedding.
        hidden: size of a hidden layer.
        dropout: on embeddings (whole tokens) and on hidden layers, while training.
        reach: neighbours on each side that a token is read with; 0 reads each token alone.
        rows: of the embedding table, where only some tokens have one; all others are read like dropped tokens.
        separator: id of the token that ends a text: of a model for pairs, which reads what follows it apart.
        grams: further rows of the table, for tokens together with the one before, which share them by a hash; with a
            `reach` of 0.
    """

    model_type = "cascade_static"
    attribute_map = {"hidden_size": "hidden"}  # noqa: RUF012  # the form that transformers reads
    # transformers 4 makes attributes of all that it is given, transformers 5 makes these fields of a dataclass.
    vocab_size: int = 30522
    width: int = 256
    hidden: int = 256
    dropout: float = 0.1
    reach: int = 0
    max_position_embeddings: int = 512
    rows: int | None = None
    separator: int | None = None
    grams: int = 0


class StaticTaggerConfig(StaticConfig):
    """Sizes of a static first tier for tagging.

    Attributes:
        layers: hidden layers, each of which reads neighbours.
        sentence: whether each hidden layer is also given the mean of the layer below over the sentence.
    """

    model_type = "cascade_static_tagger"
    width: int = 192
    reach: int = 2
    layers: int = 1
    sentence: bool = False


class _Static(PreTrainedModel):
    """A table of token embeddings, of which whole tokens are dropped in training."""

    base_model_prefix = "static"
    main_input_name = "input_ids"
    spread = 1.0  # standard deviation of new embeddings
    places: Tensor  # row of each token, where not all have one

    def __init__(self, config: StaticConfig) -> None:
        super().__init__(config)
        self.rows = config.vocab_size if config.rows is None else config.rows
        self.absent = self.rows + config.grams  # number of the row of zeros behind the table
        if config.rows is not None:
            self.register_buffer("places", torch.full((config.vocab_size,), self.rows))
        self.embeddings = nn.Embedding(self.absent, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def get_input_embeddings(self) -> nn.Embedding:
        """The table of token embeddings."""
        return self.embeddings

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=self.spread if module.embedding_dim > 1 else 0.0)

    def _known(self, input_ids: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the table, and where tokens with one are; elsewhere, and of dropped tokens, it is a row of zeros."""
        if self.config.rows is not None:
            input_ids = self.places[input_ids]
            there = there & (input_ids < self.rows)
        if self.training:  # an answer must not lean on one rare word or one neighbour
            there = there & (torch.rand(there.shape, device=there.device) >= self.config.dropout)
        return torch.where(there, input_ids, self.absent), there


class StaticForSequenceClassification(_Static):
    """Weighted mean of token embeddings, LayerNorm, one hidden layer, logits.

    A learned scalar per token decides how much it counts, so that function words can count for nothing (the idea of
    smooth inverse frequency, Arora et al. 2017, learned instead of counted). With a `reach`, each token is read with
    its neighbours before the mean, and the maximum counts beside it (Kim 2014, section 2): where negation decides,
    words alone say too little. With `grams` the mean is also over pairs of neighbours (Joulin et al. 2017, section
    2.2), each as one more token. Of a pair both texts are pooled apart, and their difference and product are read
    beside them (Conneau et al. 2017, section 3.2).
    """

    config_class = StaticConfig
    spread = 0.05

    def __init__(self, config: StaticConfig) -> None:
        super().__init__(config)
        self.importance = nn.Embedding(self.absent, 1)
        pooled = config.width
        if config.reach:
            self.runs = nn.Linear((2 * config.reach + 1) * config.width, config.hidden)
            pooled = 2 * config.hidden
        self.norm = nn.LayerNorm(pooled)
        self.hidden = nn.Linear(pooled if config.separator is None else 4 * pooled, config.hidden)
        self.out = nn.Linear(config.hidden, config.num_labels)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """Logits. Shapes `(rows, longest)`, `(rows, longest)` -> `(rows, labels)`; `token_type_ids` is not read."""
        ids, there = self._known(input_ids, attention_mask > 0)
        if self.config.grams:
            ids, there = self._with_grams(input_ids, ids, there)
        table = with_zero(self.embeddings.weight)
        weight = F.embedding(ids, with_zero(torch.exp(self.importance.weight))).squeeze(-1)
        if self.config.reach:
            around = neighbourhoods(ids, self.config.reach, absent=self.absent)
            # Padding places repeat the row's first token, whose state is among those of the maximum anyway.
            around = torch.where(there.unsqueeze(-1), around, around[:, :1])
            states = F.gelu(self.runs(side_by_side(table, around)))
        else:
            states = F.embedding(ids, table)
        if self.config.separator is None:
            read = self.norm(self._pooled(states, weight))
        else:
            both = self._texts(input_ids, there)
            first, second = (self.norm(self._pooled(states * own.unsqueeze(-1), weight * own)) for own in both)
            read = torch.cat((first, second, (first - second).abs(), first * second), dim=-1)
        hidden = self.dropout(F.gelu(self.hidden(read)))
        return SequenceClassifierOutput(logits=self.out(hidden))

    def _pooled(self, states: Tensor, weight: Tensor) -> Tensor:
        """The mean, with a reach the largest beside it. Shapes `(rows, longest, width)`, `(rows, longest)`."""
        mean = (weight.unsqueeze(1) @ states).squeeze(1) / (weight.sum(-1, keepdim=True) + 1e-6)
        return torch.cat((mean, states.amax(1)), dim=-1) if self.config.reach else mean

    def _with_grams(self, input_ids: Tensor, ids: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Behind the tokens, each of them with the one before it. Shapes `(rows, longest)` -> `(rows, 2 longest)`."""
        hashed = (F.pad(input_ids[:, :-1], (1, 0)) * 1_000_003 + input_ids * 7919) % self.config.grams
        both = there & F.pad(there[:, :-1], (1, 0))
        grams = torch.where(both, self.rows + hashed, self.absent)
        return torch.cat((ids, grams), dim=1), torch.cat((there, both), dim=1)

    def _texts(self, input_ids: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """1 at the known tokens of the first text and at those of the second, as `there` is shaped."""
        ends = (input_ids == self.config.separator).to(torch.float32)
        second = (ends.cumsum(1) - ends).clamp(max=1)
        second = torch.cat((second, second), dim=1) if self.config.grams else second
        known = there.to(torch.float32)
        return (1 - second) * known, second * known


class StaticForTokenClassification(_Static):
    """Embeddings, one or more hidden layers over each token's neighbourhood, logits.

    A token sees `reach` neighbours on each side, with two layers twice as many (the window approach of Collobert et
    al. 2011, section 3.3.1). With `sentence` it also sees the mean over its whole sentence: what that is about decides
    what a name in it stands for.
    """

    config_class = StaticTaggerConfig

    def __init__(self, config: StaticTaggerConfig) -> None:
        super().__init__(config)
        widths = list(pairwise([config.width, *[config.hidden] * config.layers]))
        span = 2 * config.reach + 1
        self.hidden = nn.ModuleList(nn.Linear(span * before, after) for before, after in widths)
        # No bias: the layer beside it has one.
        about = widths if config.sentence else ()
        self.about = nn.ModuleList(nn.Linear(before, after, bias=False) for before, after in about)
        self.out = nn.Linear(config.hidden, config.num_labels)
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> TokenClassifierOutput:
        """Logits. Shapes `(rows, longest)`, `(rows, longest)` -> `(rows, longest, labels)`."""
        inside = attention_mask > 0
        ids, _ = self._known(input_ids, inside)
        table = with_zero(self.embeddings.weight)
        there = inside.to(torch.float32).unsqueeze(-1)
        share = there / there.sum(1, keepdim=True).clamp_min(1)
        states = F.embedding(ids, table)
        for number, layer in enumerate(self.hidden):
            if number:
                padded = F.pad(states * there, (0, 0, self.config.reach, self.config.reach))
                read = torch.cat([padded[:, at : at + ids.shape[1]] for at in range(2 * self.config.reach + 1)], dim=-1)
            else:
                read = side_by_side(table, neighbourhoods(ids, self.config.reach, absent=self.absent))
            inner = layer(read)
            if self.config.sentence:
                inner = inner + self.about[number](share.transpose(1, 2) @ states)
            states = self.dropout(F.gelu(inner))
        return TokenClassifierOutput(logits=self.out(states))


for _auto, _kind in (
    (AutoModelForSequenceClassification, StaticForSequenceClassification),
    (AutoModelForTokenClassification, StaticForTokenClassification),
):
    AutoConfig.register(_kind.config_class.model_type, _kind.config_class, exist_ok=True)
    _auto.register(_kind.config_class, _kind, exist_ok=True)


def neighbourhoods(ids: Tensor, reach: int, *, absent: int) -> Tensor:
    """The id of each token beside those of its neighbours, `absent` outside the row.

    Shapes `(rows, longest)` -> `(rows, longest, 2 reach + 1)`. Moving embeddings about would cost a hundred times more.
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
    with constant weights then reads a constant table, which becomes int8 beforehand (`cascade_export.int8`).
    """
    # Not flatten(2): the exporter would ask the float rows for their shape, and so keep them beside the int8 ones.
    return F.embedding(ids, table).reshape(ids.shape[0], ids.shape[1], ids.shape[2] * table.shape[1])

"""The kinds of first tier, and how each begins from its teacher.

Where widths differ, the teacher's embeddings are projected onto their first principal components.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification, PreTrainedModel

from cascade.core.rows import IntArray
from cascade.exceptions import OptionError
from cascade.training.checkpoint import kept_pieces
from cascade.training.models.config import TAGGING
from cascade.training.models.static import StaticForSequenceClassification, StaticForTokenClassification
from cascade.training.models.teacher import Teacher

MANY, KEPT = 65_536, 32_768
"""A vocabulary of more pieces than the first is cut to the second, if nothing is asked for."""


@dataclass(frozen=True)
class Static:
    """A weighted mean of token embeddings and an MLP: no attention, about a hundredth of a second tier.

    Attributes:
        width: size of an embedding; 192, of a transformer 128 by default.
        hidden: size of the MLP's layers.
        dropout: share of tokens, and of hidden units, dropped in training.
        reach: neighbours on each side that a token is read with; 0, each token alone, or of a tagger 2 by default.
        vocabulary: pieces that have an embedding: those that occur in the texts, however many, and the first of the
            others (a vocabulary has frequent pieces first); pieces without one are read like dropped tokens. All of up
            to 65,536 by default, 32,768 of more.
    """

    model: ClassVar[Any] = StaticForSequenceClassification
    scale: ClassVar[float] = 0.1  # standard deviation of the embeddings at first
    width: int = 192
    hidden: int = 256
    dropout: float = 0.1
    reach: int = 0
    vocabulary: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("width", 1), ("hidden", 1), ("reach", 0), ("layers", 1), ("vocabulary", 1)):
            size = getattr(self, name, None)
            if size is not None and size < least:
                raise OptionError(f"{name} of a static first tier must be at least {least}, got {size}")

    def pieces(self, teacher: Teacher, ids: IntArray) -> Tensor | None:
        """Ids of the pieces that have an embedding, rising; None where all have. `ids`: those of the texts."""
        size = self.vocabulary or (KEPT if teacher.vocabulary > MANY else teacher.vocabulary)
        kept = kept_pieces(ids, size=size, vocabulary=teacher.vocabulary)
        return None if len(kept) == teacher.vocabulary else torch.from_numpy(kept)

    def build(self, teacher: Teacher, *, pieces: Tensor | None = None, separator: int | None = None) -> PreTrainedModel:
        """A student that begins with the teacher's embeddings, cut to `width`.

        Those of a classifier are what the teacher makes of each token alone. (The way of model2vec: a token's vector is
        the teacher's pooled output for that token, projected.) `pieces`: those that have an embedding, shape
        `(pieces,)`, all by default; `separator`: id of the token behind the first text, for pairs.
        """
        sizes = {name: value for name, value in asdict(self).items() if name != "vocabulary"}
        sizes |= {"rows": None if pieces is None else len(pieces), "separator": separator}
        made = self.model(self.model.config_class(**sizes, **_shared(teacher)))
        ids = torch.arange(teacher.vocabulary) if pieces is None else pieces
        read = teacher.vectors(ids) if isinstance(self, StaticTagger) else _tokens_alone(teacher, ids)
        with torch.no_grad():
            made.embeddings.weight[: len(ids)] = _project(read, self.width, scale=self.scale)
            made.embeddings.weight[len(ids) :] = 0
            if pieces is not None:
                made.places[pieces] = torch.arange(len(pieces))
        return made


@dataclass(frozen=True)
class Ngrams(Static):
    """A weighted mean of embeddings of tokens and of pairs of neighbours, and an MLP.

    Attributes:
        grams: rows for pairs, which share them by a hash. They begin at zero.
    """

    grams: int = 16_384
    reach: int = field(default=0, init=False)


@dataclass(frozen=True)
class StaticTagger(Static):
    """An MLP on the embeddings of each token and its neighbours.

    Attributes:
        reach: neighbours on each side that a layer reads.
        layers: hidden layers, each of which reads neighbours.
        sentence: whether each hidden layer of a static tagger also reads the mean over the sentence.
    """

    model: ClassVar[Any] = StaticForTokenClassification
    scale: ClassVar[float] = 1.0
    reach: int = 2
    layers: int = 1
    sentence: bool = False


@dataclass(frozen=True)
class Transformer:
    """A small BERT, for either task and any teacher.

    Attributes:
        layers: its layers; of a BERT as wide the teacher's first ones.
        width: size of a hidden state.
        dropout: in training.
    """

    layers: int = 2
    width: int = 128
    dropout: float = 0.1

    def pieces(self, teacher: Teacher, ids: IntArray) -> Tensor | None:
        """None: all have an embedding."""
        return None

    def build(self, teacher: Teacher, *, pieces: Tensor | None = None, separator: int | None = None) -> PreTrainedModel:
        """A model for the teacher's task that begins from its embeddings and, where shapes allow, its first layers."""
        kind = BertForTokenClassification if teacher.task == TAGGING else BertForSequenceClassification
        student = kind(self._config(teacher))
        with torch.no_grad():
            self._begin(student.bert, teacher)
        return student

    def _config(self, teacher: Teacher) -> BertConfig:
        given, heads = teacher.config, max(1, self.width // 32)
        if self.width % heads:
            raise OptionError(f"--width must be a multiple of the {heads} heads, got {self.width}")
        depth = getattr(given, "num_hidden_layers", self.layers)
        if self.layers < 1 or self.layers > depth:
            raise OptionError(f"--layers must be 1 to {depth}, got {self.layers}")
        like = given.model_type in LIKE_BERT
        same_width = like and self.width == given.hidden_size
        return BertConfig(
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=given.num_attention_heads if same_width else heads,
            intermediate_size=given.intermediate_size if same_width else 4 * self.width,
            hidden_act=given.hidden_act if like else "gelu",
            # Tokenizers tell the second text of a pair by a type where their models have none, too.
            type_vocab_size=given.type_vocab_size if like else 2,
            hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout,
            **_shared(teacher),
        )

    def _begin(self, bert: Any, teacher: Teacher) -> None:
        """Fill a BERT with what the teacher has of the same shape."""
        own = bert.embeddings
        if teacher.config.model_type not in LIKE_BERT:
            table = teacher.vectors(torch.arange(teacher.vocabulary))
            own.word_embeddings.weight.copy_(_project(table, self.width, scale=0.05))
            return
        tables: Any = teacher.backbone.embeddings
        words, positions, types = tables.word_embeddings, tables.position_embeddings, tables.token_type_embeddings
        if words.embedding_dim == self.width:
            basis: Tensor = torch.eye(self.width)
        elif words.embedding_dim > self.width:
            basis = principal_components(words.weight.detach(), self.width)
        else:
            return
        # The three tables are added up in BERT, so one basis must serve all of them.
        own.word_embeddings.weight.copy_(words.weight @ basis)
        own.position_embeddings.weight.copy_(positions.weight @ basis)
        own.token_type_embeddings.weight.copy_(types.weight @ basis)
        if self.width == teacher.config.hidden_size and teacher.config.model_type == "bert":
            own.LayerNorm.load_state_dict(tables.LayerNorm.state_dict())
            for number, layer in enumerate(bert.encoder.layer):
                layer.load_state_dict(teacher.backbone.encoder.layer[number].state_dict())


LIKE_BERT = ("bert", "electra")  # their three tables of embeddings are added up as BERT's are
Student: TypeAlias = Static | Transformer


def principal_components(table: Tensor, size: int) -> Tensor:
    """The directions of most variance. Shape `(rows, width)` -> `(width, size)`, orthonormal columns."""
    centred = table - table.mean(0)
    vectors: Tensor = torch.linalg.eigh(centred.T @ centred)[1]
    return vectors.flip(1)[:, :size]


def _project(table: Tensor, size: int, *, scale: float) -> Tensor:
    """Projected to `size` columns (padded with zeros where the table is narrower), with this standard deviation."""
    if size <= table.shape[1]:
        small = (table - table.mean(0)) @ principal_components(table, size)
    else:
        small = torch.nn.functional.pad(table - table.mean(0), (0, size - table.shape[1]))
    return small * (scale / small.std().clamp_min(1e-9))


@torch.inference_mode()
def _tokens_alone(teacher: Teacher, ids: Tensor) -> Tensor:
    """The teacher's last state for each of these tokens by itself. Shapes `(tokens,)` -> `(tokens, width)`.

    Of a backbone that reads no token alone (one that pools places, one with a decoder): its input embeddings.
    """
    teacher.eval()
    states = []
    try:
        for part in ids.split(1024):
            given = part.unsqueeze(1)
            hidden = teacher.backbone(input_ids=given, attention_mask=torch.ones_like(given)).last_hidden_state
            states.append(hidden[:, 0])
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):
        return teacher.vectors(ids)
    return torch.cat(states).clone()


def _shared(teacher: Teacher) -> dict[str, Any]:
    """What tier 1's configuration must have in common with tier 2's."""
    names = ("id2label", "label2id", "problem_type", "pad_token_id")
    own = {name: getattr(teacher.config, name) for name in names}
    positions = getattr(teacher.config, "max_position_embeddings", None) or teacher.longest
    return own | {"vocab_size": teacher.vocabulary, "max_position_embeddings": positions}

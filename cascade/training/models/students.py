"""The kinds of first tier, and how each begins from its teacher.

Where widths differ, the teacher's embeddings are projected onto their first principal components.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification, PreTrainedModel

from cascade.exceptions import OptionError
from cascade.training.models.backbone import ExitBackbone
from cascade.training.models.config import TAGGING
from cascade.training.models.multi_exit import MultiExitModel, pool
from cascade.training.models.static import (
    StaticConfig,
    StaticForSequenceClassification,
    StaticForTokenClassification,
    StaticTaggerConfig,
)


@dataclass(frozen=True)
class Static:
    """A weighted mean of token embeddings and an MLP: no attention, about a hundredth of a second tier.

    Attributes:
        width: size of an embedding.
        hidden: size of the MLP's layer.
        dropout: share of tokens, and of hidden units, dropped in training.
        reach: neighbours on each side that a token is read with; 0 reads each token alone.
    """

    width: int = 192
    hidden: int = 256
    dropout: float = 0.1
    reach: int = 0

    def __post_init__(self) -> None:
        for name, least in (("width", 1), ("hidden", 1), ("reach", 0), ("layers", 1)):
            size = getattr(self, name, least)
            if size < least:
                raise OptionError(f"{name} of a static first tier must be at least {least}, got {size}")

    def build(self, teacher: ExitBackbone) -> PreTrainedModel:
        """A student whose embeddings are what the teacher makes of each token alone, projected to `width`.

        (The way of model2vec: a token's vector is the teacher's pooled output for that token.)

        Raises:
            OptionError: the teacher is no classifier.
        """
        if not isinstance(teacher, MultiExitModel):
            raise OptionError(
                f"a static first tier needs a classifier as teacher, got {teacher.task}; use StaticTagger"
            )
        student = StaticForSequenceClassification(StaticConfig(**asdict(self), **_shared(teacher)))
        with torch.no_grad():
            student.embeddings.weight.copy_(_project(_tokens_alone(teacher), self.width, scale=0.1))
        return student


@dataclass(frozen=True)
class StaticTagger(Static):
    """An MLP on the embeddings of each token and its neighbours.

    Attributes:
        reach: neighbours on each side that a layer reads.
        layers: hidden layers, each of which reads neighbours.
        sentence: whether each hidden layer also reads the mean over the sentence.
    """

    reach: int = 2
    layers: int = 1
    sentence: bool = False

    def build(self, teacher: ExitBackbone) -> PreTrainedModel:
        """A student whose embeddings are the teacher's, projected to `width`."""
        student = StaticForTokenClassification(StaticTaggerConfig(**asdict(self), **_shared(teacher)))
        table: Any = teacher.backbone.get_input_embeddings()
        with torch.no_grad():
            student.embeddings.weight.copy_(_project(table.weight, self.width, scale=1.0))
        return student


@dataclass(frozen=True)
class Transformer:
    """A small BERT, for either task.

    Attributes:
        layers: its layers; taken evenly from the teacher's where the widths are equal.
        width: size of a hidden state.
        heads: attention heads; the width over 32 by default.
        dropout: in training.
    """

    layers: int = 2
    width: int = 128
    heads: int | None = None
    dropout: float = 0.1

    def build(self, teacher: ExitBackbone) -> PreTrainedModel:
        """A model for the teacher's task that begins from its embeddings and, where shapes allow, its first layers."""
        kind = BertForTokenClassification if teacher.task == TAGGING else BertForSequenceClassification
        student = kind(self._config(teacher))
        self._begin(student.bert, teacher)
        return student

    def _config(self, teacher: ExitBackbone) -> BertConfig:
        given = teacher.config
        if given.model_type not in ("bert", "electra"):
            raise OptionError(
                f"a transformer first tier needs a BERT or ELECTRA teacher, got {given.model_type}; use --kind static"
            )
        heads = self.heads or max(1, self.width // 32)
        if self.width % heads:
            raise OptionError(f"--width must be a multiple of the {heads} heads, got {self.width}")
        if self.layers < 1 or self.layers > given.num_hidden_layers:
            raise OptionError(f"--layers must be 1 to {given.num_hidden_layers}, got {self.layers}")
        same_width = self.width == given.hidden_size
        return BertConfig(
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=given.num_attention_heads if same_width else heads,
            intermediate_size=given.intermediate_size if same_width else 4 * self.width,
            hidden_act=given.hidden_act,
            type_vocab_size=given.type_vocab_size,
            hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout,
            **_shared(teacher),
        )

    def _begin(self, bert: Any, teacher: ExitBackbone) -> None:
        """Fill a BERT with what the teacher has of the same shape."""
        tables: Any = teacher.backbone.embeddings
        layers: Any = teacher.backbone.encoder
        words, positions, types = tables.word_embeddings, tables.position_embeddings, tables.token_type_embeddings
        if words.embedding_dim == self.width:
            basis: Tensor = torch.eye(self.width)
        elif words.embedding_dim > self.width:
            basis = principal_components(words.weight.detach(), self.width)
        else:
            return
        # The three tables are added up in BERT, so one basis must serve all of them.
        with torch.no_grad():
            own = bert.embeddings
            own.word_embeddings.weight.copy_(words.weight @ basis)
            own.position_embeddings.weight.copy_(positions.weight @ basis)
            own.token_type_embeddings.weight.copy_(types.weight @ basis)
            if self.width == teacher.config.hidden_size and teacher.config.model_type == "bert":
                own.LayerNorm.load_state_dict(tables.LayerNorm.state_dict())
                for number, layer in enumerate(bert.encoder.layer):
                    layer.load_state_dict(layers.layer[number].state_dict())


Student: TypeAlias = "Static | Transformer"


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
def _tokens_alone(teacher: MultiExitModel) -> Tensor:
    """The teacher's last pooled state for every token of the vocabulary by itself."""
    teacher.eval()
    states = []
    for start in range(0, teacher.config.vocab_size, 1024):
        ids = torch.arange(start, min(start + 1024, teacher.config.vocab_size)).unsqueeze(1)
        hidden = teacher.backbone(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        states.append(pool(hidden, torch.ones_like(ids), teacher.pooling))
    return torch.cat(states).clone()


def _shared(teacher: ExitBackbone) -> dict[str, Any]:
    """What tier 1's configuration must have in common with tier 2's."""
    names = ("vocab_size", "max_position_embeddings", "id2label", "label2id", "problem_type", "pad_token_id")
    return {name: getattr(teacher.config, name) for name in names}

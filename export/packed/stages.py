"""From a multi-exit model to packed torch modules: the form that tier 2 is exported in.

In a tagger, words leave one by one. A token whose word has left keeps its last state and is still attended to: keys
and values are made of all tokens, queries and everything after attention of the active ones only (halt-and-copy).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from cascade.exceptions import OptionError
from cascade.training.models.families import family_of, max_length, position_offset
from cascade.training.models.multi_exit import MultiExitModel
from cascade.training.models.tagging import MultiExitTagger
from cascade_export.packed.layers import PackedEmbed, PackedLayer, activation

__all__ = ["PackedModel", "PackedStage", "PackedTagStage", "pack"]


class PackedStage(nn.Module):
    """The layers between two exits and the head at their end."""

    inputs: tuple[str, ...]
    """Names of the inputs of `forward`, in order."""
    outputs = ("tokens", "rows")
    """What the rows of the two outputs are."""

    def __init__(self, layers: list[PackedLayer], head: nn.Module, *, pooling: str) -> None:
        super().__init__()
        self.layers, self.head, self.pooling = nn.ModuleList(layers), head, pooling
        pooled_by = ("firsts",) if pooling == "first" else ("gather", "weights", "counts")
        self.inputs = ("hidden", "head_gather", "bias", "head_scatter", *pooled_by)

    def forward(
        self, hidden: Tensor, head_gather: Tensor, bias: Tensor, head_scatter: Tensor, *pooled_by: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Shapes as in ARCHITECTURE.md; returns hidden `(tokens, width)` and logits `(rows, labels)`.

        `pooled_by`: `firsts` where pooling is "first"; `gather`, `weights` and `counts` where it is "mean".
        """
        for layer in self.layers:
            hidden = layer(hidden, head_gather, bias, head_scatter)
        if self.pooling == "first":
            (first_token,) = pooled_by
            return hidden, self.head(F.embedding(first_token, hidden))
        gather, weights, counts = pooled_by
        return hidden, self.head((weights @ F.embedding(gather, hidden)).squeeze(1) / counts)


class PackedTagStage(nn.Module):
    """The layers between two exits for the words that are still inside, and the head on their first pieces."""

    inputs = ("hidden", "head_gather", "bias", "active", "query_head_gather", "head_scatter", "words")
    outputs = ("actives", "words")

    def __init__(self, layers: list[PackedLayer], head: nn.Module) -> None:
        super().__init__()
        self.layers, self.head = nn.ModuleList(layers), head

    def forward(
        self,
        hidden: Tensor,
        head_gather: Tensor,
        bias: Tensor,
        active: Tensor,
        query_head_gather: Tensor,
        head_scatter: Tensor,
        words: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Shapes as in ARCHITECTURE.md; returns hidden of the actives `(actives, width)`, logits `(words, labels)`."""
        asking = new = F.embedding(active, hidden)
        for i, layer in enumerate(self.layers):
            if i:
                hidden = hidden.index_put((active,), new)
                asking = F.embedding(active, hidden)
            new = layer.partly(asking, new, hidden, head_gather, bias, query_head_gather, head_scatter)  # type: ignore[operator]  # torch types a list's modules as tensors too
        return new, self.head(F.embedding(words, new))


@dataclass(frozen=True)
class PackedModel:
    """A whole second tier in packed form.

    Attributes:
        embed: token ids to hidden states.
        stages: in the order in which they run; all of one kind.
        layers: number of the last layer of each stage, from 1.
        width: size of a hidden state.
        heads: of attention.
        position_offset: position id of a row's first token.
        max_length: tokens of a row at most, special tokens included.
    """

    embed: PackedEmbed
    stages: tuple[PackedStage | PackedTagStage, ...]
    layers: tuple[int, ...]
    width: int
    heads: int
    position_offset: int
    max_length: int


def pack(model: MultiExitModel | MultiExitTagger) -> PackedModel:
    """Turn a multi-exit model into packed modules that hold copies of its weights.

    Args:
        model: a classifier or a tagger of one of `FAMILIES`; left as it is.

    Raises:
        OptionError: the backbone's family is unknown, or it does something that packed layers do not.
    """
    model = copy.deepcopy(model).eval().float()
    config, backbone = model.config, model.backbone
    family = family_of(config)
    positions = getattr(config, "position_embedding_type", "absolute")
    if positions != "absolute":
        raise OptionError(f"tier 2's position_embedding_type must be absolute, got {positions}")
    heads, act = config.num_attention_heads, activation(getattr(config, family.activation))
    layers = [PackedLayer(one, family.parts, heads=heads, activation=act) for one in family.layers(backbone)]
    stages: list[PackedStage | PackedTagStage] = []
    for start, stop, head in zip((0, *model.layers[:-1]), model.layers, model.heads, strict=True):
        own = layers[start:stop]
        if isinstance(model, MultiExitTagger):
            stages.append(PackedTagStage(own, head))
        else:
            stages.append(PackedStage(own, head, pooling=model.pooling))
    return PackedModel(
        embed=PackedEmbed(backbone, family).eval(),
        stages=tuple(stage.eval() for stage in stages),
        layers=tuple(model.layers),
        width=config.hidden_size,
        heads=heads,
        position_offset=position_offset(config),
        max_length=max_length(config),
    )

"""What a manifest says about the tiers of a bundle, and about its files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, TypeAlias

from cascade.bundle.form import SIZE, SOME, Positive

TOKENIZER_FILE: Final = "tokenizer.json"


@dataclass(frozen=True)
class FileRecord:
    """A file of the bundle: its hash and size."""

    sha256: str
    bytes: Annotated[int, SIZE]


@dataclass(frozen=True)
class SingleExitSpec:
    """A tier of one padded ONNX graph (`input_ids`, `attention_mask`[, `token_type_ids`] -> `logits`).

    `file`, `tokenizer`: paths of the graph and of its tokenizer inside the bundle; `max_length`: tokens of a row at
    most, special tokens included. For information only: `model`, what was trained, `static` or `transformer`, and
    `precision`, `int7` (int8, weights of 7 bits), `int8` (of 8) or `fp32`.
    """

    kind: ClassVar[str] = "single_exit"

    file: str
    max_length: Positive
    model: str = "transformer"
    precision: str = "fp32"
    tokenizer: str = TOKENIZER_FILE

    @property
    def graphs(self) -> tuple[str, ...]:
        """Paths of its graphs."""
        return (self.file,)

    @property
    def layers(self) -> tuple[int, ...]:
        """It has no exits."""
        return ()

    def identity(self, labels: tuple[str, ...]) -> list[object]:
        """What decides its answers beside its files."""
        return [self.file, labels, self.max_length]


@dataclass(frozen=True)
class StageSpec:
    """A stage: the layers between two exits and the head at their end.

    `file`: path inside the bundle; `layer`: number of the last layer in it, counted from 1; exits are named by it.
    `precision`: as of a `SingleExitSpec`.
    """

    file: str
    layer: Positive
    precision: str = "fp32"


@dataclass(frozen=True)
class MultiExitSpec:
    """A tier of `embed` and a chain of packed stages (see ARCHITECTURE.md for their inputs).

    `embed`, `tokenizer`: paths of the embedding graph and of its tokenizer inside the bundle; `stages`: in the order in
    which they run; the last is full depth; `width`: size of a hidden state; `heads`: of attention, in every layer;
    `max_length`: tokens of a row at most, special tokens included; `position_offset`: position id of a row's first
    token (RoBERTa: 2).
    """

    kind: ClassVar[str] = "multi_exit"

    embed: str
    stages: Annotated[tuple[StageSpec, ...], SOME]
    width: Positive
    heads: Positive
    max_length: Positive
    position_offset: int = 0
    tokenizer: str = TOKENIZER_FILE

    @property
    def graphs(self) -> tuple[str, ...]:
        """Paths of its graphs."""
        return (self.embed, *(stage.file for stage in self.stages))

    @property
    def layers(self) -> tuple[int, ...]:
        """Layer numbers of its exits."""
        return tuple(stage.layer for stage in self.stages)

    def identity(self, labels: tuple[str, ...]) -> list[object]:
        """What decides its answers beside its files."""
        stages = [[stage.file, stage.layer] for stage in self.stages]
        return [self.embed, stages, labels, self.width, self.heads, self.max_length, self.position_offset]


TierSpec: TypeAlias = SingleExitSpec | MultiExitSpec

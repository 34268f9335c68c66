"""What a first tier can be distilled from: a model that answers units."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cascade.training.models.config import MULTI_LABEL, named_labels, problem_of
from cascade.training.models.families import max_length


class Teacher(nn.Module, ABC):
    """A model that answers units: texts, or words.

    Attributes:
        task: what transformers' pipelines call it.
        backbone: the transformers encoder inside.
    """

    task: ClassVar[str]
    backbone: Any

    @property
    def config(self) -> Any:
        """The backbone's `PretrainedConfig`, with the labels; untyped, because its fields differ by family."""
        return self.backbone.config

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels, in the order of the logits."""
        return named_labels(self.config)

    @property
    def longest(self) -> int:
        """Tokens that a row may have."""
        return max_length(self.config)

    @property
    def padding(self) -> int:
        """Id of the padding token."""
        return self.config.pad_token_id or 0

    @property
    def multi_label(self) -> bool:
        """Whether a unit may have several labels."""
        return problem_of(self.config) == MULTI_LABEL

    @property
    @abstractmethod
    def exits(self) -> dict[str, Any]:
        """What `config.json` says of the exits: the constructor's options, and the task where it is not texts'."""

    @property
    def vocabulary(self) -> int:
        """How many token ids there are."""
        return int(self.config.vocab_size)

    def vectors(self, ids: Tensor) -> Tensor:
        """The input embeddings of these tokens. Shapes `(...)` -> `(..., width)`."""
        with torch.no_grad():
            found: Tensor = self.backbone.get_input_embeddings()(ids)
        return found.detach()

    def digest(self) -> str:
        """SHA-256 of the exits and of all weights."""
        found = hashlib.sha256(json.dumps(self.exits).encode())
        for name, tensor in self.state_dict().items():
            found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            found.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

"""What a first tier can be distilled from: a model that answers units, with exits or as transformers has it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cascade.exceptions import OptionError
from cascade.training.models.config import (
    MULTI_LABEL,
    has_head,
    inputs_of,
    load_config,
    load_model,
    named_labels,
    problem_of,
)
from cascade.training.models.families import max_length


class Teacher(nn.Module):
    """A model that answers units: texts, or words.

    `task`: what transformers' pipelines call it; `backbone`: the transformers encoder inside.
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
        return getattr(self.config, "pad_token_id", None) or 0

    @property
    def multi_label(self) -> bool:
        """Whether a unit may have several labels."""
        return problem_of(self.config) == MULTI_LABEL

    @property
    def exits(self) -> dict[str, Any]:
        """What `config.json` says of the exits: the constructor's options, and the task where it is not texts'."""
        return {}

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


class WholeModel(Teacher):
    """A fine-tuned classifier or tagger of any family, as it is: one exit, at full depth."""

    def __init__(self, model: Any, task: str) -> None:
        super().__init__()
        self.task = task  # type: ignore[misc]  # one class for both tasks
        self.model = model
        self.inputs = inputs_of(model)

    @property
    def backbone(self) -> Any:
        """The encoder below the head."""
        return self.model.base_model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Any:
        """`logits` of shape `(rows, 1, labels)`, of words `(rows, 1, longest, labels)`."""
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        known = {name: given[name] for name in self.inputs if given[name] is not None}
        return {"logits": self.model(**known).logits.unsqueeze(1)}


def teacher_of(checkpoint: str | Path, kind: Any) -> Teacher:
    """A multi-exit model, or a fine-tuned one of any family: a folder or a Hub id.

    `kind`: the multi-exit model of the task. What is neither, for another task, or does not read an attention mask, is
    an `OptionError`.
    """
    config = load_config(checkpoint)
    if getattr(config, "cascade_exits", None):
        made: Teacher = kind.from_pretrained(checkpoint, config=config)
        return made
    if not has_head(config, kind.whole):
        found = ", ".join(config.architectures or ()) or "none"
        told = f"{checkpoint} must hold a multi-exit or a fine-tuned model for {kind.task}, got architectures: {found}"
        raise OptionError(f"{told}; make one with cascade-train exits")
    return WholeModel(load_model(kind.whole, checkpoint), kind.task)

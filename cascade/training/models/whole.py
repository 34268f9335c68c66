"""A fine-tuned model of transformers as it is, of any family: what first tiers can be distilled from beside exits."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from torch import Tensor

from cascade.exceptions import OptionError
from cascade.training.models.backbone import ExitBackbone
from cascade.training.models.config import has_head, load_config
from cascade.training.models.loading import load_model
from cascade.training.models.teacher import Teacher


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

    @property
    def exits(self) -> dict[str, Any]:
        return {}

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Any:
        """`logits` of shape `(rows, 1, labels)`, of words `(rows, 1, longest, labels)`."""
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        known = {name: given[name] for name in self.inputs if given[name] is not None}
        return {"logits": self.model(**known).logits.unsqueeze(1)}


def inputs_of(model: Any) -> tuple[str, ...]:
    """Names of what a model of transformers reads: `input_ids`, `attention_mask` and perhaps `token_type_ids`.

    One whose answers depend on padding is an `OptionError`.
    """
    known = inspect.signature(model.forward).parameters
    if "attention_mask" not in known:
        raise OptionError(
            "a model must read an attention_mask, so that padding says nothing, but "
            f"{model.config.model_type} does not; fine-tune another encoder"
        )
    types = "token_type_ids" in known and (getattr(model.config, "type_vocab_size", 0) or 0) > 1
    return ("input_ids", "attention_mask", *(["token_type_ids"] if types else []))


def teacher_of(checkpoint: str | Path, kind: type[ExitBackbone]) -> Teacher:
    """A multi-exit model, or a fine-tuned one of any family: a folder or a Hub id.

    `kind`: the multi-exit model of the task. What is neither, for another task, or does not read an attention mask, is
    an `OptionError`.
    """
    config = load_config(checkpoint)
    if getattr(config, "cascade_exits", None):
        return kind.from_pretrained(checkpoint, config=config)
    if not has_head(config, kind.whole):
        found = ", ".join(config.architectures or ()) or "none"
        raise OptionError(
            f"{checkpoint} must hold a multi-exit or a fine-tuned model for {kind.task}, got architectures: {found}; "
            "make one with cascade-train exits"
        )
    return WholeModel(load_model(kind.whole, checkpoint), kind.task)

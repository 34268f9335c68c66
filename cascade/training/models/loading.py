"""Reading models of transformers: in fp32 whatever the weights are stored in, adapters merged into what they adapt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cascade.exceptions import OptionError
from cascade.training.models.adapters import adapted, merged
from cascade.training.models.config import load_config


def load_model(
    kind: Any, checkpoint: str | Path, *, config: Any = None, options: Mapping[str, Any] | None = None
) -> Any:
    """A model of transformers in fp32 and evaluation mode; also the folder of an adapter (LoRA), which `peft` merges.

    `kind`: a class of transformers, such as `AutoModelForSequenceClassification`; `config`: in place of the
    checkpoint's own; `options`: more of `from_pretrained`. An adapter for another task, or without `peft`, is an
    `OptionError`; transformers itself raises `OSError` and `ValueError`.
    """
    base, given = adapted(checkpoint), dict(options or {})
    if base is not None:
        config = config or load_config(checkpoint)
        own = config.architectures[0]
        if not kind.__name__.endswith(own):
            raise OptionError(f"{checkpoint} must be for the chosen task, got an adapter {own}; choose its own task")
    if config is not None:
        given["config"] = config
    # transformers 5 loads in the type that the weights are stored in, transformers 4 in fp32.
    model = kind.from_pretrained(str(base or checkpoint), **given).to(torch.float32)
    return (model if base is None else merged(model, checkpoint)).eval()

"""Reading models of transformers: in fp32 whatever the weights are stored in, adapters merged into what they adapt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModel

from cascade.exceptions import MissingExtraError, OptionError
from cascade.training.models.config import adapted, load_config

SAVE = "save the whole model there (save_pretrained)"
SHOWN = 300  # characters of what transformers says


def load_model(
    kind: Any, checkpoint: str | Path, *, config: Any = None, options: Mapping[str, Any] | None = None
) -> Any:
    """A model of transformers in fp32 and evaluation mode; also the folder of an adapter (LoRA), which `peft` merges.

    `kind`: a class of transformers, such as `AutoModelForSequenceClassification`; `config`: in place of the
    checkpoint's own; `options`: more of `from_pretrained`.

    Raises:
        OptionError: transformers cannot read it; some weights of a model with a head are missing, where transformers
            would draw them; an adapter for another task, or without `peft`.
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
    try:
        model, told = kind.from_pretrained(str(base or checkpoint), output_loading_info=True, **given)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:SHOWN].rstrip(".")
        raise OptionError(f"{checkpoint} must hold a model that transformers reads, but: {reason}; {SAVE}") from error
    missing = sorted(told["missing_keys"])
    if missing and base is None and kind is not AutoModel:
        raise OptionError(
            f"{checkpoint} must hold all weights of a {type(model).__name__}, {len(missing)} are missing, such as "
            f"{missing[0]}; {SAVE}"
        )
    model = model.to(torch.float32)
    if base is not None:
        made = peft_for(f"{checkpoint}, which holds an adapter,").PeftModel.from_pretrained(model, str(checkpoint))
        model = made.merge_and_unload()
    return model.eval()


def peft_for(what: str) -> Any:
    """The library `peft`; a `MissingExtraError` says what needs it where it is not installed."""
    try:
        import peft
    except ImportError:
        raise MissingExtraError(
            f"{what} needs peft, which is not installed; pip install peft, or save what merge_and_unload gives"
        ) from None
    return peft

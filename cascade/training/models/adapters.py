"""Folders of adapters (LoRA) that `peft` wrote: what they adapt, what for, and the model with them merged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from safetensors import safe_open
from transformers import AutoConfig

from cascade.exceptions import OptionError

WHOLE: Final = ("model.safetensors", "pytorch_model.bin")
TASKS: Final = {"SEQ_CLS": "ForSequenceClassification", "TOKEN_CLS": "ForTokenClassification"}


def adapted(checkpoint: str | Path) -> str | None:
    """The model that an adapter in a folder of its own adapts: a folder or a Hub id. None: it is a whole model."""
    folder = Path(checkpoint)
    file = folder / "adapter_config.json"
    if not file.is_file() or any(
        (folder / f"{name}{index}").exists() for name in WHOLE for index in ("", ".index.json")
    ):
        return None
    base: str | None = json.loads(file.read_text(encoding="utf-8")).get("base_model_name_or_path")
    return base


def adapt(config: Any, folder: Path) -> None:
    """Let the configuration of the model that an adapter adapts say what the adapted one is for.

    An adapter's folder has the weights of the head, so the number of labels; their names it has only where somebody put
    the model's `config.json` there. One for something else, or with pickled weights, is an `OptionError`.
    """
    kind = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("task_type")
    file = folder / "adapter_model.safetensors"
    if kind not in TASKS or not file.is_file():
        raise OptionError(
            f"{folder} must hold an adapter_model.safetensors with task_type {' or '.join(TASKS)}, got {kind}; merge "
            "it into its model (merge_and_unload) and save that"
        )
    config.architectures = [TASKS[kind]]
    if (folder / "config.json").is_file():
        own = AutoConfig.from_pretrained(folder)
        config.id2label, config.label2id, config.problem_type = own.id2label, own.label2id, own.problem_type
        return
    with safe_open(file, "pt") as tensors:
        names: list[str] = tensors.keys()
        heads = [name for name in names if name.endswith(("classifier.weight", "classifier.out_proj.weight"))]
        if heads:
            config.num_labels = tensors.get_slice(heads[0]).get_shape()[0]


def merged(model: Any, folder: str | Path) -> Any:
    """The model with an adapter's weights added to its own; an `OptionError` where `peft` is not installed."""
    try:
        from peft import PeftModel
    except ImportError:
        raise OptionError(
            f"{folder} holds an adapter, and peft, which merges it, is missing; pip install peft, or save what "
            "merge_and_unload gives"
        ) from None
    return PeftModel.from_pretrained(model, str(folder)).merge_and_unload()

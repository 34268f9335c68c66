"""Checkpoints of transformers: what `config.json` says, and models in fp32, adapters (LoRA) merged into theirs."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModel

from cascade.bundle.hub import check_checkpoint
from cascade.exceptions import DataError, MissingExtraError, OptionError

DROPOUTS = (
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"),
    *("embedding_dropout", "mlp_dropout"),  # ModernBERT
)
"""Fields of dropout inside a backbone, in any family."""

CLASSIFICATION, TAGGING = "text-classification", "token-classification"
SINGLE_LABEL, MULTI_LABEL = "single_label_classification", "multi_label_classification"
REGRESSION = "regression"
WHOLE: Final = ("model.safetensors", "pytorch_model.bin")
TASKS: Final = {"SEQ_CLS": "ForSequenceClassification", "TOKEN_CLS": "ForTokenClassification"}
SAVE = "save the whole model there (save_pretrained)"
SHOWN = 300  # characters of what transformers says


def load_config(checkpoint: str | Path, *, dropout: float | None = None) -> Any:
    """A checkpoint's configuration; `dropout` in place of every one that stands there.

    An `OptionError`: there is none that transformers knows; of a path that cannot be a Hub id, without asking the Hub.
    """
    check_checkpoint(checkpoint)
    base, folder = adapted(checkpoint), Path(checkpoint)
    if base is None and folder.is_dir() and not (folder / "config.json").is_file():
        raise OptionError(f"{checkpoint} must hold a config.json, but there is none; give the folder of a whole model")
    try:
        config = AutoConfig.from_pretrained(base or checkpoint)
    except (OSError, ValueError) as error:
        reason = str(error).split(". ", 1)[0].rstrip(".")  # transformers goes on with the names of all its models
        remedy = "give the folder of a whole model"
        if not folder.exists():
            remedy = "there is no such folder either, check the path"
        elif base is not None:
            remedy = f"its adapter_config.json names {base} as the model that it adapts: put that there"
        raise OptionError(f"{checkpoint} must be what transformers reads, but: {reason}; {remedy}") from None
    if base is not None:
        adapt(config, folder)
    # Every model is made and loaded in fp32 (`load_model`), whatever its weights are stored in.
    setattr(config, "dtype" if hasattr(config, "dtype") else "torch_dtype", torch.float32)
    if dropout is not None:
        for name in DROPOUTS:
            if hasattr(config, name):
                setattr(config, name, dropout)
    return config


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
        told = f"{folder} must hold an adapter_model.safetensors with task_type {' or '.join(TASKS)}, got {kind}"
        raise OptionError(f"{told}; merge it into its model (merge_and_unload) and save that")
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


def read_exits(config: Any, *, source: str | Path, task: str) -> dict[str, Any]:
    """The `cascade_exits` of a configuration. An `OptionError`: there are none, or they are another task's."""
    exits: dict[str, Any] | None = getattr(config, "cascade_exits", None)
    if not exits:
        raise OptionError(
            f"{source} must hold a multi-exit model (config.json with cascade_exits); see cascade-train exits"
        )
    found = exits.get("task", CLASSIFICATION)
    if found != task:
        raise OptionError(f"{source} must hold a multi-exit model for {task}, got one for {found}; choose its task")
    return exits


def has_head(config: Any, kind: Any) -> bool:
    """Whether a checkpoint has a head such as transformers' class `kind` (`AutoModelForTokenClassification`) has."""
    ending = kind.__name__.removeprefix("AutoModel")
    return any(ending in name for name in config.architectures or ())


def named_labels(config: Any) -> tuple[str, ...]:
    """The names of a configuration's labels, in the order of the logits."""
    return tuple(config.id2label[i] for i in range(config.num_labels))


def problem_of(config: Any) -> str:
    """The `problem_type` by which transformers' pipeline reads a head: a single label has a sigmoid, or is a number."""
    own: str = config.problem_type or SINGLE_LABEL
    return MULTI_LABEL if config.num_labels == 1 and own != REGRESSION else own


def check_new(labels: Sequence[str], *, multi_label: bool) -> None:
    """Refuse what the labels of a new head cannot be. A `DataError`: too few, or numbers that are no names."""
    if len(labels) < 2 and not (labels and multi_label):
        told = f"the training data must have at least two labels, got {list(labels) or 'none'}"
        raise DataError(f"{told}; check the column, or start from a fine-tuned checkpoint, which knows its labels")
    if multi_label and set(labels) <= {"0", "1"}:
        raise DataError(
            f'several labels must be lists of names, got only {" and ".join(labels)}; write ["a", "c"] for those that '
            "apply, or start from a checkpoint that has names for the places of zeros and ones"
        )
    try:
        whole = all(float(label).is_integer() for label in labels)
    except ValueError:
        return
    if not whole:
        raise DataError(
            f"labels must be names or whole numbers, got {labels[0]}; for a regression start from a checkpoint that "
            "was fine-tuned for it (problem_type: regression)"
        )


def name_labels(config: Any, labels: Sequence[str]) -> None:
    """Give a configuration these labels."""
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}


def load_model(
    kind: Any, checkpoint: str | Path, *, config: Any = None, options: Mapping[str, Any] | None = None
) -> Any:
    """A model of transformers in fp32 and evaluation mode; also the folder of an adapter (LoRA), which `peft` merges.

    `kind`: a class of transformers, such as `AutoModelForSequenceClassification`; `config`: in place of the
    checkpoint's own; `options`: more of `from_pretrained`. An `OptionError`: transformers cannot read it; some weights
    of a model with a head are missing, where transformers would draw them; an adapter for another task, or without
    `peft`.
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
        raise MissingExtraError(f"{what} needs peft, which is missing; pip install peft, or save it merged") from None
    return peft


def inputs_of(model: Any) -> tuple[str, ...]:
    """Names of what a model of transformers reads: `input_ids`, `attention_mask` and perhaps `token_type_ids`.

    One whose answers depend on padding is an `OptionError`.
    """
    known = inspect.signature(model.forward).parameters
    if "attention_mask" not in known:
        told = "a model must read an attention_mask, so that padding says nothing"
        raise OptionError(f"{told}, but {model.config.model_type} does not; fine-tune another encoder")
    types = "token_type_ids" in known and (getattr(model.config, "type_vocab_size", 0) or 0) > 1
    return ("input_ids", "attention_mask", *(["token_type_ids"] if types else []))

"""Reading both checkpoints, what they must have in common, and the small files of a bundle."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from cascade.core.labels import shortened
from cascade.exceptions import BundleError, CascadeError, OptionError
from cascade.training.checkpoint import load_tokenizer_text
from cascade.training.models.config import (
    CLASSIFICATION,
    has_head,
    inputs_of,
    load_config,
    load_model,
    named_labels,
    problem_of,
)
from cascade_export.tasks import TASKS, Task

TIER2 = "tier 2 must be a checkpoint of `cascade-train exits` or a fine-tuned model"
EAGER = {"attn_implementation": "eager"}  # its graph is the smallest, and every family has it


def task_of(folder: str | Path) -> Task:
    """What the tier that decides last does, by its `config.json` alone.

    Raises:
        OptionError: there is none, or it has neither exits nor a head.
    """
    config = _config_of(folder)
    if exits := getattr(config, "cascade_exits", None):
        return TASKS[exits.get("task", CLASSIFICATION)]
    found = next((known for known in TASKS.values() if has_head(config, known.auto)), None)
    if found is None:
        raise OptionError(f"{TIER2}, but {folder} has no head for texts or tokens; fine-tune it first")
    return found


def load_tier2(folder: str | Path, *, task: Task) -> Any:
    """A multi-exit model, or any fine-tuned one, in evaluation mode and fp32: a folder or a Hub id.

    Raises:
        OptionError: there is none, it is broken, or its answers depend on padding.
    """
    exits = getattr(_config_of(folder), "cascade_exits", None)
    with _named(TIER2):
        if exits:
            return task.multi_exit.from_pretrained(folder)
        model = load_model(task.auto, folder, options=EAGER)
        inputs_of(model)
        return model


def load_tier1(folder: str | Path, *, task: Task) -> Any:
    """A model of transformers, or a static one, in evaluation mode and fp32. `task`: that of tier 2.

    Raises:
        OptionError: there is no such checkpoint.
        BundleError: it is one for another task.
    """
    file = Path(folder) / "config.json"
    if not file.is_file():
        raise OptionError(f"tier 1 must be a checkpoint folder with a config.json, got {folder}")
    found = json.loads(file.read_text(encoding="utf-8"))
    own = next((known for known in TASKS.values() if _is_for(found, known)), task)
    if own is not task:
        raise BundleError(
            f"both tiers must have the same task, tier 2 has {task.name}, tier 1 {own.name}; "
            "distil tier 1 from this tier 2"
        )
    with _named("tier 1 must be a checkpoint that transformers reads"):
        kind = task.static if _is_static(found, task) else task.auto
        return load_model(kind, folder, options=EAGER)


def common_labels(tier2: Any, tier1: Any | None) -> tuple[tuple[str, ...], str]:
    """The labels of all tiers, in order, and transformers' name of their problem: single-label if none says.

    `tier1` is None where there is none.

    Raises:
        BundleError: they differ.
    """
    labels, problem = named_labels(tier2.config), problem_of(tier2.config)
    if tier1 is None:
        return labels, problem
    labels1, problem1 = named_labels(tier1.config), problem_of(tier1.config)
    if labels != labels1:
        raise BundleError(
            f"both tiers must have the same labels in the same order, tier 2 has [{shortened(labels)}] "
            f"({len(labels)}), tier 1 [{shortened(labels1)}] ({len(labels1)}); distil tier 1 from this tier 2, or put "
            "both id2label in one order"
        )
    if problem != problem1:
        raise BundleError(
            f"both tiers must have the same problem_type, tier 2 has {problem}, tier 1 {problem1}; "
            "train both on the same labels"
        )
    return labels, problem


def common_tokenizer(tier2: str | Path, tier1: str | Path | None) -> str:
    """The text of the common `tokenizer.json`, without truncation and padding: those are the engine's business.

    Raises:
        OptionError: tier 2 has none.
        BundleError: tier 1's differs.
    """
    try:
        spec = json.loads(load_tokenizer_text(tier2))
    except (OSError, ValueError) as error:
        raise OptionError(f"tier 2 must have a tokenizer, but {first_line(error)}") from None
    spec["truncation"] = spec["padding"] = None
    other = None if tier1 is None else Path(tier1) / "tokenizer.json"
    if (
        other is not None
        and other.is_file()
        and json.loads(other.read_text(encoding="utf-8"))["model"] != spec["model"]
    ):
        raise BundleError(
            "both tiers must have the same tokenizer, but the vocabularies in their tokenizer.json differ; "
            "distil tier 1 from this tier 2"
        )
    return json.dumps(spec, ensure_ascii=False)


def small_files(
    folder: str | Path, model: Any, tokenizer_text: str, tokenizer_settings: Mapping[str, object]
) -> dict[str, bytes]:
    """The files that let transformers and optimum read the bundle's tier 1.

    `folder` is tier 2's; `model` tier 1, or tier 2 where transformers does not know the type of a static tier 1: it has
    the same labels and inputs.
    """
    config = model.config.to_dict()
    config = {name: value for name, value in config.items() if name not in ("cascade_exits", "_name_or_path")}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": inputs_of(model),
        **tokenizer_settings,
    }
    special = Path(folder) / "tokenizer_config.json"
    if special.is_file():
        found = json.loads(special.read_text(encoding="utf-8"))
        settings |= {key: value for key, value in found.items() if key.endswith("_token")}
    return {
        "config.json": _json(config | {"problem_type": problem_of(model.config)}),
        "tokenizer.json": tokenizer_text.encode(),
        "tokenizer_config.json": _json(settings),
    }


def first_line(error: BaseException) -> str:
    """What an error of another library says, as far as it fits into one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def _named(rule: str) -> Iterator[None]:
    """Errors of other libraries as one line that begins with what must be."""
    try:
        yield
    except CascadeError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise OptionError(f"{rule}, but {first_line(error)}") from None


def _config_of(folder: str | Path) -> Any:
    try:
        return load_config(folder)
    except OptionError as error:
        raise OptionError(f"{TIER2}, but {error}") from None


def _is_static(config: Mapping[str, Any], task: Task) -> bool:
    return bool(config.get("model_type") == task.static.config_class.model_type)


def _is_for(config: Mapping[str, Any], task: Task) -> bool:
    """Whether a configuration says that its model is for this task."""
    ending = task.auto.__name__.removeprefix("AutoModel")
    return _is_static(config, task) or any(ending in name for name in config.get("architectures") or ())


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n").encode()

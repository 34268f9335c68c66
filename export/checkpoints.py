"""Reading both checkpoints, what they must have in common, and the small files of a bundle."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from cascade.core.labels import shortened
from cascade.exceptions import BundleError, OptionError
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
from cascade.training.task import BY_NAME, Task

RULES = {
    1: "tier 1 must be a checkpoint that transformers reads",
    2: "tier 2 must be a checkpoint of `cascade-train exits` or a fine-tuned model",
}
EAGER = {"attn_implementation": "eager"}  # its graph is the smallest, and every family has it


def task_of(folder: str | Path, *, number: int = 2) -> Task:
    """What the model of a tier does, by its `config.json` alone. `number`: of the tier, 2 of the one that decides last.

    An `OptionError`: there is none, or it has neither exits nor a head.
    """
    with _named(RULES[number]):
        config = load_config(folder)
        if exits := getattr(config, "cascade_exits", None):
            return BY_NAME[exits.get("task", CLASSIFICATION)]
        found = next((known for known in BY_NAME.values() if has_head(config, known.model.whole)), None)
        if found is None:
            raise OptionError(f"{folder} has no head for texts or tokens; fine-tune it first")
        return found


def load_tier(folder: str | Path, task: Task, *, number: int = 2) -> Any:
    """A fine-tuned or a static model, as the last tier also one with exits: in evaluation mode and fp32.

    `folder`: or a Hub id; `task`: that of the last tier. An `OptionError`: there is none, it is broken, or its answers
    depend on padding; a `BundleError`: it is one for another task.
    """
    own = task_of(folder, number=number)
    if own is not task:
        told = f"tier 2 has {task.model.task}, tier 1 {own.model.task}; distil tier 1 from this tier 2"
        raise BundleError(f"both tiers must have the same task, {told}")
    with _named(RULES[number]):
        if number > 1 and getattr(load_config(folder), "cascade_exits", None):
            return task.model.from_pretrained(folder)
        model = load_model(task.model.whole, folder, options=EAGER)
        inputs_of(model)
        return model


def common_labels(tier2: Any, tier1: Any | None) -> tuple[tuple[str, ...], str]:
    """The labels of all tiers, in order, and transformers' name of their problem: single-label if none says.

    `tier1` is None where there is none. A `BundleError`: they differ.
    """
    labels, problem = named_labels(tier2.config), problem_of(tier2.config)
    if tier1 is None:
        return labels, problem
    labels1, problem1 = named_labels(tier1.config), problem_of(tier1.config)
    if labels != labels1:
        raise BundleError(
            f"both tiers must have the same labels in the same order, tier 2 has [{shortened(labels)}] "
            f"({len(labels)}), tier 1 [{shortened(labels1)}] ({len(labels1)}); distil tier 1 from this tier 2"
        )
    if problem != problem1:
        told = f"tier 2 has {problem}, tier 1 {problem1}; train both on the same labels"
        raise BundleError(f"both tiers must have the same problem_type, {told}")
    return labels, problem


def common_tokenizer(tier2: str | Path, tier1: str | Path | None) -> str:
    """The text of the common `tokenizer.json`, without truncation and padding: those are the engine's business.

    An `OptionError`: tier 2 has none; a `BundleError`: tier 1's differs.
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
        told = "the vocabularies in their tokenizer.json differ; distil tier 1 from this tier 2"
        raise BundleError(f"both tiers must have the same tokenizer, but {told}")
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
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": inputs_of(model)}
    settings |= tokenizer_settings
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
    """What cannot be read, as one line that begins with what must be."""
    try:
        yield
    except (OptionError, OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise OptionError(f"{rule}, but {first_line(error)}") from None


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n").encode()

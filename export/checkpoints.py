"""Reading both checkpoints, what they must have in common, and the small files of a bundle."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from safetensors import SafetensorError
from transformers import AutoConfig

from cascade.exceptions import BundleError, CascadeError, OptionError
from cascade.training.checkpoint import load_tokenizer_text
from cascade.training.models.config import CLASSIFICATION, named_labels
from cascade.training.models.multi_exit import MultiExitModel
from cascade.training.models.tagging import MultiExitTagger
from cascade_export.tasks import TASKS, Task
from cascade_export.texts import shortened

TierTwo: TypeAlias = MultiExitModel | MultiExitTagger
TIER2 = "tier 2 must be a checkpoint of `cascade-train exits`"
SINGLE_LABEL = "single_label_classification"


def task_of(folder: str | Path) -> Task:
    """What a second tier does, by its `config.json` alone.

    Raises:
        OptionError: there is none.
    """
    with _named(TIER2):
        exits = getattr(AutoConfig.from_pretrained(folder), "cascade_exits", None) or {}
        return TASKS[exits.get("task", CLASSIFICATION)]


def load_tier2(folder: str | Path, *, task: Task) -> TierTwo:
    """A multi-exit classifier or tagger, in evaluation mode and fp32: a folder or a Hub id.

    Raises:
        OptionError: there is none, or it is broken.
    """
    with _named(TIER2):
        return task.multi_exit.from_pretrained(folder).float().eval()


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
        # Eager attention: its graph is the smallest, and every family has it. fp32 whatever the weights are stored in.
        kind = task.static if _is_static(found, task) else task.auto
        return kind.from_pretrained(str(folder), attn_implementation="eager").float().eval()


def inputs_of(tier1: Any) -> tuple[str, ...]:
    """Names of what a first tier's graph takes: `input_ids`, `attention_mask` and perhaps `token_type_ids`."""
    known = inspect.signature(tier1.forward).parameters
    types = "token_type_ids" in known and (getattr(tier1.config, "type_vocab_size", 0) or 0) > 1
    return ("input_ids", "attention_mask", *(["token_type_ids"] if types else []))


def common_labels(tier2: TierTwo, tier1: Any) -> tuple[tuple[str, ...], str]:
    """The labels of both tiers, in order, and transformers' name of their problem: single-label if none says.

    Raises:
        BundleError: they differ.
    """
    labels, labels1 = tier2.labels, named_labels(tier1.config)
    if labels != labels1:
        raise BundleError(
            f"both tiers must have the same labels in the same order, tier 2 has {shortened(labels)}, "
            f"tier 1 {shortened(labels1)}; distil tier 1 from this tier 2, or put both id2label in one order"
        )
    problem, problem1 = (one.config.problem_type or SINGLE_LABEL for one in (tier2, tier1))
    if problem != problem1:
        raise BundleError(
            f"both tiers must have the same problem_type, tier 2 has {problem}, tier 1 {problem1}; "
            "train both on the same labels"
        )
    return labels, problem


def common_tokenizer(tier2: str | Path, tier1: str | Path) -> str:
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
    other = Path(tier1) / "tokenizer.json"
    if other.is_file() and json.loads(other.read_text(encoding="utf-8"))["model"] != spec["model"]:
        raise BundleError(
            "both tiers must have the same tokenizer, but the vocabularies in their tokenizer.json differ; "
            "distil tier 1 from this tier 2"
        )
    return json.dumps(spec, ensure_ascii=False)


def small_files(folder: str | Path, model: Any, tokenizer_text: str, max_length: int) -> dict[str, bytes]:
    """The files that let transformers and optimum read the bundle's tier 1.

    `folder` is tier 2's; `model` tier 1, or tier 2 where transformers does not know the type of a static tier 1: it has
    the same labels and inputs.
    """
    config = model.config.to_dict()
    config = {name: value for name, value in config.items() if name not in ("cascade_exits", "_name_or_path")}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_length}
    special = Path(folder) / "tokenizer_config.json"
    if special.is_file():
        found = json.loads(special.read_text(encoding="utf-8"))
        settings |= {key: value for key, value in found.items() if key.endswith("_token")}
    return {
        "config.json": _json(config | {"problem_type": config.get("problem_type") or SINGLE_LABEL}),
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


def _is_static(config: Mapping[str, Any], task: Task) -> bool:
    return bool(config.get("model_type") == task.static.config_class.model_type)


def _is_for(config: Mapping[str, Any], task: Task) -> bool:
    """Whether a configuration says that its model is for this task."""
    ending = task.auto.__name__.removeprefix("AutoModel")
    return _is_static(config, task) or any(ending in name for name in config.get("architectures") or ())


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n").encode()

"""Reading the second tier's checkpoint, what both tiers must have in common, and the small files of a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias

from safetensors import SafetensorError
from transformers import AutoConfig

from cascade.exceptions import BundleError, CascadeError, OptionError
from cascade.training.checkpoint import load_tokenizer_text
from cascade.training.models.backbone import CLASSIFICATION
from cascade.training.models.multi_exit import MultiExitModel
from cascade.training.models.tagging import MultiExitTagger
from cascade_export.tasks import TASKS
from cascade_export.texts import shortened
from cascade_export.tier1 import TierOne, first_line

__all__ = ["TierTwo", "common_labels", "common_tokenizer", "load_tier2", "small_files", "task_of"]

TierTwo: TypeAlias = MultiExitModel | MultiExitTagger


def load_tier2(folder: str | Path) -> TierTwo:
    """A multi-exit classifier or tagger: a folder or a Hub id.

    Raises:
        OptionError: there is none, or it is broken.
    """
    try:
        config = AutoConfig.from_pretrained(folder)
        return TASKS[_task(config)].multi_exit.from_pretrained(folder, config=config).float().eval()
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise _refusal(error) from None


def task_of(folder: str | Path) -> str:
    """What a second tier does, by its `config.json` alone: `text-classification` or `token-classification`.

    Raises:
        OptionError: there is none.
    """
    try:
        return _task(AutoConfig.from_pretrained(folder))
    except (OSError, ValueError, KeyError) as error:
        raise _refusal(error) from None


def _task(config: Any) -> str:
    found: str = (getattr(config, "cascade_exits", None) or {}).get("task", CLASSIFICATION)
    return found


def _refusal(error: Exception) -> Exception:
    if isinstance(error, CascadeError):
        return error
    return OptionError(f"tier 2 must be a checkpoint of `cascade-train exits`, but {first_line(error)}")


def common_labels(model: TierTwo, first: TierOne) -> tuple[str, ...]:
    """The labels of both tiers, in order.

    Raises:
        BundleError: they differ, or one tier gives a single label and the other several.
    """
    if model.labels != first.labels:
        raise BundleError(
            f"both tiers must have the same labels in the same order, tier 2 has {shortened(model.labels)}, "
            f"tier 1 {shortened(first.labels)}; distil tier 1 from this tier 2, or put both id2label in one order"
        )
    problem = model.config.problem_type or "single_label_classification"
    if problem != first.problem_type:
        raise BundleError(
            f"both tiers must have the same problem_type, tier 2 has {problem}, tier 1 {first.problem_type}; "
            "train both on the same labels"
        )
    return first.labels


def common_tokenizer(tier2: str | Path, tier1: str | Path) -> str:
    """The text of the common `tokenizer.json`, without truncation and padding: those are the engine's business.

    Raises:
        OptionError: tier 2 has none.
        BundleError: tier 1's differs.
    """
    try:
        spec = json.loads(load_tokenizer_text(tier2))
    except (OSError, ValueError, TypeError) as error:  # TypeError: transformers, where there is no vocabulary at all
        raise OptionError(
            f"tier 2 must have a tokenizer.json, but {first_line(error)}; save its tokenizer there"
        ) from None
    spec["truncation"] = spec["padding"] = None
    other = Path(tier1) / "tokenizer.json"
    if other.is_file() and json.loads(other.read_text(encoding="utf-8"))["model"] != spec["model"]:
        raise BundleError(
            "both tiers must have the same tokenizer, but the vocabularies in their tokenizer.json differ; "
            "distil tier 1 from this tier 2"
        )
    return json.dumps(spec, ensure_ascii=False)


def small_files(
    tier2: str | Path, first: TierOne, model: TierTwo, tokenizer_text: str, max_length: int
) -> dict[str, bytes]:
    """The files that let transformers and optimum read the bundle's tier 1."""
    # A static first tier's model type is known here only; tier 2's configuration has the same labels and inputs.
    config = (model if first.kind == "static" else first.model).config.to_dict()
    config.pop("cascade_exits", None)
    config.pop("_name_or_path", None)
    config["problem_type"] = first.problem_type
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_length}
    special = Path(tier2) / "tokenizer_config.json"
    if special.is_file():
        found = json.loads(special.read_text(encoding="utf-8"))
        settings |= {key: value for key, value in found.items() if key.endswith("_token")}
    return {
        "config.json": _json(config),
        "tokenizer.json": tokenizer_text.encode(),
        "tokenizer_config.json": _json(settings),
    }


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n").encode()

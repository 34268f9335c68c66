"""What is read of a checkpoint beside its weights: the tokenizer, and whether the Trainer wrote it to its end."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from tqdm import tqdm
from transformers.utils.hub import cached_file

from cascade.exceptions import OptionError

VOCABULARIES = ("vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")


def load_tokenizer_text(checkpoint: str | Path) -> str:
    """Text of a `tokenizer.json` that reads as transformers does: its `tokenizer_config.json` has the last word.

    That of a checkpoint with exits is what it was trained with, whatever stands beside it. A slow tokenizer is
    converted.

    Raises:
        OptionError: it has neither a `tokenizer.json` nor a vocabulary (transformers 5 would make five tokens up).
    """
    optional = partial(cached_file, checkpoint, _raise_exceptions_for_missing_entries=False)
    found, config = optional("tokenizer.json"), optional("config.json")
    own = "" if found is None else Path(found).read_text(encoding="utf-8")
    if own and (config is None or "cascade_exits" in json.loads(Path(config).read_text(encoding="utf-8"))):
        return own
    names = () if own else VOCABULARIES
    if not own and not any(
        cached_file(checkpoint, name, _raise_exceptions_for_missing_entries=False) for name in names
    ):
        raise OptionError(f"{checkpoint} must have a tokenizer.json or a vocabulary; save its tokenizer there")
    from transformers import AutoTokenizer

    try:
        backend = AutoTokenizer.from_pretrained(checkpoint, use_fast=True).backend_tokenizer
    except (OSError, ValueError, KeyError, AttributeError, ImportError):
        if own:  # transformers does not know its class, so nothing contradicts it
            return own
        raise
    text: str = backend.to_str()
    return text


def spaced(text: str) -> str:
    """A `tokenizer.json` whose byte-level pre-tokenizer, if it has one, puts a space before each word.

    Words that are split already need it: otherwise each is read as if it continued the one before.
    """
    spec: dict[str, Any] = json.loads(text)
    for part in byte_level_parts(spec):
        part["add_prefix_space"] = True
    return json.dumps(spec, ensure_ascii=False)


def byte_level_parts(spec: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The byte-level pre-tokenizers of a `tokenizer.json`, by themselves or in a sequence."""
    outer = spec.get("pre_tokenizer") or {}
    for part in (outer, *outer.get("pretokenizers", ())):
        if part.get("type") == "ByteLevel":
            yield part


def last_whole(folder: Path, tell: Callable[[str], object] = tqdm.write) -> str | None:
    """The Trainer's newest checkpoint in a folder that was written to its end; None where there is none.

    Those that were not are removed, because nothing can go on from them; `tell` is told so, and where none is left.
    """
    found = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    for path in sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")), reverse=True):
        fault = _fault(path)
        if fault is None:
            return str(path)
        tell(f"{path} is removed, because it was not written to its end: {fault}")
        shutil.rmtree(path)
    if folder.is_dir():
        tell(f"{folder} holds no whole checkpoint; training starts at the first step")
    return None


def _fault(checkpoint: Path) -> str | None:
    """What is missing in a checkpoint of the Trainer, which writes `trainer_state.json` last; None if nothing is."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        with safe_open(checkpoint / "model.safetensors", "pt"):
            pass
    except (OSError, ValueError, SafetensorError) as error:
        return str(error)
    archives = [checkpoint / "optimizer.pt", checkpoint / "scheduler.pt"]
    return next((f"{file.name} is cut or missing" for file in archives if not zipfile.is_zipfile(file)), None)

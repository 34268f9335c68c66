"""What a training run leaves behind: the model, its tokenizer and `training.json`, whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast
from transformers.utils.hub import cached_file

from cascade.exceptions import OptionError

__all__ = ["byte_level_parts", "claim", "load_tokenizer_text", "publish", "tokenizer_from_text"]

RUN = "run"  # the Trainer's checkpoints, beside the finished model
VOCABULARIES = ("vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
TOKENIZER_FILES = ("tokenizer_config.json", "special_tokens_map.json")


def claim(output: Path, *, overwrite: bool, resume: bool) -> Path:
    """Make sure that a run may write to `output`, and return the folder for its checkpoints, which is not made yet.

    Folders without files count as empty, so that a command that was refused can be corrected and given again.

    Raises:
        OptionError: the folder holds something and neither `overwrite` nor `resume` was asked for.
    """
    if output.exists() and not output.is_dir():
        raise OptionError(f"--output must be a folder, was a file: {output}")
    if any(path.is_file() for path in output.rglob("*")) and not (overwrite or resume):
        raise OptionError(f"--output {output} is not empty; use --resume to go on with it, --overwrite to begin anew")
    if overwrite and not resume and (output / RUN).exists():
        shutil.rmtree(output / RUN)
    return output / RUN


def load_tokenizer_text(checkpoint: str | Path) -> str:
    """Text of a checkpoint's `tokenizer.json`; a slow tokenizer is converted by transformers.

    Raises:
        OptionError: it has neither (transformers 5 would make one of five tokens up).
    """
    found = cached_file(checkpoint, "tokenizer.json", _raise_exceptions_for_missing_entries=False)
    if found is not None:
        return Path(found).read_text(encoding="utf-8")
    if not any(cached_file(checkpoint, name, _raise_exceptions_for_missing_entries=False) for name in VOCABULARIES):
        raise OptionError(f"{checkpoint} must have a tokenizer.json or a vocabulary; save its tokenizer there")
    from transformers import AutoTokenizer

    backend = AutoTokenizer.from_pretrained(checkpoint, use_fast=True).backend_tokenizer
    text: str = backend.to_str()
    return text


def tokenizer_from_text(text: str) -> PreTrainedTokenizerFast:
    """A `tokenizer.json` as transformers wraps it, without the padding and truncation that may stand in it."""
    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def publish(
    output: Path,
    *,
    save: Callable[[Path], None],
    tokenizer: str,
    source: str | Path,
    report: Mapping[str, Any],
) -> None:
    """Write the finished model into `output`, file by file under temporary names, then renamed together.

    Args:
        output: the folder that `claim` claimed.
        save: writes the model's own files into a folder.
        tokenizer: text of `tokenizer.json`.
        source: the checkpoint whose small tokenizer files are copied.
        report: becomes `training.json`.
    """
    part = output / "part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        save(part)
        spec = json.loads(tokenizer)
        spec["truncation"] = spec["padding"] = None
        (part / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")
        for name in TOKENIZER_FILES:
            found = cached_file(source, name, _raise_exceptions_for_missing_entries=False)
            if found is not None:
                shutil.copyfile(found, part / name)
        _agree(part / "tokenizer_config.json", spec)
        (part / "training.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        for file in sorted(part.iterdir()):
            file.replace(output / file.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def byte_level_parts(spec: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The byte-level pre-tokenizers of a `tokenizer.json`, by themselves or in a sequence."""
    outer = spec.get("pre_tokenizer") or {}
    for part in (outer, *outer.get("pretokenizers", ())):
        if part.get("type") == "ByteLevel":
            yield part


def _agree(config: Path, spec: Mapping[str, Any]) -> None:
    """Let `tokenizer_config.json` say what `tokenizer.json` says: transformers believes the former."""
    if not config.exists():
        return
    told = json.loads(config.read_text(encoding="utf-8"))
    if any(part["add_prefix_space"] for part in byte_level_parts(spec)) and told.get("add_prefix_space") is False:
        config.write_text(json.dumps(told | {"add_prefix_space": True}, indent=2) + "\n", encoding="utf-8")

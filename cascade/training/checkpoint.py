"""What is read of a checkpoint beside its weights: the tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from transformers.utils.hub import cached_file

from cascade.exceptions import OptionError

VOCABULARIES = ("vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
TYPES = "token_type_ids"
SHOWN = 300  # characters of what transformers says


def load_tokenizer_text(checkpoint: str | Path, *, known: bool = False) -> str:
    """Text of a `tokenizer.json` that reads as transformers, as installed, does.

    Its `tokenizer_config.json` has the last word, and where its class gives a model no token types, all are 0. That of
    a checkpoint with exits is what it was trained with, whatever stands beside it. A slow tokenizer is converted.
    `known`: transformers must be able to read it; otherwise the file of a class that it lacks is taken.

    Raises:
        OptionError: it has neither a `tokenizer.json` nor a vocabulary (transformers 5 would make five tokens up), or
            transformers cannot read it.
    """
    optional = partial(cached_file, checkpoint, _raise_exceptions_for_missing_entries=False)
    found, config = optional("tokenizer.json"), optional("config.json")
    own = "" if found is None else Path(found).read_text(encoding="utf-8")
    if own and (config is None or "cascade_exits" in json.loads(Path(config).read_text(encoding="utf-8"))):
        return own
    if not own and not any(map(optional, VOCABULARIES)):
        raise OptionError(f"{checkpoint} must have a tokenizer.json or a vocabulary; save its tokenizer there")
    from transformers import AutoTokenizer, __version__

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint, use_fast=True)
        text, names = str(tokenizer.backend_tokenizer.to_str()), tokenizer.model_input_names
    except (OSError, ValueError, KeyError, AttributeError, ImportError) as error:
        if known or not own:
            reason = " ".join(str(error).split())[:SHOWN].rstrip(".")
            raise OptionError(
                f"{checkpoint} must have a tokenizer that transformers {__version__} reads, but: {reason}; install the "
                "release that saved it"
            ) from error
        told = tokenizer_config(checkpoint)
        plain = () if told.get("tokenizer_class") == "TokenizersBackend" else (TYPES,)  # transformers 5's own
        text, names = own, told.get("model_input_names", plain)
    return text if TYPES in names else untyped(text)


def tokenizer_config(checkpoint: str | Path) -> dict[str, Any]:
    """A checkpoint's `tokenizer_config.json`; empty where it has none."""
    found = cached_file(checkpoint, "tokenizer_config.json", _raise_exceptions_for_missing_entries=False)
    return {} if found is None else dict(json.loads(Path(found).read_text(encoding="utf-8")))


def spaced(text: str) -> str:
    """A `tokenizer.json` whose byte-level pre-tokenizer, if it has one, puts a space before each word.

    Words that are split already need it: otherwise each is read as if it continued the one before.
    """
    spec: dict[str, Any] = json.loads(text)
    for part in byte_level_parts(spec):
        part["add_prefix_space"] = True
    return json.dumps(spec, ensure_ascii=False)


def untyped(text: str) -> str:
    """A `tokenizer.json` that gives all tokens the type 0, those of a pair's second text too."""
    spec: dict[str, Any] = json.loads(text)
    outer = spec.get("post_processor")
    parts = [] if outer is None else outer["processors"] if outer["type"] == "Sequence" else [outer]
    made = [_template(part["cls"], part["sep"]) if part["type"] == "BertProcessing" else part for part in parts]
    if not any(part["type"] in ("TemplateProcessing", "RobertaProcessing") for part in made):
        made.append(_template())  # otherwise a second text has the type 1
    for part in made:
        for piece in (*part.get("single", ()), *part.get("pair", ())):
            for own in piece.values():
                own["type_id"] = 0
    spec["post_processor"] = made[0] if len(made) == 1 else {"type": "Sequence", "processors": made}
    return json.dumps(spec, ensure_ascii=False)


def _template(*around: tuple[str, int]) -> dict[str, Any]:
    """A post-processor with these tokens, the first one and the one after each text, or with none."""
    special = [{"SpecialToken": {"id": name, "type_id": 0}} for name, _ in around]
    one, two = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    single = [*special[:1], one, *special[1:]]
    tokens = {name: {"id": name, "ids": [number], "tokens": [name]} for name, number in around}
    pair = [*single, two, *special[1:]]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens}


def byte_level_parts(spec: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The byte-level pre-tokenizers of a `tokenizer.json`, by themselves or in a sequence."""
    outer = spec.get("pre_tokenizer") or {}
    for part in (outer, *outer.get("pretokenizers", ())):
        if part.get("type") == "ByteLevel":
            yield part

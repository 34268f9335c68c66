"""What is read of a checkpoint beside its weights: the tokenizer; and fewer pieces, as many as a task needs.

Most of a small model's bytes are embeddings of words that a task never sees. Special tokens, every single character
(alone and as a continuation) and the most frequent pieces of the task's texts stay; WordPiece still covers any text
with the pieces that are left. Other tokenizers (BPE, Unigram) stay, because
their merges depend on each other, and the table of embeddings alone shrinks (`keep_rows`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.utils.hub import cached_file

from cascade.core.rows import IntArray
from cascade.exceptions import OptionError

VOCABULARIES = ("vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
TYPES = "token_type_ids"
SHOWN = 300  # characters of what transformers says


def load_tokenizer_text(checkpoint: str | Path, *, known: bool = False) -> str:
    """Text of a `tokenizer.json` that reads as transformers, as installed, does.

    Its `tokenizer_config.json` has the last word, and where its class gives a model no token types, all are 0. That of
    a checkpoint with exits is what it was trained with, whatever stands beside it. A slow tokenizer is converted.
    `known`: transformers must be able to read it; otherwise the file of a class that it lacks is taken. An
    `OptionError`: it has neither a `tokenizer.json` nor a vocabulary (transformers 5 would make five tokens up), or
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
            rule = f"{checkpoint} must have a tokenizer that transformers {__version__} reads, but: {reason}"
            raise OptionError(f"{rule}; install the release that saved it") from error
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


CONTINUATION = "##"


def prune(tokenizer: str, texts: Iterable[str], *, size: int) -> tuple[str, IntArray]:
    """Keep `size` pieces of a WordPiece vocabulary, special tokens and characters included.

    `tokenizer`: text of a `tokenizer.json`; `texts`: what the task reads, better more than the training texts. Pieces
    are kept by their number in these, then in the order of the old vocabulary (BERT's is roughly by frequency). A size
    below the number of special tokens and characters is an `OptionError`.

    Returned are the text of the new `tokenizer.json`, and the old id of each new id, rising, of shape `(size,)`.
    """
    spec: dict[str, Any] = json.loads(tokenizer)
    vocabulary: dict[str, int] = spec["model"]["vocab"]
    spec["truncation"] = spec["padding"] = None
    special = {token["id"] for token in spec["added_tokens"]}
    special.add(vocabulary[spec["model"]["unk_token"]])
    # Rare scripts' characters would take thousands of places; ASCII and what the texts hold is enough to spell.
    counts: Counter[int] = Counter()
    whole = Tokenizer.from_str(json.dumps(spec))
    texts = list(texts)
    for start in range(0, len(texts), 1000):
        for encoding in whole.encode_batch(texts[start : start + 1000], add_special_tokens=False):
            counts.update(encoding.ids)
    letters = {
        number
        for piece, number in vocabulary.items()
        if len(bare := piece.removeprefix(CONTINUATION)) == 1 and (bare.isascii() or number in counts)
    }
    kept = special | letters
    if size < len(kept):
        raise OptionError(f"--vocabulary must be at least {len(kept)} (special tokens and characters), got {size}")
    # [unused12] and the like never occur in text.
    placeholders = {number for piece, number in vocabulary.items() if piece.startswith("[unused")}
    frequent = [number for number, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    for number in [*frequent, *sorted(vocabulary.values())]:
        if len(kept) >= min(size, len(vocabulary)):
            break
        if number not in placeholders:
            kept.add(number)
    order = sorted(kept)
    new = {old: position for position, old in enumerate(order)}
    spec["model"]["vocab"] = {
        piece: new[number] for piece, number in sorted(vocabulary.items(), key=lambda item: item[1]) if number in new
    }
    for token in spec["added_tokens"]:
        token["id"] = new[token["id"]]
    processor = spec.get("post_processor") or {}
    if processor.get("type") == "TemplateProcessing":
        for token in processor["special_tokens"].values():
            token["ids"] = [new[number] for number in token["ids"]]
    elif processor.get("type") == "BertProcessing":
        for name in ("sep", "cls"):
            processor[name][1] = new[processor[name][1]]
    return json.dumps(spec, ensure_ascii=False), np.array(order, dtype=np.int64)


def kept_pieces(ids: IntArray, *, size: int, vocabulary: int) -> IntArray:
    """These ids, however many, and the first others up to `size`; rising.

    The tokenizer stays and only the table behind it shrinks, whatever its kind, so nothing changes for texts whose
    pieces are all kept. Vocabularies begin with special tokens, single characters and frequent pieces. `vocabulary`:
    how many ids there are.
    """
    found = np.zeros(vocabulary, dtype=np.bool_)
    found[ids] = True
    found[np.flatnonzero(~found)[: max(size - int(found.sum()), 0)]] = True
    return np.flatnonzero(found)


def shrink_embedding(embedding: nn.Embedding, kept: IntArray) -> nn.Embedding:
    """A new table with the kept rows, in their new order."""
    padding = embedding.padding_idx
    position = int(np.searchsorted(kept, padding)) if padding is not None and padding in kept else None
    weight = embedding.weight.detach()[torch.from_numpy(kept)]
    made: nn.Embedding = nn.Embedding.from_pretrained(weight, freeze=False, padding_idx=position)
    return made


def prune_model(model: Any, tokenizer: str, texts: Iterable[str], *, size: int) -> str:
    """Prune tokenizer, whose new text is returned, and embedding table; a model that is pruned already stays so."""
    smaller, kept = prune(tokenizer, texts, size=size)
    table: Any = model.backbone.get_input_embeddings()
    if len(kept) < table.num_embeddings:
        model.backbone.set_input_embeddings(shrink_embedding(table, kept))
        model.config.vocab_size = len(kept)
        if model.config.pad_token_id is not None:
            model.config.pad_token_id = int(np.searchsorted(kept, model.config.pad_token_id))
    return smaller


def keep_rows(model: Any, ids: IntArray, *, size: int, unknown: int) -> None:
    """Keep embeddings of the pieces that occur in `ids`, and of the first others up to `size`; see `kept_pieces`.

    The tokenizer stays; ids of all other pieces are read as that of the `unknown` one. A model with fewer already is
    left as it is.
    """
    table: Any = model.backbone.get_input_embeddings()
    if not isinstance(table, FewerRows):
        kept = kept_pieces(ids, size=size, vocabulary=table.num_embeddings)
        fewer = FewerRows.of(table, torch.from_numpy(kept), unknown=unknown)
        model.backbone.set_input_embeddings(fewer)


class FewerRows(nn.Module):
    """An embedding table with rows for some tokens only, whatever the tokenizer: the ids of the others share one.

    `weight`: shape `(rows, width)`; `places`: the row of each token id, shape `(vocabulary,)`.
    """

    places: Tensor

    def __init__(self, vocabulary: int, rows: int, width: int) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = rows, width
        self.weight = nn.Parameter(torch.zeros(rows, width))
        self.register_buffer("places", torch.zeros(vocabulary, dtype=torch.int64))

    @classmethod
    def of(cls, table: Any, kept: Tensor, *, unknown: int) -> FewerRows:
        """The rows of these tokens, ids rising, and of the one that all others are read as. `table`: of all."""
        kept = torch.cat((kept, torch.tensor([unknown]))).unique()
        made = cls(table.num_embeddings, len(kept), table.embedding_dim)
        with torch.no_grad():
            made.weight.copy_(table.weight[kept])
        made.places.fill_(int((kept == unknown).nonzero()))
        made.places[kept] = torch.arange(len(kept))
        return made

    def forward(self, ids: Tensor) -> Tensor:
        """Shapes `(...)` -> `(..., width)`."""
        return F.embedding(self.places[ids], self.weight)

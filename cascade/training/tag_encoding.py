"""Words to token ids that know where each word begins.

A word is tokenized by itself, as transformers does with `is_split_into_words`; a word that the tokenizer drops becomes
the unknown token, and a sentence that is too long becomes several rows, cut between words. So each word has one first
piece in one row, and its label stands there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from cascade.core.rows import BoolArray, IntArray
from cascade.exceptions import DataError, OptionError
from cascade.text.texts import repair_text
from cascade.training.checkpoint import byte_level_parts
from cascade.training.data import Pad, Rows
from cascade.training.tag_data import Sentences

__all__ = ["NO_LABEL", "PadTags", "WordTokenizer", "encode"]

NO_LABEL = -100  # at tokens that are no word's first piece, and at words without a label
UNKNOWN = ("[UNK]", "<unk>")  # where a tokenizer's model names no unknown token


class WordTokenizer:
    """Words to pieces, each by itself, with what stands around a sentence.

    Attributes:
        text: of the `tokenizer.json`. Byte-level ones are told to take every word as if a space stood before it, as
            they must for words that are split already.
        prefix, suffix: special tokens before and after a sentence.
        unknown: id of the token for words without pieces.
    """

    def __init__(self, text: str) -> None:
        self.text = _with_spaces(text)
        self._inner = Tokenizer.from_str(self.text)
        self._inner.no_padding()
        self._inner.no_truncation()
        whole = self._inner.encode(["a"], is_pretokenized=True)
        places = [place for place, word in enumerate(whole.word_ids) if word is not None]
        if not places:
            raise OptionError("the tokenizer must have pieces for plain letters, has none for: a; choose another")
        self.prefix, self.suffix = whole.ids[: places[0]], whole.ids[places[-1] + 1 :]
        self.unknown = self._find_unknown()
        self._known: dict[str, list[int]] = {}

    def pieces(self, word: str) -> list[int]:
        """Token ids of one word, at least one."""
        found = self._known.get(word)
        if found is None:
            encoding = self._inner.encode([repair_text(word)], is_pretokenized=True, add_special_tokens=False)
            found = encoding.ids or [self.unknown]
            self._known[word] = found
        return found

    def _find_unknown(self) -> int:
        named_token = getattr(self._inner.model, "unk_token", None)
        for token in (*([named_token] if named_token else []), *UNKNOWN):
            number = self._inner.token_to_id(token)
            if number is not None:
                return int(number)
        raise OptionError(f"the tokenizer must have an unknown token, has none of: {', '.join(UNKNOWN)}; add one")


def encode(tokenizer: WordTokenizer, sentences: Sentences, names: Sequence[str], *, max_length: int) -> Rows:
    """Token ids with special tokens, and where words begin.

    Sentences longer than `max_length` tokens become several rows, a word longer than a row loses its last pieces.

    Returns:
        rows with the targets `labels` (numbers, `NO_LABEL` where there is none) and `firsts` (True at the first
        piece of a word), both of shape `(tokens of the row,)`.

    Raises:
        DataError: a tag that is not among the names, with its sentence's number.
    """
    room = max_length - len(tokenizer.prefix) - len(tokenizer.suffix)
    if room < 1:
        raise OptionError(
            f"--max-length must leave room for a word, at least {max_length - room + 1}, was: {max_length}"
        )
    numbers = {name: number for number, name in enumerate(names)}
    ids: list[list[int]] = []
    labels: list[IntArray] = []
    firsts: list[BoolArray] = []
    for position, words in enumerate(sentences.words):
        own = [NO_LABEL] * len(words)
        if sentences.tags is not None:
            own = [numbers.get(tag, NO_LABEL) for tag in sentences.tags[position]]
            if NO_LABEL in own:
                unknown = sentences.tags[position][own.index(NO_LABEL)]
                raise DataError(
                    f"{sentences.source}: sentence {position + 1} has the tag {unknown!r}, which the model's labels do "
                    f"not have ({len(names)} labels: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}); "
                    "correct it, or train on data that have it"
                )
        pieces = [tokenizer.pieces(word)[:room] for word in words]
        for start, stop in _cuts([len(piece) for piece in pieces], room):
            row = [*tokenizer.prefix, *chain.from_iterable(pieces[start:stop]), *tokenizer.suffix]
            places = np.cumsum([len(tokenizer.prefix), *(len(piece) for piece in pieces[start : stop - 1])])
            begins = np.zeros(len(row), dtype=np.bool_)
            begins[places] = True
            wanted = np.full(len(row), NO_LABEL, dtype=np.int64)
            wanted[places] = own[start:stop]
            ids.append(row)
            firsts.append(begins)
            labels.append(wanted)
    return Rows(ids=ids, targets={"labels": labels, "firsts": firsts})


@dataclass(frozen=True)
class PadTags:
    """Collates rows to the longest of them.

    `labels` and `firsts` are padded to shape `(rows, longest)`; every other target has an entry per word, and
    becomes one tensor of the words of all rows, in the order in which `firsts` counts them.
    """

    padding: int

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        batch = Pad(self.padding)([{"input_ids": item["input_ids"]} for item in items])
        shape = batch["input_ids"].shape
        batch["labels"] = torch.full(shape, NO_LABEL)
        batch["firsts"] = torch.zeros(shape, dtype=torch.bool)
        for row, item in enumerate(items):
            for name in ("labels", "firsts"):
                batch[name][row, : len(item[name])] = torch.from_numpy(item[name])
        for name in items[0].keys() - {"input_ids", "labels", "firsts"}:
            batch[name] = torch.from_numpy(np.concatenate([item[name] for item in items]))
        return batch


def _cuts(sizes: Sequence[int], room: int) -> list[tuple[int, int]]:
    """Runs of words, first and last + 1, of at most `room` pieces each."""
    found, start, taken = [], 0, 0
    for word, size in enumerate(sizes):
        if taken + size > room:
            found.append((start, word))
            start, taken = word, 0
        taken += size
    return [*found, (start, len(sizes))]


def _with_spaces(text: str) -> str:
    """A `tokenizer.json` whose byte-level pre-tokenizer, if it has one, puts a space before each word."""
    spec: dict[str, Any] = json.loads(text)
    for part in byte_level_parts(spec):
        part["add_prefix_space"] = True
    return json.dumps(spec, ensure_ascii=False)

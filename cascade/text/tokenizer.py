"""Texts in, rows of token ids out: with `wordpiece` the only room that touches `tokenizers`.

A text longer than the model becomes several rows that overlap; a pair that is too long is cut, its longer side first.
Truncation and padding stored in the tokenizer's file are switched off. Texts that the Rust tokenizer cannot take
(lone surrogates) are repaired, so every Python string has an encoding.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import TypeAlias

import numpy as np
import tokenizers

from cascade.core.rows import Encoded, Rows, Units, offsets_of
from cascade.exceptions import BundleError, OptionError
from cascade.text.guarding import check_growth, guarded, try_out
from cascade.text.texts import RowText, Text, empty_items, is_ascii, read_texts, repair_row, repair_text
from cascade.text.truncation import SpecialTokens, fit_rows
from cascade.text.wordpiece import AsciiWordPiece, ChunkTable, EncodedRows

CHUNK = 4096  # texts encoded at once: bounds the memory that the Rust tokenizer's results take
WORDS_KEPT = 65_536
Pool: TypeAlias = Callable[[], AbstractContextManager[object]]
UNKNOWN = ("[UNK]", "<unk>")  # where the model itself names no unknown token
TAKES = "the tokenizer must take any text"
_FORKED: list[bool] = []


if hasattr(os, "register_at_fork"):  # a child has none of the library's threads, and would wait for them
    os.register_at_fork(after_in_child=lambda: _FORKED.append(True))


class Tokenizer:
    """A `tokenizer.json`, for rows of at most `max_length` tokens, special ones included. Make one with `from_bytes`.

    It holds no state that a call changes, but for tables of words seen before, which never change an answer; threads
    may share it.

    Args:
        inner: the tokenizer itself.
        max_length: tokens of a row at most; an `OptionError` if no text has room.
        overlap: tokens that two rows of one long text share; an eighth of a row's room if not given.
        word_table: look up words of plain ASCII texts in a table where the tokenizer's kind allows it (BERT's
            WordPiece); the same ids, several times faster.
        pool: entered while the library's own threads, one per CPU, encode what the table cannot; `None`: they are left
            alone, and texts are encoded one by one on the calling thread.
        encode_special_tokens: a special token that stands in a text, such as `[SEP]`, is read as the characters that it
            is made of; otherwise it acts as the token, as in transformers.

    Attributes:
        special: the special tokens of a row that holds one text; `room` is what they leave of a row.
        unknown: id of the token for what has no pieces of its own.
        words: token ids of a word by itself, as in pre-split text: at least one, at most one more than a row has room
            for, by which a word that must be cut is known.
        truncation: whether of a text that is too long only the first tokens are read, as in transformers.
        space: what a word that follows another is read with.
        marks_subwords: whether pieces that continue a word carry a mark (WordPiece's ##).
    """

    def __init__(
        self,
        inner: tokenizers.Tokenizer,
        *,
        max_length: int,
        overlap: int | None = None,
        word_table: bool = True,
        pool: Pool | None = nullcontext,
        encode_special_tokens: bool = False,
    ) -> None:
        inner.no_truncation()
        inner.no_padding()
        inner.encode_special_tokens = encode_special_tokens
        self._inner, self._pool = inner, pool
        self.special = special = _special_of(inner)
        self._plain_types = not any(inner.encode("a").type_ids)  # XLNet, for one, gives its last token a type
        self._shortest = max(sum(special.pair) + 2, len(special) + 1)
        self._fit(max_length)
        room = self.room
        overlap = room // 8 if overlap is None else overlap
        if not 0 <= overlap < room:
            raise OptionError(
                f"overlap must be in [0, {room - 1}] (max_length less special tokens), got {overlap}; "
                "lower overlap or raise max_length"
            )
        self.truncation: bool | str = False
        self.overlap = overlap
        self._fast = AsciiWordPiece.of(inner) if word_table else None
        named = (inner.token_to_id(token) for token in (getattr(inner.model, "unk_token", None), *UNKNOWN) if token)
        # Byte-level: every character has pieces, only the empty word has none.
        self.unknown = next((int(number) for number in named if number is not None), 0)
        self.marks_subwords = bool(getattr(inner.model, "continuing_subword_prefix", None))
        # Words behind others, if they are read alone, lack the space by which a byte-level tokenizer knows them.
        self.space = " " if getattr(inner.pre_tokenizer, "add_prefix_space", True) is False else ""
        self.words = ChunkTable({}, self._encode_word, capacity=WORDS_KEPT)

    def __repr__(self) -> str:
        return f"Tokenizer(max_length={self.max_length}, overlap={self.overlap}, word_table={self._fast is not None})"

    @classmethod
    def from_bytes(
        cls,
        contents: bytes,
        *,
        name: str,
        max_length: int,
        pool: Pool | None = nullcontext,
        encode_special_tokens: bool = False,
    ) -> Tokenizer:
        """Read the contents of a `tokenizer.json`; a `BundleError` if they are none. `name`: what errors call it."""
        with guarded(f"{name} must be a tokenizer.json that this release of tokenizers reads"):
            inner = tokenizers.Tokenizer.from_str(contents.decode())
            check_growth(inner.normalizer)
        with guarded(f"{name} must be a tokenizer that takes any text"):
            made = cls(inner, max_length=max_length, pool=pool, encode_special_tokens=encode_special_tokens)
            try_out(inner)
        return made

    def with_truncation(self, truncation: bool | str) -> Tokenizer:
        """The same, which cuts long texts (or, again, reads them in windows); itself where nothing changes.

        `"left"`: it keeps the last tokens of texts and pairs, but not of a tagger's texts.
        """
        if self.truncation == truncation:
            return self
        made = copy.copy(self)  # tables of words are shared
        made.truncation = truncation
        return made

    def with_max_length(self, max_length: int) -> Tokenizer:
        """The same with shorter rows; itself where they are no shorter. An `OptionError` if no text has room."""
        if max_length >= self.max_length:
            return self
        made = copy.copy(self)
        made._fit(max_length)
        made.overlap = min(self.overlap, made.room - 1)
        return made

    def _fit(self, max_length: int) -> None:
        if max_length < self._shortest:
            least = f"{self._shortest} (special tokens and a text)"
            raise OptionError(f"max_length must be at least {least}, got {max_length}; raise it")
        self.max_length, self.room = max_length, max_length - len(self.special)

    def encode(self, texts: Iterable[Text]) -> Encoded:
        """Encode texts, tuples of two texts, or mappings with `text` and maybe `text_pair`.

        A text that is longer than `max_length` becomes several rows, each with the special tokens and `overlap` tokens
        of the one before. A pair that is too long stays one row: the longer side is cut until both fit
        (`longest_first`, as in transformers) and the pair is counted, because windows over two texts at once have no
        meaning that fits every task. Lone surrogates become U+FFFD. An empty text is valid. An `InputError` tells where
        something is no text.
        """
        rows = read_texts(texts)
        with guarded(TAKES):
            parts = [self._encode_rows(rows[at : at + CHUNK]) for at in range(0, len(rows), CHUNK)]
        encoded = EncodedRows.join(parts)
        long = encoded.rows.lengths > self.max_length
        if not long.any():
            return Encoded(Units.whole(encoded.rows), np.arange(len(rows), dtype=np.int64), empty=empty_items(rows))
        windows, numbers = fit_rows(
            encoded.rows,
            encoded.first_lengths,
            self.special,
            max_length=self.max_length,
            overlap=self.overlap,
            truncation=self.truncation,
        )
        lost = long & ((encoded.first_lengths >= 0) | bool(self.truncation))
        return Encoded(Units.whole(windows), numbers, np.flatnonzero(lost), empty_items(rows))

    def tokenize_with_offsets(self, texts: Sequence[str]) -> list[tokenizers.Encoding]:
        """Pieces with character offsets and word numbers, without special tokens; no text is cut.

        Texts have no surrogates (see `repair_text`) and are not too many: all encodings are held at once.
        """
        encodings: list[tokenizers.Encoding]
        with guarded(TAKES):
            if self._pool is None or _FORKED:
                encodings = [self._inner.encode(text, add_special_tokens=False) for text in texts]
            else:
                with self._pool():
                    encodings = self._inner.encode_batch(list(texts), add_special_tokens=False)
        return encodings

    def piece(self, number: int) -> str:
        """The string of a token id, in the tokenizer's own spelling."""
        return str(self._inner.id_to_token(number))

    def join(self, pieces: list[str]) -> str:
        """Pieces as text, as transformers' `convert_tokens_to_string` gives it."""
        decoder = self._inner.decoder
        with guarded(TAKES):
            return " ".join(pieces) if decoder is None else str(decoder.decode(pieces))

    def _encode_word(self, word: str) -> tuple[int, ...]:
        with guarded(TAKES):
            encoding = self._inner.encode([repair_text(word)], is_pretokenized=True, add_special_tokens=False)
        return tuple(encoding.ids[: self.room + 1]) or (self.unknown,)

    def _encode_rows(self, rows: Sequence[RowText]) -> EncodedRows:
        if self._fast is None:
            return self._encode_slowly(rows)
        known: Callable[..., bool] = is_ascii if tuple in set(map(type, rows)) else str.isascii
        if every := all(map(known, rows)):
            chosen = np.arange(len(rows), dtype=np.int64)
        else:
            chosen = np.flatnonzero(np.fromiter(map(known, rows), dtype=np.bool_, count=len(rows)))
            if not len(chosen):
                return self._encode_slowly(rows)
        quick, right = self._fast.encode(rows if every else [rows[int(row)] for row in chosen])
        if every and right.all():
            return quick
        chosen = chosen[right]
        others = np.setdiff1d(np.arange(len(rows)), chosen)
        slow = self._encode_slowly([rows[int(row)] for row in others])
        both = EncodedRows.join([quick.select(np.flatnonzero(right)), slow])
        return both.select(np.argsort(np.concatenate((chosen, others))))

    def _encode_slowly(self, rows: Sequence[RowText]) -> EncodedRows:
        inner = self._inner
        pair = np.fromiter((isinstance(row, tuple) for row in rows), dtype=np.bool_, count=len(rows))
        repaired = list(map(repair_row, rows))
        encodings: list[tokenizers.Encoding]
        if self._pool is None or _FORKED:
            encodings = [inner.encode(*row) if isinstance(row, tuple) else inner.encode(row) for row in repaired]
        else:
            # The fast form (from 0.20 on) makes no character offsets; without a post-processor it forgets pairs' types.
            encode = inner.encode_batch if pair.any() else getattr(inner, "encode_batch_fast", inner.encode_batch)
            with self._pool():
                encodings = encode(repaired)
        lengths = np.fromiter(map(len, encodings), dtype=np.int64, count=len(encodings))
        tokens = int(lengths.sum())
        ids = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), dtype=np.int64, count=tokens)
        if self._plain_types and not pair.any():
            types = np.zeros(tokens, dtype=np.int64)
        else:
            types = np.fromiter(chain.from_iterable(encoding.type_ids for encoding in encodings), np.int64, tokens)
        first_lengths = pair.astype(np.int64) - 1
        for row in np.flatnonzero(pair & (lengths > self.max_length)):  # rare; the length of the others is not read
            first_lengths[row] = encodings[int(row)].sequence_ids.count(0)
        return EncodedRows(Rows(ids=ids, types=types, offsets=offsets_of(lengths)), first_lengths)


def _special_of(inner: tokenizers.Tokenizer) -> SpecialTokens:
    """The special tokens, found with a word that has tokens of its own."""
    for word in _words(inner):
        alone = inner.encode(word)
        single, pair = alone.sequence_ids, inner.encode(word, word).sequence_ids
        if 0 in single and 1 in pair:
            break
    else:
        raise BundleError("the tokenizer must have a vocabulary, but nothing has tokens; save the tokenizer again")
    begin, first, second = single.index(0), pair.index(0), pair.index(1)
    end = begin + single.count(0)
    around = (first, second - first - pair.count(0), len(pair) - second - pair.count(1))
    ids, types = np.asarray(alone.ids, dtype=np.int64), np.asarray(alone.type_ids, dtype=np.int64)
    return SpecialTokens(ids[:begin], ids[end:], types[:begin], types[end:], int(types[begin]), around)


def _words(inner: tokenizers.Tokenizer) -> Iterator[str]:
    """Any tokenizer has tokens for one of these. Its vocabulary takes long to build and is seldom asked for."""
    yield from ("a", "0", ".")
    yield from inner.get_vocab()

"""Sentences of words, and texts, as rows that know their words: what a tagger reads.

A word that is given is tokenized by itself, as transformers does with `is_split_into_words`; a word that the tokenizer
drops (a lone combining mark, a zero-width space) becomes the unknown token. So every word has a piece, and a tag.
Rows are whole sentences, however long.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from cascade.core.rows import BoolArray, Encoded, IntArray, Rows, Units, offsets_of, ranges
from cascade.exceptions import InputError
from cascade.text.texts import check_texts, empty_items, refuse_null, repair_text
from cascade.text.tokenizer import CHUNK, Tokenizer
from cascade.text.truncation import SpecialTokens

Sentence: TypeAlias = Sequence[str]

REMEDY = 'give lists of words, as in [["two", "words"]], or texts to predict_texts'


@dataclass(frozen=True, eq=False)
class TextWords:
    """Texts as rows of words (or of single pieces), with the characters that each stands for.

    Attributes:
        words: a row per text.
        begins, ends: characters `begins[w]:ends[w]` of the caller's own text. Shape `(words,)`.
        truncated: numbers of the texts that lost pieces, rising. Shape `(truncated,)`.
    """

    words: Units
    begins: IntArray
    ends: IntArray
    truncated: IntArray


@dataclass(frozen=True)
class WordEncoder:
    """Sentences of words as rows with a unit per word (`encode_words`): an encoder of the engine."""

    tokenizer: Tokenizer

    def encode(self, sentences: Iterable[Sentence]) -> Encoded:
        """Encode sentences: lists (or tuples) of words, any strings, empty ones too; a sentence may have none.

        A word of more pieces than the tokenizer's rows have room for is cut to fit, and its sentence counted; sentences
        are not cut. An `InputError` names the position of anything else.
        """
        tokenizer = self.tokenizer
        rows = list(check_sentences(sentences))
        check_words(rows)
        counts = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        words = chain.from_iterable(rows)
        if tokenizer.space:
            words = chain.from_iterable((*row[:1], *(tokenizer.space + word for word in row[1:])) for row in rows)
        pieces = list(map(tokenizer.words.__getitem__, words))
        sizes = np.fromiter(map(len, pieces), dtype=np.int64, count=len(pieces))
        ids = np.fromiter(chain.from_iterable(pieces), dtype=np.int64, count=int(sizes.sum()))
        cut = sizes > tokenizer.room
        if cut.any():
            ids = ids[ranges(np.zeros_like(sizes), sizes) < tokenizer.room]
            sizes = np.minimum(sizes, tokenizer.room)
        units = _framed(ids, sizes, offsets_of(counts), tokenizer.special)
        return Encoded(units, np.arange(len(units), dtype=np.int64), np.unique(units.row_of[cut]), empty_items(rows))


def encode_words(tokenizer: Tokenizer, sentences: Iterable[Sentence]) -> Units:
    """The rows alone of `WordEncoder.encode`."""
    return WordEncoder(tokenizer).encode(sentences).units


def encode_texts(tokenizer: Tokenizer, texts: Iterable[str], *, per_piece: bool) -> TextWords:
    """Encode whole texts, in which the tokenizer finds the words; an `InputError` tells where something is no string.

    Lone surrogates are read as U+FFFD, and no offset moves. Only a tokenizer with `truncation` cuts texts. A word of
    more pieces than a row has room for loses the last ones. `per_piece`: every piece is a unit; otherwise the words of
    the pre-tokenizer are.
    """
    every = list(check_texts(texts))
    for position, text in enumerate(every):
        if not isinstance(text, str):
            refuse_null(text, position)
            raise InputError(
                f"a text must be a string, got {type(text).__name__} as text {position}; "
                "give words that are split already to predict"
            )
    parts = [_pieces(tokenizer, every[at : at + CHUNK], at) for at in range(0, len(every), CHUNK)]
    found = np.concatenate([np.zeros((5, 0), dtype=np.int64), *parts], axis=1)
    lost = np.zeros(0, dtype=np.int64)
    if tokenizer.truncation:
        kept = np.arange(found.shape[1]) - np.searchsorted(found[4], found[4]) < tokenizer.room
        lost, found = np.unique(found[4, ~kept]), found[:, kept]
    ids, begins, ends, word_ids, rows = found
    offsets = offsets_of(np.bincount(rows, minlength=len(every)))
    words = _framed(ids, np.ones(len(ids), dtype=np.int64), offsets, tokenizer.special)
    single = TextWords(words, begins, ends, lost)
    if per_piece:
        return single
    new = np.ones(len(ids), dtype=np.bool_)
    new[1:] = (np.diff(word_ids) != 0) | (np.diff(rows) != 0)
    return grouped(tokenizer, single, new)


def grouped(tokenizer: Tokenizer, single: TextWords, new: BoolArray) -> TextWords:
    """Runs of single pieces (`encode_texts` with `per_piece`) as units; one that is too long loses the last pieces.

    `new`: True where a unit begins; at the first piece of each text at least. Shape `(pieces,)`.
    """
    starts = np.flatnonzero(new)
    lengths = np.diff(np.append(starts, len(new)))
    place = ranges(np.zeros_like(lengths), lengths)
    ids = single.words.first_ids[place < tokenizer.room]
    offsets = np.searchsorted(starts, single.words.offsets)
    words = _framed(ids, np.minimum(lengths, tokenizer.room), offsets, tokenizer.special)
    lost = np.union1d(single.truncated, single.words.row_of[starts[lengths > tokenizer.room]])
    return TextWords(words, single.begins[starts], single.ends[starts + lengths - 1], lost)


def check_sentences(sentences: object) -> Iterable[Sentence]:
    """Several items in an order, or an `InputError`; the items are not looked at."""
    try:
        return check_texts(sentences)
    except InputError:
        kind = type(sentences).__name__
        raise InputError(f"sentences must be a list of lists of words, got {kind}; {REMEDY}") from None


def check_words(rows: Sequence[Sentence]) -> None:
    """An `InputError` unless each is a list of strings."""
    for position, row in enumerate(rows):
        if not isinstance(row, list | tuple):
            kind = type(row).__name__
            raise InputError(f"a sentence must be a list of words, got {kind} as sentence {position}; {REMEDY}")
    if not all(issubclass(kind, str) for kind in set(map(type, chain.from_iterable(rows)))):
        position, place, kind = next(
            (position, place, type(word).__name__)
            for position, row in enumerate(rows)
            for place, word in enumerate(row)
            if not issubclass(type(word), str)
        )
        raise InputError(f"a word must be a string, got {kind} as word {place} of sentence {position}; {REMEDY}")


def _framed(ids: IntArray, sizes: IntArray, offsets: IntArray, special: SpecialTokens) -> Units:
    """Rows of words between the special tokens, from all ids, pieces per word, and offsets of the rows' words."""
    before, after = len(special.prefix), len(special.suffix)
    ends = offsets_of(sizes)
    bodies = np.diff(ends[offsets])
    rows = offsets_of(bodies + before + after)
    shift = np.arange(len(bodies)) * (before + after) + before  # special tokens before each row's first piece
    everything = np.empty(int(rows[-1]), dtype=np.int64)
    types = np.full(len(everything), special.type, dtype=np.int64)
    everything[np.arange(len(ids)) + np.repeat(shift, bodies)] = ids
    for tokens, kinds, places in (
        (special.prefix, special.prefix_types, rows[:-1, None] + np.arange(before)),
        (special.suffix, special.suffix_types, rows[1:, None] - after + np.arange(after)),
    ):
        everything[places] = tokens
        types[places] = kinds
    first_token = ends[:-1] + np.repeat(shift, np.diff(offsets))
    return Units(Rows(ids=everything, types=types, offsets=rows), first_token, sizes, offsets)


def _pieces(tokenizer: Tokenizer, texts: Sequence[str], first: int) -> IntArray:
    """Id, begin, end, word and row of every piece. `first`: number of the first text. Shape `(5, pieces)`."""
    repaired = [repair_text(text) for text in texts]
    encodings = tokenizer.tokenize_with_offsets(repaired)
    counts = np.fromiter(map(len, encodings), dtype=np.int64, count=len(encodings))
    total = int(counts.sum())
    found = np.empty((5, total), dtype=np.int64)
    found[0] = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int64, total)
    edges = chain.from_iterable(chain.from_iterable(encoding.offsets for encoding in encodings))
    found[1:3] = np.fromiter(edges, np.int64, 2 * total).reshape(-1, 2).T
    found[3] = np.fromiter(chain.from_iterable(encoding.word_ids for encoding in encodings), np.int64, total)
    found[4] = np.repeat(np.arange(len(texts)) + first, counts)
    for row, (text, new) in enumerate(zip(texts, repaired, strict=True)):
        if len(text) != len(new):  # surrogate pairs: next to never
            mine = found[4] == row + first
            found[1:3, mine] = _origins(text)[found[1:3, mine]]
    return found


def _origins(text: str) -> IntArray:
    """Where each character of the repaired text begins in the text itself, and the end: pairs were two and are one."""
    codes: npt.NDArray[np.uint32] = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    high, low = (codes >> 10) == 0xD800 >> 10, (codes >> 10) == 0xDC00 >> 10
    second = np.zeros(len(codes), dtype=np.bool_)
    second[1:] = low[1:] & high[:-1]
    return np.append(np.flatnonzero(~second), len(codes))

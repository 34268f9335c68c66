"""Sentences of words, and texts, as rows that know their words: what a tagger reads.

A word that is given is tokenized by itself, as transformers does with `is_split_into_words`; a word that the tokenizer
drops (a lone combining mark, a zero-width space) becomes the unknown token. So every word has a piece, and a tag.
Rows are whole sentences, however long.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from cascade.core.rows import BoolArray, IntArray, Rows, Units, offsets_of
from cascade.exceptions import InputError
from cascade.text.texts import repair_text
from cascade.text.tokenizer import Frame, Tokenizer

__all__ = ["Sentence", "TextWords", "encode_texts", "encode_words", "grouped"]

Sentence: TypeAlias = Sequence[str]

CHUNK = 4096  # texts whose encodings are held at once
REMEDY = 'give lists of words, as in [["two", "words"]], or texts to predict_texts'


@dataclass(frozen=True, eq=False)
class TextWords:
    """Texts as rows of words (or of single pieces), with the characters that each stands for.

    Attributes:
        words: a row per text.
        begins, ends: characters `begins[w]:ends[w]` of the caller's own text. Shape `(words,)`.
        word_ids: number of the tokenizer's word, within its text, that each unit is (or is in). Shape `(words,)`.
    """

    words: Units
    begins: IntArray
    ends: IntArray
    word_ids: IntArray


@dataclass(frozen=True, eq=False)
class _Pieces:
    """All pieces of some texts, special tokens aside.

    Attributes:
        ids, begins, ends, word_ids: one per piece. Shape `(pieces,)`.
        rows: number of the text of each piece; never falls. Shape `(pieces,)`.
    """

    ids: IntArray
    begins: IntArray
    ends: IntArray
    word_ids: IntArray
    rows: IntArray


def encode_words(tokenizer: Tokenizer, sentences: Iterable[Sentence]) -> Units:
    """Encode sentences of words.

    Args:
        tokenizer: a word of more pieces than its rows have room for is cut to fit; sentences are not cut.
        sentences: each a list (or tuple) of words; any string is a word, the empty one too. A sentence may have none.

    Raises:
        InputError: something else, with its position.
    """
    rows = _read(sentences)
    counts = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    offsets = offsets_of(counts)
    pieces = list(map(tokenizer.words.__getitem__, chain.from_iterable(rows)))
    sizes = np.fromiter(map(len, pieces), dtype=np.int64, count=len(pieces))
    ids = np.fromiter(chain.from_iterable(pieces), dtype=np.int64, count=int(sizes.sum()))
    return _framed(ids, sizes, offsets, tokenizer.frame)


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str], *, per_piece: bool) -> TextWords:
    """Encode whole texts, in which the tokenizer finds the words.

    Args:
        tokenizer: a word of more pieces than its rows have room for loses the last ones; texts are not cut.
        texts: any strings; lone surrogates are read as U+FFFD, and no offset moves.
        per_piece: every piece is a unit; otherwise the words of the pre-tokenizer are.

    Raises:
        InputError: a text that is no string, with its position.
    """
    texts = list(texts)
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(
                f"a text must be a string, text {position} was: {type(text).__name__}; "
                "give words that are split already to predict"
            )
    pieces = _spell(tokenizer, texts)
    counts = np.bincount(pieces.rows, minlength=len(texts)).astype(np.int64)
    offsets = offsets_of(counts)
    sizes = np.ones(len(pieces.ids), dtype=np.int64)
    words = _framed(pieces.ids, sizes, offsets, tokenizer.frame)
    single = TextWords(words, pieces.begins, pieces.ends, pieces.word_ids)
    if per_piece:
        return single
    new = np.ones(len(pieces.ids), dtype=np.bool_)
    new[1:] = (np.diff(pieces.word_ids) != 0) | (np.diff(pieces.rows) != 0)
    return grouped(tokenizer, single, new)


def grouped(tokenizer: Tokenizer, single: TextWords, new: BoolArray) -> TextWords:
    """Runs of single pieces as units of their own.

    Args:
        tokenizer: a run of more pieces than its rows have room for loses the last ones.
        single: of `encode_texts` with `per_piece`.
        new: True where a unit begins; at the first piece of each text at least. Shape `(pieces,)`.
    """
    starts = np.flatnonzero(new)
    ends = np.append(starts[1:], len(new))[: len(starts)]
    batch, frame = single.words.rows, tokenizer.frame
    room = tokenizer.max_length - len(frame.prefix) - len(frame.suffix)
    place = np.arange(len(new)) - np.repeat(starts, ends - starts)
    ids = batch.ids[single.words.first_token[place < room]]
    offsets = np.searchsorted(starts, single.words.offsets)
    words = _framed(ids, np.minimum(ends - starts, room), offsets, frame)
    return TextWords(words, single.begins[starts], single.ends[ends - 1], single.word_ids[starts])


def _read(sentences: Iterable[Sentence]) -> list[Sentence]:
    if isinstance(sentences, str | bytes | Mapping) or not isinstance(sentences, Iterable):
        raise InputError(f"sentences must be a list of lists of words, was: {type(sentences).__name__}; {REMEDY}")
    rows = list(sentences)
    for position, row in enumerate(rows):
        if not isinstance(row, list | tuple):
            raise InputError(
                f"a sentence must be a list of words, sentence {position} was: {type(row).__name__}; {REMEDY}"
            )
    if not all(issubclass(kind, str) for kind in set(map(type, chain.from_iterable(rows)))):
        position, place, kind = next(
            (position, place, type(word).__name__)
            for position, row in enumerate(rows)
            for place, word in enumerate(row)
            if not issubclass(type(word), str)
        )
        raise InputError(f"a word must be a string, word {place} of sentence {position} was: {kind}; {REMEDY}")
    return rows


def _framed(ids: IntArray, sizes: IntArray, offsets: IntArray, frame: Frame) -> Units:
    """Rows of words between the special tokens.

    Args:
        ids: of all pieces. Shape `(pieces,)`.
        sizes: pieces per word. Shape `(words,)`.
        offsets: words per row, offsets_of. Shape `(rows + 1,)`.
        frame: the special tokens.
    """
    before, after = len(frame.prefix), len(frame.suffix)
    ends = offsets_of(sizes)
    bodies = np.diff(ends[offsets])
    rows = offsets_of(bodies + before + after)
    shift = np.arange(len(bodies)) * (before + after) + before  # special tokens before each row's first piece
    everything = np.empty(int(rows[-1]), dtype=np.int64)
    types = np.full(len(everything), frame.type, dtype=np.int64)
    everything[np.arange(len(ids)) + np.repeat(shift, bodies)] = ids
    for special, kind, places in (
        (frame.prefix, frame.prefix_types, rows[:-1, None] + np.arange(before)),
        (frame.suffix, frame.suffix_types, rows[1:, None] - after + np.arange(after)),
    ):
        everything[places] = special
        types[places] = kind
    firsts = ends[:-1] + np.repeat(shift, np.diff(offsets))
    return Units(Rows(ids=everything, types=types, offsets=rows), firsts, sizes, offsets)


def _spell(tokenizer: Tokenizer, texts: Sequence[str]) -> _Pieces:
    parts = [_spell_chunk(tokenizer, texts[at : at + CHUNK], at) for at in range(0, len(texts), CHUNK)]
    none = np.zeros(0, dtype=np.int64)
    return _Pieces(
        ids=np.concatenate([none, *(part.ids for part in parts)]),
        begins=np.concatenate([none, *(part.begins for part in parts)]),
        ends=np.concatenate([none, *(part.ends for part in parts)]),
        word_ids=np.concatenate([none, *(part.word_ids for part in parts)]),
        rows=np.concatenate([none, *(part.rows for part in parts)]),
    )


def _spell_chunk(tokenizer: Tokenizer, texts: Sequence[str], first: int) -> _Pieces:
    fixed = [repair_text(text) for text in texts]
    encodings = tokenizer.spell(fixed)
    counts = np.fromiter(map(len, encodings), dtype=np.int64, count=len(encodings))
    total = int(counts.sum())
    edges = np.fromiter(
        chain.from_iterable(chain.from_iterable(encoding.offsets for encoding in encodings)), np.int64, 2 * total
    )
    pieces = _Pieces(
        ids=np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int64, total),
        begins=edges[0::2].copy(),
        ends=edges[1::2].copy(),
        word_ids=np.fromiter(chain.from_iterable(encoding.word_ids for encoding in encodings), np.int64, total),
        rows=np.repeat(np.arange(len(texts), dtype=np.int64) + first, counts),
    )
    moved = [row for row, (text, new) in enumerate(zip(texts, fixed, strict=True)) if len(text) != len(new)]
    for row in moved:  # texts with surrogate pairs: next to none
        origin, mine = _origins(texts[row]), pieces.rows == row + first
        pieces.begins[mine] = origin[pieces.begins[mine]]
        pieces.ends[mine] = origin[pieces.ends[mine]]
    return pieces


def _origins(text: str) -> IntArray:
    """Where each character of the repaired text begins in the text itself, and the end: pairs were two and are one."""
    codes: npt.NDArray[np.uint32] = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    high, low = (codes >> 10) == 0xD800 >> 10, (codes >> 10) == 0xDC00 >> 10
    second = np.zeros(len(codes), dtype=np.bool_)
    second[1:] = low[1:] & high[:-1]
    return np.append(np.flatnonzero(~second), len(codes))

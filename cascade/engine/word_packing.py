"""Index arithmetic for words that leave one by one, while their sentence stays.

A word that has left keeps its last hidden state and is still attended to (halt-and-copy: Li et al., ACL 2021): keys and
values are made of all tokens of the live sentences, everything else of the active ones only. Special tokens are active
as long as their sentence is live.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from cascade.core.rows import BoolArray, FloatArray, IntArray, Units, offsets_of, ranges
from cascade.engine.packing import Packing

__all__ = ["Active", "WordPacking"]


@dataclass(frozen=True, eq=False)
class Active:
    """The tokens that go on, and where they are in a padded grid of their own.

    Attributes:
        tokens: their numbers, rising. Shape `(actives,)`.
        grid: their packing, in which a token's number is its number among the active ones.
        words: number among the active tokens of the first piece of each word inside. Shape `(words inside,)`.
    """

    tokens: IntArray
    grid: Packing
    words: IntArray


@dataclass(frozen=True, eq=False)
class WordPacking:
    """Live sentences, packed, and the words in them. Make it with `WordPacking.of`.

    A sentence is live, and all its tokens are here, while at least one of its words is inside.

    Attributes:
        grid: the packing of all tokens.
        words: the caller's number of each live word, those that have left included. Shape `(live words,)`.
        sentences: number of the row of each; never falls. Shape `(live words,)`.
        firsts: number of its first piece among all tokens. Shape `(live words,)`.
        pieces: how many it has. Shape `(live words,)`.
        places: which of the live words are still inside; rising. Shape `(words inside,)`.
        going: True where a token is active. Shape `(tokens,)`.
    """

    grid: Packing
    words: IntArray
    sentences: IntArray
    firsts: IntArray
    pieces: IntArray
    places: IntArray
    going: BoolArray

    @classmethod
    def of(cls, batch: Units, words: IntArray, *, heads: int = 1) -> WordPacking:
        """The packing of sentences in which nobody has left.

        Args:
            batch: at least one row; each with a word.
            words: the caller's numbers of its words. Shape `(words,)`.
            heads: of attention.
        """
        return cls(
            grid=Packing.of(batch.rows.lengths, heads=heads),
            words=words,
            sentences=batch.row_of,
            firsts=batch.first_token,
            pieces=batch.n_tokens,
            places=np.arange(len(batch), dtype=np.int64),
            going=np.ones(batch.rows.tokens, dtype=np.bool_),
        )

    @classmethod
    def join(cls, parts: Sequence[WordPacking]) -> WordPacking:
        """Several packings as one, in order."""
        if len(parts) == 1:
            return parts[0]
        rows = offsets_of(np.array([len(part.grid.lengths) for part in parts]))
        words = offsets_of(np.array([len(part.words) for part in parts]))
        tokens = offsets_of(np.array([len(part.going) for part in parts]))

        def moved(arrays: Sequence[IntArray], by: IntArray) -> IntArray:
            return np.concatenate([array + step for array, step in zip(arrays, by[:-1].tolist(), strict=True)])

        return cls(
            grid=Packing.of(np.concatenate([part.grid.lengths for part in parts]), heads=parts[0].grid.heads),
            words=np.concatenate([part.words for part in parts]),
            sentences=moved([part.sentences for part in parts], rows),
            firsts=moved([part.firsts for part in parts], tokens),
            pieces=np.concatenate([part.pieces for part in parts]),
            places=moved([part.places for part in parts], words),
            going=np.concatenate([part.going for part in parts]),
        )

    @cached_property
    def all_active(self) -> bool:
        """Whether nobody has left, so that active tokens are simply all tokens."""
        return bool(self.going.all())

    @cached_property
    def active(self) -> Active:
        """The tokens that go on."""
        firsts = self.firsts[self.places]
        if self.all_active:
            return Active(np.arange(len(self.going), dtype=np.int64), self.grid, firsts)
        tokens = np.flatnonzero(self.going)
        lengths = np.add.reduceat(self.going, offsets_of(self.grid.lengths)[:-1], dtype=np.int64)
        return Active(tokens, Packing.of(lengths, heads=self.grid.heads), np.searchsorted(tokens, firsts))

    @property
    def feeds(self) -> Mapping[str, IntArray | FloatArray]:
        """What a stage reads beside hidden states, by name."""
        active = self.active
        return {
            "head_gather": self.grid.head_gather,
            "bias": self.grid.bias,
            "active": active.tokens,
            "query_head_gather": active.grid.head_gather,
            "head_scatter": active.grid.head_scatter,
            "words": active.words,
        }

    def finished(self, staying: BoolArray) -> BoolArray:
        """Which words inside are in sentences without any that stays; `staying` and the result: `(words inside,)`."""
        sentences = self.sentences[self.places]
        waiting = np.zeros(len(self.grid.lengths), dtype=np.bool_)
        waiting[sentences[staying]] = True
        return ~waiting[sentences]

    def leave(self, gone: BoolArray) -> tuple[WordPacking, IntArray | None]:
        """What remains without some words, and without the sentences in which nobody else is inside.

        Args:
            gone: True where a word leaves; not everywhere. Shape `(words inside,)`.

        Returns:
            The rest, and the numbers of the tokens that are in it; `None` if all are.
        """
        left, places = self.places[gone], self.places[~gone]
        going = self.going.copy()
        going[ranges(self.firsts[left], self.pieces[left])] = False
        lengths = self.grid.lengths
        rows = np.zeros(len(lengths), dtype=np.bool_)
        rows[self.sentences[places]] = True
        if rows.all():
            return replace(self, places=places, going=going), None
        tokens = np.flatnonzero(np.repeat(rows, lengths))
        stay = np.flatnonzero(rows[self.sentences])
        sentences = self.sentences[stay]
        rest = WordPacking(
            grid=Packing.of(lengths[rows], heads=self.grid.heads),
            words=self.words[stay],
            sentences=offsets_of(rows)[sentences],
            firsts=self.firsts[stay] - offsets_of(np.where(rows, 0, lengths))[sentences],
            pieces=self.pieces[stay],
            places=np.searchsorted(stay, places),
            going=going[tokens],
        )
        return rest, tokens

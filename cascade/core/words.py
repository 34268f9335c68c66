"""Rows of token ids that know their words: what a tagger's encoder makes and its tiers read.

A word is a unit that gets a tag; its pieces are the tokens it was split into.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cascade.core.batch import Batch, IntArray, cumulated, ranges

__all__ = ["WordBatch"]


@dataclass(frozen=True, eq=False)
class WordBatch:
    """Encoded sentences and the words in them.

    The pieces of word `w` are the tokens `firsts[w]` to `firsts[w] + pieces[w] - 1` of `batch`; words come in rising
    order and do not overlap. What stands before a row's first word and after its last one is special tokens.

    Attributes:
        batch: rows of token ids, special tokens included.
        firsts: number of each word's first piece among all tokens of `batch`. Shape `(words,)`.
        pieces: pieces of each word, at least 1. Shape `(words,)`.
        offsets: the words of row `i` are `offsets[i]` to `offsets[i + 1] - 1`; a row may have none. Shape
            `(rows + 1,)`.
    """

    batch: Batch
    firsts: IntArray
    pieces: IntArray
    offsets: IntArray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def words(self) -> int:
        """Words of all rows together."""
        return len(self.firsts)

    @property
    def counts(self) -> IntArray:
        """Words per row. Shape `(rows,)`."""
        return np.diff(self.offsets)

    @property
    def rows(self) -> IntArray:
        """Number of the row of each word; never falls. Shape `(words,)`."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.counts)

    @property
    def first_ids(self) -> IntArray:
        """Token id of each word's first piece. Shape `(words,)`."""
        return self.batch.ids[self.firsts]

    def select(self, rows: IntArray) -> WordBatch:
        """A new batch of these rows, in this order. `rows`: shape `(chosen,)`, numbers of rows of this batch."""
        batch, counts = self.batch.select(rows), self.counts[rows]
        words = ranges(self.offsets[rows], counts)
        moved = np.repeat(batch.offsets[:-1] - self.batch.offsets[rows], counts)
        return WordBatch(batch, self.firsts[words] + moved, self.pieces[words], cumulated(counts))

    def frames(self, rows: IntArray) -> tuple[IntArray, IntArray]:
        """Special tokens before the first and after the last word of these rows, two arrays of shape `(chosen,)`.

        In a row without words all tokens come before.
        """
        begins, ends = self.batch.offsets[rows], self.batch.offsets[rows + 1]
        first_words, some = self.offsets[rows], self.counts[rows] > 0
        edges = np.append(self.firsts, 0)  # a row without words has no first one
        stops = np.append(0, self.firsts + self.pieces)
        prefixes = np.where(some, edges[first_words], ends) - begins
        suffixes = np.where(some, ends - stops[self.offsets[rows + 1]], 0)
        return prefixes, suffixes

    def spans(self, rows: IntArray, starts: IntArray, stops: IntArray) -> WordBatch:
        """New rows, each a run of words between the special tokens of the row that it comes from.

        Args:
            rows: numbers of rows of this batch, in any order, any number of times. Shape `(spans,)`.
            starts: the first word of each run, numbered in this whole batch. Shape `(spans,)`.
            stops: the word after the last one, of the same row; equal to `starts` where the row has no words. Shape
                `(spans,)`.
        """
        prefixes, suffixes = self.frames(rows)
        counts = stops - starts
        body_begins = np.append(self.firsts, 0)[starts]
        body_ends = np.append(0, self.firsts + self.pieces)[stops]
        bodies = np.where(counts > 0, body_ends - body_begins, 0)
        begins = np.stack((self.batch.offsets[rows], body_begins, self.batch.offsets[rows + 1] - suffixes), axis=1)
        lengths = np.stack((prefixes, bodies, suffixes), axis=1)
        tokens = ranges(begins.ravel(), lengths.ravel())
        offsets = cumulated(lengths.sum(axis=1))
        words = ranges(starts, counts)
        moved = np.repeat(offsets[:-1] + prefixes - body_begins, counts)
        batch = Batch(ids=self.batch.ids[tokens], types=self.batch.types[tokens], offsets=offsets)
        return WordBatch(batch, self.firsts[words] + moved, self.pieces[words], cumulated(counts))

    def shorten(self, most: IntArray) -> WordBatch:
        """The same rows and words, each word with its first `most` pieces at most. `most`: shape `(words,)`, from 1."""
        dropped = np.maximum(self.pieces - most, 0)
        keep = np.ones(self.batch.tokens, dtype=np.bool_)
        keep[ranges(self.firsts + self.pieces - dropped, dropped)] = False
        places = cumulated(keep)
        batch = Batch(ids=self.batch.ids[keep], types=self.batch.types[keep], offsets=places[self.batch.offsets])
        return WordBatch(batch, places[self.firsts], self.pieces - dropped, self.offsets)

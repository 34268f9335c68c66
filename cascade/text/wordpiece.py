"""WordPiece from memory: rows of plain ASCII, looked up chunk by chunk instead of tokenised again.

A row is split at its spaces, and every chunk between two spaces ("film,") is looked up in a table of token ids. Only a
chunk that is not there is cleaned, lower-cased, split into words and punctuation, and handed word by word to the
tokenizer's own WordPiece model: the sub-word rule is not written again.

Valid for exactly one family: `BertNormalizer` (with `clean_text`), `BertPreTokenizer`, a WordPiece model and
`[CLS] A [SEP]` / `[CLS] A [SEP] B [SEP]`, whatever these two tokens are called; MPNet has two between A and B. On ASCII
that normaliser drops control characters, makes tab, line feed and carriage return spaces, and lower-cases; nothing of
it looks beyond a space, which is why chunks can be kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np
import tokenizers
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from cascade.core.rows import BoolArray, IntArray, Rows, concatenate
from cascade.text.texts import RowText

# No ASCII text can hold these two, so no chunk of a text can be mistaken for them.
ROW_END, FIRST_END = "\x80", "\x81"
# What the table holds in place of ids, all below every token id.
ROW_MARK, UNSAFE_MARK, FIRST_MARK = -1, -2, -3

# What BertNormalizer's clean_text does to ASCII; None deletes.
CLEAN: dict[int, str | None] = {**dict.fromkeys((*range(0x20), 0x7F)), **{ord(space): " " for space in "\t\n\r"}}
# What BertPreTokenizer does to cleaned ASCII: runs of letters and digits, each punctuation mark alone.
WORDS = re.compile(r"[A-Za-z0-9]+|[^ ]")


@dataclass(frozen=True, eq=False)
class EncodedRows:
    """Whole rows, special tokens included, before anything is cut.

    `first_lengths`: tokens of a pair's first text without special tokens; -1 for a single text. Shape `(rows,)`.
    """

    rows: Rows
    first_lengths: IntArray

    @classmethod
    def join(cls, parts: Sequence[EncodedRows]) -> EncodedRows:
        """The rows of all parts, in order."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            concatenate([part.rows for part in parts]),
            np.concatenate([np.zeros(0, dtype=np.int64), *(part.first_lengths for part in parts)]),
        )

    def select(self, rows: IntArray) -> EncodedRows:
        """These rows, in this order. `rows`: shape `(chosen,)`."""
        return EncodedRows(self.rows.select(rows), self.first_lengths[rows])


class ChunkTable(dict[str, tuple[int, ...]]):
    """Token ids of chunks seen before; a missing chunk is encoded and, where there is room, kept, up to 64 characters.

    A full table is emptied but for its `fixed` entries: texts drift, and an old chunk costs a few microseconds to make.
    """

    LONGEST = 64

    def __init__(
        self, fixed: dict[str, tuple[int, ...]], encode: Callable[[str], tuple[int, ...]], *, capacity: int
    ) -> None:
        super().__init__(fixed)
        self._fixed = fixed
        self._encode = encode
        self._capacity = capacity

    def __missing__(self, chunk: str) -> tuple[int, ...]:
        if chunk in self._fixed:  # another thread has just emptied the table
            return self._fixed[chunk]
        ids = self._encode(chunk)
        if len(chunk) <= self.LONGEST:
            if len(self) >= self._capacity:
                self.clear()
                self.update(self._fixed)
            self[chunk] = ids
        return ids


def _pieces(model: WordPiece, known: dict[int, int], word: str) -> list[int]:
    # One object for each number, however many chunks hold it: a full table takes 12 MiB, not 23.
    return [known.setdefault(piece.id, piece.id) for piece in model.tokenize(word)]


class AsciiWordPiece:
    """Encodes ASCII rows as the Rust tokenizer would, from a table of chunks, `capacity` at most.

    `pieces`: token ids of one word (a run of letters and digits, or one punctuation mark); `cls`, `sep`: ids of the
    tokens before a row and after each text; `middle`: how many of the latter are between two texts; `second`: type of
    a pair's second text; `reserved`: contents of all added tokens (see `can_reserve`). A row that spells one, in any
    case, is refused.
    """

    def __init__(
        self,
        pieces: Callable[[str], Sequence[int]],
        *,
        lowercase: bool,
        cls: int,
        sep: int,
        middle: int = 1,
        second: int = 1,
        reserved: Sequence[str],
        capacity: int = 65_536,
    ) -> None:
        self._pieces = pieces
        self._lowercase = lowercase
        self._cls, self._sep, self._middle, self._second = cls, sep, middle, second
        # One search instead of one per word; where nothing is reserved, a pattern that nothing matches.
        self._reserved = re.compile("|".join(re.escape(word.lower()) for word in reserved) or "(?!)")
        fixed = {"": (), ROW_END: (ROW_MARK, cls), FIRST_END: (FIRST_MARK, *[sep] * (middle - 1))}
        self._table = ChunkTable(fixed, self._encode_chunk, capacity=capacity)

    @classmethod
    def of(cls, inner: tokenizers.Tokenizer) -> AsciiWordPiece | None:
        """The table of words, where this tokenizer is of the one kind that it copies exactly; otherwise None."""
        normalizer, model = inner.normalizer, inner.model
        if not (
            isinstance(model, WordPiece)
            and isinstance(inner.pre_tokenizer, BertPreTokenizer)
            and isinstance(normalizer, BertNormalizer)
            and normalizer.clean_text
        ):
            return None
        added = [token.content for token in inner.get_added_tokens_decoder().values()]
        if not all(map(cls.can_reserve, added)):
            return None
        # The template's shape, looked at rather than parsed: [CLS] [SEP], and [CLS] [SEP] [SEP] with types 0 0 1.
        single, pair = inner.encode(""), inner.encode("", "")
        if len(single.ids) != 2 or any(single.type_ids):
            return None
        start, end = single.ids
        word = inner.encode("a", "a")
        pieces = [piece.id for piece in model.tokenize("a")]
        middle, second = len(pair.ids) - 2, word.type_ids[-1]
        types = [0] * (len(pieces) + 1 + middle) + [second] * (len(pieces) + 1)
        if not 1 <= middle <= 2 or pair.ids[1:] != [end] * (middle + 1) or second not in (0, 1):
            return None
        if word.ids != [start, *pieces, *[end] * middle, *pieces, end] or word.type_ids != types:
            return None
        return cls(
            partial(_pieces, model, {}),
            lowercase=normalizer.lowercase,
            cls=start,
            sep=end,
            middle=middle,
            second=second,
            reserved=added,
        )

    @staticmethod
    def can_reserve(word: str) -> bool:
        """Whether a row that spells this added token is always recognised, chunk by chunk."""
        return word.isascii() and word.isprintable() and " " not in word and word != ""

    def encode(self, rows: Sequence[RowText]) -> tuple[EncodedRows, BoolArray]:
        """Encode ASCII rows, at least one; and which of them are right, shape `(rows,)`.

        A row that spells a special token is not: the Rust tokenizer has to encode it.
        """
        pairs = tuple in set(map(type, rows))
        first_end = f" {FIRST_END} "
        texts = [row if isinstance(row, str) else first_end.join(row) for row in rows] if pairs else rows
        row_end = f" {ROW_END} "
        chunks = f"{row_end.join(texts)} {ROW_END}".split(" ")  # type: ignore[arg-type]  # no tuples are left
        ids = np.fromiter(
            chain((self._cls,), chain.from_iterable(map(self._table.__getitem__, chunks))), dtype=np.int64
        )[:-1]  # each row's end brings the next row's beginning; the last has no next
        (ends,) = (ids == ROW_MARK).nonzero()
        offsets = np.concatenate(([0], ends + 1))
        types = np.zeros(len(ids), dtype=np.int64)
        first_lengths = np.full(len(rows), -1, dtype=np.int64)
        if pairs:
            middles = np.flatnonzero(ids == FIRST_MARK)
            number = np.searchsorted(ends, middles)
            first_lengths[number] = middles - offsets[number] - 1
            # Every row but the last has an end to step down at; a step down after the last is never read.
            steps = np.zeros(len(ids) + 1, dtype=np.int64)
            steps[middles + self._middle] = self._second
            steps[ends[number] + 1] -= self._second
            types = np.cumsum(steps)[:-1]
            ids[middles] = self._sep
        right = np.ones(len(rows), dtype=np.bool_)
        right[ends.searchsorted((ids == UNSAFE_MARK).nonzero()[0])] = False
        ids[ends] = self._sep
        return EncodedRows(Rows(ids=ids, types=types, offsets=offsets), first_lengths), right

    def _encode_chunk(self, chunk: str) -> tuple[int, ...]:
        clean = chunk.translate(CLEAN)
        lower = clean.lower()
        if self._reserved.search(lower):
            return (UNSAFE_MARK,)
        words = WORDS.findall(lower if self._lowercase else clean)
        return tuple(chain.from_iterable(map(self._pieces, words)))

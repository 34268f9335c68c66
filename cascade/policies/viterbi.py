"""The likeliest label sequence of every sentence at once, and which sequences a BIO or BIOES scheme allows.

Exact dynamic programming (Viterbi, 1967) for a linear chain: a sequence's score is the sum of its words' scores, of a
transition between neighbours, and of what its ends add.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cascade.core.labels import shortened
from cascade.core.rows import BoolArray, FloatArray, IntArray, offsets_of
from cascade.exceptions import OptionError

CELLS = 1 << 20  # numbers in a temporary array at most: 4 MiB
LOWEST = np.float32(-1e4)  # stands for log 0 and for NaN, so that sums stay finite

INSIDE, END, SINGLE = "IM", "EL", "SU"  # the letters of BIO, BIOES, BILOU and BMES


def viterbi(
    scores: FloatArray, offsets: IntArray, transitions: FloatArray, start: FloatArray, end: FloatArray
) -> IntArray:
    """The best sequence of each sentence, of equally good ones any: numbers of labels, shape `(words,)`.

    Args:
        scores: of each word's labels, such as log-probabilities; -inf and NaN count as -10000. Shape `(words, labels)`.
        offsets: the words of sentence `i` are `offsets[i]:offsets[i + 1]`, perhaps none. Shape `(sentences + 1,)`.
        transitions: added for each pair of neighbours, from row to column; -inf forbids. Shape `(labels, labels)`.
        start: added for the first word. Shape `(labels,)`.
        end: added for the last word. Shape `(labels,)`.
    """
    labels = scores.shape[1]
    chosen = np.zeros(len(scores), dtype=np.int64)
    lengths = np.diff(offsets)
    order = np.argsort(-lengths, kind="stable")[: np.count_nonzero(lengths)]
    for sentences in chunks(order, lengths, labels):
        words, best = _best(offsets[sentences], lengths[sentences], scores, transitions, start, end)
        chosen[words] = best
    return chosen


def chunks(sentences: IntArray, lengths: IntArray, labels: int, cells: int = CELLS) -> Iterator[IntArray]:
    """Runs of these sentences whose words need no more than `cells` numbers, or are one sentence's.

    Both words times labels and sentences times labels squared stay below. `lengths`: words of every sentence.
    """
    upto = np.cumsum(lengths[sentences])
    first = done = 0
    while first < len(sentences):
        fitting = int(np.searchsorted(upto, done + cells // labels, side="right"))
        stop = max(first + 1, min(fitting, first + cells // labels**2))
        yield sentences[first:stop]
        first, done = stop, int(upto[stop - 1])


def _best(
    firsts: IntArray, lengths: IntArray, scores: FloatArray, transitions: FloatArray, start: FloatArray, end: FloatArray
) -> tuple[IntArray, IntArray]:
    """Words of sentences of falling length, the first words of all, then the second, and so on; and their labels."""
    steps = np.arange(lengths[0])
    counts = (len(lengths) - np.searchsorted(lengths[::-1], steps, side="right")).tolist()
    places = np.repeat(steps, counts)
    bounds = np.concatenate(([0], np.cumsum(counts))).tolist()
    words = firsts[np.arange(len(places)) - np.repeat(bounds[:-1], counts)] + places
    known = scores[words]
    known = np.where(known > LOWEST, known, LOWEST).astype(np.float32, copy=False)
    came_from = np.zeros(known.shape, dtype=np.int32)
    chosen = np.empty(len(known), dtype=np.int64)
    last = np.empty(counts[0], dtype=np.int64)
    best = known[: counts[0]] + start
    for place, (count, goes_on) in enumerate(zip(counts, [*counts[1:], 0], strict=True)):
        here = slice(bounds[place], bounds[place + 1])
        if place:
            paths = best[:, :, None] + transitions
            came_from[here] = paths.argmax(axis=1)
            best = paths.max(axis=1) + known[here]
        last[goes_on:count] = (best[goes_on:] + end).argmax(axis=1)
        # Only differences count, and near 0 float32 keeps them in sentences of any length.
        best = best[:goes_on] - best[:goes_on].max(axis=1, keepdims=True)
    for place, count in reversed(list(enumerate(counts))):
        here = slice(bounds[place], bounds[place + 1])
        chosen[here] = last[:count]
        if place:
            last[:count] = came_from[here][np.arange(count), last[:count]]
    return words, chosen


@dataclass(frozen=True, eq=False)
class Scheme:
    """What may follow what; make one with `Scheme.of`.

    `follows`: whether a label (column) may follow another (row), shape `(labels, labels)`; `begins`, `ends`: whether a
    label may begin, or end, a sentence, shape `(labels,)`.
    """

    follows: BoolArray
    begins: BoolArray
    ends: BoolArray

    @classmethod
    def of(cls, labels: Sequence[str]) -> Scheme:
        """The scheme that labels are named by.

        BIO (IOB2): I-X only after B-X or I-X. With E-X or S-X (BIOES; also BILOU and BMES) an entity of several words
        must be B-X, perhaps I-X, then E-X, and one of a single word S-X. Labels in IOB1, where I-X begins an entity,
        cannot be told from BIO by their names and are taken for it. Labels of another kind, or none with which a
        sentence of any length is valid, are an `OptionError`.
        """
        parts = [_parts(label, labels) for label in labels]
        closed = any(letter in END + SINGLE for letter, _ in parts)
        inner = np.array([letter in INSIDE + END for letter, _ in parts], dtype=np.bool_)
        open_ = np.array([letter in "B" + INSIDE for letter, _ in parts], dtype=np.bool_)
        kinds = np.array([kind for _, kind in parts], dtype=np.str_)
        same = kinds[:, None] == kinds
        follows = np.where(inner, open_[:, None] & same, ~open_[:, None] if closed else True)
        scheme = cls(follows, ~inner, ~open_ if closed else np.ones(len(parts), dtype=np.bool_))
        if not (scheme.begins & scheme.ends & np.diag(follows)).any():
            raise OptionError(f"labels must include O, or one that is valid alone, got {shortened(labels)}; use argmax")
        return scheme

    def valid(self, chosen: IntArray, offsets: IntArray) -> BoolArray:
        """Whether each sentence is valid; one without words is. Shape `(sentences,)`.

        `chosen`: numbers of labels, shape `(words,)`; `offsets`: see `viterbi`.
        """
        wrong = np.zeros(len(chosen), dtype=np.bool_)
        wrong[1:] = ~self.follows[chosen[:-1], chosen[1:]]
        some = np.flatnonzero(np.diff(offsets))
        firsts, lasts = offsets[some], offsets[some + 1] - 1
        wrong[firsts] = ~self.begins[chosen[firsts]]
        wrong[lasts] |= ~self.ends[chosen[lasts]]
        upto = offsets_of(wrong)
        return np.asarray(upto[offsets[1:]] == upto[offsets[:-1]])

    def scores(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """`transitions, start, end` for `viterbi`: 0 where allowed, else -inf."""
        allowed = self.follows, self.begins, self.ends
        follows, begins, ends = (np.where(own, np.float32(0), np.float32(-np.inf)) for own in allowed)
        return follows, begins, ends


def _parts(label: str, labels: Sequence[str]) -> tuple[str, str]:
    """Letter and type: `("B", "LOC")`; of O `("O", "")`."""
    letter, dash, kind = label.partition("-")
    if label == "O" or (letter in [*"B" + INSIDE + END + SINGLE] and dash and kind):
        return letter, kind
    raise OptionError(
        f"labels must be named in BIO or BIOES (O, B-X, I-X, E-X, S-X), got {label!r} among {shortened(labels)}; "
        "use argmax"
    )

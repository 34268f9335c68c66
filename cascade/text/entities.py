"""Answers for pieces or words to entities, with the rules of transformers' token-classification pipeline.

Which pieces continue a word, what `word` says and how neighbours become one entity are transformers' decisions, odd
ones included; the arithmetic here is on whole arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeAlias

import numpy as np

from cascade.core.rows import BoolArray, FloatArray, IntArray
from cascade.exceptions import OptionError
from cascade.policies import decoding
from cascade.policies.decoding import Argmax, Decoder
from cascade.text.texts import repair_text
from cascade.text.tokenizer import Tokenizer
from cascade.text.word_encoding import TextWords

__all__ = ["AggregationStrategy", "Entity", "Spelling", "aggregate", "chosen", "spelled", "strategy_of"]

IGNORED: Final = "O"
Entity: TypeAlias = dict[str, Any]


class AggregationStrategy(Enum):
    """How answers for pieces become entities; the names are transformers'.

    `NONE`: every piece is an entity. `SIMPLE`: neighbouring pieces with one tag are. With the others a word has one
    tag: that of its first piece (`FIRST`), of its mean probabilities (`AVERAGE`) or of its surest piece (`MAX`); then
    neighbouring words are joined as in `SIMPLE`.
    """

    NONE = "none"
    SIMPLE = "simple"
    FIRST = "first"
    AVERAGE = "average"
    MAX = "max"


BY_PIECE: Final = (AggregationStrategy.NONE, AggregationStrategy.SIMPLE)


@dataclass(frozen=True, eq=False)
class Spelling:
    """Pieces of texts as entities show them.

    Attributes:
        texts: a row per text, a unit per piece.
        strings: what each piece is called; an unknown one by its characters in the text,
            lone surrogates as U+FFFD.
        new: True where a word begins, for transformers: its tokenizers' words are not asked. Shape `(pieces,)`.
        join: pieces as text.
    """

    texts: TextWords
    strings: list[str]
    new: BoolArray
    join: Callable[[list[str]], str]


def strategy_of(given: object) -> AggregationStrategy:
    """The strategy, given as itself or by its name.

    Raises:
        OptionError: there is no such strategy.
    """
    if isinstance(given, AggregationStrategy):
        return given
    names = [strategy.value for strategy in AggregationStrategy]
    if not isinstance(given, str) or given.lower() not in names:
        raise OptionError(f"aggregation_strategy must be one of {', '.join(names)}, was: {given!r}; choose one of them")
    return AggregationStrategy(given.lower())


def chosen(decoder: Decoder, probabilities: FloatArray, offsets: IntArray) -> IntArray:
    """The label of each unit.

    Args:
        decoder: asked with logarithms.
        probabilities: shape `(units, labels)`.
        offsets: the units of sentence `i` are `offsets[i]` to `offsets[i + 1] - 1`. Shape `(sentences + 1,)`.

    Returns:
        Numbers of labels. Shape `(units,)`.
    """
    if isinstance(decoder, Argmax):  # the same without logarithms
        return decoder(probabilities, offsets)
    with np.errstate(divide="ignore"):
        return decoding.decide(decoder, np.log(probabilities), offsets)


def spelled(tokenizer: Tokenizer, texts: Sequence[str], pieces: TextWords) -> Spelling:
    """What transformers' pipeline reads off the pieces of texts.

    Args:
        tokenizer: that made the pieces.
        texts: the caller's own.
        pieces: of `encode_texts` with `per_piece`.
    """
    words = pieces.words
    ids, which = np.unique(words.rows.ids[words.first_token], return_inverse=True)
    names = [tokenizer.piece(number) for number in ids.tolist()]
    strings = [names[number] for number in which.tolist()]
    unknown = ids[which] == tokenizer.unknown
    rows, begins, ends = words.row_of, pieces.begins, pieces.ends
    for piece in np.flatnonzero(unknown):
        strings[piece] = repair_text(texts[rows[piece]][begins[piece] : ends[piece]])
    if tokenizer.marks_subwords:
        sizes = np.fromiter(map(len, names), dtype=np.int64, count=len(names))
        continues = sizes[which] != ends - begins
    else:
        continues = (begins > 0) & ~_beside_space(texts, rows, begins)
    new = ~continues | unknown
    new[words.offsets[:-1][np.diff(words.offsets) > 0]] = True
    return Spelling(pieces, strings, new, tokenizer.join)


def _beside_space(texts: Sequence[str], rows: IntArray, begins: IntArray) -> BoolArray:
    """Whether the character at each place of a text, or the one before, is a blank. Shape `(places,)`."""
    everything = "\n".join(["", *texts, ""])
    blank = np.frombuffer(everything.encode("utf-32-le", "surrogatepass"), dtype="<u4") == ord(" ")
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    places = (np.cumsum(lengths + 1) - lengths)[rows] + begins
    found: BoolArray = blank[places] | blank[places - 1]
    return found


def aggregate(
    spelling: Spelling,
    probabilities: FloatArray,
    labels: Sequence[str],
    *,
    strategy: AggregationStrategy,
    decoder: Decoder = decoding.argmax,
) -> list[list[Entity]]:
    """Entities of each text; those tagged O are left out.

    Args:
        spelling: the pieces.
        probabilities: of each piece; with `FIRST` of each word, see `Spelling.new`. Shape `(pieces or words, labels)`.
        labels: names of the columns.
        strategy: how pieces become entities.
        decoder: probabilities to labels; over words where the strategy has words.

    Returns:
        A list of dicts per text, as transformers gives them; scores are plain floats.
    """
    pieces = spelling.texts
    by_piece = strategy in BY_PIECE
    starts = np.arange(len(spelling.strings)) if by_piece else np.flatnonzero(spelling.new)
    stops = np.append(starts[1:], len(spelling.strings))[: len(starts)]
    offsets = np.searchsorted(starts, pieces.words.offsets)
    if strategy is AggregationStrategy.AVERAGE and len(starts):
        sums: FloatArray = np.add.reduceat(probabilities, starts, axis=0)
        probabilities = np.divide(sums, (stops - starts)[:, None], dtype=np.float32)
    elif strategy is AggregationStrategy.MAX and len(starts):
        probabilities = probabilities[_surest(probabilities.max(axis=1), starts, stops)]
    numbers = chosen(decoder, probabilities, offsets)
    scores = probabilities[np.arange(len(numbers)), numbers]
    units = _Units(spelling, starts, stops, np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)))
    if strategy is AggregationStrategy.NONE:
        return _singles(units, numbers, scores, labels)
    return _groups(units, numbers, scores, labels, joined=not by_piece)


@dataclass(frozen=True, eq=False)
class _Units:
    """What has one label each. `starts`, `stops`: numbers of pieces; `rows`: of the text. Each of shape `(units,)`."""

    spelling: Spelling
    starts: IntArray
    stops: IntArray
    rows: IntArray


def _surest(sureness: FloatArray, starts: IntArray, stops: IntArray) -> IntArray:
    """The first of the surest pieces of each run. Shape `(runs,)`."""
    runs = np.repeat(np.arange(len(starts)), stops - starts)
    best = np.flatnonzero(sureness == np.maximum.reduceat(sureness, starts)[runs])
    first: IntArray = best[np.searchsorted(runs[best], np.arange(len(starts)))]
    return first


def _singles(units: _Units, numbers: IntArray, scores: FloatArray, labels: Sequence[str]) -> list[list[Entity]]:
    texts = units.spelling.texts
    kept = np.flatnonzero(np.array([label != IGNORED for label in labels], dtype=np.bool_)[numbers])
    places = texts.words.first_token - texts.words.rows.offsets[texts.words.row_of]
    found: list[list[Entity]] = [[] for _ in range(texts.words.n_rows)]
    for piece, row, label, score, place, begin, end in zip(
        kept.tolist(),
        units.rows[kept].tolist(),
        numbers[kept].tolist(),
        scores[kept].tolist(),
        places[kept].tolist(),
        texts.begins[kept].tolist(),
        texts.ends[kept].tolist(),
        strict=True,
    ):
        word = units.spelling.strings[piece]
        entity = {"entity": labels[label], "score": score, "index": place, "word": word, "start": begin, "end": end}
        found[row].append(entity)
    return found


def _groups(
    units: _Units, numbers: IntArray, scores: FloatArray, labels: Sequence[str], *, joined: bool
) -> list[list[Entity]]:
    spelling, texts = units.spelling, units.spelling.texts
    found: list[list[Entity]] = [[] for _ in range(texts.words.n_rows)]
    if not len(numbers):
        return found
    tags = [label[2:] if label.startswith(("B-", "I-")) else label for label in labels]
    tag = np.unique(tags, return_inverse=True)[1][numbers]
    begin = np.array([label.startswith("B-") for label in labels], dtype=np.bool_)[numbers]
    begin[0] = True
    begin[1:] |= (np.diff(tag) != 0) | (np.diff(units.rows) != 0)
    firsts = np.flatnonzero(begin)
    ends = np.append(firsts[1:], len(numbers))
    means = np.add.reduceat(scores, firsts) / (ends - firsts).astype(np.float32)
    shown = [label.split("-", 1)[-1] for label in labels]
    kept = np.flatnonzero(np.array([name != IGNORED for name in shown], dtype=np.bool_)[numbers[firsts]])
    firsts, ends = firsts[kept], ends[kept]
    for first, end, row, label, score, start, stop in zip(
        firsts.tolist(),
        ends.tolist(),
        units.rows[firsts].tolist(),
        numbers[firsts].tolist(),
        means[kept].tolist(),
        texts.begins[units.starts[firsts]].tolist(),
        texts.ends[units.stops[ends - 1] - 1].tolist(),
        strict=True,
    ):
        if joined:
            runs = zip(units.starts[first:end].tolist(), units.stops[first:end].tolist(), strict=True)
            words = [spelling.join(spelling.strings[one:other]) for one, other in runs]
        else:
            words = spelling.strings[first:end]
        entity = {"entity_group": shown[label], "score": score, "word": spelling.join(words), "start": start}
        found[row].append({**entity, "end": stop})
    return found

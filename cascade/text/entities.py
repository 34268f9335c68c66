"""Answers for pieces or words to entities, with the rules of transformers' token-classification pipeline.

Which pieces continue a word, what `word` says and how neighbours become one entity are transformers' decisions, odd
ones included.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
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

IGNORED: Final = "O"
PREFIXES: Final = ("B-", "I-", "E-", "L-", "S-", "U-")
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
class PieceText:
    """Pieces of texts, a unit each, as entities show them, and how to join them. Make it with `PieceText.of`.

    `strings`: what each piece is called; an unknown one by its characters in the text, lone surrogates as U+FFFD;
    `new`: True where a word begins, for transformers: its tokenizers' words are not asked. Shape `(pieces,)`.
    """

    texts: TextWords
    strings: list[str]
    new: BoolArray
    join: Callable[[list[str]], str]

    @classmethod
    def of(cls, tokenizer: Tokenizer, texts: Sequence[str], pieces: TextWords) -> PieceText:
        """What transformers' pipeline reads off texts and their `pieces` (of `encode_texts` with `per_piece`)."""
        words = pieces.words
        ids, which = np.unique(words.first_ids, return_inverse=True)
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
        new[words.offsets[:-1][words.counts > 0]] = True
        return cls(pieces, strings, new, tokenizer.join)


def strategy_of(given: object) -> AggregationStrategy:
    """The strategy, given as itself or by its name; an `OptionError` for another."""
    if isinstance(given, AggregationStrategy):
        return given
    names = [strategy.value for strategy in AggregationStrategy]
    if not isinstance(given, str) or given.lower() not in names:
        raise OptionError(f"aggregation_strategy must be one of {', '.join(names)}, got {given!r}; choose one of them")
    return AggregationStrategy(given.lower())


def chosen(decoder: Decoder, probabilities: FloatArray, offsets: IntArray) -> IntArray:
    """The label of each unit, shape `(units,)`, from probabilities of shape `(units, labels)`.

    `offsets`: the units of sentence `i` are `offsets[i]` to `offsets[i + 1] - 1`. Shape `(sentences + 1,)`.
    """
    if isinstance(decoder, Argmax):  # the same without logarithms
        return decoder(probabilities, offsets)
    with np.errstate(divide="ignore"):
        return decoding.decide(decoder, np.log(probabilities), offsets)


def _beside_space(texts: Sequence[str], rows: IntArray, begins: IntArray) -> BoolArray:
    """Whether the character at each place of a text, or the one before, is a blank. Shape `(places,)`."""
    codes = "\n".join(["", *texts, ""]).encode("utf-32-le", "surrogatepass")
    blank = np.frombuffer(codes, dtype="<u4") == ord(" ")
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    places = (np.cumsum(lengths + 1) - lengths)[rows] + begins
    return np.asarray(blank[places] | blank[places - 1])


def aggregate(
    pieces: PieceText,
    probabilities: FloatArray,
    labels: Sequence[str],
    *,
    strategy: AggregationStrategy,
    decoder: Decoder = decoding.argmax,
    ignored: Collection[str] = (IGNORED,),
) -> list[list[Entity]]:
    """Entities of each text, dicts as transformers gives them; what is `ignored` is left out, scores are plain floats.

    `probabilities`: of each piece; with `FIRST` of each word, see `PieceText.new`. Shape `(pieces or words, labels)`;
    `labels`: names of the columns; `decoder`: probabilities to labels; over words where the strategy has words.
    """
    by_piece, units = strategy in BY_PIECE, pieces.texts.words
    starts = np.arange(len(units)) if by_piece else np.flatnonzero(pieces.new)
    stops = np.append(starts[1:], len(units))[: len(starts)]
    offsets = np.searchsorted(starts, units.offsets)
    if strategy is AggregationStrategy.AVERAGE and len(starts):
        sums: FloatArray = np.add.reduceat(probabilities, starts, axis=0)
        probabilities = np.divide(sums, (stops - starts)[:, None], dtype=np.float32)
    elif strategy is AggregationStrategy.MAX and len(starts):
        probabilities = probabilities[_surest(probabilities.max(axis=1), starts, stops)]
    numbers = chosen(decoder, probabilities, offsets)
    scores = probabilities[np.arange(len(numbers)), numbers]
    if strategy is AggregationStrategy.NONE:
        return _singles(pieces, numbers, scores, labels, ignored)
    return _groups(pieces, starts, stops, numbers, scores, labels, ignored, joined=not by_piece)


def _surest(sureness: FloatArray, starts: IntArray, stops: IntArray) -> IntArray:
    """The first of the surest pieces of each run. Shape `(runs,)`."""
    runs = np.repeat(np.arange(len(starts)), stops - starts)
    best = np.flatnonzero(sureness == np.maximum.reduceat(sureness, starts)[runs])
    return np.asarray(best[np.searchsorted(runs[best], np.arange(len(starts)))])


def _singles(
    pieces: PieceText, numbers: IntArray, scores: FloatArray, labels: Sequence[str], ignored: Collection[str]
) -> list[list[Entity]]:
    texts, units = pieces.texts, pieces.texts.words
    rows, places = units.row_of, units.first_token - units.rows.offsets[units.row_of]
    found: list[list[Entity]] = [[] for _ in range(units.n_rows)]
    kept = np.flatnonzero(np.array([label not in ignored for label in labels], dtype=np.bool_)[numbers])
    columns = (kept, rows[kept], numbers[kept], scores[kept], places[kept], texts.begins[kept], texts.ends[kept])
    for piece, row, label, score, place, begin, end in zip(*(column.tolist() for column in columns), strict=True):
        word = pieces.strings[piece]
        entity = {"entity": labels[label], "score": score, "index": place, "word": word, "start": begin, "end": end}
        found[row].append(entity)
    return found


def _groups(
    pieces: PieceText,
    starts: IntArray,
    stops: IntArray,
    numbers: IntArray,
    scores: FloatArray,
    labels: Sequence[str],
    ignored: Collection[str],
    *,
    joined: bool,
) -> list[list[Entity]]:
    """Entities of neighbouring units with one tag. Unit `u`: pieces `starts[u]` to `stops[u] - 1`."""
    texts, strings = pieces.texts, pieces.strings
    found: list[list[Entity]] = [[] for _ in range(texts.words.n_rows)]
    if not len(numbers):
        return found
    rows = texts.words.row_of[starts]
    known = {label[2:] for label in labels if label.startswith(("B-", "I-"))}
    # transformers knows B- and I- alone; by that, entities of BIOES and BILOU would fall apart.
    prefixes = [label[:2] if label[:2] in PREFIXES and label[2:] in known else "" for label in labels]
    tags = [label.removeprefix(prefix) for label, prefix in zip(labels, prefixes, strict=True)]
    tag = np.unique(tags, return_inverse=True)[1][numbers]
    begins, ended = (np.isin(prefixes, some)[numbers] for some in (("B-", "S-", "U-"), PREFIXES[2:]))
    begins[0] = True
    begins[1:] |= (np.diff(tag) != 0) | (np.diff(rows) != 0) | ended[:-1]
    firsts = np.flatnonzero(begins)
    ends = np.append(firsts[1:], len(numbers))
    means = np.add.reduceat(scores, firsts) / (ends - firsts).astype(np.float32)
    shown = [label.split("-", 1)[-1] for label in labels]
    kept = np.flatnonzero(np.array([name not in ignored for name in shown], dtype=np.bool_)[numbers[firsts]])
    firsts, ends = firsts[kept], ends[kept]
    edges = texts.begins[starts[firsts]], texts.ends[stops[ends - 1] - 1]
    columns = (firsts, ends, rows[firsts], numbers[firsts], means[kept], *edges)
    for first, end, row, label, score, start, stop in zip(*(column.tolist() for column in columns), strict=True):
        runs = zip(starts[first:end].tolist(), stops[first:end].tolist(), strict=True)
        words = [pieces.join(strings[one:other]) for one, other in runs] if joined else strings[first:end]
        word = pieces.join(words)
        found[row].append({"entity_group": shown[label], "score": score, "word": word, "start": start, "end": stop})
    return found

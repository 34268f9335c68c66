"""What comes out: labels or tags, probabilities, routes and statistics, as columns that read like lists."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import add
from types import MappingProxyType
from typing import Any, ClassVar, TypeAlias, TypeVar, overload

import numpy as np

from cascade.core import tables
from cascade.core.rows import FloatArray, IntArray

T = TypeVar("T")
Label: TypeAlias = str | tuple[str, ...]
"""A label; for a multi-label head the tuple of all labels with a probability of at least 0.5."""


@dataclass(frozen=True)
class Route:
    """Which tier and which exit answered, and how sure it was.

    Attributes:
        tier: number of the tier, counted from 1.
        exit_layer: number of the layer after which the unit left the tier, counted from 1; 0 for a tier without exits.
        confidence: the largest probability of the answer, in [0, 1]; multi-label: see `confidence`.
        failed: number of the last tier that was asked and could not answer, so that this one stands in; 0 of none.
    """

    tier: int
    exit_layer: int
    confidence: float
    failed: int = 0


@dataclass(frozen=True, eq=False, repr=False)
class Routes(Sequence[Route]):
    """Routes as columns of shape `(n,)`; indexing and iterating give `Route`, a slice gives `Routes`."""

    tier: IntArray
    exit_layer: IntArray
    confidence: FloatArray
    failed: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __post_init__(self) -> None:
        if not len(self.failed):
            object.__setattr__(self, "failed", np.zeros(len(self.tier), dtype=np.int64))

    def __len__(self) -> int:
        return len(self.tier)

    @overload
    def __getitem__(self, index: int) -> Route: ...
    @overload
    def __getitem__(self, index: slice) -> Routes: ...
    def __getitem__(self, index: int | slice) -> Route | Routes:
        if isinstance(index, slice):
            return Routes(*(column[index] for column in vars(self).values()))
        tier, layer, sure, failed = (column[index].item() for column in vars(self).values())
        return Route(tier, layer, sure, failed)

    def __iter__(self) -> Iterator[Route]:
        return map(Route, *(column.tolist() for column in vars(self).values()))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Routes):
            return NotImplemented
        return all(map(np.array_equal, vars(self).values(), vars(other).values()))

    __hash__ = None  # type: ignore[assignment]  # arrays are compared, so there is no hash; the base class has one

    def __repr__(self) -> str:
        last = max(int(self.tier.max(initial=2)), 2)
        parts = (f"{int((self.tier == tier).sum())} by tier {tier}" for tier in range(1, last + 1))
        return f"Routes({len(self)}: {', '.join(parts)})"


class _Columns(Sequence[T]):
    """Columns that read like a list of rows; a slice gives a list."""

    @abstractmethod
    def _row(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self._row(row) for row in range(*index.indices(len(self)))]
        return self._row(index)

    def __iter__(self) -> Iterator[T]:
        return map(self._row, range(len(self)))


class _Answers(_Columns[T]):
    """Columns that become tables; a `MissingExtraError` where pyarrow (or pandas) is not installed."""

    _table: ClassVar[Callable[..., Any]]

    def to_arrow(self, *, routes: bool = False) -> Any:
        """A `pyarrow.Table` with a row per item, see `core.tables.predictions_table` and `tags_table`."""
        return type(self)._table(self, routes=routes)

    def to_pandas(self, *, routes: bool = False) -> Any:
        """`to_arrow` as a `pandas.DataFrame`: labels are categories."""
        tables.require("pandas", "a data frame")
        return self.to_arrow(routes=routes).to_pandas()

    def to_dicts(self, *, routes: bool = False) -> list[dict[str, Any]]:
        """`to_arrow` as a dict per row, of Python's own values."""
        rows: list[dict[str, Any]] = self.to_arrow(routes=routes).to_pylist()
        return rows


@dataclass(frozen=True, eq=False, repr=False)
class SentenceRoutes(_Columns[Routes]):
    """Routes of words; indexing and iterating give the `Routes` of a sentence.

    `words`: of all words; those of sentence `i` are `offsets[i]` to `offsets[i + 1] - 1`. Shape `(sentences + 1,)`.
    """

    words: Routes
    offsets: IntArray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def _row(self, index: int) -> Routes:
        return self.words[_run(self.offsets, index)]

    def __repr__(self) -> str:
        return f"SentenceRoutes({len(self)} sentences, {self.words!r})"


@dataclass(frozen=True)
class Stats:
    """What a call did and how long its parts took.

    Attributes:
        texts: texts or pairs; for a tagger sentences.
        units: what got an answer: texts or pairs; for a tagger words.
        tokens: of all rows, special tokens included.
        deferred: units that another tier than the first answered.
        truncated: texts that lost tokens: pairs that were cut, and where the tier that read them all takes no rows that
            are long enough: texts that are longer, sentences with a word that is.
        empty: texts, pairs or sentences of nothing but blanks. They are answered like any other: the answer is what the
            model says where there is nothing to read.
        failed: units that a tier was asked about and could not answer, so that the one before it stands in.
        exits: deferred units by the layer after which they left their tier.
        seconds: wall-clock time by part: `tokenize`, `tier1`, `route`, `tier2`, ..., `merge`, of a tagger `decode`.
    """

    texts: int = 0
    units: int = 0
    tokens: int = 0
    deferred: int = 0
    truncated: int = 0
    empty: int = 0
    failed: int = 0
    exits: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))
    seconds: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def deferred_share(self) -> float:
        """Deferred units by units; 0 where there are none."""
        return self.deferred / self.units if self.units else 0.0


@dataclass(frozen=True)
class Counts:
    """How many rows there were, how many of them could not be read, were empty or lost tokens; units of the others."""

    rows: int = 0
    unread: int = 0
    empty: int = 0
    truncated: int = 0
    units: int = 0
    deferred: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*map(add, vars(self).values(), vars(other).values()))


@dataclass(frozen=True, eq=False)
class Prediction:
    """The answer for one text. `label`: a tuple of labels if multi-label; `probabilities`: shape `(labels,)`."""

    label: Label
    probabilities: FloatArray
    route: Route


@dataclass(frozen=True, eq=False, repr=False)
class Predictions(_Answers[Prediction]):
    """The answers for a list of texts, in its order; indexing and iterating give `Prediction`.

    `labels` and `routes` have one per text, `probabilities` the shape `(n, labels)`; `stats` are of the whole call;
    `names` are those of the columns of `probabilities`.
    """

    _table = staticmethod(tables.predictions_table)

    labels: list[Label]
    probabilities: FloatArray
    routes: Routes
    stats: Stats
    names: tuple[str, ...] = ()
    multi_label: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def _row(self, index: int) -> Prediction:
        return Prediction(self.labels[index], self.probabilities[index], self.routes[index])

    def __iter__(self) -> Iterator[Prediction]:
        return map(Prediction, self.labels, self.probabilities, self.routes)

    def __repr__(self) -> str:
        first = ", ".join(map(repr, self.labels[:3])) + (", ..." if len(self) > 3 else "")
        return f"Predictions({len(self)}: [{first}], deferred {self.stats.deferred_share:.1%})"


@dataclass(frozen=True, eq=False)
class TagPrediction:
    """The tags of one sentence, one per word as the routes are; `probabilities`: shape `(words, labels)`.

    `spans`: where each word begins and ends in its text, characters, shape `(words, 2)`; `None`: words were given.
    """

    tags: list[str]
    probabilities: FloatArray
    routes: Routes
    spans: IntArray | None = None


@dataclass(frozen=True, eq=False, repr=False)
class TagPredictions(_Answers[TagPrediction]):
    """The tags of a list of sentences, in its order; indexing and iterating give `TagPrediction`.

    `tags`: a list per sentence; `probabilities` and `spans`: of all words, one sentence after the other; `routes`:
    indexing gives those of a sentence, `routes.words` those of all words; `stats`: of the whole call; `names`: of the
    columns of `probabilities`.
    """

    _table = staticmethod(tables.tags_table)

    tags: list[list[str]]
    probabilities: FloatArray
    routes: SentenceRoutes
    stats: Stats
    spans: IntArray | None = None
    names: tuple[str, ...] = ()

    @property
    def offsets(self) -> IntArray:
        """The words of sentence `i` are `offsets[i]` to `offsets[i + 1] - 1`. Shape `(sentences + 1,)`."""
        return self.routes.offsets

    def __len__(self) -> int:
        return len(self.tags)

    def _row(self, index: int) -> TagPrediction:
        words = _run(self.offsets, index)
        spans = None if self.spans is None else self.spans[words]
        return TagPrediction(self.tags[index], self.probabilities[words], self.routes.words[words], spans)

    def __repr__(self) -> str:
        first = ", ".join(map(repr, self.tags[:2])) + (", ..." if len(self) > 2 else "")
        return f"TagPredictions({len(self)}: [{first}], {self.routes.words!r})"


def _run(offsets: IntArray, index: int) -> slice:
    row = range(len(offsets) - 1)[index]  # negative numbers count from the end; others have an IndexError
    return slice(int(offsets[row]), int(offsets[row + 1]))

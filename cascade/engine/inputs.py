"""What the tiers of a call read, encoded at most once for each distinct encoder, and what they are asked about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, Protocol

import numpy as np

from cascade.core.rows import BoolArray, Encoded, FloatArray, IntArray, Units, concatenate_units, offsets_of, ranges
from cascade.exceptions import OptionError


class Encoder(Protocol):
    """Makes rows of items. Hashable, and equal to what encodes equally, so that equal ones encode once."""

    def encode(self, items: Sequence[Any]) -> Encoded:
        """Rows of items: one unit per row for texts, a unit per word for sentences, which are not cut."""


class Inputs:
    """Items, and their rows for each encoder that a tier asks for.

    A caller's unit is a text or pair, however many rows it takes, or a word of a sentence. Parts (`select`, `spans`)
    take the rows that the whole has for an encoder, and encode their own items for any other.

    Attributes:
        targets: units that need an answer; the others are context, and their scores are not read. `None`: all. Shape
            `(units,)`.
        prior: what another tier's answer adds to logits, after the temperature (`confidence.evidence`). Shape
            `(units, labels)`.

    Args:
        items: gives the items: texts, or sentences of words.
        encode: gives their rows for an encoder; `None` stands for the default one.
        extra: whatever the maker wants back with the answers.
    """

    targets: BoolArray | None = None
    prior: FloatArray | None = None

    def __init__(
        self,
        items: Callable[[], Sequence[Any]],
        encode: Callable[[Encoder | None], Encoded],
        *,
        default: Encoder | None = None,
        extra: Any = None,
    ) -> None:
        self._items, self._encode, self._default = items, encode, default
        self._made: dict[Encoder | None, Encoded] = {}
        self.extra = extra

    @classmethod
    def of(cls, items: Sequence[Any], encoder: Encoder, *, extra: Any = None) -> Inputs:
        """Items that are encoded when a tier reads them; `encoder` serves tiers without one of their own."""

        def encode(asked: Encoder | None) -> Encoded:
            return (encoder if asked is None else asked).encode(items)

        return cls(lambda: items, encode, default=encoder, extra=extra)

    @classmethod
    def encoded(cls, encoded: Encoded | Units, *, extra: Any = None) -> Inputs:
        """Rows alone, for tiers without an encoder of their own. `Units`: each is a unit of the caller."""
        if isinstance(encoded, Units):
            encoded = Encoded(encoded, np.arange(len(encoded), dtype=np.int64))
        own = encoded

        def encode(asked: Encoder | None) -> Encoded:
            if asked is not None:
                raise OptionError(
                    "a tier with its own encoder must be given items, got rows only; make the inputs with Inputs.of"
                )
            return own

        return cls(_no_items, encode, extra=extra)

    @property
    def items(self) -> Sequence[Any]:
        """The items: texts, or sentences of words.

        Raises:
            OptionError: only rows are known.
        """
        return self._items()

    def encode(self, encoder: Encoder | None = None) -> Encoded:
        """The rows for an encoder; for the default one if left out."""
        asked = self._default if encoder is None else encoder
        found = self._made.get(asked)
        if found is None:
            found = self._made[asked] = self._encode(asked)
        return found

    @property
    def n_units(self) -> int:
        """How many units get an answer."""
        return self.encode().n_units

    @property
    def n_items(self) -> int:
        """How many texts or sentences there are."""
        return self.encode().n_items

    @property
    def tokens(self) -> int:
        """Tokens of all rows, for the default encoder."""
        return self.encode().units.rows.tokens

    @property
    def lengths(self) -> IntArray:
        """Tokens of each unit, for the default encoder; of a long text those of all its rows. Shape `(units,)`."""
        encoded = self.encode()
        if encoded.n_units == len(encoded.units):
            return encoded.units.n_tokens
        return np.bincount(encoded.numbers, weights=encoded.units.n_tokens).astype(np.int64)

    @property
    def offsets(self) -> IntArray:
        """The words of sentence `i` are units `offsets[i]` to `offsets[i + 1] - 1`. Shape `(sentences + 1,)`."""
        return self.encode().units.offsets

    def asking(self, targets: BoolArray | None = None, prior: FloatArray | None = None) -> Inputs:
        """The same items with these targets and this prior. What is no mask of the units is an `OptionError`."""
        if targets is not None and (targets.shape != (self.n_units,) or targets.dtype != np.bool_):
            raise OptionError(
                f"targets must be bools of shape ({self.n_units},), got {targets.dtype} of shape {targets.shape}; "
                "give True for each unit that needs an answer"
            )
        asking = copy(self)  # which has the rows that are known
        asking.targets, asking.prior = targets, prior
        return asking

    def select(self, units: IntArray) -> Inputs:
        """Some texts. `units`: their numbers, rising. Shape `(chosen,)`."""
        if len(units) == self.n_units:
            return self

        def encode(encoder: Encoder | None) -> Encoded:
            if encoder not in self._made and encoder is not None:
                return encoder.encode([self.items[unit] for unit in units.tolist()])
            return _chosen(self.encode(encoder), units)

        return self._part(lambda: [self.items[unit] for unit in units.tolist()], encode, units)

    def spans(self, sentences: IntArray, starts: IntArray, stops: IntArray) -> Inputs:
        """Runs of words, each a sentence of its own; see `Units.spans`. Shapes `(spans,)`."""
        begins = self.offsets[sentences]

        def items() -> Sequence[Any]:
            edges = zip(sentences.tolist(), (starts - begins).tolist(), (stops - begins).tolist(), strict=True)
            return [self.items[sentence][start:stop] for sentence, start, stop in edges]

        def encode(encoder: Encoder | None) -> Encoded:
            if encoder not in self._made and encoder is not None:  # of the sentences that have a span only
                chosen, rows = np.unique(sentences, return_inverse=True)
                units = encoder.encode([self.items[sentence] for sentence in chosen.tolist()]).units
                moved = units.offsets[rows] - begins
                units = units.spans(rows, starts + moved, stops + moved)
            else:
                units = self.encode(encoder).units.spans(sentences, starts, stops)
            return Encoded(units, np.arange(len(units), dtype=np.int64))

        return self._part(items, encode, ranges(starts, stops - starts))

    def _part(
        self, items: Callable[[], Sequence[Any]], encode: Callable[[Encoder | None], Encoded], units: IntArray
    ) -> Inputs:
        part = Inputs(items, encode, default=self._default)
        part.targets = None if self.targets is None else self.targets[units]
        part.prior = None if self.prior is None else self.prior[units]
        return part

    @classmethod
    def join(cls, parts: Sequence[Inputs]) -> Inputs:
        """Several as one, in order; they share the default encoder, and all have a prior or none has."""
        if len(parts) == 1:
            return parts[0]

        def encode(encoder: Encoder | None) -> Encoded:
            own = [part.encode(encoder) for part in parts]
            starts = offsets_of(np.array([one.n_units for one in own], dtype=np.int64)).tolist()
            items = offsets_of(np.array([part.n_items for part in parts], dtype=np.int64)).tolist()
            return Encoded(
                concatenate_units([one.units for one in own]),
                np.concatenate([one.numbers + start for one, start in zip(own, starts, strict=False)]),
                np.concatenate([one.truncated + start for one, start in zip(own, items, strict=False)]),
                np.concatenate([one.empty + start for one, start in zip(own, items, strict=False)]),
            )

        joined = cls(lambda: [item for part in parts for item in part.items], encode, default=parts[0]._default)
        if any(part.targets is not None for part in parts):
            masks = [np.ones(part.n_units, np.bool_) if part.targets is None else part.targets for part in parts]
            joined.targets = np.concatenate(masks)
        priors = [part.prior for part in parts if part.prior is not None]
        joined.prior = np.concatenate(priors) if priors else None
        return joined


def _no_items() -> Sequence[Any]:
    raise OptionError("items must be known, got rows only; make the inputs with Inputs.of")


def _chosen(encoded: Encoded, units: IntArray) -> Encoded:
    """The rows of some texts, numbered by these."""
    if not encoded.units.one_per_row:
        raise OptionError("words must be handed on in windows, got none; give the cascade windows, such as Windows()")
    if encoded.n_units == len(encoded.units):
        rows = units
        numbers = np.arange(len(units), dtype=np.int64)
    else:
        places = np.full(encoded.n_units, -1, dtype=np.int64)
        places[units] = np.arange(len(units), dtype=np.int64)
        rows = np.flatnonzero(places[encoded.numbers] >= 0)
        numbers = places[encoded.numbers[rows]]
    truncated = np.searchsorted(units, np.intersect1d(units, encoded.truncated))
    return Encoded(Units.whole(encoded.units.rows.select(rows)), numbers, truncated)

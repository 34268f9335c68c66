"""Both kinds of toy, for tests of what texts and sentences of words have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import strategies as st

from cascade.core.rows import Encoded, IntArray, Units, concatenate, concatenate_units
from cascade.engine.tier import Progress, Scores, Tier
from cascade.policies.batching import TokenBudget
from cascade.policies.exits import ExitPolicy, MaxProbability
from cascade.policies.unit_exits import TokenExit
from cascade.runtime.backend import Array, Backend
from tests.models.batching import FixedSize
from tests.models.toy import Toy, batch_of
from tests.models.toy_tagging import ToyTagger, sentences_of

PIECES = st.lists(st.lists(st.integers(1, 3), max_size=6), max_size=10)
BATCHING = st.one_of(
    st.builds(TokenBudget, st.integers(1, 90)),
    st.builds(FixedSize, st.integers(1, 7)),
)


@dataclass(frozen=True)
class Kind:
    """Texts, or sentences of words."""

    name: str
    words: bool

    def __repr__(self) -> str:
        return self.name

    @property
    def adaptive(self) -> ExitPolicy:
        """Some units of the toy exit early by it."""
        return TokenExit(0.02) if self.words else MaxProbability(0.7)

    def toy(self, seed: int = 0) -> Toy:
        return ToyTagger(seed=seed) if self.words else Toy(seed=seed)

    def units(self, pieces: Sequence[Sequence[int]], seed: int = 0) -> Units:
        """Sentences of words with so many tokens, or texts that are as long."""
        return sentences_of(pieces, seed) if self.words else batch_of([2 + sum(row) for row in pieces], seed)


TEXTS, WORDS = Kind("texts", False), Kind("words", True)
KINDS = (TEXTS, WORDS)
BOTH = pytest.mark.parametrize("kind", KINDS)
SENTENCES = [[1, 2, 1], [], [3, 1], [1] * 8, [1], [2, 2, 1, 1, 1], [1, 1, 1, 1]]


class Untouched:
    """A tier that must not be run."""

    labels = 3

    @property
    def leaves(self) -> tuple[Tier, ...]:
        return (self,)

    def score(self, *_: object, **options: Progress | object) -> Scores:
        raise AssertionError("this tier must not be run")


def join(parts: Sequence[Scores], order: IntArray | None = None) -> Scores:
    """Scores one after the other, perhaps in another order."""
    columns = [np.concatenate(own) for own in zip(*(vars(part).values() for part in parts), strict=True)]
    return Scores(*(column if order is None else column[order] for column in columns))


def one_by_one(tier: Tier, units: Units) -> Scores:
    """The same rows, each alone."""
    return join([tier.score(units.select(np.array([row]))) for row in range(units.n_rows)])  # type: ignore[arg-type]  # shipped tiers read units too


def assert_equal(left: Scores, right: Scores) -> None:
    np.testing.assert_array_equal(left.exit_layer, right.exit_layer)
    np.testing.assert_array_equal(left.tier, right.tier)
    np.testing.assert_allclose(left.probabilities, right.probabilities, atol=2e-4)
    np.testing.assert_allclose(left.confidence, right.confidence, atol=2e-4)


def arrays_of(units: Units) -> list[IntArray]:
    """All arrays inside."""
    rows = units.rows
    return [units.first_token, units.n_tokens, units.offsets, rows.ids, rows.types, rows.offsets]


@dataclass(frozen=True)
class Pooled:
    """A graph that notes whether it ran on all threads (True) or on the calling one."""

    inner: Backend
    runs: list[bool]
    pooled: bool = True

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self.inner.inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(self.inner.outputs)

    @property
    def serial(self) -> Pooled:
        return replace(self, pooled=False)

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        self.runs.append(self.pooled)
        return self.inner.run(feeds, outputs)


@dataclass(frozen=True)
class Lengths:
    """An encoder: a text has a token per character, in rows of at most `max_length`; a word likewise, uncut."""

    words: bool
    max_length: int = 64
    seed: int = 0

    def encode(self, items: Sequence[str | Sequence[str]]) -> Encoded:
        if self.words:
            sizes = [[len(word) for word in item] for item in items]
            parts = [sentences_of([own], sum(own) + self.seed) for own in sizes]
            units = concatenate_units([sentences_of([]), *parts])
            return Encoded(units, np.arange(len(units), dtype=np.int64))
        rows = [[text[at : at + self.max_length] for at in range(0, len(text), self.max_length)] for text in items]
        numbers = np.repeat(np.arange(len(rows)), [len(own) for own in rows]).astype(np.int64)
        texts = [batch_of([len(part)], seed=len(part) + self.seed).rows for own in rows for part in own]
        return Encoded(Units.whole(concatenate(texts)), numbers)

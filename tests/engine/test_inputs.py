from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.core.rows import BoolArray, Encoded
from cascade.engine.cascade import Cascade
from cascade.engine.inputs import Inputs
from cascade.exceptions import OptionError
from cascade.policies import whole_sentences
from cascade.policies.routing import RoutingState
from tests.models.kinds import BOTH, SENTENCES, Kind, Lengths
from tests.models.toy import batch_of


class Counting(Lengths):
    """Notes what it encodes; equal to others of the same kind."""

    asked: list[list[Any]]

    def __init__(self, words: bool, asked: list[list[Any]], max_length: int = 64, seed: int = 0) -> None:
        super().__init__(words, max_length, seed)
        object.__setattr__(self, "asked", asked)

    def encode(self, items: Any) -> Encoded:
        self.asked.append(list(items))
        return super().encode(items)


@BOTH
def test_items_are_encoded_once_for_each_encoder_and_deferred_ones_alone(kind: Kind) -> None:
    items = [["we", "cry"], ["they"], [], ["a", "plot"]] if kind.words else ["abc", "de", "f" * 9, "ghij"]
    first, again, own = (list[list[Any]]() for _ in range(3))
    toy, other = kind.toy(), kind.toy(3)

    def last(state: RoutingState) -> BoolArray:
        mask: BoolArray = np.arange(len(state.lengths)) == len(state.lengths) - 1
        return mask

    tier1 = toy.tier1(encoder=Counting(kind.words, again))
    tier2 = other.tier2(encoder=Counting(kind.words, own, seed=5))
    engine = Cascade(tier1, tier2, last, windows=whole_sentences if kind.words else None)
    scores = engine.score(Inputs.of(items, Counting(kind.words, first)))
    assert first + again == [items]  # an equal encoder's rows are known
    assert own == [[items[-1]]]
    assert scores.tier[-1] == 2
    units = Lengths(kind.words, seed=5).encode([items[-1]]).units
    expected = other.tier2().score(units).probabilities[-1]
    np.testing.assert_allclose(scores.probabilities[-1], expected, atol=1e-5)
    with pytest.raises(OptionError, match=r"a tier with its own encoder must be given items, got rows only; make"):
        tier1.score(kind.units(SENTENCES))


@given(st.lists(st.text("ab", min_size=1, max_size=20), min_size=1, max_size=8), st.integers(2, 9), st.data())
def test_parts_of_inputs_are_what_their_items_are(texts: list[str], max_length: int, data: Any) -> None:
    """Long texts, of several rows each: selected, selected again and joined."""
    encoder = Lengths(False, max_length)
    whole = Inputs.of(texts, encoder)
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts))), dtype=np.bool_)
    chosen = np.flatnonzero(keep)
    part, rest = whole.select(chosen), whole.select(np.flatnonzero(~keep))
    assert list(part.items) == [texts[number] for number in chosen]
    joined = Inputs.join([part, rest])
    order = [*chosen, *np.flatnonzero(~keep)]
    assert list(joined.items) == [texts[number] for number in order]
    for inputs, numbers in ((part, chosen), (joined, order)):
        if len(numbers):
            fresh, found = encoder.encode([texts[number] for number in numbers]), inputs.encode(encoder)
            np.testing.assert_array_equal(found.units.rows.ids, fresh.units.rows.ids)
            np.testing.assert_array_equal(found.numbers, fresh.numbers)
            assert (inputs.n_units, inputs.n_items) == (len(numbers), len(numbers))


def test_lost_tokens_go_along_with_their_texts() -> None:
    encoded = Encoded(batch_of([5, 9, 9, 3]), np.array([0, 1, 1, 2]), np.array([0, 2]))
    part = Inputs.encoded(encoded).select(np.array([1, 2]))
    np.testing.assert_array_equal(part.encode().truncated, [1])
    np.testing.assert_array_equal(part.encode().numbers, [0, 0, 1])
    np.testing.assert_array_equal(Inputs.join([part, part]).encode().truncated, [1, 3])

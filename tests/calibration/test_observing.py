"""Observing texts: costs are those of the parts, and nothing but runs is timed."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascade import Classifier
from cascade.calibration.observing import run_tiers
from cascade.core.rows import Encoded, Units
from cascade.engine.inputs import Inputs
from cascade.runtime.backend import FunctionBackend
from cascade.text.tokenizer import Tokenizer
from tests.models.batching import FixedSize
from tests.models.toy import VOCABULARY, Toy, batch_of, toy_bundle, toy_tokenizer
from tests.models.toy_tagging import ToyTagger, sentences_of

FOREIGN = VOCABULARY - 1  # a piece that no text of these tests has
LENGTHS = np.random.default_rng(1).integers(2, 12, 200).tolist()


@pytest.mark.parametrize(
    ("toy", "units"), [(Toy(), batch_of(LENGTHS)), (ToyTagger(), sentences_of([[1, 2], [3], [1, 1, 2]] * 20))]
)
def test_costs_are_seconds_per_token_of_the_parts(toy: Toy | ToyTagger, units: Units) -> None:
    seen: list[int] = []
    tier1, tier2, tokens = toy.tier1(), toy.tier2(), units.rows.tokens
    said, costs = run_tiers((tier1, tier2), units, encode_seconds=3.0 * tokens, progress=seen.append)
    first, second = costs.tiers
    assert costs.always == pytest.approx(3)
    assert len(second.stages) == 4
    assert min(first.full, second.embed, *second.stages) > 0
    assert 1e-8 < costs.full - 3 < 0.1
    assert sum(seen) == 2 * len(units)
    np.testing.assert_array_equal(said[0][:, 0], tier1.score(units).probabilities)
    np.testing.assert_array_equal(said[1], tier2.all_exits(units))


def test_making_graphs_for_several_threads_is_not_timed() -> None:
    @dataclass(frozen=True, eq=False)
    class Slow(FunctionBackend):
        @functools.cached_property
        def serial(self) -> FunctionBackend:
            time.sleep(1)
            return FunctionBackend(self.function, self.inputs, self.outputs)

    toy, units = Toy(), batch_of(LENGTHS)
    slow = toy.tier1(threads=2, batching=FixedSize(100))
    known = slow.backend
    assert isinstance(known, FunctionBackend)
    slow = replace(slow, backend=Slow(known.function, known.inputs, known.outputs))
    assert run_tiers((slow, toy.tier2()), units)[1].tiers[0].full * units.rows.tokens < 1


def test_every_tier_is_warmed_up_with_rows_of_its_own_tokenizer(tmp_path: Path) -> None:
    classifier = Classifier.from_pretrained(toy_bundle(tmp_path / "bundle").folder, threads=1)
    own = Tokenizer(toy_tokenizer(), max_length=12)

    @dataclass(frozen=True)
    class Other:
        """Makes a piece that the tiers do not know."""

        max_length: int = 12

        def encode(self, items: Sequence[Any]) -> Encoded:
            made = own.encode(items)
            rows = replace(made.units.rows, ids=np.full_like(made.units.rows.ids, FOREIGN))
            return replace(made, units=replace(made.units, rows=rows))

    given = ["a good film", "bad", "is it a plot"]
    tiers = [replace(tier, encoder=own) for tier in (classifier.tier1, classifier.tier2)]
    said, costs = run_tiers(tiers, Inputs.of(given, Other()))
    np.testing.assert_array_equal(said[0], run_tiers(tiers, Inputs.of(given, own))[0][0])
    assert min(tier.full for tier in costs.tiers) > 0

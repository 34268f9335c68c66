"""Measuring on a clock that only graphs move: what they take is known, and must be found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cascade.backend import Array, Backend, FunctionBackend
from cascade.classifier import Classifier
from cascade.cost_model import Size
from cascade.exceptions import OptionError
from cascade.measuring import measure
from cascade.tokenizer import Encoded, Text
from tests.toy import Toy, batch_of, toy_bundle


class Clock:
    """Time that passes only in graphs."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def taking(self, backend: Backend, fixed: float, per_token: float) -> FunctionBackend:
        def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
            self.now += fixed + per_token * next(iter(feeds.values())).size
            return backend.run(feeds)

        return FunctionBackend(run, tuple(backend.inputs), tuple(backend.outputs))


def encode(texts: Sequence[Text]) -> Encoded:
    lengths = [len(str(text).split()) + 2 for text in texts]
    return Encoded(batch_of(lengths), np.arange(len(texts)), 0)


POINTS = tuple((rows, tokens) for rows in (1, 3, 6) for tokens in (2, 5, 9))


def test_known_costs_are_found() -> None:
    clock, toy = Clock(), Toy()
    tier1, tier2 = toy.tier1(), toy.tier2()
    tier1 = replace(tier1, backend=clock.taking(tier1.backend, 1e-3, 2e-5))
    stages = [clock.taking(stage, 1e-3 * number, 6e-6) for number, stage in enumerate(tier2.stages, start=1)]
    tier2 = replace(tier2, embed=clock.taking(tier2.embed, 5e-4, 1e-6), stages=stages)
    made = measure(tier1, tier2, encode, max_length=64, points=POINTS, repeats=2, clock=clock)
    size = Size(4, 40, 10)
    assert made.threads == 1
    assert made.layers == tuple(tier2.layers)
    assert made.tier1.alone(size) == pytest.approx(1e-3 + 40 * 2e-5, rel=1e-3)
    assert made.embed.alone(size) == pytest.approx(5e-4 + 40 * 1e-6, rel=1e-3)
    for number, stage in enumerate(made.stages, start=1):
        # The first input of a stage is its hidden states, six numbers for each token.
        assert stage.alone(size) == pytest.approx(1e-3 * number + 40 * 6 * 6e-6, rel=1e-3)
        assert stage.lone == stage.beside == stage.alone
    for nothing in (made.call, made.tokenize, made.between.alone, made.stop.alone):
        assert nothing(size) < 1e-6
    assert made.error < 1e-3


def test_a_real_bundle_on_two_threads(tmp_path: Path) -> None:
    classifier = Classifier.from_pretrained(toy_bundle(tmp_path / "bundle").folder, threads=2)
    made = measure(classifier.tier1, classifier.tier2, classifier.tokenizer.encode, max_length=16, repeats=1)
    assert made.threads == 2
    assert len(made.stages) == 3
    size = Size(16, 128, 8)
    parts = (made.tier1, made.embed, *made.stages, made.between, made.stop)
    assert all(min(part.alone(size), part.beside(size), part.lone(size)) > 0 for part in parts)
    assert len({repr(model) for model in (made.tier1.alone, made.tier1.beside, made.tier1.lone)}) == 3
    assert made.start > 0
    assert made.tokenize(size) > 0


def test_a_bar_only_where_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    toy = Toy()
    for shown in (False, True):
        measure(toy.tier1(), toy.tier2(), encode, max_length=8, repeats=1, show_progress=shown)
        assert ("measuring" in capsys.readouterr().err) is shown


def test_what_cannot_be_measured() -> None:
    toy = Toy()
    with pytest.raises(OptionError, match="repeats must be a whole number of at least 1, was: 0; 3 give"):
        measure(toy.tier1(), toy.tier2(), encode, max_length=8, repeats=0)
    with pytest.raises(OptionError, match="a cost model needs at least 5 points of the grid, had 1; give more sizes"):
        measure(toy.tier1(), toy.tier2(), encode, max_length=8, points=[(1, 8)])

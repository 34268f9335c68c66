"""An exit policy of your own: registered, tunable, run, saved and loaded. CONTRIBUTING.md shows its class."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from cascade import Classifier
from cascade.core.rows import BoolArray, FloatArray
from cascade.exceptions import OptionError
from cascade.policies import MaxProbability, ModelInfo, Tunable, any_of, defer_all, exits, never
from cascade.policies.exits import ExitState
from tests.models.toy import toy_bundle

TEXTS = ["good film", "bad", "a very dull plot it was", "we laugh", "not good not bad", "bright"]


@exits.register
@dataclass(frozen=True)
class Product:
    """Exit where the answers of all exits so far, multiplied, are sure enough."""

    threshold: float

    def score(self, state: ExitState) -> FloatArray:
        product = np.prod(state.history, axis=1)
        return np.asarray(product.max(axis=1) / product.sum(axis=1))

    def at(self, threshold: float) -> Product:
        return replace(self, threshold=threshold)

    def __call__(self, state: ExitState) -> BoolArray:
        return self.score(state) >= self.threshold

    def check(self, model: ModelInfo) -> None:
        if model.multi_label:
            raise OptionError("Product must have one label per text, got several; use MaxProbability")


def test_it_is_tunable() -> None:
    policies: list[object] = [Product(0.5), MaxProbability(0.9), never]
    assert [policy.at(0.8) for policy in policies if isinstance(policy, Tunable)] == [Product(0.8), MaxProbability(0.8)]


def test_it_runs_and_is_saved_and_loaded(tmp_path: Path) -> None:
    clf = Classifier.from_pretrained(toy_bundle(tmp_path / "toy").folder, threads=1).with_router(defer_all)
    own = clf.with_exit_policy(any_of(Product(0.99), Product(1.0)))
    deepest = clf.with_exit_policy(never).predict(TEXTS).routes.exit_layer
    assert own.predict(TEXTS).routes.exit_layer.sum() < deepest.sum()
    own.save_pretrained(tmp_path / "own")
    assert Classifier.from_pretrained(tmp_path / "own").exit_policy == own.exit_policy


def test_it_is_asked_whether_it_fits(tmp_path: Path) -> None:
    exits.check(Product(0.9), ModelInfo(layers=(1, 2)))
    multi = Classifier.from_pretrained(toy_bundle(tmp_path / "toy", multi_label=True).folder, threads=1)
    with pytest.raises(OptionError, match="Product must have one label per text"):
        multi.with_exit_policy(any_of(Product(0.9)))


def test_contributing_shows_it() -> None:
    shown = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert inspect.getsource(Product) in shown


def test_registered_classes_are_frozen_dataclasses_with_names_of_their_own() -> None:
    with pytest.raises(OptionError, match="the class of the exit policy must be a frozen dataclass, got"):
        exits.register(type("Loose", (), {}))
    with pytest.raises(OptionError, match="must have a name of its own, got 'Patience' again; rename"):
        exits.register(dataclass(frozen=True)(type("Patience", (), {})))
    assert exits.register(Product) is Product

from __future__ import annotations

import io
from contextlib import redirect_stderr
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.core.results import Routes, Stats
from cascade.core.rows import FloatArray, Rows
from cascade.engine.cascade import Cascade, FirstLook, Outcome, merge_windows
from cascade.engine.tiers import Progress, Scores
from cascade.exceptions import OptionError
from cascade.policies.exits import MaxProbability
from cascade.policies.routing import Budget, Router, RoutingState, Threshold, defer_all, defer_none
from tests.models.toy import LAYERS, Toy, batch_of

BATCH = batch_of([3, 9, 4, 6, 2, 8, 3, 12, 5, 7])


class Untouched:
    """A tier that must not be run."""

    def score(self, batch: Rows, *, prior: FloatArray | None = None, progress: Progress | None = None) -> Scores:
        raise AssertionError("this tier must not be run")


def cascade(router: Router, **options: Any) -> Cascade:
    toy = Toy()
    return Cascade(toy.tier1(), toy.tier2(exit_policy=MaxProbability(0.7)), router, **options)


@settings(deadline=None)
@given(st.lists(st.integers(1, 15), max_size=20), st.sampled_from([Threshold(0.8), Budget(0.5), defer_all, defer_none]))
def test_deferred_rows_have_tier_2s_answers_and_the_others_tier_1s(lengths: list[int], router: Router) -> None:
    batch = batch_of(lengths)
    engine = cascade(router)
    outcome = engine.score(batch)
    first, second = engine.tier1.score(batch), engine.tier2.score(batch)
    deferred = router(RoutingState(first.probabilities, first.confidence, batch.lengths))
    np.testing.assert_array_equal(outcome.routes.tier, np.where(deferred, 2, 1))
    np.testing.assert_array_equal(outcome.routes.exit_layer, np.where(deferred, second.exit_layer, 0))
    expected = np.where(deferred[:, None], second.probabilities, first.probabilities)
    np.testing.assert_allclose(outcome.probabilities, expected, atol=1e-5)
    np.testing.assert_allclose(outcome.routes.confidence, expected.max(axis=1, initial=0), atol=1e-5)


@pytest.mark.parametrize("router", [Threshold(0.8), Budget(0.5)])
def test_a_blend_multiplies_the_answers_of_both_tiers(router: Router) -> None:
    engine = cascade(router, blend=0.5)
    outcome = engine.score(BATCH)
    first = engine.tier1.score(BATCH).probabilities.astype(np.float64)
    exits = engine.tier2.all_exits(BATCH).astype(np.float64)  # type: ignore[attr-defined]  # the toy's is a MultiExit
    both = exits * np.sqrt(np.maximum(first, 1e-6))[:, None]
    both /= both.sum(axis=-1, keepdims=True)
    deferred = outcome.routes.tier == 2
    assert deferred.any()
    for row in np.flatnonzero(deferred):
        sure = [number for number in range(2) if both[row, number].max() >= 0.7]
        taken = sure[0] if sure else 2
        assert outcome.routes.exit_layer[row] == LAYERS[taken]
        np.testing.assert_allclose(outcome.probabilities[row], both[row, taken], atol=1e-5)
    np.testing.assert_allclose(outcome.probabilities[~deferred], first[~deferred], atol=1e-6)


def test_a_blend_needs_tier_1() -> None:
    np.testing.assert_array_equal(
        cascade(defer_all, blend=0.5).score(BATCH).probabilities, cascade(defer_all).score(BATCH).probabilities
    )


def test_stats() -> None:
    outcome = cascade(Budget(0.5)).score(BATCH)
    stats = outcome.stats
    assert (stats.texts, stats.units, stats.tokens, stats.deferred) == (10, 10, 59, 5)
    assert sum(stats.exits.values()) == 5
    assert all(stats.exits[layer] == (outcome.routes.exit_layer == layer).sum() for layer in stats.exits)
    assert list(stats.seconds) == ["tier1", "route", "tier2", "merge"]
    assert all(seconds >= 0 for seconds in stats.seconds.values())


def test_defer_all_never_runs_tier_1() -> None:
    toy = Toy()
    outcome = Cascade(Untouched(), toy.tier2(), defer_all).score(BATCH)
    np.testing.assert_array_equal(outcome.routes.tier, np.full(10, 2))
    np.testing.assert_array_equal(outcome.routes.exit_layer, np.full(10, 6))
    np.testing.assert_array_equal(outcome.probabilities, toy.tier2().score(BATCH).probabilities)
    np.testing.assert_array_equal(outcome.routes.confidence, outcome.probabilities.max(axis=1))
    assert list(outcome.stats.seconds) == ["tier2", "merge"]


@pytest.mark.parametrize("router", [defer_none, Threshold(0.0)])
def test_tier_2_is_not_run_if_nothing_is_deferred(router: Router) -> None:
    toy = Toy()
    outcome = Cascade(toy.tier1(), Untouched(), router).score(BATCH)
    np.testing.assert_array_equal(outcome.probabilities, toy.tier1().score(BATCH).probabilities)
    np.testing.assert_array_equal(outcome.routes.exit_layer, np.zeros(10))
    assert outcome.stats.exits == {}


@pytest.mark.parametrize("router", [Threshold(0.8), Budget(0.5), defer_all, defer_none])
def test_no_rows(router: Router) -> None:
    outcome = cascade(router).score(batch_of([]))
    assert outcome.probabilities.shape == (0, 3)
    assert len(outcome.routes) == 0


def test_a_router_that_returns_no_mask() -> None:
    with pytest.raises(
        OptionError, match=r"the router .* must return bools of shape \(10,\), returned: float32 of shape"
    ):
        cascade(lambda state: state.confidence).score(BATCH)  # type: ignore[arg-type,return-value]  # wrong on purpose


def test_the_router_sees_lengths_and_kind() -> None:
    def longest(state: RoutingState) -> Any:
        assert state.multi_label
        return state.lengths > 7

    outcome = cascade(longest, multi_label=True).score(BATCH)
    np.testing.assert_array_equal(outcome.routes.tier == 2, BATCH.lengths > 7)


def test_progress_bars() -> None:
    drawn = io.StringIO()
    with redirect_stderr(drawn):
        cascade(Budget(0.5)).score(BATCH, show_progress=True)
    assert "tier 1: 100%" in drawn.getvalue()
    assert "10/10" in drawn.getvalue()
    assert "tier 2: 100%" in drawn.getvalue()
    assert "5/5" in drawn.getvalue()


def test_rows_without_any_answer_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="rows without a first look must have a second one"):
        cascade(defer_all).merge(FirstLook(None, np.ones(2, dtype=np.bool_)), None)


def outcome_of(p: list[list[float]], tier: list[int], exits: list[int]) -> Outcome:
    array = np.array(p, dtype=np.float32)
    routes = Routes(np.array(tier), np.array(exits), array.max(axis=1))
    return Outcome(array, routes, Stats(texts=len(p), units=len(p)))


def test_windows_worked_example() -> None:
    rows = outcome_of(
        [[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [0.3, 0.7], [0.6, 0.4]],
        tier=[1, 1, 2, 2, 1],
        exits=[0, 0, 4, 2, 0],
    )
    merged = merge_windows(rows, np.array([0, 1, 1, 1, 2]))
    np.testing.assert_allclose(merged.probabilities, [[0.9, 0.1], [1 / 3, 2 / 3], [0.6, 0.4]], rtol=1e-6)
    np.testing.assert_array_equal(merged.routes.tier, [1, 2, 1])
    np.testing.assert_array_equal(merged.routes.exit_layer, [0, 4, 0])
    np.testing.assert_allclose(merged.routes.confidence, [0.9, 2 / 3, 0.6], rtol=1e-6)
    assert (merged.stats.texts, merged.stats.units) == (3, 5)


def test_windows_of_multi_label_documents() -> None:
    rows = outcome_of([[0.9, 0.8], [0.9, 0.4]], tier=[1, 1], exits=[0, 0])
    merged = merge_windows(rows, np.array([0, 0]), multi_label=True)
    np.testing.assert_allclose(merged.routes.confidence, [0.6], rtol=1e-6)


def test_one_window_each_changes_nothing() -> None:
    rows = outcome_of([[0.9, 0.1], [0.2, 0.8]], tier=[1, 2], exits=[0, 4])
    assert merge_windows(rows, np.array([0, 1])) is rows
    nothing = Outcome(
        np.empty((0, 2), dtype=np.float32),
        Routes(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)),
        Stats(),
    )
    assert merge_windows(nothing, np.empty(0, dtype=np.int64)) is nothing

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.core.rows import BoolArray, Encoded, FloatArray
from cascade.engine.cascade import Cascade
from cascade.engine.inputs import Inputs
from cascade.engine.tier import CallableTier
from cascade.exceptions import CascadeError, OptionError
from cascade.policies import (
    Budget,
    MaxProbability,
    Threshold,
    Windows,
    defer_all,
    defer_none,
    never,
    whole_sentences,
)
from cascade.policies.routing import Router, RoutingState
from cascade.policies.windows import Spans, WindowState
from tests.models.kinds import BOTH, KINDS, PIECES, SENTENCES, TEXTS, WORDS, Kind, Lengths, Untouched, assert_equal
from tests.models.toy import Toy, batch_of
from tests.models.toy_tagging import ToyTagger, sentences_of

ROUTERS = st.sampled_from([Threshold(0.9), Threshold(1.0), Budget(0.2), Budget(0.5), defer_all, defer_none])
WINDOWS = st.sampled_from([Windows(), Windows(1), Windows(0, 1.0), Windows(2, 0.4), whole_sentences])
SEVERAL = sentences_of(SENTENCES)


def cascade(kind: Kind, router: Router, windows: Any = None, *, blend: float = 0.0, **options: Any) -> Cascade:
    toy, own = kind.toy(), (windows or Windows(1)) if kind.words else None
    tier1, tier2 = toy.tier1(**options), toy.tier2(exit_policy=kind.adaptive, **options)
    multi_label = bool(options.get("multi_label"))
    return Cascade(tier1, tier2, router, windows=own, blend=blend, multi_label=multi_label)


@given(PIECES, ROUTERS, WINDOWS, st.integers(0, 3), st.sampled_from(KINDS))
def test_deferred_units_have_tier_2s_answers_and_the_others_tier_1s(
    pieces: list[list[int]], router: Router, windows: Windows, seed: int, kind: Kind
) -> None:
    units, engine, toy = kind.units(pieces, seed), cascade(kind, router, windows), kind.toy()
    scores, first, tier2 = engine.score(units), toy.tier1().score(units), toy.tier2(exit_policy=kind.adaptive)
    unsure = router(RoutingState(first.probabilities, first.confidence, units.n_tokens))
    np.testing.assert_array_equal(scores.tier, np.where(unsure, 2, 1))
    expected, layers = first.probabilities.copy(), np.zeros(len(units), dtype=np.int64)
    spans = windows if kind.words and router is not defer_all else whole_sentences
    found = spans(WindowState(unsure, units.offsets, units.n_tokens))
    for row, start, stop in zip(found.rows, found.starts, found.stops, strict=True):  # one window at a time
        window = units.spans(np.array([row]), np.array([start]), np.array([stop]))
        second = tier2.score(Inputs.encoded(window).asking(unsure[start:stop]))
        mine = start + np.flatnonzero(unsure[start:stop])
        expected[mine], layers[mine] = second.probabilities[mine - start], second.exit_layer[mine - start]
    np.testing.assert_array_equal(scores.exit_layer, layers)
    np.testing.assert_allclose(scores.probabilities, expected, atol=2e-4)
    np.testing.assert_allclose(scores.confidence, expected.max(axis=1, initial=0), atol=2e-4)


@given(
    PIECES.filter(bool), st.sampled_from([Threshold(0.9), defer_all, defer_none]), WINDOWS, st.booleans(),
    st.sampled_from(KINDS),
)  # fmt: skip
def test_neighbours_change_nothing(
    pieces: list[list[int]], router: Router, windows: Windows, short: bool, kind: Kind
) -> None:
    units = kind.units(pieces)
    engine = cascade(kind, router, windows, **({"overlap": 3, "max_length": 7} if short else {}))
    together = engine.score(units)
    for row in range(units.n_rows):
        mine = slice(int(units.offsets[row]), int(units.offsets[row + 1]))
        assert_equal(together[mine], engine.score(units.select(np.array([row]))))


@BOTH
@pytest.mark.parametrize("router", [Threshold(0.8), Budget(0.5)])
def test_a_blend_multiplies_the_answers_of_both_tiers(kind: Kind, router: Router) -> None:
    units = kind.units(SENTENCES)
    engine = replace(cascade(kind, router, whole_sentences, blend=0.5), second=kind.toy().tier2(exit_policy=never))
    scores, toy = engine.score(units), kind.toy()
    first = toy.tier1().score(units).probabilities.astype(np.float64)
    both = toy.tier2().score(units).probabilities * np.sqrt(np.maximum(first, 1e-6))
    both /= both.sum(axis=1, keepdims=True)
    deferred = scores.tier == 2
    assert 0 < deferred.sum() < len(units)
    np.testing.assert_allclose(scores.probabilities[deferred], both[deferred], atol=1e-4)
    np.testing.assert_allclose(scores.probabilities[~deferred], first[~deferred], atol=1e-6)
    alone = cascade(kind, defer_all, blend=0.5).score(units)  # which needs tier 1
    assert_equal(alone, cascade(kind, defer_all).score(units))


def test_exits_see_the_blend() -> None:
    units = batch_of([3, 9, 4, 6, 2, 8, 3, 12, 5, 7])
    toy = Toy()
    tier2 = toy.tier2(exit_policy=MaxProbability(0.98))
    scores = Cascade(toy.tier1(), tier2, Threshold(1.0), blend=0.5).score(units)
    both = toy.tier2().all_exits(units).astype(np.float64)
    both *= np.sqrt(np.maximum(toy.tier1().score(units).probabilities.astype(np.float64), 1e-6))[:, None]
    both /= both.sum(axis=-1, keepdims=True)
    sure = both[:, :3].max(axis=-1) >= 0.98
    taken = np.where(sure.any(axis=1), sure.argmax(axis=1), 3)
    assert len(set(taken.tolist())) > 1
    np.testing.assert_array_equal(scores.exit_layer, np.array([2, 4, 5, 6])[taken])
    np.testing.assert_allclose(scores.probabilities, both[np.arange(10), taken], atol=1e-5)


@BOTH
def test_stats(kind: Kind) -> None:
    units = kind.units(SENTENCES)
    outcome = cascade(kind, Budget(0.5)).run(units)
    stats = outcome.stats
    assert (stats.texts, stats.units, stats.tokens) == (7, len(units), units.rows.tokens)
    assert stats.deferred == sum(stats.exits.values()) == len(units) // 2
    assert all(stats.exits[layer] == (outcome.routes.exit_layer == layer).sum() for layer in stats.exits)
    assert list(stats.seconds) == ["tier1", "route", "tier2", "merge"]
    assert all(seconds >= 0 for seconds in stats.seconds.values())


def test_truncated_texts_are_counted_once() -> None:
    """Of three texts a pair that its encoder cut, one that is too long for tier 1, and one that is both."""
    encoded = Encoded(batch_of([5, 9, 9, 3]), np.array([0, 1, 2, 3]), np.array([0, 2]))
    toy = Toy()
    engine = Cascade(toy.tier1(max_length=8), toy.tier2(), Threshold(0.8))
    assert engine.run(Inputs.encoded(encoded)).stats.truncated == 3
    assert replace(engine, router=defer_all).run(Inputs.encoded(encoded)).stats.truncated == 2
    assert cascade(WORDS, defer_none, max_length=6).run(SEVERAL).stats.truncated == 0


@pytest.mark.parametrize("router", [defer_none, defer_all])
def test_sentences_with_a_word_that_no_row_has_room_for_are_truncated(router: Router) -> None:
    """Between two special tokens there is room for 4; words that have it get rows of their own."""
    words = sentences_of([[1] * 20, [5, 1, 9], [], [4, 4], [7]])
    engine = cascade(WORDS, router, max_length=6)
    assert engine.run(words).stats.truncated == 2
    assert replace(engine, first=engine).run(words).stats.truncated == 2  # whichever tier reads all of them


@BOTH
def test_defer_all_never_runs_tier_1(kind: Kind) -> None:
    units = kind.units(SENTENCES)
    engine = replace(cascade(kind, defer_all), first=Untouched())
    outcome = engine.run(units)
    assert outcome.stats.deferred_share == 1
    assert list(outcome.stats.seconds) == ["tier2", "merge"]
    assert_equal(engine.score(units), kind.toy().tier2(exit_policy=kind.adaptive).score(units).above(1))


@BOTH
@pytest.mark.parametrize("router", [defer_none, Threshold(0.0)])
def test_tier_2_is_not_run_if_nothing_is_deferred(kind: Kind, router: Router) -> None:
    units = kind.units(SENTENCES)
    engine = replace(cascade(kind, router), second=Untouched())
    assert engine.run(units).stats.exits == {}
    assert_equal(engine.score(units), kind.toy().tier1().score(units))


def test_windows_are_what_tier_2_reads() -> None:
    words = sentences_of([[1] * 20, [1] * 5])

    def two(state: RoutingState) -> BoolArray:
        return np.isin(np.arange(len(state.lengths)), [9, 22])

    def counts(windows: Windows) -> tuple[int, int]:
        toy = ToyTagger()
        Cascade(toy.tier1(), toy.tier2(), two, windows=windows).score(words)
        return toy.tokens, toy.actives

    assert counts(Windows(margin=2)) == (4 * (7 + 7),) * 2  # five words of each, between two special tokens
    assert counts(whole_sentences) == (4 * (22 + 7),) * 2


@pytest.mark.parametrize(("kind", "pieces"), [(TEXTS, []), (WORDS, []), (WORDS, [[]]), (WORDS, [[], []])])
@pytest.mark.parametrize("router", [Threshold(0.8), Budget(0.5), defer_all, defer_none])
def test_no_units(kind: Kind, pieces: list[list[int]], router: Router) -> None:
    outcome = cascade(kind, router).run(kind.units(pieces))
    assert outcome.probabilities.shape == (0, 3)
    assert (len(outcome.routes), outcome.stats.texts, outcome.stats.units) == (0, len(pieces), 0)


@BOTH
def test_what_policies_return_is_checked(kind: Kind) -> None:
    units = kind.units(SENTENCES)
    with pytest.raises(OptionError, match=r"the router .* must return bools of shape \(\d+,\), got float32"):
        cascade(kind, lambda state: state.confidence).score(units)  # type: ignore[arg-type,return-value]  # wrong on purpose
    nothing = np.empty(0, dtype=np.int64)
    if kind.words:
        with pytest.raises(OptionError, match=r"the windows .* must have every unsure word exactly once, .* 11 never"):
            cascade(kind, Budget(0.5), lambda state: Spans(nothing, nothing, nothing)).score(units)
        with pytest.raises(OptionError, match=r"words must be handed on in windows, got none; give the"):
            replace(cascade(kind, Budget(0.5)), windows=None).score(units)


@BOTH
def test_routers_see_lengths_and_kind_and_write_nothing(kind: Kind) -> None:
    units, several = kind.units(SENTENCES), not kind.words

    def longest(state: RoutingState) -> Any:
        assert state.multi_label is several
        np.testing.assert_array_equal(state.lengths, units.n_tokens)
        for array in (state.probabilities, state.confidence, state.lengths):
            with pytest.raises(ValueError, match="read-only"):
                array[:] = 0
        return state.lengths > 2

    outcome = cascade(kind, longest, multi_label=several).run(units)
    np.testing.assert_array_equal(outcome.routes.tier == 2, units.n_tokens > 2)


@BOTH
@pytest.mark.parametrize("routers", [(0.95, 0.9), (1.0, 0.8), (0.8, defer_all), (defer_all, 0.9), (0.9, defer_none)])
def test_three_tiers_are_two_and_one(kind: Kind, routers: Sequence[Any]) -> None:
    units = kind.units([[1, 2, 1, 1]] * 12)
    outer, inner = (one if callable(one) else Threshold(one) for one in routers)
    windows = whole_sentences if kind.words else None
    tiers = kind.toy().tier1(), kind.toy(1).tier2(), kind.toy(2).tier2()
    engine = Cascade(tiers[0], Cascade(*tiers[1:], inner, windows=windows), outer, windows=windows)
    assert (engine.leaves, engine.labels) == (tiers, 3)
    scores, alone = engine.score(units), [tier.score(units) for tier in tiers]
    for level, router in enumerate((outer, inner)):
        come = scores.tier > level
        own = alone[level]
        deferred = router(RoutingState(own.probabilities, own.confidence, units.n_tokens))
        np.testing.assert_array_equal(scores.tier[come] > level + 1, deferred[come])
    for unit, tier in enumerate(scores.tier.tolist()):
        np.testing.assert_allclose(scores.probabilities[unit], alone[tier - 1].probabilities[unit], atol=2e-4)
        assert scores.exit_layer[unit] == alone[tier - 1].exit_layer[unit]
    outcome = engine.run(units)
    np.testing.assert_array_equal(outcome.routes.tier, scores.tier)
    assert outcome.stats.deferred == (scores.tier > 1).sum()
    ran = {f"tier{number + 1}" for number, router in enumerate((outer, inner)) if router != defer_all}
    ran |= {"tier3"} if (scores.tier == 3).any() else set()
    assert {part for part in outcome.stats.seconds if part.startswith("tier")} == ran
    left = Cascade(Cascade(*tiers[:2], outer, windows=windows), tiers[2], defer_none, windows=windows).score(units)
    np.testing.assert_array_equal(left.tier, np.minimum(scores.tier, 2))  # the first of two can be a cascade too


def test_nested_windows_and_blends() -> None:
    """Words in windows of windows: targets stay targets, and each tier's answer counts in the next one's logits."""
    words = sentences_of([[1, 2, 1, 1, 3, 1, 1]] * 6)
    toys = [ToyTagger(seed=seed) for seed in range(3)]
    inner = Cascade(toys[1].tier2(), toys[2].tier2(), Threshold(0.999), blend=0.5, windows=Windows(1, 1.0))
    engine = Cascade(toys[0].tier1(), inner, Budget(0.3), blend=0.5, windows=Windows(2, 1.0))
    done: list[int] = []
    scores = engine.score(words, progress=done.append)
    assert sum(done) == len(words)
    assert set(scores.tier.tolist()) == {1, 2, 3}
    assert (scores.tier > 1).sum() == int(0.3 * len(words))
    np.testing.assert_allclose(scores.probabilities.sum(axis=1), 1, atol=1e-5)
    for row in range(6):  # neighbours change nothing but who is in the budget
        mine = slice(int(words.offsets[row]), int(words.offsets[row + 1]))
        own = scores.tier[mine] > 1

        def same(state: RoutingState, own: BoolArray = own) -> BoolArray:
            return own

        alone = replace(engine, router=same).score(words.select(np.array([row])))
        assert_equal(scores[mine], alone)


def test_a_function_can_be_any_tier() -> None:
    """A rule below a model, and a person above it, who reads the deferred items themselves."""
    asked: list[Any] = []

    def person(items: list[str]) -> FloatArray:
        asked.extend(items)
        return np.eye(3, dtype=np.float32)[[2] * len(items)]

    rule = CallableTier(lambda items: [[0.99, 0.01, 0.0] if len(item) > 5 else [0.4, 0.3, 0.3] for item in items], 0, 3)
    texts = ["abc", "abcdefgh", "de", "f", "ghij"]
    model = Toy().tier2()
    middle = model.score(Lengths(words=False).encode(texts).units)
    level = float(np.sort(middle.confidence[[0, 2, 3, 4]])[1]) + 1e-6
    engine = Cascade(rule, Cascade(model, CallableTier(person, 100, 3), Threshold(level)), Threshold(0.9))
    scores = engine.score(Inputs.of(texts, Lengths(words=False)))
    assert scores.tier[1] == 1
    assert sorted(scores.tier.tolist()) == [1, 2, 2, 3, 3]
    assert asked == [text for text, tier in zip(texts, scores.tier, strict=True) if tier == 3]
    second, third = scores.tier == 2, scores.tier == 3
    np.testing.assert_array_equal(scores.probabilities.argmax(axis=1)[third], [2, 2])
    np.testing.assert_allclose(scores.probabilities[second], middle.probabilities[second], atol=1e-5)


def failing(items: list[str]) -> list[list[float]]:
    if len(items) > 3:
        raise TimeoutError("busy")
    return [[0.0, 1.0, 0.0]] * len(items)


LENGTHS = Inputs.of(["a", "bbbbbb", "cc", "ddddddd", "eee"], Lengths(words=False))


@pytest.mark.filterwarnings("ignore:the function of a tier")
@pytest.mark.parametrize("place", ["last", "alone", "first", "middle"])
def test_what_a_function_fails_on_keeps_the_answer_of_the_tier_before(place: str) -> None:
    """The rule is sure of long texts and not of short ones; the person answers "b" and is too busy for five texts."""
    rule = CallableTier(lambda items: [[0.9, 0.1, 0.0] if len(item) > 5 else [0.4, 0.3, 0.3] for item in items], 0, 3)
    busy, last = CallableTier(failing, 1, 3), CallableTier(lambda items: [[0.0, 0.0, 1.0]] * len(items), 9, 3)
    engine = {
        "last": Cascade(rule, busy, Threshold(0.95)),  # five are deferred, which is too many
        "alone": Cascade(rule, busy, defer_all),
        "first": Cascade(busy, rule, defer_none),
        "middle": Cascade(rule, Cascade(busy, last, Threshold(0.5)), Threshold(0.95)),
    }[place]
    outcome = engine.run(LENGTHS)
    routes = outcome.routes
    tier, failed = {"last": (1, 2), "alone": (1, 2), "first": (2, 1), "middle": (3, 2)}[place]
    assert routes.tier.tolist() == [tier] * 5
    assert routes.failed.tolist() == [failed] * 5
    assert outcome.stats.failed == 5
    expected = last if place == "middle" else rule
    np.testing.assert_array_equal(outcome.probabilities, expected.score(LENGTHS).probabilities)
    assert routes[0].failed == failed
    few = engine.run(LENGTHS.select(np.array([0, 2, 4])))  # not too many
    assert (few.stats.failed, few.routes.failed.tolist()) == (0, [0, 0, 0])
    assert few.probabilities[:, 1].tolist() == [1.0] * 3


@pytest.mark.filterwarnings("ignore:the function of a tier")
def test_a_unit_that_no_tier_answers_is_an_error() -> None:
    busy = CallableTier(failing, 1, 3)
    with pytest.raises(CascadeError, match="must have a tier that answers it, got none for 5 of 5; see the warnings"):
        Cascade(busy, busy, Threshold(0.9)).run(LENGTHS)

"""A tagger's thresholds: replayed exits, costs, and a choice that is run."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import numpy as np
import pytest

from cascade.calibration.costs import TierCosts
from cascade.calibration.leaving import leave
from cascade.calibration.sentences import WordAnswers
from cascade.calibration.thresholds.choosing import choose_tagger
from cascade.calibration.thresholds.points import Point, choose_words
from cascade.calibration.thresholds.words import EXITS, WordGrid, replay_words
from cascade.core.rows import IntArray
from cascade.engine.inputs import Inputs
from cascade.engine.live import HALTED
from cascade.exceptions import DataError, OptionError
from cascade.pipelines.tagger import Tagger
from cascade.policies.decoding import argmax
from cascade.policies.exits import AtExit, ExitPolicy, Margin, MaxProbability, Patience, any_of, never
from cascade.policies.routing import DeferAll, Threshold, defer_all, defer_none
from cascade.policies.settings import Policies
from cascade.policies.unit_exits import SentenceExit, TokenExit
from cascade.policies.windows import Windows, whole_sentences
from cascade.text.entity_f1 import check_bio, entity_f1
from tests.models.by_token import ExitByToken
from tests.models.tagged import GRID as SMALL
from tests.models.tagged import sentences
from tests.models.toy import LAYERS
from tests.models.toy_answers import COLD, costs_by_layers
from tests.models.toy_tagging import VOCABULARY, ToyTagger, sentences_of

RNG = np.random.default_rng(1)
PIECES = [RNG.integers(1, 4, RNG.integers(0, 12)).tolist() for _ in range(60)]
UNITS = sentences_of(PIECES)
BY_TOKEN = ExitByToken(tuple(RNG.choice(LAYERS, VOCABULARY).tolist()))
GRID = WordGrid(
    deferred=(0.2, 0.5),
    windows=(Windows(1), whole_sentences),
    doubts=(0.2, 0.5),
    exits=(TokenExit(0.5), TokenExit(0.5, window=3)),
)


@pytest.mark.parametrize(
    "policy",
    [
        never,
        AtExit(4),
        SentenceExit(0.6),
        any_of(SentenceExit(0.4), AtExit(5)),
    ],
    ids=repr,
)
def test_policies_that_halt_no_word_are_replayed_exactly(policy: ExitPolicy) -> None:
    toy = ToyTagger()
    taken = leave(policy, toy.tier2().all_exits(UNITS), LAYERS, words=UNITS)
    np.testing.assert_array_equal(np.array(LAYERS)[taken], toy.tier2(exit_policy=policy).score(UNITS).exit_layer)


@pytest.mark.parametrize(
    "policy", [TokenExit(0.5), TokenExit(0.6, window=3), MaxProbability(0.7), Patience(1), BY_TOKEN]
)
def test_policies_that_halt_words_are_replayed_on_frozen_answers(policy: ExitPolicy) -> None:
    toy = ToyTagger()
    taken = leave(policy, toy.tier2().all_exits(UNITS), LAYERS, words=UNITS)
    exits = toy.tier2(exit_policy=policy).score(UNITS).exit_layer
    first = exits == exits.min()  # until then no word has halted
    np.testing.assert_array_equal(np.array(LAYERS)[taken] == exits.min(), first)
    assert 0 < first.sum() < len(UNITS)
    if policy is BY_TOKEN:  # looks at no answers, so the replay is exact
        np.testing.assert_array_equal(np.array(LAYERS)[taken], exits)


@pytest.mark.parametrize("targets", [None, [0, 5, 17, 18, 40]])
@pytest.mark.parametrize("policy", [never, AtExit(4), BY_TOKEN], ids=repr)
def test_costs_count_what_the_graphs_see(policy: ExitPolicy, targets: list[int] | None) -> None:
    toy, words = ToyTagger(), UNITS
    mask = None if targets is None else np.isin(np.arange(len(words)), targets)
    toy.tier2(exit_policy=policy).score(Inputs.encoded(words).asking(mask))
    actives, tokens = toy.actives, toy.tokens
    taken = leave(policy, toy.tier2().all_exits(words), LAYERS, words=words)[None]
    ones = (1.0,) * 4
    assert TierCosts(ones).of(taken, words, mask).tolist() == [actives]
    assert TierCosts(ones, ones).of(taken, words, mask).tolist() == [tokens]
    whole = TierCosts(ones, embed=10).of(taken, words, mask)
    read = np.bincount(words.row_of if mask is None else words.row_of[mask], minlength=words.n_rows) > 0
    assert whole.tolist() == [actives + 10 * words.rows.lengths[read].sum()]


def test_costs_by_layers() -> None:
    costs = costs_by_layers(LAYERS, tier1=0.1, halted=0.25)
    words = sentences_of([[1, 2], [1]])  # 5 and 3 tokens
    assert costs.tiers[0].full == pytest.approx(0.6)
    assert costs.full == 6
    # A word that leaves after layer 2 saves 0.75 of the 4 layers above, for each of its pieces.
    taken = np.array([[0, 3, 3], [3, 0, 3], [0, 0, 0]])
    saved = [0.75 * 4, 2 * 0.75 * 4, 8 * 4]
    np.testing.assert_allclose(costs.tiers[-1].of(taken, words), 48 - np.array(saved))
    empty = sentences_of([[], []])
    assert costs.tiers[-1].of(np.zeros((2, 0), dtype=np.int64), empty).tolist() == [0, 0]
    assert leave(TokenExit(0.5), np.zeros((0, 4, 3), dtype=np.float32), LAYERS, words=empty).tolist() == []


def labelled() -> tuple[WordAnswers, IntArray]:
    """Full depth is right but for every seventh word."""
    toy = ToyTagger()
    truth: IntArray = toy.tier2().all_exits(UNITS)[:, -1].argmax(axis=1)
    truth[::7] = (truth[::7] + 1) % 3
    costs = costs_by_layers(LAYERS, tier1=0.05, halted=HALTED)
    return WordAnswers((toy.tier1(), toy.tier2()), argmax, UNITS, truth, costs=costs), truth


def test_the_engine_does_what_a_point_says() -> None:
    answers, truth = labelled()
    read: list[int] = []
    points = replay_words(answers, truth, max_drop=1.0, grid=GRID, progress=read.append)
    assert [point.cost for point in points] == sorted(point.cost for point in points)
    assert sum(read) > len(UNITS)
    exact = [point for point in points if "TokenExit" not in repr(point.policies.exits)]
    assert {type(point.policies.routers[0]) for point in exact} == {type(defer_none), DeferAll, Threshold}
    assert {point.policies.windows for point in exact} == {Windows(1), whole_sentences}
    for point in points:
        run = answers.run(point.policies)
        accuracy = (run.answers[:, 0] == truth).mean()
        if point in exact:
            assert (accuracy, run.deferred.mean()) == pytest.approx((point.accuracy, point.deferred))
            assert run.mean_layer(2) == pytest.approx(point.mean_layer)
        else:  # with token exit nearly
            assert accuracy == pytest.approx(point.accuracy, abs=0.1)
    full = next(point for point in points if point.policies == answers.at_full_depth)
    assert (full.drop, full.mean_layer) == (0, LAYERS[-1])
    assert (full.cost, full.predicted_speed_up) == pytest.approx((1, 1))


def test_of_one_router_windows_and_kind_each_point_is_dearer_and_better_than_the_last() -> None:
    answers, truth = labelled()
    points = replay_words(answers, truth, max_drop=0.1, grid=GRID)
    assert all(point.drop <= 0.1 + 1e-9 for point in points)

    def group_of(point: Point) -> tuple[str, bool]:
        own = point.policies
        return repr((own.routers, own.windows, own.blend)), "TokenExit" in repr(own.exits)

    for group in {group_of(point) for point in points}:
        accuracies = [point.accuracy for point in points if group_of(point) == group]
        assert accuracies == sorted(set(accuracies))
    without_caps = replay_words(answers, truth, max_drop=0.1, grid=replace(GRID, caps=False))
    assert not any("AtExit" in repr(point.policies.exits) for point in without_caps)


def point(cost: float, drop: float, threshold: float = 0.5, margin: int = 1) -> Point:
    return Point(
        policies=Policies((Threshold(threshold),), (never, never), COLD, windows=Windows(margin)),
        accuracy=0.9 - drop,
        drop=drop,
        deferred=0.2,
        mean_layer=3.0,
        cost=cost,
    )


def test_the_choice_steps_back_from_what_loses_more_than_allowed() -> None:
    # Halting costs 0.006 in truth wherever the replay sees a drop of more than 0.002; 0.01 is allowed.
    points = [point(0.1, 0.009, 0.1), point(0.2, 0.006, 0.2), point(0.3, 0.004, 0.3), point(0.4, 0.0, 0.4)]
    ran: list[float] = []

    def run(one: Point) -> tuple[float, float]:
        ran.append(one.cost)
        return 0.9 - one.drop - 0.006 * (one.drop > 0.002), one.cost

    tried = choose_words(points, run, full=0.9, max_drop=0.01, enough=2)
    # The first misses by 0.005, so from then on a drop of 0.004 in the replay is the most; 0.006 is not even run.
    assert ran == [0.1, 0.3, 0.4]
    assert [one.within for one in tried] == [False, True, True]
    assert tried[1].score == pytest.approx(0.89)


def test_the_choice_does_not_give_up_on_a_score_that_falls_faster() -> None:
    points = [point(0.1, 0.008, 0.1), point(0.2, 0.004, 0.2), point(0.3, 0.002, 0.3), point(0.4, 0.001, 0.4)]
    tried = choose_words(points, lambda one: (0.9 - 5 * one.drop, one.cost), full=0.9, max_drop=0.01)
    assert [(one.point.cost, one.within) for one in tried] == [(0.1, False), (0.2, False), (0.3, True), (0.4, True)]


def test_the_choice_looks_for_different_points_and_knows_an_end() -> None:
    points = [point(0.1, 0.0), point(0.2, 0.0), point(0.3, 0.0, margin=2), point(0.4, 0.0, 0.6), point(0.5, 0.0, 0.7)]
    tried = choose_words(points, lambda one: (0.9, one.cost), full=0.9, max_drop=0.0, enough=3)
    assert [one.point.cost for one in tried] == [0.1, 0.3, 0.4]
    every = choose_words(points, lambda one: (0.9, one.cost), full=0.9, max_drop=0.0)
    assert [one.point.cost for one in every] == [0.1, 0.3, 0.4, 0.5]
    tried = choose_words(points, lambda one: (0.5, one.cost), full=0.9, max_drop=0.0)
    assert [one.within for one in tried] == [False]  # all others claim no less
    assert choose_words([], lambda one: (0.9, 1.0), full=0.9, max_drop=0.1) == []
    less = [point(0.1 + 0.1 * number, -0.1 * number, 0.1 * number) for number in range(9)]
    assert len(choose_words(less, lambda one: (0.8999, 1.0), full=0.9, max_drop=0.0, tries=4)) == 4


def test_a_tagger_gets_an_operating_point(tagger: Tagger) -> None:
    some = [[], *sentences(80, seed=1)]
    tags = tagger.with_router(defer_all).with_exit_policy(never).predict(some).tags
    found = choose_tagger(tagger, some, tags, max_drop=0.1, grid=SMALL)
    assert found.accuracy + found.drop == 1.0
    chosen = tagger.with_policies(found.policies)
    both = zip(chain.from_iterable(chosen.predict(some).tags), chain.from_iterable(tags), strict=True)
    right = sum(a == b for a, b in both)
    assert right / sum(map(len, some)) == pytest.approx(found.accuracy)
    assert found.accuracy >= 0.9 - 1e-9
    by_entity = choose_tagger(tagger, some, tags, max_drop=0.3, f1=True, grid=SMALL)
    made = tagger.with_policies(by_entity.policies).predict(some).tags
    assert by_entity.accuracy == pytest.approx(entity_f1(tags, made))
    with pytest.raises(DataError, match="a sentence with words that fits both tiers, got none"):
        choose_tagger(tagger, [["Ann"] * 300], [["O"] * 300], max_drop=0.1, grid=SMALL)


def test_entity_f1() -> None:
    truth = [["B-X", "I-X", "O", "B-Y"], ["I-X", "I-Y"]]
    assert entity_f1(truth, truth) == 1
    # Of four entities one is cut short, one has another type: two of four are right.
    assert entity_f1(truth, [["B-X", "O", "O", "B-Y"], ["I-X", "I-X"]]) == pytest.approx(2 * 1 / (4 + 3))
    assert entity_f1([["O"]], [["O"]]) == 1
    assert entity_f1([["B-X", "B-X"]], [["B-X", "I-X"]]) == 0
    # Two of one word each, then one of two; found: the first, and the rest as one.
    assert entity_f1([["S-X", "S-X", "B-X", "E-X"]], [["U-X", "B-X", "I-X", "L-X"]]) == pytest.approx(2 * 1 / (3 + 2))
    check_bio(["O", "B-X", "I-X"])
    check_bio(["O", "S-X", "B-X", "I-X", "E-X"])
    check_bio(["O", "U-X", "B-X", "L-X"])
    for plain in (["O", "NOUN"], ["O"]):
        with pytest.raises(OptionError, match=r"F1 needs tags in BIO, BIOES or BILOU, got O.*; leave out --f1"):
            check_bio(plain)


def test_which_exits_are_tried() -> None:
    assert GRID.fitted(defer_none, never).exits == GRID.fitted(defer_none, TokenExit(0.3)).exits == EXITS
    assert GRID.fitted(Threshold(0.3), any_of(Margin(0.3), AtExit(4))) == replace(
        GRID, exits=(Margin(0.3),), router=Threshold(0.3)
    )
    plain = WordGrid(doubts=(0.1,), exits=(Margin(0.5),)).policies(LAYERS)
    assert [repr(policy) for policy, _ in plain] == ["never", "Margin(threshold=0.9)"]

"""A tagger's calibration: replayed exits, costs, and a choice that is really run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cascade.calibration import WordCosts, WordGrid, WordPoint, choose_words, leave, observe_costs, replay_words
from cascade.core.rows import IntArray, Units
from cascade.engine.word_cascade import WordCascade
from cascade.exceptions import OptionError
from cascade.policies.exits import AtExit, ExitPolicy, MaxProbability, Patience, any_of, never
from cascade.policies.routing import DeferAll, Threshold, defer_all, defer_none
from cascade.policies.unit_exits import ExitByToken, SentenceExit, TokenExit
from cascade.policies.windows import Windows, whole_sentences
from tests.models.toy_tagging import LAYERS, VOCABULARY, ToyTagger, sentences_of

RNG = np.random.default_rng(1)
PIECES = [RNG.integers(1, 4, RNG.integers(0, 12)).tolist() for _ in range(60)]
BY_TOKEN = ExitByToken(tuple(RNG.choice(LAYERS, VOCABULARY).tolist()))


@pytest.fixture
def toy() -> ToyTagger:
    return ToyTagger()


@pytest.fixture
def words() -> Units:
    return sentences_of(PIECES)


@pytest.mark.parametrize(
    "policy",
    [
        never,
        AtExit(4),
        SentenceExit(0.6),
        any_of(SentenceExit(0.4, "mean"), AtExit(5)),  # type: ignore[arg-type]  # its name serves
    ],
    ids=repr,
)
def test_policies_that_halt_nobody_are_replayed_exactly(toy: ToyTagger, words: Units, policy: ExitPolicy) -> None:
    taken = leave(policy, toy.tier2().all_exits(words), words, LAYERS)
    np.testing.assert_array_equal(np.array(LAYERS)[taken], toy.tier2(exit_policy=policy).score(words).exit_layer)


@pytest.mark.parametrize(
    "policy", [TokenExit(0.5), TokenExit(0.6, window=3), MaxProbability(0.7), Patience(1), BY_TOKEN]
)
def test_policies_that_halt_words_are_replayed_on_frozen_answers(
    toy: ToyTagger, words: Units, policy: ExitPolicy
) -> None:
    taken = leave(policy, toy.tier2().all_exits(words), words, LAYERS)
    exits = toy.tier2(exit_policy=policy).score(words).exit_layer
    first = exits == exits.min()  # until then nobody has halted
    np.testing.assert_array_equal(np.array(LAYERS)[taken] == exits.min(), first)
    assert 0 < first.sum() < len(words)
    if policy is BY_TOKEN:  # looks at no answers, so the replay is exact
        np.testing.assert_array_equal(np.array(LAYERS)[taken], exits)


def counted(toy: ToyTagger, words: Units, policy: ExitPolicy, targets: IntArray | None = None) -> tuple[int, int]:
    """Active and live tokens in all stages, as the graphs saw them."""
    toy.actives = toy.tokens = 0
    chosen = None if targets is None else np.isin(np.arange(len(words)), targets)
    toy.tier2(exit_policy=policy).score(words, targets=chosen)
    return toy.actives, toy.tokens


@pytest.mark.parametrize("targets", [None, [0, 5, 17, 18, 40]])
@pytest.mark.parametrize("policy", [never, AtExit(4), BY_TOKEN], ids=repr)
def test_costs_count_what_the_graphs_see(
    toy: ToyTagger, words: Units, policy: ExitPolicy, targets: list[int] | None
) -> None:
    some = None if targets is None else np.array(targets)
    mask = None if targets is None else np.isin(np.arange(len(words)), targets)
    actives, tokens = counted(toy, words, policy, some)
    taken = leave(policy, toy.tier2().all_exits(words), words, LAYERS)[None]
    ones, zeros = (1.0,) * 4, (0.0,) * 4
    assert WordCosts(0, ones, zeros).tier2(taken, words, mask).tolist() == [actives]
    assert WordCosts(0, zeros, ones).tier2(taken, words, mask).tolist() == [tokens]
    whole = WordCosts(0, ones, zeros, embed=10).tier2(taken, words, mask)
    read = np.bincount(words.row_of if mask is None else words.row_of[mask], minlength=words.n_rows) > 0
    assert whole.tolist() == [actives + 10 * words.rows.lengths[read].sum()]


def test_costs_by_layers() -> None:
    costs = WordCosts.by_layers(LAYERS, tier1=0.1)
    words = sentences_of([[1, 2], [1]])  # 5 and 3 tokens
    assert costs.tier1 == pytest.approx(0.6)
    assert costs.full(words) == pytest.approx(8 * 6)
    # A word that leaves after layer 2 saves 0.72 of the 4 layers above, for each of its pieces.
    taken = np.array([[0, 3, 3], [3, 0, 3], [0, 0, 0]])
    saved = [0.72 * 4, 2 * 0.72 * 4, 8 * 4]
    np.testing.assert_allclose(costs.tier2(taken, words), 48 - np.array(saved))


def test_nothing_to_read_costs_nothing() -> None:
    costs = WordCosts.by_layers(LAYERS, tier1=0.1)
    empty = sentences_of([[], []])
    assert costs.tier2(np.zeros((2, 0), dtype=np.int64), empty).tolist() == [0, 0]
    assert leave(TokenExit(0.5), np.zeros((0, 4, 3), dtype=np.float32), empty, LAYERS).tolist() == []


def test_observed_costs_are_seconds_per_token(toy: ToyTagger, words: Units) -> None:
    seen: list[int] = []
    costs = observe_costs(toy.tier1(), toy.tier2(), words, encode_seconds=3.0 * words.rows.tokens, progress=seen.append)
    assert costs.always == pytest.approx(3)
    assert sum(seen) == 4 * len(words)
    assert min(costs.tier1, costs.embed, *costs.active) > 0
    assert 1e-8 < costs.full(words) / words.rows.tokens - 3 < 0.1


GRID = WordGrid(deferred=(0.2, 0.5), windows=(Windows(1), whole_sentences), thresholds=(0.2, 0.5), spread=(1, 3))


def labelled(toy: ToyTagger, words: Units) -> IntArray:
    """Full depth is right but for every seventh word."""
    truth: IntArray = toy.tier2().all_exits(words)[:, -1].argmax(axis=1)
    truth[::7] = (truth[::7] + 1) % 3
    return truth


def really(toy: ToyTagger, words: Units, truth: IntArray, point: WordPoint) -> tuple[float, float, float]:
    """Accuracy, share and mean layer of the deferred in the engine."""
    tier2 = toy.tier2(exit_policy=point.exit_policy)
    outcome = WordCascade(toy.tier1(), tier2, point.router, point.windows, blend=point.blend).score(words)
    second = outcome.routes.tier == 2
    layer = float(outcome.routes.exit_layer[second].mean()) if second.any() else 0.0
    return float((outcome.probabilities.argmax(axis=1) == truth).mean()), float(second.mean()), layer


def test_the_engine_does_what_a_point_says(toy: ToyTagger, words: Units) -> None:
    truth = labelled(toy, words)
    costs = WordCosts.by_layers(LAYERS, tier1=0.05)
    read: list[int] = []
    points = replay_words(toy.tier1(), toy.tier2(), words, truth, costs, max_drop=1.0, grid=GRID, progress=read.append)
    assert [point.cost for point in points] == sorted(point.cost for point in points)
    assert sum(read) > len(words)
    exact = [point for point in points if "TokenExit" not in repr(point.exit_policy)]
    assert {type(point.router) for point in exact} == {type(defer_none), DeferAll, Threshold}
    assert {point.windows for point in exact} == {Windows(1), whole_sentences}
    for point in exact:
        assert really(toy, words, truth, point) == pytest.approx((point.accuracy, point.deferred, point.mean_layer))
    for point in points:  # with token exit nearly
        assert really(toy, words, truth, point)[0] == pytest.approx(point.accuracy, abs=0.1)
    full = next(point for point in points if point.router == defer_all and point.exit_policy == never)
    assert (full.drop, full.mean_layer) == (0, LAYERS[-1])
    assert (full.cost, full.predicted_speed_up) == pytest.approx((1, 1))


def test_of_one_router_windows_and_kind_each_point_is_dearer_and_better_than_the_last(
    toy: ToyTagger, words: Units
) -> None:
    costs = WordCosts.by_layers(LAYERS, tier1=0.05)
    truth = labelled(toy, words)
    points = replay_words(toy.tier1(), toy.tier2(), words, truth, costs, max_drop=0.1, grid=GRID)
    assert all(point.drop <= 0.1 + 1e-9 for point in points)

    def group_of(point: WordPoint) -> tuple[str, str, bool]:
        return repr(point.router), repr(point.windows), "TokenExit" in repr(point.exit_policy)

    for group in {group_of(point) for point in points}:
        mine = [point for point in points if group_of(point) == group]
        accuracies = [point.accuracy for point in mine]
        assert accuracies == sorted(set(accuracies))
    without_caps = replay_words(
        toy.tier1(), toy.tier2(), words, truth, costs, max_drop=0.1, grid=replace(GRID, caps=False)
    )
    assert not any("AtExit" in repr(point.exit_policy) for point in without_caps)


def point(cost: float, drop: float, threshold: float = 0.5, margin: int = 1) -> WordPoint:
    return WordPoint(Threshold(threshold), Windows(margin), never, 0.9 - drop, drop, 0.2, 3.0, cost)


def test_the_choice_steps_back_from_what_loses_more_than_allowed() -> None:
    # Halting costs 0.006 in truth wherever the replay sees a drop of more than 0.002; 0.01 is allowed.
    points = [point(0.1, 0.009, 0.1), point(0.2, 0.006, 0.2), point(0.3, 0.004, 0.3), point(0.4, 0.0, 0.4)]
    ran: list[float] = []

    def run(one: WordPoint) -> tuple[float, float]:
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


def test_bad_use(toy: ToyTagger, words: Units) -> None:
    costs = WordCosts.by_layers(LAYERS, tier1=0.1)
    truth = np.zeros(len(words), dtype=np.int64)
    with pytest.raises(OptionError, match="there must be at least one word, a label for each and costs for each exit"):
        replay_words(toy.tier1(), toy.tier2(), words, truth[:-1], costs)
    with pytest.raises(OptionError, match="were: 0 words"):
        replay_words(toy.tier1(), toy.tier2(), sentences_of([[]]), truth[:0], costs)
    with pytest.raises(OptionError, match="3 costs for 4 exits"):
        replay_words(toy.tier1(), toy.tier2(), words, truth, WordCosts.by_layers((1, 2, 3), tier1=0.1))
    with pytest.raises(OptionError, match=r"max_drop must be in \[0, 1\], was: 2"):
        replay_words(toy.tier1(), toy.tier2(), words, truth, costs, max_drop=2)
    for wrong in (
        {"active": (1.0,), "live": ()},
        {"active": (0.0,), "live": (0.0,)},
        {"active": (-1.0,), "live": (2.0,)},
    ):
        with pytest.raises(OptionError, match="costs must be at least 0, finite, as many for active as for live"):
            WordCosts(tier1=0.1, **wrong)

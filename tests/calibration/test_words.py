"""A tagger's thresholds: replayed exits, costs, and a choice that is run."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import numpy as np
import pytest

from cascade.calibration.choosing import choose, choose_tagger, word_points
from cascade.calibration.costs import TierCosts
from cascade.calibration.texts import leave
from cascade.engine.inputs import Inputs
from cascade.exceptions import CascadeWarning, DataError, OptionError
from cascade.pipelines.tagger import Tagger
from cascade.policies.exits import AtExit, ExitPolicy, Margin, MaxProbability, Patience, any_of, never
from cascade.policies.routing import defer_all
from cascade.policies.unit_exits import SentenceExit, TokenExit
from cascade.text.entity_f1 import check_bio, entity_f1
from tests.models.by_token import ExitByToken
from tests.models.tagged import sentences
from tests.models.toy import LAYERS
from tests.models.toy_answers import GRID, costs_by_layers, toy_answers
from tests.models.toy_tagging import VOCABULARY, ToyTagger, sentences_of

RNG = np.random.default_rng(1)
PIECES = [RNG.integers(1, 4, RNG.integers(0, 12)).tolist() for _ in range(60)]
UNITS = sentences_of(PIECES)
BY_TOKEN = ExitByToken(tuple(RNG.choice(LAYERS, VOCABULARY).tolist()))


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
    taken = leave(policy, toy.tier2().all_exits(words), LAYERS, words=words)
    ones = (1.0,) * 4
    assert TierCosts(ones).of(taken, words, mask) == actives
    assert TierCosts(ones, ones).of(taken, words, mask) == tokens
    whole = TierCosts(ones, embed=10).of(taken, words, mask)
    read = np.bincount(words.row_of if mask is None else words.row_of[mask], minlength=words.n_rows) > 0
    assert whole == actives + 10 * words.rows.lengths[read].sum()


def test_costs_by_layers() -> None:
    costs = costs_by_layers(LAYERS, tier1=0.1, halted=0.25)
    words = sentences_of([[1, 2], [1]])  # 5 and 3 tokens
    assert costs.tiers[0].full == pytest.approx(0.6)
    assert costs.full == 6
    # A word that leaves after layer 2 saves 0.75 of the 4 layers above, for each of its pieces.
    taken = np.array([[0, 3, 3], [3, 0, 3], [0, 0, 0]])
    saved = [0.75 * 4, 2 * 0.75 * 4, 8 * 4]
    np.testing.assert_allclose([costs.tiers[-1].of(own, words) for own in taken], 48 - np.array(saved))
    empty = sentences_of([[], []])
    assert costs.tiers[-1].of(np.zeros(0, dtype=np.int64), empty) == 0
    assert leave(TokenExit(0.5), np.zeros((0, 4, 3), dtype=np.float32), LAYERS, words=empty).tolist() == []


def test_a_tagger_gets_an_operating_point(tagger: Tagger) -> None:
    some = [[], *(words[:2] for words in sentences(80, seed=1))]
    tags = tagger.with_router(defer_all).with_exit_policy(never).predict(some).tags
    found = choose_tagger(tagger, some, tags, max_drop=0.1, grid=GRID)
    assert found.accuracy + found.drop == 1.0
    chosen = tagger.with_policies(found.policies)
    both = zip(chain.from_iterable(chosen.predict(some).tags), chain.from_iterable(tags), strict=True)
    right = sum(a == b for a, b in both)
    assert right / sum(map(len, some)) == pytest.approx(found.accuracy)
    assert found.accuracy >= 0.9 - 1e-9
    by_entity = choose_tagger(tagger, some, tags, max_drop=0.3, f1=True, grid=GRID)
    made = tagger.with_policies(by_entity.policies).predict(some).tags
    assert by_entity.accuracy == pytest.approx(entity_f1(tags, made))
    with pytest.warns(CascadeWarning, match="1 sentences are longer than a tier reads at once: left out"):
        assert choose_tagger(tagger, [*some, ["Ann"] * 300], [*tags, ["O"] * 300], max_drop=0.1, grid=GRID).drop <= 0.1
    with pytest.raises(DataError, match="a sentence with words that fits both tiers, got none"):
        choose_tagger(tagger, [["Ann"] * 300], [["O"] * 300], max_drop=0.1, grid=GRID)


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
    like = toy_answers().at_full_depth
    for own in (like, replace(like, exits=(never, TokenExit(0.3))), None):
        assert GRID.kinds(own) == GRID.exits
    assert GRID.kinds(replace(like, exits=(never, any_of(Margin(0.3), AtExit(4))))) == (Margin(0.3),)


def test_the_points_of_a_tagger_were_run() -> None:
    answers = toy_answers().read_whole()
    points = word_points(answers, max_drop=0.1, grid=GRID)
    assert [point.cost for point in points] == sorted(point.cost for point in points)
    assert {point.policies.windows for point in points if point.deferred < 1} <= {*GRID.windows}
    for point in points:
        run = answers.run(point.policies)
        right, full = ((own.answers == answers.goal).mean() for own in (run, answers.full))
        assert (full - right, answers.cost(point.policies, run)) == pytest.approx((point.risk, point.cost))
    found = choose(answers, points, max_drop=0.05)
    assert found.drop <= 0.05 + 1e-9
    assert found.cost == min(point.cost for point in points if point.risk <= 0.05)
    assert choose(answers, (), max_drop=0.0) == choose(answers, points[:1], max_drop=-1.0)
    assert choose(answers, (), max_drop=0.0).policies == answers.at_full_depth

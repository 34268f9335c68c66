"""Sentences of a tagger: what settings answer, the path, and the calibration as a whole."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest

from cascade.calibration.certify.claims import Agreement, Claim, MaxDrop, RiskTarget, Unit
from cascade.calibration.certify.events import count, lost
from cascade.calibration.certify.outcomes import Certified, Refused
from cascade.calibration.certify.whole import calibrate, certify_sample
from cascade.calibration.certify.word_paths import word_path
from cascade.calibration.examples import copies_said, distinct, tag_numbers
from cascade.calibration.observing import observe_sentences
from cascade.calibration.sentences import WordAnswers
from cascade.exceptions import CertificateWarning, DataError, OptionError
from cascade.pipelines.tagger import Tagger
from cascade.policies.decoding import Viterbi, argmax
from cascade.policies.exits import AtExit, never
from cascade.policies.routing import Threshold, defer_all, defer_none
from cascade.policies.windows import WindowPolicy, Windows, whole_sentences
from cascade.text.word_encoding import WordEncoder
from tests.models.recorded import costs_of
from tests.models.toy import LAYERS
from tests.models.toy_answers import GRID, SETTING, toy_answers
from tests.models.toy_tagging import ToyTagger
from tests.models.toy_tags import TAGS

SENTENCE = Unit.SENTENCE


@pytest.fixture(scope="module")
def answers() -> WordAnswers:
    return toy_answers()


def certify(answers: WordAnswers, claim: Claim, **options: object) -> Certified | Refused:
    given = {"grid": GRID, **options}
    return certify_sample(answers, claim, **given)  # type: ignore[arg-type]  # a test's own options


def test_a_run_is_what_the_tagger_predicts(tagger: Tagger) -> None:
    tagger = tagger.with_decoding(Viterbi(TAGS)).with_router(Threshold(0.8)).with_blend(0.4).with_windows(Windows(1))
    sentences = [["Ann", "went", "to", "Paris"], ["no"], ["Bob", "Lee", "of", "Rome"] * 9]  # the last has to be cut
    found = observe_sentences(tagger, sentences, None)
    made, run = tagger.predict(sentences), found.run(tagger.policies)
    assert [TAGS[tag] for tag in run.answers[:, 0]] == [*chain.from_iterable(made.tags)]
    np.testing.assert_array_equal(run.deferred, made.routes.words.tier == 2)
    np.testing.assert_array_equal(run.layers, made.routes.words.exit_layer)
    alone = tagger.with_router(defer_all).with_exit_policy(never).predict(sentences)
    assert [TAGS[tag] for tag in found.full.answers[:, 0]] == [*chain.from_iterable(alone.tags)]
    assert np.array_equal(found.goal, found.full.answers)
    assert len(found.fitting()) == 2
    assert found.costs is not None


def test_tiers_of_other_pieces_or_of_another_number_are_refused(tagger: Tagger) -> None:
    own = WordEncoder(tagger.tokenizer)
    other = replace(tagger, tiers=(tagger.tier1, replace(tagger.tier2, encoder=own)))
    with pytest.raises(OptionError, match=r"read the same pieces of words, got a tier with a tokenizer of its own"):
        observe_sentences(other, [["Ann", "went"]], None)
    with pytest.raises(OptionError, match=r"needs two tiers.*got SingleExit, MultiExit, MultiExit; set the policies"):
        observe_sentences(replace(tagger, tiers=(*tagger.tiers, tagger.tier2)), [["Ann"]], None)


def test_a_selection_is_what_running_it_gives(answers: WordAnswers) -> None:
    some = answers.select(np.array([40, 3, 77]))
    np.testing.assert_array_equal(some.full.answers, some.run(some.at_full_depth).answers)
    whole = answers.run(SETTING)
    mine = [whole.answers[answers.words.row_of == row] for row in (40, 3, 77)]
    np.testing.assert_array_equal(some.run(SETTING).answers, np.concatenate(mine))
    np.testing.assert_array_equal(some.goal[: len(mine[0])], answers.goal[answers.words.row_of == 40])
    assert some.full.seconds < answers.full.seconds
    assert answers.fitting() is answers
    words = np.zeros(len(answers.words), dtype=np.bool_)
    words[answers.words.offsets[[3, 5]]] = True
    assert np.flatnonzero(answers.events(words)).tolist() == [3, 5]


def test_tags_become_numbers() -> None:
    assert tag_numbers([["a", "b"], [], ["c"]], [["X", "Y"], [], ["X"]], ["Y", "X"]).tolist() == [1, 0, 1]
    with pytest.raises(DataError, match="every sentence must have its tags, got 2 sentences and tags for 1; leave"):
        tag_numbers([["a"], ["b"]], [["X"]], ["X"])
    with pytest.raises(DataError, match="one tag per word, sentence 2 has 1 words and 2 tags; correct it or drop it"):
        tag_numbers([["a"], ["b"]], [["X"], ["X", "X"]], ["X"])
    with pytest.raises(DataError, match="the tags: example 2 has the label 'Z', which the model does not have"):
        tag_numbers([["a"], ["b"]], [["X"], ["Z"]], ["X", "Y"])


def test_copies_are_found_whatever_their_blanks() -> None:
    assert distinct(["a b", "c", " a  b", "C", ("a", "b"), ["a", " b"], ("a", "c")]).tolist() == [0, 1, 3, 4, 6]
    assert copies_said(7, 5, "texts") == ("2 of 7 texts are copies of others and were left out: each counts once",)
    assert copies_said(5, 5, "texts") == ()


def test_words_are_items_that_leave_one_by_one(answers: WordAnswers) -> None:
    whole = answers.read_whole()
    assert whole.read_whole() is whole
    items = whole.as_items()
    assert whole.at_every_exit is not None
    np.testing.assert_array_equal(items.full.answers, answers.full.answers)  # the decoder looks at single words
    alone = answers.run(replace(answers.at_full_depth, routers=(defer_none,)))
    np.testing.assert_array_equal(items.run(replace(items.at_full_depth, routers=(defer_none,))).answers, alone.answers)
    windows = replace(SETTING, exits=(never, never), blend=(0.0,), windows=whole_sentences, decoding=None)
    np.testing.assert_array_equal(items.run(replace(windows, windows=None)).answers, answers.run(windows).answers)
    assert items.costs.tiers[-1].around > 1
    assert len(items) == len(answers.words)


@pytest.mark.parametrize("windows", [Windows(1), whole_sentences])
def test_a_cost_counts_what_was_read(answers: WordAnswers, windows: WindowPolicy) -> None:
    whole = answers.read_whole()
    full = whole.at_full_depth
    assert whole.cost(full, whole.full) == 1
    cut = replace(full, exits=(never, AtExit(LAYERS[0])))
    first = LAYERS[0] / LAYERS[-1]
    assert whole.cost(cut, whole.run(cut)) == pytest.approx(first)
    tier1 = replace(full, routers=(defer_none,))
    assert whole.cost(tier1, whole.run(tier1)) == pytest.approx(0.02)
    router = replace(cut, routers=(Threshold(0.7),), windows=windows)
    run = whole.run(router)
    tokens = whole.words.rows.lengths[np.unique(whole.words.row_of[run.deferred])].sum()
    share = tokens / whole.words.rows.tokens
    assert whole.cost(router, run) <= 0.02 + first * share + 1e-9
    if windows == whole_sentences:
        assert whole.cost(router, run) == pytest.approx(0.02 + first * share)


def test_a_path_grows_riskier_and_cheaper(answers: WordAnswers) -> None:
    stages: list[tuple[str, int, int]] = []

    @contextmanager
    def watch(name: str, total: int) -> Iterator[Callable[[int], object]]:
        done: list[int] = []
        yield done.append
        stages.append((name, total, sum(done)))

    steps = word_path(answers, MaxDrop(0.3), grid=GRID, progress=watch)
    assert 3 < len(steps) <= 6
    risks, costs = [step.risk for step in steps], [step.cost for step in steps]
    assert risks == sorted(set(risks))
    assert costs == sorted(set(costs), reverse=True)
    assert costs[0] < 1
    assert risks[-1] <= 1.2 * 0.3
    assert [name for name, _, _ in stages] == ["whole sentences", "running the best of them"]
    assert all(total == done for _, total, done in stages)
    for step in steps:
        assert answers.run(step.policies).deferred.mean() == step.deferred
        assert step.policies.windows is not None
        assert step.policies.decoding is argmax
    fewer = word_path(answers, MaxDrop(0.3), grid=replace(GRID, run=6, steps=3))
    assert 1 < len(fewer) <= 3
    nothing = replace(answers, tiers=(answers.tiers[0], replace(answers.tiers[1], max_length=1)))
    assert word_path(nothing, MaxDrop(0.3), grid=GRID) == ()


@pytest.mark.parametrize("ask", [MaxDrop(0.4), Agreement(0.5)])
def test_risk_is_what_the_claim_counts_and_makes_likely(answers: WordAnswers, ask: RiskTarget) -> None:
    some = answers if ask.needs_labels else replace(answers, truth=None)
    steps = word_path(some, ask, grid=GRID)
    assert steps
    shares = []
    for step in steps:
        run = some.run(step.policies)
        counted, different = (
            some.events(lost(one, run.answers, some.full.answers, some.goal)).mean() for one in (ask, Agreement())
        )
        if isinstance(ask, Agreement):
            assert step.risk == pytest.approx(counted)
        else:
            assert counted / 2 <= step.risk <= (counted + different) / 2
            shares += [(2 * step.risk - counted) / different] if different else []
    np.testing.assert_allclose(shares, np.mean(shares) if shares else [])  # the same part of what differs


def test_harm_that_was_not_seen_makes_no_setting_safe(answers: WordAnswers) -> None:
    """Full depth is hardly ever right, so there is hardly anything to harm; what differs still tells what is safer."""
    full = answers.full.answers[:, 0]
    some = replace(answers, truth=np.where(np.arange(len(full)) % 97 == 0, full, (full + 1) % 3))
    steps = word_path(some, MaxDrop(0.3), grid=GRID)
    risks = [step.risk for step in steps]
    assert risks == sorted(set(risks))
    assert not some.run(steps[-1].policies).deferred.any()
    assert steps[0].cost > 2 * steps[-1].cost


@pytest.mark.parametrize(
    "claim",
    [
        Claim(MaxDrop(0.4), unit=SENTENCE, confidence=0.9),
        Claim(Agreement(0.5), unit=SENTENCE),
    ],
    ids=lambda claim: claim.describe(),
)
def test_the_last_that_passes_is_taken(answers: WordAnswers, claim: Claim) -> None:
    found = certify(answers, claim, seed=2)
    assert isinstance(found, Certified)
    tester = answers.select(found.tested_on)
    assert sorted([*found.chosen_on, *found.tested_on]) == list(range(120))
    assert [one.step for one in found.tested] == list(found.steps[: len(found.tested)])
    assert len(found.tested) - 1 <= found.number + 1
    for number, one in enumerate(found.tested):
        seen = count(claim, tester, tester.run(one.step.policies))
        assert seen == (one.events, one.examples, one.p_value)
        assert (one.p_value <= claim.level) is (number <= found.number)
    assert found.figures.examples == len(tester)
    assert found.figures.seconds > 0
    assert "exact binomial test of sentences with any such word; F1 is not certified" in found.method
    assert found.temperatures == answers.temperatures


def test_no_path_is_chosen_on_sentences_that_are_too_long(answers: WordAnswers) -> None:
    short = replace(answers, tiers=(answers.tiers[0], replace(answers.tiers[1], max_length=3)))  # a word of one piece
    many = short.select(np.flatnonzero(answers.words.rows.lengths > 4))
    found = certify(many, Claim(Agreement(0.3), unit=SENTENCE))
    assert isinstance(found, Refused)
    assert f"{len(many)} sentences are longer than a tier reads at once" in found.warnings[0]


def test_what_cannot_be_shown_is_refused(answers: WordAnswers) -> None:
    few = certify(answers, Claim(MaxDrop(0.01), unit=SENTENCE))
    assert isinstance(few, Refused)
    assert few.steps == ()
    assert few.why == "84 sentences are left to test with, and even without a single event it takes 299"
    assert few.examples_needed == 299 + 129  # 299 of a share of 0.7
    single = replace(answers, tiers=(answers.tiers[0], ToyTagger().tier1()), costs=costs_of(2.0, (1.0,)), at_full=None)
    dear = certify(single, Claim(MaxDrop(0.5), unit=SENTENCE))
    assert isinstance(dear, Refused)
    assert dear.why.startswith("nothing that was tried is both cheaper than full depth")


def test_claims_that_a_tagger_cannot_make(answers: WordAnswers) -> None:
    with pytest.raises(OptionError, match=r"unit of a tagger must be sentence, got text; use Unit\.SENTENCE"):
        certify(answers, Claim(MaxDrop(0.1)))
    with pytest.raises(OptionError, match="MaxDrop needs labelled examples, these have none; ask for Agreement"):
        certify(replace(answers, truth=None), Claim(MaxDrop(0.1), unit=SENTENCE))
    with pytest.raises(OptionError, match="for every label separately must be about texts, got sentences; leave per_"):
        certify(answers, Claim(Agreement(0.1, per_class=True), unit=SENTENCE))
    with pytest.raises(OptionError, match="every label separately must be about texts"):
        answers.classes(answers.goal)


def test_a_bundle_is_calibrated(tagger: Tagger) -> None:
    names = ["Ann", "Bob", "Lee", "Paris", "Rome", "went", "to", "of", "no"]
    drawn = [[first, second] for first in names for second in names][:79]
    sentences = [[], *drawn, drawn[0], ["Ann"] * 60]
    tags = [["O"] * len(words) for words in sentences]
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        found = calibrate(tagger, sentences, None, Claim(Agreement(0.9), unit=SENTENCE), seed=1, grid=GRID)[0]
    assert [str(one.message) for one in given if one.category is CertificateWarning] == list(found.warnings)
    assert isinstance(found, Certified)
    assert sorted([*found.chosen_on, *found.tested_on]) == [*range(1, 80), 81]  # nothing empty, no copy
    assert "1 of 81 sentences are copies of others and were left out: each counts once" in found.warnings
    assert found.temperatures[0] == (tagger.tier1.temperature,)
    assert found.policies.decoding == tagger.decoding
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CertificateWarning)
        drop = calibrate(tagger, sentences, tags, Claim(MaxDrop(0.05), unit=SENTENCE), grid=GRID)[0]
    assert "every word is O: nothing was tested of B-PER, I-PER, B-LOC, I-LOC" in drop.warnings
    with pytest.raises(DataError, match=r"at least 10 distinct examples, got 1; a bound of 0\.05 at 95 % takes 59"):
        calibrate(tagger, sentences[:2], tags[:2], Claim(MaxDrop(0.05), unit=SENTENCE))[0]

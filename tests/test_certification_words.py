"""A tagger's calibration: what counts, the path, the test of really run settings, and its validity."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from cascade.batch import IntArray
from cascade.calibration import WordCosts, WordGrid
from cascade.certification import word_bootstrap
from cascade.certification.certify import Certified, Refused
from cascade.certification.claims import Agreement, Claim, MaxDeferred, MaxDrop, MeanCost, Unit
from cascade.certification.replay import Setting
from cascade.certification.sequence import fixed_sequence
from cascade.certification.word_answers import WordAnswers, WordRun, truth_of
from cascade.certification.word_bootstrap import p_value_of_rate, sentences_needed, upper_rate
from cascade.certification.word_calibrating import calibrate_words, certify_answers
from cascade.certification.word_costs import sentence_seconds
from cascade.certification.word_events import counted, happened, needed, rate
from cascade.certification.word_paths import Reach, word_path
from cascade.decoding import Viterbi, argmax
from cascade.exceptions import DataError, OptionError
from cascade.exits import AtExit, ExitPolicy, MaxProbability, any_of, never
from cascade.routing import Threshold, defer_all, defer_none
from cascade.tagger import Tagger
from cascade.windows import Windows, WindowState, whole_sentences
from tests.toy_tagging import LAYERS, ToyTagger, sentences_of
from tests.toy_tags import TAGS, tag_bundle

RNG = np.random.default_rng(1)
PIECES = [RNG.integers(1, 3, RNG.integers(1, 9)).tolist() for _ in range(120)]
COSTS = WordCosts.by_layers(LAYERS, tier1=0.02)
GRID = WordGrid(deferred=(0.2, 0.5, 0.8), windows=(Windows(1), whole_sentences), thresholds=(0.05, 0.3), spread=(1,))
SETTING = Setting(Threshold(0.7), any_of(MaxProbability(0.8), AtExit(5)), blend=0.3, windows=Windows(1))
WORD, SENTENCE = Unit.WORD, Unit.SENTENCE


@pytest.fixture(scope="module")
def answers() -> WordAnswers:
    """Full depth is right but for every seventh word; the other exits and tier 1 are often of its opinion."""
    toy, words = ToyTagger(), sentences_of(PIECES)
    toy.own[:] = 1.5 * np.eye(toy.own.shape[-1])
    toy.value *= 0.15
    toy.heads[:] = toy.heads[0]
    truth = toy.tier2().all_exits(words)[:, -1].argmax(axis=1)
    truth[::7] = (truth[::7] + 1) % 3
    return WordAnswers.of(toy.tier1(), toy.tier2(), words, truth, decoding=argmax)


def fixed(answers: WordAnswers, counts: list[int], full: list[int], truth: list[int] | None) -> WordAnswers:
    """Sentences of so many words with these answers at full depth."""
    tags = np.array(full)
    run = WordRun(tags, tags >= 0, tags, 1.0)
    known = None if truth is None else np.array(truth)
    return replace(answers, words=sentences_of([[1] * count for count in counts]), truth=known, full=run)


def ran(tags: list[int], deferred: list[int] | None = None) -> WordRun:
    second = np.array(deferred or [1] * len(tags)) > 0
    return WordRun(np.array(tags), second, second * 2, 1.0)


# What is answered


def test_a_run_is_what_the_tagger_predicts(tmp_path: Path) -> None:
    tagger = Tagger.from_pretrained(tag_bundle(tmp_path / "toy").folder, threads=1)
    tagger = tagger.with_decoding(Viterbi(TAGS)).with_router(Threshold(0.8)).with_blend(0.4).with_windows(Windows(1))
    sentences = [["Ann", "went", "to", "Paris"], ["no"], ["Bob", "Lee", "of", "Rome"] * 9]  # the last has to be cut
    found = WordAnswers.observe(tagger, sentences, None)
    setting = Setting(tagger.router, tagger.exit_policy, blend=0.4, windows=Windows(1), decoding=tagger.decoding)
    made, run = tagger.predict(sentences), found.really(setting)
    assert [TAGS[tag] for tag in run.tags] == [*chain.from_iterable(made.tags)]
    np.testing.assert_array_equal(run.deferred, made.routes.words.tier == 2)
    np.testing.assert_array_equal(run.layers, made.routes.words.exit)
    alone = tagger.with_router(defer_all).with_exit_policy(never).predict(sentences)
    assert [TAGS[tag] for tag in found.full.tags] == [*chain.from_iterable(alone.tags)]
    assert found.right.all()
    assert len(found.fitting()) == 2


def test_a_selection_is_what_running_it_gives(answers: WordAnswers) -> None:
    some = answers.select(np.array([40, 3, 77]))
    np.testing.assert_array_equal(some.full.tags, some.really(some.at_full_depth).tags)
    whole = answers.really(SETTING)
    mine = [whole.tags[answers.words.rows == row] for row in (40, 3, 77)]
    np.testing.assert_array_equal(some.really(SETTING).tags, np.concatenate(mine))
    assert some.truth is not None
    assert answers.truth is not None
    np.testing.assert_array_equal(some.truth[: len(mine[0])], answers.truth[answers.words.rows == 40])
    assert some.full.seconds < answers.full.seconds
    assert answers.fitting() is answers


def test_tags_become_numbers() -> None:
    assert truth_of([["a", "b"], [], ["c"]], [["X", "Y"], [], ["X"]], ["Y", "X"]).tolist() == [1, 0, 1]
    with pytest.raises(DataError, match="every sentence must have its tags, were: 2 sentences and tags for 1; leave"):
        truth_of([["a"], ["b"]], [["X"]], ["X"])
    with pytest.raises(DataError, match="one tag per word, sentence 2 had 1 words and 2 tags; correct it or drop it"):
        truth_of([["a"], ["b"]], [["X"], ["X", "X"]], ["X"])
    with pytest.raises(DataError, match=r"tags must be the model's \(X, Y\), sentence 2 had: 'Z'; rename it or drop"):
        truth_of([["a"], ["b"]], [["X"], ["Z"]], ["X", "Y"])


# What counts


def test_what_happened_to_words(answers: WordAnswers) -> None:
    #                                  harm, gain, both wrong, both wrong otherwise, both right
    some = fixed(answers, [2, 3], full=[0, 1, 1, 1, 2], truth=[0, 0, 0, 0, 2])
    run = ran([1, 0, 1, 2, 2], deferred=[0, 1, 1, 0, 0])
    drop, apart = Claim(MaxDrop(0.1), unit=WORD), Claim(MaxDrop(0.1, two_sided=True), unit=SENTENCE)
    assert happened(drop.ask, some, run).tolist() == [True, False, False, False, False]
    assert happened(apart.ask, some, run).tolist() == [True, True, False, False, False]
    assert happened(Agreement(0.1), some, run).tolist() == [True, True, False, True, False]
    assert happened(MaxDeferred(0.1), some, run).tolist() == [False, True, True, False, False]
    assert rate(drop, some, run) == 1 / 5
    assert rate(apart, some, run) == 1 / 2
    assert rate(Claim(Agreement(0.1), unit=SENTENCE), some, run) == 1
    assert rate(Claim(MaxDeferred(0.1), unit=SENTENCE), some, run) == 2 / 5  # deferred words are counted by word


def test_sentences_are_tested_exactly(answers: WordAnswers) -> None:
    truth = [0] * 120
    some = fixed(answers, [3] * 40, truth, truth)
    run = ran([1, 1, 0, 1] + [0] * 116)  # two sentences, three words
    found = counted(Claim(MaxDrop(0.2), unit=SENTENCE), some, run, seed=0)
    assert (found.events, found.examples, found.rate) == (2, 40, 0.05)
    assert found.p_value == pytest.approx(binom.cdf(2, 40, 0.2))
    assert binom.cdf(2, 40, found.upper) == pytest.approx(0.05)
    by_word = counted(Claim(MaxDrop(0.2), unit=WORD), some, run, seed=0)
    assert (by_word.events, by_word.examples, by_word.rate) == (3, 120, 0.025)
    assert by_word.rate < by_word.upper < 0.2


def test_every_label_has_to_keep_the_bound_by_itself(answers: WordAnswers) -> None:
    truth = [0] * 90 + [1] * 10 + [2] * 20
    some = fixed(answers, [3] * 40, truth, truth)
    run = ran([0] * 90 + [0] * 4 + [1] * 6 + [2] * 20)
    claim = Claim(MaxDrop(0.3, per_class=True), unit=WORD)
    assert counted(Claim(MaxDrop(0.3), unit=WORD), some, run, seed=0).p_value < 0.05
    worst = counted(claim, some, run, seed=0)
    assert (worst.events, worst.examples) == (4, 10)
    assert worst.p_value > 0.5
    assert rate(claim, some, run) == 0.4
    assert needed(claim, some, run, seed=0) is None
    right = ran(truth)
    assert counted(claim, some, right, seed=0).examples == 10  # the label with the fewest sentences
    assert needed(claim, some, right, seed=0) == pytest.approx(40 * 9 / 4, rel=0.2)  # 9 sentences without any harm
    missing = fixed(answers, [3] * 40, [0] * 120, [0] * 120)
    assert counted(claim, missing, ran([0] * 120), seed=0).p_value == 1
    assert needed(claim, missing, ran([0] * 120), seed=0) is None


# The bootstrap


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 20)), min_size=1, max_size=60),
    st.floats(0.6, 0.99),
)
@settings(max_examples=40, deadline=None)
def test_the_upper_rate_is_where_the_p_value_crosses(counts: list[tuple[int, int]], confidence: float) -> None:
    words = np.array([size for _, size in counts])
    events = np.minimum([event for event, _ in counts], words)
    upper = upper_rate(events, words, confidence=confidence, seed=3)
    assert events.sum() / words.sum() <= upper <= 1
    if upper < 0.999:  # both ends are draws or rounded
        assert p_value_of_rate(events, words, upper * 1.0001, seed=3) <= 1 - confidence + 1e-9
    assert p_value_of_rate(events, words, upper * 0.9999, seed=3) > 1 - confidence - 1e-9


def test_of_sentences_of_one_word_it_is_the_exact_test() -> None:
    events = np.zeros(300, dtype=np.int64)
    events[:4] = 1
    exact = float(binom.cdf(4, 300, 0.03))
    assert p_value_of_rate(events, np.ones(300, dtype=np.int64), 0.03, seed=0) == pytest.approx(exact, abs=0.02)


def test_harm_that_was_not_seen_is_not_ruled_out() -> None:
    none, words = np.zeros(100, dtype=np.int64), np.full(100, 50)
    # 5,000 words without harm; but were one sentence of a hundred wholly harmed, none might be among them.
    assert p_value_of_rate(none, words, 0.01, seed=0) == pytest.approx(0.99**100)
    assert upper_rate(none, words, confidence=0.95, seed=0) == pytest.approx(1 - 0.05**0.01)
    assert p_value_of_rate(none[:0], words[:0], 0.01, seed=0) == 1
    assert upper_rate(none[:0], words[:0], confidence=0.95, seed=0) == 1
    assert p_value_of_rate(none, none, 0.01, seed=0) == 1
    assert sentences_needed(none, words, 0.01, confidence=0.95, seed=0) == pytest.approx(299, abs=4)


def test_the_number_that_would_do(answers: WordAnswers) -> None:
    rng = np.random.default_rng(0)
    words = rng.integers(5, 30, 200)
    events = rng.binomial(words, 0.03)
    need = sentences_needed(events, words, 0.04, confidence=0.95, seed=0)
    assert need is not None
    for times, enough in ((1.3, True), (0.7, False)):
        copies = rng.permutation(np.resize(np.arange(200), int(times * need)))
        assert (p_value_of_rate(events[copies], words[copies], 0.04, seed=1) <= 0.05) is enough
    assert sentences_needed(events, words, 0.02, confidence=0.95, seed=0) is None
    assert sentences_needed(events, words, events.sum() / words.sum() + 1e-5, confidence=0.95, seed=0) is None


def test_counts_that_cannot_be() -> None:
    with pytest.raises(OptionError, match=r"events and words must be one count per sentence.*count each word once"):
        p_value_of_rate(np.array([2]), np.array([1]), 0.1, seed=0)
    with pytest.raises(OptionError, match="bound must be above 0 and below 1, was: 1"):
        p_value_of_rate(np.array([1]), np.array([1]), 1.0, seed=0)
    with pytest.raises(OptionError, match="confidence must be above 0 and below 1"):
        upper_rate(np.array([1]), np.array([1]), confidence=1.0, seed=0)


def population(kind: str, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Words of 4,000 sentences and, per setting of a path of five, how many are harmed."""
    words = np.minimum(1 + rng.gamma(1.5, 9, 4000).astype(np.int64), 90)
    rising = np.array([0.3, 0.6, 0.9, 1.05, 1.3]) * 0.03
    if kind == "whole":  # sentences are harmed in all words or in none
        return words, np.where(rng.random(4000) < rising[:, None], words, 0)
    hard = rng.gamma(0.4, 2.5, 4000) if kind == "clustered" else np.ones(4000)
    return words, binom.ppf(rng.random(4000), words, np.minimum(rising[:, None] * hard, 1)).astype(np.int64)


@pytest.mark.parametrize("sentences", [60, 150])
@pytest.mark.parametrize("kind", ["independent", "clustered", "whole"])
def test_bounds_that_do_not_hold_are_certified_rarely(
    kind: str, sentences: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word_bootstrap, "REPETITIONS", 200)
    rng = np.random.default_rng(7)
    words, harmed = population(kind, rng)
    true = harmed.sum(axis=1) / words.sum()
    bound, runs, wrong = float(np.nextafter(true[3], 0)), 300, 0
    for seed in range(runs):
        sample = rng.integers(0, len(words), sentences)
        p_values = (p_value_of_rate(row[sample], words[sample], bound, seed=seed) for row in harmed)
        passed = fixed_sequence(p_values, level=0.05)
        wrong += passed > 0 and bool(true[passed - 1] > bound)
    assert wrong <= runs * 0.05 + 3 * np.sqrt(runs * 0.05 * 0.95)


# The path


def test_a_path_grows_riskier_and_cheaper(answers: WordAnswers) -> None:
    claim = Claim(MaxDrop(0.1), unit=WORD)
    stages: list[tuple[str, int, int]] = []

    @contextmanager
    def watch(name: str, total: int) -> Iterator[Callable[[int], object]]:
        done: list[int] = []
        yield done.append
        stages.append((name, total, sum(done)))

    steps = word_path(answers, COSTS, claim, grid=GRID, progress=watch)
    assert 3 < len(steps) <= 12
    risks, costs = [step.risk for step in steps], [step.cost for step in steps]
    assert risks == sorted(set(risks))
    assert costs == sorted(set(costs), reverse=True)
    assert costs[0] < 1
    assert risks[-1] <= 1.2 * 0.1
    assert [name for name, _, _ in stages] == ["replaying settings", "running the best of them"]
    assert all(total == done for _, total, done in stages)
    for step in steps:
        assert answers.really(step.setting).deferred.mean() == step.deferred
        assert step.setting.windows is not None
        assert step.setting.decoding is argmax
    fewer = word_path(answers, COSTS, claim, grid=GRID, reach=Reach(run=6, steps=3))
    assert len(fewer) == 3
    longest = int(answers.words.batch.lengths.max())
    short = replace(answers, tier2=replace(answers.tier2, max_length=longest - 1))
    assert 0 < len(word_path(short, COSTS, claim, grid=GRID, reach=Reach(run=6, steps=3))) <= 3
    nothing = replace(answers, tier2=replace(answers.tier2, max_length=1))
    assert word_path(nothing, COSTS, claim, grid=GRID) == ()


@pytest.mark.parametrize(
    "claim",
    [
        Claim(MaxDrop(0.4), unit=SENTENCE),
        Claim(MaxDrop(0.2, two_sided=True), unit=WORD),
        Claim(Agreement(0.2), unit=WORD),
        Claim(Agreement(0.5), unit=SENTENCE),
    ],
    ids=lambda claim: claim.describe(),
)
def test_risk_is_what_the_claim_counts_and_makes_likely(answers: WordAnswers, claim: Claim) -> None:
    some = answers if claim.ask.needs_labels else replace(answers, truth=None)
    steps = word_path(some, COSTS, claim, grid=GRID, reach=Reach(run=8))
    assert steps
    differ = replace(claim, ask=Agreement(0.1))
    shares = []
    for step in steps:
        run = some.really(step.setting)
        counted_, different = rate(claim, some, run), rate(differ, some, run)
        if isinstance(claim.ask, Agreement):
            assert step.risk == pytest.approx(counted_)
        else:
            assert counted_ / 2 <= step.risk <= (counted_ + different) / 2
            shares.append((2 * step.risk - counted_) / different if different else np.nan)
    np.testing.assert_allclose(shares, np.nanmean(shares) if shares else [])  # the same part of what differs


def test_harm_that_was_not_seen_makes_no_setting_safe(answers: WordAnswers) -> None:
    """Full depth is hardly ever right, so there is hardly anything to harm; what differs still tells who is safer."""
    rare = np.arange(answers.words.words) % 97 == 0
    some = replace(answers, truth=np.where(rare, answers.full.tags, (answers.full.tags + 1) % 3))
    steps = word_path(some, COSTS, Claim(MaxDrop(0.05), unit=WORD), grid=GRID)
    risks = [step.risk for step in steps]
    assert risks == sorted(set(risks))
    assert steps[0].setting.router == defer_all
    assert steps[-1].setting.router == defer_none
    assert steps[0].cost > 2 * steps[-1].cost


# The whole


def certify(answers: WordAnswers, claim: Claim, **options: object) -> Certified | Refused:
    current = Setting(defer_none, never, windows=Windows(1), decoding=argmax)
    given = {"current": current, "grid": GRID, "costs": COSTS, "reach": Reach(run=8, steps=6), **options}
    return certify_answers(answers, claim, **given)  # type: ignore[arg-type]  # a test's own options


@pytest.mark.parametrize(
    "claim",
    [
        Claim(MaxDrop(0.15), unit=WORD),
        Claim(MaxDrop(0.4), unit=SENTENCE, confidence=0.9),
        Claim(MaxDrop(0.4, per_class=True), unit=WORD),
        Claim(Agreement(0.2), unit=WORD),
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
        count = counted(claim, tester, tester.really(one.step.setting), seed=2)
        assert (one.events, one.examples, one.p_value, one.upper) == (
            count.events,
            count.examples,
            count.p_value,
            count.upper,
        )
        assert (one.p_value <= claim.level) is (number <= found.number)
    assert found.taken.upper < claim.ask.bound
    assert "F1 is not certified" in found.method
    assert ("approximate" in found.method) is (claim.unit is WORD)
    again = certify(answers, claim, seed=2)
    assert (again.steps, again.tested) == (found.steps, found.tested)


def test_figures_are_of_the_testing_share(answers: WordAnswers) -> None:
    found = certify(answers, Claim(MaxDrop(0.5), unit=SENTENCE))
    assert isinstance(found, Certified)
    tester, figures = answers.select(found.tested_on), found.figures
    run = tester.really(found.setting)
    right, rows = run.tags == tester.truth, tester.words.rows
    exact = np.array([right[rows == row].all() for row in range(len(tester))])
    full = np.array([tester.right[rows == row].all() for row in range(len(tester))])
    assert figures.examples == len(tester)
    assert (figures.accuracy, figures.full_accuracy) == pytest.approx((exact.mean(), full.mean()))
    assert figures.drop == pytest.approx(full.mean() - exact.mean())
    assert figures.harms == found.taken.events
    assert figures.drop is not None
    assert figures.drop <= found.taken.rate
    assert figures.disagreements == len(np.unique(rows[run.tags != tester.full.tags]))
    assert figures.mean_exit == run.layers[run.deferred].mean()
    assert min(figures.seconds, figures.full_seconds) > 0
    words = certify(answers, Claim(Agreement(0.2), unit=WORD))
    assert isinstance(words, Certified)
    assert words.figures.examples == answers.select(words.tested_on).words.words
    assert words.figures.disagreement_upper == words.taken.upper  # which is what was asked
    assert figures.disagreement_upper is None  # sentences are independent: their count serves
    unlabelled = certify(replace(answers, truth=None), Claim(Agreement(0.2), unit=WORD))
    assert isinstance(unlabelled, Certified)
    assert (unlabelled.figures.accuracy, unlabelled.figures.harms) == (None, None)
    assert unlabelled.tested == words.tested


def test_deferral_is_bounded(answers: WordAnswers) -> None:
    found = certify(answers, Claim(MaxDeferred(0.4), unit=WORD))
    assert isinstance(found, Certified)
    shares = [step.deferred for step in found.steps]
    assert shares == sorted(shares)
    assert 0.2 < found.figures.deferred < found.taken.upper < 0.4
    assert {step.setting.windows for step in found.steps} == {Windows(1)}
    assert "share of deferred words" in found.method


@pytest.mark.parametrize("policy", [never, AtExit(4)], ids=repr)
@pytest.mark.parametrize("windows", [Windows(1, context_layers=None), whole_sentences], ids=repr)
def test_what_sentences_cost(answers: WordAnswers, policy: ExitPolicy, windows: Windows) -> None:
    costs = WordCosts(0.1, (1.0, 2.0, 3.0, 4.0), (0.5, 0.25, 0.125, 0.0), embed=0.01, always=0.001)
    setting, words = Setting(Threshold(0.9), policy, windows=windows), answers.words
    run = answers.really(setting)
    seconds = sentence_seconds(answers, setting, run, costs)
    spans = windows(WindowState(run.deferred, words.offsets, words.pieces))
    read = words.spans(spans.rows, spans.starts, spans.stops)
    exit_ = 3 if policy == never else 1  # where nobody leaves alone, costs are exact
    both = (costs.always + costs.tier1) * words.batch.tokens + costs.tier2(np.full((1, read.words), exit_), read)[0]
    assert seconds.sum() == pytest.approx(both)
    untouched = np.bincount(words.rows[run.deferred], minlength=120) == 0
    np.testing.assert_allclose(seconds[untouched], 0.101 * words.batch.lengths[untouched])
    alone = Setting(defer_all, policy, windows=windows)
    full = sentence_seconds(answers, alone, answers.really(alone), costs)
    assert full.sum() == pytest.approx(
        costs.always * words.batch.tokens + costs.tier2(np.full((1, words.words), exit_), words)[0]
    )
    first = Setting(defer_none, policy, windows=windows)
    cheap = sentence_seconds(answers, first, answers.really(first), costs)
    np.testing.assert_allclose(cheap, 0.101 * words.batch.lengths)


def test_words_that_leave_alone_cost_less(answers: WordAnswers) -> None:
    costs = WordCosts(0.0, (1.0, 1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 0.0))
    setting = Setting(defer_all, MaxProbability(0.9), windows=whole_sentences)
    run = answers.really(setting)
    spent = answers.words.pieces @ (np.searchsorted(LAYERS, run.layers) + 1)
    deepest = np.array([run.layers[answers.words.rows == row].max() for row in range(120)])
    special = 2 * (np.searchsorted(LAYERS, deepest) + 1).sum()
    assert sentence_seconds(answers, setting, run, costs).sum() == pytest.approx(spent + special)
    near = Setting(Threshold(0.9), MaxProbability(0.9), windows=Windows(2))
    run = answers.really(near)
    early = replace(near, windows=Windows(2, context_layers=LAYERS[0]))
    assert sentence_seconds(answers, early, run, costs).sum() < sentence_seconds(answers, near, run, costs).sum()


@pytest.mark.parametrize("labelled", [True, False])
def test_the_mean_cost_is_bounded(answers: WordAnswers, labelled: bool) -> None:
    some = answers if labelled else replace(answers, truth=None)
    full = COSTS.full(answers.words) / len(answers)
    found = certify(some, Claim(MeanCost(0.6 * full), unit=SENTENCE), seed=1)
    assert isinstance(found, Certified)
    risks = [step.risk for step in found.steps]
    assert risks == sorted(risks)
    assert found.steps[0].setting.router == defer_none
    tester = some.select(found.tested_on)
    for one in found.tested:
        run = tester.really(one.step.setting)
        seconds = sentence_seconds(tester, one.step.setting, run, COSTS)
        assert one.rate == pytest.approx(seconds.mean())
        assert (one.events, one.examples) == ((seconds > 0.6 * full).sum(), len(tester))
    assert found.taken.rate < found.taken.upper <= 0.6 * full * (1 + 1e-6)
    assert found.number > 0
    assert "betting test of a bounded mean" in found.method
    assert any("a sentence counts as" in one for one in found.warnings)
    low = certify(some, Claim(MeanCost(0.001 * full), unit=SENTENCE))
    assert isinstance(low, Refused)
    assert "even the cheapest setting costs" in low.why
    assert low.examples_needed is None
    near = certify(some, Claim(MeanCost(found.tested[0].rate * 1.02), unit=SENTENCE))
    assert isinstance(near, Refused)
    assert near.examples_needed is None or near.examples_needed > len(answers)


def test_no_path_is_chosen_on_sentences_that_are_too_long(answers: WordAnswers) -> None:
    short = replace(answers, tier2=replace(answers.tier2, max_length=3))  # a word of one piece
    many = short.select(np.flatnonzero(answers.words.batch.lengths > 4))
    found = certify(many, Claim(Agreement(0.3), unit=WORD))
    assert isinstance(found, Refused)
    assert found.why == "no sentence to choose a path on is short enough for both tiers"
    assert f"{len(many)} sentences are longer than a tier reads at once" in found.warnings[0]


def test_what_cannot_be_shown_is_refused(answers: WordAnswers) -> None:
    few = certify(answers, Claim(MaxDrop(0.01), unit=SENTENCE))
    assert isinstance(few, Refused)
    assert few.steps == ()
    assert "sentences could not show it even if none of them were against it" in few.why
    assert few.examples_needed == 299 + 129  # 299 of a share of 0.7
    word = certify(answers, Claim(Agreement(0.01, per_class=True), unit=WORD))
    assert isinstance(word, Refused)
    assert word.examples_needed is not None
    assert word.examples_needed > 299


def test_a_safest_setting_that_fails_says_what_is_missing(answers: WordAnswers) -> None:
    alone = answers.really(Setting(defer_none, never, windows=whole_sentences))
    grid = WordGrid(deferred=(), windows=(), thresholds=(), caps=False, blends=())
    reach = Reach(riskiest=2.0)
    claim = Claim(MaxDrop(rate(Claim(MaxDrop(0.1), unit=WORD), answers, alone) * 1.05), unit=WORD)
    near = certify(answers, claim, grid=grid, reach=reach)
    assert isinstance(near, Refused)
    assert [one.step.setting.router for one in near.tested] == [defer_none]
    first = near.tested[0]
    seen = f"even the safest setting had {first.events} of {first.examples} words against it"
    assert near.why.startswith(f"{seen} ({100 * first.rate:.2f} %, upper bound {100 * first.upper:.2f} %)")
    assert (near.examples_needed is None) is (first.rate >= claim.ask.bound)
    assert near.examples_needed is None or near.examples_needed > len(answers)
    far = certify(answers, replace(claim, ask=MaxDrop(claim.ask.bound * 0.7)), grid=grid, reach=reach)
    assert isinstance(far, Refused)
    assert far.examples_needed is None
    assert far.tested
    dear = certify(answers, claim, grid=grid, reach=reach, costs=WordCosts.by_layers(LAYERS, tier1=2.0))
    assert isinstance(dear, Refused)
    assert dear.why == "nothing that was tried is cheaper than tier 2 at full depth"


def test_claims_that_a_tagger_cannot_make(answers: WordAnswers) -> None:
    with pytest.raises(OptionError, match="unit of a tagger must be the sentence or the word, was: text; use Unit"):
        certify(answers, Claim(MaxDrop(0.1)))
    with pytest.raises(OptionError, match="drop in accuracy needs the right tags, there were none; ask for agreement"):
        certify(replace(answers, truth=None), Claim(MaxDrop(0.1), unit=WORD))
    with pytest.raises(OptionError, match=r"bound per label must be the word, was: sentence; use Unit\.WORD"):
        certify(answers, Claim(Agreement(0.1, per_class=True), unit=SENTENCE))
    with pytest.raises(OptionError, match="chosen must be above 0 and below 1, was: 1; both shares need sentences"):
        certify(answers, Claim(Agreement(0.1), unit=WORD), chosen=1.0)
    with pytest.raises(OptionError, match=r"chosen must be in \[0, 1\], was: 2"):
        certify(answers, Claim(Agreement(0.1), unit=WORD), chosen=2)


def test_a_bundle_is_calibrated(tmp_path: Path) -> None:
    tagger = Tagger.from_pretrained(tag_bundle(tmp_path / "toy").folder, threads=1)
    names = ["Ann", "Bob", "Lee", "Paris", "Rome", "went", "to", "of", "no"]
    rng = np.random.default_rng(0)
    sentences = [rng.choice(names, rng.integers(1, 6)).tolist() for _ in range(79)]
    sentences = [[], *sentences, sentences[0], ["Ann"] * 60]
    tags = [["O"] * len(words) for words in sentences]
    found = calibrate_words(tagger, sentences, None, Claim(Agreement(0.9), unit=WORD), seed=1, grid=GRID)
    assert isinstance(found, Certified)
    assert 0 not in [*found.chosen_on, *found.tested_on]
    assert len(found.chosen_on) + len(found.tested_on) == 81
    assert any("have been there before: the guarantee is about sentences drawn" in one for one in found.warnings)
    assert found.temperatures.tier1 == tagger.tier1.temperature
    written = found.setting.to_json()
    assert {"router", "exit_policy", "blend", "windows", "decoding"} == set(written)
    drop = calibrate_words(tagger, sentences, tags, Claim(MaxDrop(0.05), unit=SENTENCE), grid=GRID)
    assert any("no word is tagged B-PER, I-PER, B-LOC, I-LOC: nothing is known" in one for one in drop.warnings)
    with pytest.raises(DataError, match=r"at least 10 sentences with words, were: 1; a bound of 0\.05 needs hundreds"):
        calibrate_words(tagger, sentences[:2], tags[:2], Claim(MaxDrop(0.05), unit=SENTENCE))

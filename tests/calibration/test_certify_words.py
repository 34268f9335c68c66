"""A tagger's calibration as a whole: the test of really run settings, refusals, claims that cannot be made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cascade.calibration import WordCosts, WordGrid
from cascade.calibration.certify import Certified, Refused
from cascade.calibration.claims import Agreement, Claim, MaxDeferred, MaxDrop, MeanCost
from cascade.calibration.replay import Setting
from cascade.calibration.word_answers import WordAnswers
from cascade.calibration.word_calibrating import calibrate_words, certify_answers
from cascade.calibration.word_costs import sentence_seconds
from cascade.calibration.word_events import counted, rate
from cascade.calibration.word_paths import Reach
from cascade.exceptions import DataError, OptionError
from cascade.pipelines.tagger import Tagger
from cascade.policies.decoding import argmax
from cascade.policies.exits import never
from cascade.policies.routing import defer_none
from cascade.policies.windows import Windows, whole_sentences
from tests.models.toy_answers import COSTS, GRID, SENTENCE, WORD, toy_answers
from tests.models.toy_tagging import LAYERS
from tests.models.toy_tags import tag_bundle


@pytest.fixture(scope="module")
def answers() -> WordAnswers:
    return toy_answers()


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
    right, rows = run.tags == tester.truth, tester.words.row_of
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
    assert words.figures.examples == len(answers.select(words.tested_on).words)
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
    many = short.select(np.flatnonzero(answers.words.rows.lengths > 4))
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

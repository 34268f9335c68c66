"""What a tagger answered under a setting, and what of it counts against a claim."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from cascade.calibration.claims import Agreement, Claim, MaxDeferred, MaxDrop
from cascade.calibration.replay import Setting
from cascade.calibration.word_answers import WordAnswers, truth_of
from cascade.calibration.word_events import counted, happened, needed, rate
from cascade.exceptions import DataError
from cascade.pipelines.tagger import Tagger
from cascade.policies.decoding import Viterbi
from cascade.policies.exits import never
from cascade.policies.routing import Threshold, defer_all
from cascade.policies.windows import Windows
from tests.models.toy_answers import SENTENCE, SETTING, WORD, fixed, ran, toy_answers
from tests.models.toy_tags import TAGS, tag_bundle


@pytest.fixture(scope="module")
def answers() -> WordAnswers:
    return toy_answers()


def test_a_run_is_what_the_tagger_predicts(tmp_path: Path) -> None:
    tagger = Tagger.from_pretrained(tag_bundle(tmp_path / "toy").folder, threads=1)
    tagger = tagger.with_decoding(Viterbi(TAGS)).with_router(Threshold(0.8)).with_blend(0.4).with_windows(Windows(1))
    sentences = [["Ann", "went", "to", "Paris"], ["no"], ["Bob", "Lee", "of", "Rome"] * 9]  # the last has to be cut
    found = WordAnswers.observe(tagger, sentences, None)
    setting = Setting(tagger.router, tagger.exit_policy, blend=0.4, windows=Windows(1), decoding=tagger.decoding)
    made, run = tagger.predict(sentences), found.really(setting)
    assert [TAGS[tag] for tag in run.tags] == [*chain.from_iterable(made.tags)]
    np.testing.assert_array_equal(run.deferred, made.routes.words.tier == 2)
    np.testing.assert_array_equal(run.layers, made.routes.words.exit_layer)
    alone = tagger.with_router(defer_all).with_exit_policy(never).predict(sentences)
    assert [TAGS[tag] for tag in found.full.tags] == [*chain.from_iterable(alone.tags)]
    assert found.right.all()
    assert len(found.fitting()) == 2


def test_a_selection_is_what_running_it_gives(answers: WordAnswers) -> None:
    some = answers.select(np.array([40, 3, 77]))
    np.testing.assert_array_equal(some.full.tags, some.really(some.at_full_depth).tags)
    whole = answers.really(SETTING)
    mine = [whole.tags[answers.words.row_of == row] for row in (40, 3, 77)]
    np.testing.assert_array_equal(some.really(SETTING).tags, np.concatenate(mine))
    assert some.truth is not None
    assert answers.truth is not None
    np.testing.assert_array_equal(some.truth[: len(mine[0])], answers.truth[answers.words.row_of == 40])
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

"""The path of a tagger's settings, and what sentences cost under them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from cascade.calibration import WordCosts
from cascade.calibration.claims import Agreement, Claim, MaxDrop
from cascade.calibration.replay import Setting
from cascade.calibration.word_answers import WordAnswers
from cascade.calibration.word_costs import sentence_seconds
from cascade.calibration.word_events import rate
from cascade.calibration.word_paths import Reach, word_path
from cascade.policies.decoding import argmax
from cascade.policies.exits import AtExit, ExitPolicy, MaxProbability, never
from cascade.policies.routing import Threshold, defer_all, defer_none
from cascade.policies.windows import Windows, WindowState, whole_sentences
from tests.models.toy_answers import COSTS, GRID, SENTENCE, WORD, toy_answers
from tests.models.toy_tagging import LAYERS


@pytest.fixture(scope="module")
def answers() -> WordAnswers:
    return toy_answers()


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
    longest = int(answers.words.rows.lengths.max())
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
    rare = np.arange(len(answers.words)) % 97 == 0
    some = replace(answers, truth=np.where(rare, answers.full.tags, (answers.full.tags + 1) % 3))
    steps = word_path(some, COSTS, Claim(MaxDrop(0.05), unit=WORD), grid=GRID)
    risks = [step.risk for step in steps]
    assert risks == sorted(set(risks))
    assert steps[0].setting.router == defer_all
    assert steps[-1].setting.router == defer_none
    assert steps[0].cost > 2 * steps[-1].cost


@pytest.mark.parametrize("policy", [never, AtExit(4)], ids=repr)
@pytest.mark.parametrize("windows", [Windows(1, context_layers=None), whole_sentences], ids=repr)
def test_what_sentences_cost(answers: WordAnswers, policy: ExitPolicy, windows: Windows) -> None:
    costs = WordCosts(0.1, (1.0, 2.0, 3.0, 4.0), (0.5, 0.25, 0.125, 0.0), embed=0.01, always=0.001)
    setting, words = Setting(Threshold(0.9), policy, windows=windows), answers.words
    run = answers.really(setting)
    seconds = sentence_seconds(answers, setting, run, costs)
    spans = windows(WindowState(run.deferred, words.offsets, words.n_tokens))
    read = words.spans(spans.rows, spans.starts, spans.stops)
    exit_ = 3 if policy == never else 1  # where nobody leaves alone, costs are exact
    both = (costs.always + costs.tier1) * words.rows.tokens + costs.tier2(np.full((1, len(read)), exit_), read)[0]
    assert seconds.sum() == pytest.approx(both)
    untouched = np.bincount(words.row_of[run.deferred], minlength=120) == 0
    np.testing.assert_allclose(seconds[untouched], 0.101 * words.rows.lengths[untouched])
    alone = Setting(defer_all, policy, windows=windows)
    full = sentence_seconds(answers, alone, answers.really(alone), costs)
    assert full.sum() == pytest.approx(
        costs.always * words.rows.tokens + costs.tier2(np.full((1, len(words)), exit_), words)[0]
    )
    first = Setting(defer_none, policy, windows=windows)
    cheap = sentence_seconds(answers, first, answers.really(first), costs)
    np.testing.assert_allclose(cheap, 0.101 * words.rows.lengths)


def test_words_that_leave_alone_cost_less(answers: WordAnswers) -> None:
    costs = WordCosts(0.0, (1.0, 1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 0.0))
    setting = Setting(defer_all, MaxProbability(0.9), windows=whole_sentences)
    run = answers.really(setting)
    spent = answers.words.n_tokens @ (np.searchsorted(LAYERS, run.layers) + 1)
    deepest = np.array([run.layers[answers.words.row_of == row].max() for row in range(120)])
    special = 2 * (np.searchsorted(LAYERS, deepest) + 1).sum()
    assert sentence_seconds(answers, setting, run, costs).sum() == pytest.approx(spent + special)
    near = Setting(Threshold(0.9), MaxProbability(0.9), windows=Windows(2))
    run = answers.really(near)
    early = replace(near, windows=Windows(2, context_layers=LAYERS[0]))
    assert sentence_seconds(answers, early, run, costs).sum() < sentence_seconds(answers, near, run, costs).sum()

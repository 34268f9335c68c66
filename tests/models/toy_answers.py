"""Observed answers of a toy tagger, for tests of thresholds and certificates of sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cascade.calibration.certify.word_paths import WordGrid
from cascade.calibration.costs import Costs, TierCosts
from cascade.calibration.runs import Run
from cascade.calibration.sentences import WordAnswers
from cascade.engine.live import HALTED
from cascade.policies.decoding import argmax
from cascade.policies.exits import AtExit, MaxProbability, any_of, never
from cascade.policies.routing import Threshold
from cascade.policies.settings import Policies
from cascade.policies.unit_exits import TokenExit
from cascade.policies.windows import Windows, whole_sentences
from tests.models.toy import LAYERS
from tests.models.toy_tagging import ToyTagger, sentences_of

RNG = np.random.default_rng(1)
PIECES = [RNG.integers(1, 3, RNG.integers(1, 9)).tolist() for _ in range(120)]


def costs_by_layers(layers: Sequence[int], *, tier1: float, halted: float = 0.0) -> Costs:
    """Every layer of tier 2 costs 1, tier 1 this share of tier 2, a halted token this share of a layer."""
    stages = np.diff(np.asarray([0, *layers], dtype=np.float64))
    whole = tier1 * float(stages.sum())
    second = TierCosts(tuple(stages.tolist()), tuple((halted * stages).tolist()) if halted else ())
    return Costs((TierCosts((whole,)), second))


COSTS = costs_by_layers(LAYERS, tier1=0.02, halted=HALTED)
GRID = WordGrid(prices=40, steps=6, run=10, windows=(Windows(1), whole_sentences), exits=(TokenExit(0.5),))
COLD = ((1.0,), (1.0,) * 4)
SETTING = Policies(
    (Threshold(0.7),),
    (never, any_of(MaxProbability(0.8), AtExit(5))),
    COLD,
    blend=(0.3,),
    windows=Windows(1),
    decoding=argmax,
)


def toy_answers() -> WordAnswers:
    """Full depth is right but for every seventh word; the other exits and tier 1 are often of its opinion."""
    toy, words = ToyTagger(), sentences_of(PIECES)
    toy.own[:] = 1.5 * np.eye(toy.own.shape[-1])
    toy.value *= 0.15
    toy.heads[:] = toy.heads[0]
    truth = toy.tier2().all_exits(words)[:, -1].argmax(axis=1)
    truth[::7] = (truth[::7] + 1) % 3
    answers = WordAnswers((toy.tier1(), toy.tier2()), argmax, words, truth, costs=COSTS)
    return replace(answers, at_full=answers.full)


def fixed(answers: WordAnswers, counts: list[int], full: list[int], truth: list[int] | None) -> WordAnswers:
    """Sentences of so many words with these answers at full depth."""
    known = None if truth is None else np.array(truth)
    return replace(answers, words=sentences_of([[1] * count for count in counts]), truth=known, at_full=ran(full))


def ran(tags: list[int]) -> Run:
    given = np.array(tags)
    return Run(given[:, None], 1 + (given >= 0), np.full(len(given), 2), 1.0)

"""Observed answers of a toy tagger, for tests of certification by word and by sentence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cascade.calibration import WordCosts, WordGrid
from cascade.calibration.claims import Unit
from cascade.calibration.replay import Setting
from cascade.calibration.word_answers import WordAnswers, WordRun
from cascade.policies.decoding import argmax
from cascade.policies.exits import AtExit, MaxProbability, any_of
from cascade.policies.routing import Threshold
from cascade.policies.windows import Windows, whole_sentences
from tests.models.toy_tagging import LAYERS, ToyTagger, sentences_of

RNG = np.random.default_rng(1)
PIECES = [RNG.integers(1, 3, RNG.integers(1, 9)).tolist() for _ in range(120)]
COSTS = WordCosts.by_layers(LAYERS, tier1=0.02)
GRID = WordGrid(deferred=(0.2, 0.5, 0.8), windows=(Windows(1), whole_sentences), thresholds=(0.05, 0.3), spread=(1,))
SETTING = Setting(Threshold(0.7), any_of(MaxProbability(0.8), AtExit(5)), blend=0.3, windows=Windows(1))
WORD, SENTENCE = Unit.WORD, Unit.SENTENCE


def toy_answers() -> WordAnswers:
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

"""What is counted of a tagger's answers, by sentence or by word, and the test of its rate.

    sentence    any word of it is harmed: one event or none per sentence, and an exact binomial test. It bounds the
                drop of the share of sentences that are tagged without a fault.
    word        the rate of harmed words among all words, with whole sentences resampled, because the words of one
                are harmed together. It bounds the drop of word accuracy; the test is approximate (`word_bootstrap`).

F1 of entities is no mean over words or sentences, and is not certified.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cascade.calibration.bounds import examples_needed, p_value, upper_bound
from cascade.calibration.certify import Tested
from cascade.calibration.claims import Agreement, Ask, Claim, MaxDeferred, MaxDrop, Unit
from cascade.calibration.paths import Step
from cascade.calibration.word_answers import WordAnswers, WordRun
from cascade.calibration.word_bootstrap import p_value_of_rate, sentences_needed, upper_rate
from cascade.core.rows import BoolArray, IntArray

__all__ = ["Count", "by_sentence", "by_word", "counted", "happened", "needed", "rate"]


@dataclass(frozen=True)
class Count:
    """Events of one setting, and what they say about a bound.

    Attributes:
        events: how many.
        examples: sentences, or words.
        p_value: of "the rate is the bound or more".
        upper: one-sided bound of the rate, by itself.
    """

    events: int
    examples: int
    p_value: float
    upper: float

    @property
    def rate(self) -> float:
        """Of events; 0 of no examples."""
        return self.events / max(self.examples, 1)

    def of(self, step: Step) -> Tested:
        """As the test of a step."""
        return Tested(step, self.events, self.rate, self.examples, self.p_value, self.upper)


def happened(ask: Ask, answers: WordAnswers, run: WordRun) -> BoolArray:
    """The words of which the claim says that there are few. Shape `(words,)`.

    Args:
        ask: harmed words (`MaxDrop`), words that are answered otherwise (`Agreement`), deferred words (`MaxDeferred`).
        answers: on which the setting ran.
        run: what it answered.
    """
    if isinstance(ask, MaxDeferred):
        return run.deferred
    if isinstance(ask, MaxDrop):
        right: BoolArray = run.tags == answers.truth
        either: BoolArray = right != answers.right
        return either if ask.two_sided else answers.right & ~right
    differ: BoolArray = run.tags != answers.full.tags
    return differ


def by_sentence(words: BoolArray, answers: WordAnswers) -> IntArray:
    """How many words of each sentence. Shape `(words,)` to `(sentences,)`."""
    return np.bincount(answers.words.row_of[words], minlength=len(answers)).astype(np.int64)


def by_word(claim: Claim) -> bool:
    """Whether words are counted: deferred ones always are."""
    return claim.unit is Unit.WORD or isinstance(claim.ask, MaxDeferred)


def rate(claim: Claim, answers: WordAnswers, run: WordRun) -> float:
    """The observed rate of events among the claim's units; with `per_class` of the label where it is highest."""
    return max(
        (
            float(events.sum() / words.sum()) if by_word(claim) else float((events > 0).mean())
            for events, words in _tallies(claim, answers, run)
            if words.any()
        ),
        default=0.0,
    )


def counted(claim: Claim, answers: WordAnswers, run: WordRun, *, seed: int) -> Count:
    """Count and test. With `per_class` it is the count of the label whose p-value is largest.

    Args:
        claim: what is claimed.
        answers: the sentences it is tested on.
        run: what the setting answered on them.
        seed: of the bootstrap.
    """
    # All labels must keep the bound, so each is tested at the whole level, and the largest p-value is theirs together.
    counts = [_count(claim, events, words, seed) for events, words in _tallies(claim, answers, run)]
    return max(counts, key=lambda count: (count.p_value, count.rate))


def needed(claim: Claim, answers: WordAnswers, run: WordRun, *, seed: int) -> int | None:
    """How many sentences would certify a setting whose events come as often as in this run.

    `None`: no number would, because the observed rate is not below the bound, or a label never comes.
    """
    bound, confidence = claim.ask.bound, claim.confidence
    found: list[int | None] = []
    for events, words in _tallies(claim, answers, run):
        if by_word(claim):
            sentences = sentences_needed(events, words, bound, confidence=confidence, seed=seed)
            # Sentences without a word of the label are of no use, but have to be given too.
            share = np.count_nonzero(words) / len(words)
            found.append(None if sentences is None else math.ceil(sentences / share))
        else:
            harmed = float((events > 0).mean())
            found.append(examples_needed(bound, confidence=confidence, rate=harmed) if harmed < bound else None)
    known = [sentences for sentences in found if sentences is not None]
    return max(known) if len(known) == len(found) else None


def _tallies(claim: Claim, answers: WordAnswers, run: WordRun) -> list[tuple[IntArray, IntArray]]:
    """Events and words of each sentence; with `per_class` those of every label."""
    ask, events = claim.ask, happened(claim.ask, answers, run)
    if not (isinstance(ask, MaxDrop | Agreement) and ask.per_class):
        return [(by_sentence(events, answers), answers.words.counts)]
    labels = answers.full.tags if answers.truth is None or isinstance(ask, Agreement) else answers.truth
    masks = [labels == label for label in range(answers.tier2.labels)]
    return [(by_sentence(events & mine, answers), by_sentence(mine, answers)) for mine in masks]


def _count(claim: Claim, events: IntArray, words: IntArray, seed: int) -> Count:
    bound, confidence = claim.ask.bound, claim.confidence
    if not by_word(claim):
        harmed = int((events > 0).sum())
        p = float(p_value(harmed, len(events), bound))
        return Count(harmed, len(events), p, upper_bound(harmed, len(events), confidence=confidence))
    p = p_value_of_rate(events, words, bound, seed=seed)
    upper = upper_rate(events, words, confidence=confidence, seed=seed)
    return Count(int(events.sum()), int(words.sum()), p, upper)

"""What a tagger's calibration found, as values: certified or refused, and what the setting did in figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cascade.calibration.certify import Certified, Figures, Refused, Tested
from cascade.calibration.claims import Claim, MaxDeferred, MeanCost
from cascade.calibration.paths import Step
from cascade.calibration.replay import Setting
from cascade.calibration.temperature import Temperatures
from cascade.calibration.word_answers import WordAnswers, WordRun
from cascade.calibration.word_bootstrap import upper_rate
from cascade.calibration.word_events import by_sentence, by_word
from cascade.core.rows import BoolArray, IntArray

__all__ = ["TURNS", "Frame", "figures_of", "timed"]

TIMED = 500  # sentences that the certified setting and full depth are timed on, at most
TURNS = 3


@dataclass(frozen=True, eq=False)
class Frame:
    """What every outcome of one calibration says alike.

    Attributes:
        claim: what was asked.
        answers: of all sentences.
        chosen_on, tested_on: numbers of the sentences of either share. Shapes `(choosing,)`, `(testing,)`.
        seed: of the shares.
        needs: how many sentences there have to be in all, if so many have to be tested.
        doubts: for the outcome's warnings.
    """

    claim: Claim
    answers: WordAnswers
    chosen_on: IntArray
    tested_on: IntArray
    seed: int
    needs: Callable[[int], int]
    doubts: tuple[str, ...] = ()

    def certified(
        self, steps: tuple[Step, ...], tested: Sequence[Tested], figures: Figures, *, number: int
    ) -> Certified:
        """The step of this number passed, and the one after it did not."""
        return Certified(
            claim=self.claim,
            method=self.method,
            steps=steps,
            tested=tuple(tested),
            chosen_on=self.chosen_on,
            tested_on=self.tested_on,
            temperatures=self.temperatures,
            seed=self.seed,
            warnings=self.warnings,
            number=number,
            figures=figures,
        )

    def refused(self, why: str, needed: int | None, steps: tuple[Step, ...] = (), *tested: Tested) -> Refused:
        """Nothing passed. `needed`: sentences to be tested; `None` where no number would do."""
        return Refused(
            claim=self.claim,
            method=self.method,
            steps=steps,
            tested=tested,
            chosen_on=self.chosen_on,
            tested_on=self.tested_on,
            temperatures=self.temperatures,
            seed=self.seed,
            warnings=self.warnings,
            why=why,
            examples_needed=None if needed is None else self.needs(needed),
        )

    def failed(self, steps: tuple[Step, ...], first: Tested, needed: int | None) -> Refused:
        """Not even the first step passed."""
        if isinstance(self.claim.ask, MeanCost):
            mean, upper = 1000 * first.rate, 1000 * first.upper
            why = f"even the cheapest setting costs {mean:.3g} ms on average (upper bound {upper:.3g} ms)"
            return self.refused(why, needed, steps, first)
        units = "words" if by_word(self.claim) else "sentences"
        why = (
            f"even the safest setting had {first.events} of {first.examples} {units} against it "
            f"({100 * first.rate:.2f} %, upper bound {100 * first.upper:.2f} %)"
        )
        return self.refused(why, needed, steps, first)

    @property
    def temperatures(self) -> Temperatures:
        """The bundle's, which are not refitted."""
        return Temperatures(self.answers.tier1.temperature, tuple(self.answers.tier2.temperatures))

    @property
    def method(self) -> str:
        """In words."""
        settings = "settings really run one after the other, safest first, until one fails (fixed-sequence test)"
        if isinstance(self.claim.ask, MeanCost):
            return f"{settings}; predicted seconds of sentences, betting test of a bounded mean"
        if isinstance(self.claim.ask, MaxDeferred):
            return f"{settings}; share of deferred words, sentence-level bootstrap (approximate)"
        if by_word(self.claim):
            return (
                f"{settings}; rate of words, sentence-level bootstrap (approximate; by sentence the test is exact); "
                "F1 is not certified"
            )
        return f"{settings}; sentences with any such word, exact binomial p-values; F1 is not certified"

    @property
    def warnings(self) -> tuple[str, ...]:
        """About these sentences."""
        cut = len(self.answers) - len(self.answers.fitting())
        if not cut:
            return self.doubts
        long = f"{cut} sentences are longer than a tier reads at once: they were tested, but no path was chosen on them"
        return (*self.doubts, long)


def figures_of(claim: Claim, answers: WordAnswers, run: WordRun, seconds: tuple[float, float], *, seed: int) -> Figures:
    """What a setting did to the testing share, counted by sentence or by word as the claim counts.

    Args:
        claim: what is claimed.
        answers: the testing share.
        run: what the setting answered.
        seconds: per sentence, of the setting and of full depth.
        seed: of the bootstrap.
    """

    def count(words: BoolArray) -> int:
        found = by_sentence(words, answers)
        return int(found.sum()) if by_word(claim) else int((found > 0).sum())

    units = len(answers.words) if by_word(claim) else len(answers)
    layers = run.layers[run.deferred]
    own, full = seconds
    accuracy = full_accuracy = drop = harms = gains = None
    if answers.truth is not None:
        right: BoolArray = run.tags == answers.truth
        harms, gains = count(answers.right & ~right), count(right & ~answers.right)
        accuracy, full_accuracy = 1 - count(~right) / units, 1 - count(~answers.right) / units
        drop = full_accuracy - accuracy
    differ: BoolArray = run.tags != answers.full.tags
    upper = None
    if by_word(claim):  # words go wrong together
        upper = upper_rate(by_sentence(differ, answers), answers.words.counts, confidence=claim.confidence, seed=seed)
    return Figures(
        examples=units,
        accuracy=accuracy,
        full_accuracy=full_accuracy,
        drop=drop,
        harms=harms,
        gains=gains,
        disagreements=count(differ),
        deferred=float(run.deferred.mean()),
        mean_exit=float(layers.mean()) if len(layers) else 0.0,
        seconds=own,
        full_seconds=full,
        disagreement_upper=upper,
    )


def timed(answers: WordAnswers, setting: Setting, ahead: Callable[[int], object]) -> tuple[float, float]:
    """Seconds per sentence of a setting and of full depth, measured in turns: medians.

    Args:
        answers: the testing share; 500 sentences of it at most are run.
        setting: what is timed.
        ahead: called with 1 after each turn.
    """
    some = answers.select(np.arange(min(TIMED, len(answers))))
    taken = []
    for _ in range(TURNS):
        taken.append((some.really(setting).seconds, some.really(some.at_full_depth).seconds))
        ahead(1)
    own, full = np.median(taken, axis=0) / len(some)
    return float(own), float(full)

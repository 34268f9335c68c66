"""What each sentence costs under a setting that was run, by the costs of tokens that were measured on this machine.

Which words left where is known of those that tier 2 answered; words that it read as context are taken to have stayed
as long as any in their window, so costs are a little too high rather than too low. A sentence that is longer than a
tier counts as if it were read at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cascade.calibration import WordCosts
from cascade.calibration.certify import Tested
from cascade.calibration.claims import Claim
from cascade.calibration.means import Mean
from cascade.calibration.paths import Step
from cascade.calibration.replay import Setting
from cascade.calibration.word_answers import WordAnswers, WordRun
from cascade.core.rows import BoolArray, IntArray, ranges
from cascade.policies import windows
from cascade.policies.routing import DeferAll
from cascade.policies.windows import WindowState, whole_sentences

__all__ = ["Spending", "sentence_seconds"]

Seconds = npt.NDArray[np.float64]

ROOM = 2.0  # times the dearest sentence of the choosing share: what one may cost in the test, dearer ones count as that


@dataclass(frozen=True, eq=False)
class Spending:
    """The test of a mean cost. Make it with `Spending.of`.

    Attributes:
        costs: of tokens.
        claim: of `MeanCost`.
        most: seconds of a sentence, above which it counts as that many; known before the test.
    """

    costs: WordCosts
    claim: Claim
    most: float

    @classmethod
    def of(cls, answers: WordAnswers, costs: WordCosts, claim: Claim) -> Spending:
        """Before the test. `answers`: the choosing share."""
        return cls(costs, claim, ROOM * float(_dearest(answers, costs).max()))

    def seconds(self, answers: WordAnswers, setting: Setting, run: WordRun) -> Seconds:
        """Of each sentence, cut where the test cuts. Shape `(sentences,)`."""
        return np.minimum(sentence_seconds(answers, setting, run, self.costs), self.most)

    def tested(self, answers: WordAnswers, step: Step, run: WordRun) -> Tested:
        """Test a setting that was run on these sentences, which are in random order."""
        bound = self.claim.ask.bound
        seconds = self.seconds(answers, step.setting, run)
        mean = Mean(seconds, most=self.most, level=self.claim.level)
        above = int((seconds > bound).sum())
        return Tested(step, above, mean.mean, len(seconds), mean.p_value(bound), mean.upper())

    def needed(self, first: Tested) -> int | None:
        """How many sentences would do for a setting whose mean was this; `None` where none would."""
        if first.rate >= self.claim.ask.bound or not 0 < first.p_value < 1:
            return None
        # Capital grows with the number of sentences, exponentially; that may be off, so at least twice as many.
        return math.ceil(first.examples * max(2.0, math.log(self.claim.level) / math.log(first.p_value)))

    def doubts(self, answers: WordAnswers) -> tuple[str, ...]:
        """What has to be said of the sentences of the test."""
        longer = int((_dearest(answers, self.costs) > self.most).sum())
        seconds = 1000 * self.most
        return (f"a sentence counts as {seconds:.3g} ms at most ({longer} of {len(answers)} could cost more)",)


def sentence_seconds(answers: WordAnswers, setting: Setting, run: WordRun, costs: WordCosts) -> Seconds:
    """Predicted seconds of each sentence. Shape `(sentences,)`.

    Args:
        answers: the sentences.
        setting: what ran on them.
        run: what it answered.
        costs: of tokens.
    """
    words, alone = answers.words, isinstance(setting.router, DeferAll)
    paid: Seconds = words.rows.lengths.astype(np.float64) * (costs.always + (0.0 if alone else costs.tier1))
    if not run.deferred.any():
        return paid
    policy = whole_sentences if alone or setting.windows is None else setting.windows
    spans = windows.decide(policy, WindowState(run.deferred, words.offsets, words.n_tokens))
    read = words.spans(spans.rows, spans.starts, spans.stops)
    numbers = ranges(spans.starts, spans.stops - spans.starts)
    targets: BoolArray = run.deferred[numbers]
    last = getattr(policy, "context_layers", None) or answers.tier2.layers[-1]
    layers: IntArray = np.where(targets, run.layers[numbers], 0)
    deepest = np.maximum.reduceat(layers, read.offsets[:-1])
    left = np.where(targets, layers, np.minimum(np.repeat(deepest, read.counts), last))
    # What a token has cost up to each exit; a window that is read has a word that left at one.
    exits = np.asarray(answers.tier2.layers)
    active, live = np.cumsum(costs.active), np.cumsum(costs.live)
    upto, end = active[np.searchsorted(exits, left)], np.searchsorted(exits, deepest)
    tokens = read.rows.lengths
    special = tokens - np.add.reduceat(read.n_tokens, read.offsets[:-1])
    made: Seconds = np.add.reduceat(upto * read.n_tokens, read.offsets[:-1])
    made += special * active[end] + tokens * (live[end] + costs.embed)
    return paid + np.bincount(spans.rows, weights=made, minlength=words.n_rows)


def _dearest(answers: WordAnswers, costs: WordCosts) -> Seconds:
    """What sentences cost that both tiers read whole."""
    of_token = costs.always + costs.tier1 + costs.embed + sum(costs.active) + sum(costs.live)
    dearest: Seconds = answers.words.rows.lengths.astype(np.float64) * of_token
    return dearest

"""How likely an answer is to differ from that of full depth, by its score: one falling curve for tier 1 and each exit.

The same score means another risk in tier 1 and at every exit. A logistic curve on the log-odds of the score (Platt
1999) gives all of them one unit, in which a single threshold means the same everywhere; and its mean over the examples
that would exit is a smoother guess of what they lose than counting the few that did. The guesses order settings, the
test decides about them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cascade.calibration.logistic import fit_logistic
from cascade.core.rows import BoolArray, FloatArray

__all__ = ["Curve", "Risk"]

Risk = npt.NDArray[np.float64]
_NEAREST = 1e-7  # float32 has nothing nearer to 1
STRENGTH = 10.0  # of the data beside the penalty; at 1 SST-2's curves were too flat to order settings well


@dataclass(frozen=True)
class Curve:
    """Risk as a falling function of the score: 1 / (1 + exp(-(intercept - slope * log-odds))).

    Attributes:
        intercept: log-odds of the risk at a score of a half.
        slope: at least 0.
    """

    intercept: float
    slope: float

    @classmethod
    def fit(cls, score: FloatArray, event: BoolArray) -> Curve:
        """By penalised maximum likelihood. Both of shape `(examples,)`."""
        seen = int(event.sum())
        if 0 < seen < len(event):
            weights, intercept = fit_logistic(_log_odds(score)[:, None], event, strength=STRENGTH)
            if weights[0] <= 0:
                return cls(intercept, -float(weights[0]))
            # A higher score is not riskier; where a sample says so it is chance.
            return cls(math.log(seen / (len(event) - seen)), 0.0)
        rate = (seen + 0.5) / (len(event) + 1)  # nothing to fit; what such a count says of the rate (Laplace)
        return cls(math.log(rate / (1 - rate)), 0.0)

    def risk(self, score: FloatArray) -> Risk:
        """Of answers with these scores. Same shape."""
        return 1 / (1 + np.exp(self.slope * _log_odds(score) - self.intercept))

    def least_score(self, risk: float) -> float:
        """The score from which the risk is no larger than this (above 0), to three digits of what is missing to 1.

        Towards 1 where hardly any answer is so safe (a score that float32 rounds to 1 still reaches it), 0 where all
        are.
        """
        if risk >= 1:
            return 0.0
        missing = self.intercept - math.log(risk / (1 - risk))
        if not self.slope:
            return 0.0 if missing <= 0 else 1.0
        doubt = 1 / (1 + math.exp(min(max(missing / self.slope, -700.0), 700.0)))
        # Three digits are short in a manifest.
        return round(1 - float(f"{doubt:.3g}"), 9) if doubt > _NEAREST else 1.0


def _log_odds(score: FloatArray) -> Risk:
    sure = np.clip(score.astype(np.float64), _NEAREST, 1 - _NEAREST)
    return np.log(sure) - np.log1p(-sure)

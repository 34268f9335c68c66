"""How likely an answer is to differ from that of full depth, by how sure it is: one falling curve for each exit.

The same confidence means another risk in tier 1 and at every exit. A logistic curve on the log-odds of confidence
(Platt 1999), fitted on few examples to "differs from full depth", gives all of them one unit, in which a single
threshold means the same everywhere; and its mean over the examples that would leave is a smoother guess of what they
lose than counting the few that did. Nothing here promises anything: the guesses order settings, `certify` tests them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from cascade.core.rows import BoolArray, FloatArray

__all__ = ["Curve", "Risk"]

Risk = npt.NDArray[np.float64]
_NEAREST = 1e-7  # float32 has nothing nearer to 1
STRENGTH = 10.0  # of the data beside the penalty; at 1 SST-2's curves were too flat to order settings well


@dataclass(frozen=True)
class Curve:
    """Risk as a falling function of confidence: 1 / (1 + exp(-(intercept - slope * log-odds))).

    Attributes:
        intercept: log-odds of the risk at a confidence of a half.
        slope: at least 0.
    """

    intercept: float
    slope: float

    @classmethod
    def fit(cls, confidence: FloatArray, event: BoolArray) -> Curve:
        """By penalised maximum likelihood. Both of shape `(examples,)`."""
        seen = int(event.sum())
        if not 0 < seen < len(event):
            # Nothing to fit; what such a count says of the rate (Laplace).
            rate = (seen + 0.5) / (len(event) + 1)
            return cls(math.log(rate / (1 - rate)), 0.0)
        odds = _log_odds(confidence)
        model = LogisticRegression(C=STRENGTH, max_iter=1000).fit(odds[:, None], event)
        slope = -float(model.coef_[0, 0])
        if slope < 0:  # surer is not riskier; where a sample says so it is chance
            rate = seen / len(event)
            return cls(math.log(rate / (1 - rate)), 0.0)
        return cls(float(model.intercept_[0]), slope)

    def risk(self, confidence: FloatArray) -> Risk:
        """Of answers that are so sure. Same shape."""
        return 1 / (1 + np.exp(self.slope * _log_odds(confidence) - self.intercept))

    def least_confidence(self, risk: float) -> float:
        """The confidence from which the risk is no larger than this, to three digits of what is missing to 1.

        Args:
            risk: above 0.

        Returns:
            Towards 1 where hardly any is (a probability that float32 rounds to 1 still reaches it), 0 where all are.
        """
        if risk >= 1:
            return 0.0
        missing = self.intercept - math.log(risk / (1 - risk))
        if not self.slope:
            return 0.0 if missing <= 0 else 1.0
        doubt = 1 / (1 + math.exp(min(max(missing / self.slope, -700.0), 700.0)))
        # Three digits are short in a manifest.
        return round(1 - float(f"{doubt:.3g}"), 9) if doubt > _NEAREST else 1.0


def _log_odds(confidence: FloatArray) -> Risk:
    sure = np.clip(confidence.astype(np.float64), _NEAREST, 1 - _NEAREST)
    return np.log(sure) - np.log1p(-sure)

"""How far a confidence can be trusted: as a number (calibration) and as an order (ranking).

Calibration: in bins of equal mass, the share of right answers beside the mean confidence (ECE: Guo et al., ICML 2017).
Ranking: whether wrong answers are among the unsure ones (AUROC), and how wrong the surest share is (risk against
coverage, AURC: Geifman & El-Yaniv, NeurIPS 2017), which says more about a cascade than ECE does. Answers of one
confidence are each other's equals: no figure depends on the order of the examples.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from cascade.core.checks import check_whole
from cascade.core.confidence import answers, max_probability
from cascade.core.rows import FloatArray, IntArray
from cascade.exceptions import OptionError

__all__ = ["Bin", "Reliability", "RiskCoverage", "auroc", "per_head", "reliability", "risk_coverage"]

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bin:
    """Answers of like confidence.

    Attributes:
        low, high: the least and the largest confidence in it.
        confidence: the mean.
        accuracy: share of right answers.
        examples: how many there are.
    """

    low: float
    high: float
    confidence: float
    accuracy: float
    examples: int


@dataclass(frozen=True)
class Reliability:
    """One head's line in the reliability diagram.

    Attributes:
        bins: by rising confidence.
        ece: expected calibration error: mean distance of confidence and accuracy, bins weighted with their examples.
        accuracy, confidence: means over all examples.
        examples: how many there are.
    """

    bins: tuple[Bin, ...]
    ece: float
    accuracy: float
    confidence: float
    examples: int

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self) | {"bins": [asdict(part) for part in self.bins]}


@dataclass(frozen=True)
class RiskCoverage:
    """How wrong the answers are that a cascade would accept, surest first.

    Attributes:
        coverage: share that is accepted, rising to 1.
        risk: share of wrong answers among them.
        aurc: mean risk over all numbers of accepted answers.
        excess: `aurc` less that of an order that knows which answers are wrong; at 0 there is none better.
        auroc: how likely a wrong answer is less sure than a right one; `None` where all or none are wrong.
    """

    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    aurc: float
    excess: float
    auroc: float | None

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self) | {"coverage": list(self.coverage), "risk": list(self.risk)}


def reliability(confidence: FloatArray, right: npt.ArrayLike, *, bins: int = 15) -> Reliability:
    """Confidence beside accuracy, in bins of (nearly) equal mass.

    Args:
        confidence: of each answer, in [0, 1]; NaN counts as 0, as in policies. Shape `(examples,)`.
        right: whether the answer is right. Shape `(examples,)`.
        bins: at most; answers of one confidence are in one bin, so there may be fewer.

    Raises:
        OptionError: no examples, arrays of other shapes, or no whole number of bins.
    """
    check_whole("bins", bins, "15 are usual")
    sure, goal = _checked(confidence, right)
    distinct, where, mass = np.unique(sure, return_inverse=True, return_counts=True)
    # A confidence belongs to the bin in which the middle one of its answers lies.
    middle = np.cumsum(mass) - (mass + 1) / 2
    _, first, of_distinct = np.unique(
        (middle * bins / len(sure)).astype(np.int64), return_index=True, return_inverse=True
    )
    each = of_distinct[where]
    counts = np.bincount(each)
    means, shares = np.bincount(each, weights=sure) / counts, np.bincount(each, weights=goal) / counts
    last = np.append(first[1:], len(distinct)) - 1
    columns = (distinct[first], distinct[last], means, shares, counts)
    return Reliability(
        bins=tuple(Bin(*row) for row in zip(*(column.tolist() for column in columns), strict=True)),
        ece=float((counts * np.abs(means - shares)).sum() / len(sure)),
        accuracy=float(goal.mean()),
        confidence=float(sure.mean()),
        examples=len(sure),
    )


def per_head(
    tier1: FloatArray, tier2: FloatArray, truth: IntArray, *, multi_label: bool = False, bins: int = 15
) -> tuple[Reliability, ...]:
    """`reliability` of tier 1, then of every exit, by the largest probability.

    Args:
        tier1: probabilities. Shape `(examples, labels)`.
        tier2: at every exit. Shape `(examples, exits, labels)`.
        truth: numbers of the right labels, shape `(examples,)`; of yes/no labels zeros and ones, shape `(examples,
            labels)`: an answer is right where all are.
        multi_label: the labels are independent yes/no decisions.
        bins: as in `reliability`.
    """
    goal = truth.reshape(len(tier1), -1)
    return tuple(
        reliability(
            max_probability(values, multi_label=multi_label),
            (answers(values, multi_label=multi_label) == goal).all(axis=1),
            bins=bins,
        )
        for values in (tier1, *np.moveaxis(tier2, 1, 0))
    )


def auroc(confidence: FloatArray, wrong: npt.ArrayLike) -> float | None:
    """How likely a wrong answer is less sure than a right one; equals count half.

    Args:
        confidence: of each answer. Shape `(examples,)`.
        wrong: whether it is; or any other event that low confidence ought to tell. Shape `(examples,)`.

    Returns:
        In [0, 1], 0.5 being chance; `None` where all or none are wrong.

    Raises:
        OptionError: no examples, or arrays of other shapes.
    """
    sure, bad = _checked(confidence, wrong)
    return float(roc_auc_score(bad, -sure)) if bad.min() < bad.max() else None


def risk_coverage(confidence: FloatArray, wrong: npt.ArrayLike, *, points: int = 100) -> RiskCoverage:
    """The curve of risk against coverage, and the areas.

    Of answers of one confidence each is as likely to be accepted first.

    Args:
        confidence: of each answer. Shape `(examples,)`.
        wrong: whether it is. Shape `(examples,)`.
        points: of the curve at most; the areas are those of all.

    Raises:
        OptionError: no examples, arrays of other shapes, or no whole number of points.
    """
    check_whole("points", points, "100 draw a curve")
    sure, bad = _checked(confidence, wrong)
    _, where, mass = np.unique(-sure, return_inverse=True, return_counts=True)
    ends, upto = np.append(0, np.cumsum(mass)), np.append(0, np.cumsum(np.bincount(where, weights=bad)))
    accepted = np.arange(1, len(sure) + 1)
    risk = np.interp(accepted, ends, upto) / accepted
    least = np.maximum(accepted - (len(sure) - upto[-1]), 0) / accepted
    chosen = np.unique(np.linspace(len(sure), 1, points).round().astype(np.int64)) - 1
    return RiskCoverage(
        coverage=tuple((accepted[chosen] / len(sure)).tolist()),
        risk=tuple(risk[chosen].tolist()),
        aurc=float(risk.mean()),
        excess=float((risk - least).mean()),
        auroc=auroc(confidence, wrong),
    )


def _checked(confidence: FloatArray, events: npt.ArrayLike) -> tuple[Values, Values]:
    known: Values = np.asarray(events, dtype=np.float64)
    if confidence.ndim != 1 or not len(confidence) or known.shape != confidence.shape:
        raise OptionError(
            "reliability needs one or more answers, and for each whether it is right or wrong, was: confidence "
            f"{confidence.shape}, events {known.shape}; give arrays of one length"
        )
    return np.where(np.isnan(confidence), 0, confidence).astype(np.float64), known

"""One temperature per tier and exit, so that a confidence is the share of right answers it promises.

Temperature scaling (Guo et al., ICML 2017, section 4.2). Logarithms of probabilities that were computed at another
temperature are logits up to a constant, so nothing runs here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from cascade.core.checks import check_temperature
from cascade.core.confidence import log_loss, probabilities
from cascade.core.rows import FloatArray

LEAST, MOST = 0.05, 20.0
_SMALLEST = np.finfo(np.float32).tiny
_NEAREST = np.float32(2**-24)  # no float32 below 1 is nearer to it

Temperatures: TypeAlias = tuple[tuple[float, ...], ...]
"""Of each tier, one per exit: `((of tier 1,), (of each exit of tier 2, ...))`."""


def fit_temperature(logits: npt.NDArray[np.floating], truth: npt.ArrayLike, *, multi_label: bool = False) -> float:
    """The temperature with the smallest negative log-likelihood, in [0.05, 20], to four digits.

    `logits`: of one head, shape `(rows, labels)`; `truth`: numbers of the right labels, shape `(rows,)`; of yes/no
    labels (`multi_label`) zeros and ones, shape `(rows, labels)`, or `(rows,)` of a single label.
    """
    values, wanted = np.asarray(logits, dtype=np.float64), np.asarray(truth)

    def loss(log_temperature: float) -> float:
        return log_loss(values / np.exp(log_temperature), wanted, multi_label=multi_label)

    # The loss has one minimum in 1 / temperature; a thousandth is far below what any sample tells.
    found = minimize_scalar(loss, bounds=np.log([LEAST, MOST]), method="bounded", options={"xatol": 1e-3})
    return round(float(np.clip(np.exp(found.x), LEAST, MOST)), 4)


def fit_temperatures(
    tiers: Sequence[tuple[FloatArray, npt.ArrayLike]], *, was: Temperatures, multi_label: bool = False
) -> Temperatures:
    """`fit_temperature` of every exit but the very last, from probabilities in place of logits.

    The last exit of the last tier keeps its own: what full depth says is the user's model's business.

    `tiers`: of each, probabilities at every exit, without another tier's evidence, shape `(rows, exits, labels)`, and
    the truth of its rows; `was`: the temperatures that these were computed with.
    """

    def fit(made: FloatArray, truth: npt.ArrayLike, old: float) -> float:
        return fit_temperature(logits_of(made, was=old, multi_label=multi_label), truth, multi_label=multi_label)

    exits = [
        [(made[:, exit_], truth, old) for exit_, old in enumerate(own)]
        for (made, truth), own in zip(tiers, was, strict=True)
    ]
    exits[-1].pop()
    *first, last = (tuple(fit(*one) for one in own) for own in exits)
    return (*first, (*last, was[-1][-1]))


def at_limit(temperatures: Temperatures) -> bool:
    """Whether a fit ended at the least or greatest temperature that it may find: labels and answers hardly agree."""
    return any(not 1.02 * LEAST < value < 0.98 * MOST for tier in temperatures for value in tier)


def logits_of(values: FloatArray, *, was: float = 1.0, multi_label: bool = False) -> FloatArray:
    """Logits from which these probabilities can have come at temperature `was`, up to a constant per row. Same shape.

    Of a yes/no label the sigmoid is undone too; beyond 16 its logit is lost, as float32 rounds the probability to 1.
    """
    check_temperature(was)
    odds = np.log(np.maximum(values, _SMALLEST))
    if multi_label or values.shape[-1] == 1:
        odds = odds - np.log(np.maximum(1 - values, _NEAREST))
    return np.asarray(np.float32(was) * odds, dtype=np.float32)


def rescale(values: FloatArray, *, was: float, now: float, multi_label: bool = False) -> FloatArray:
    """The probabilities that the same logits give at another temperature. Shape `(..., labels)` to the same."""
    check_temperature(now)
    if was == now:
        return values
    return probabilities(logits_of(values, was=was, multi_label=multi_label), multi_label=multi_label, temperature=now)

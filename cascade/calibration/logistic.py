"""Logistic regression with a ridge penalty, for few inputs: curves of risk need no more."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from cascade.core.rows import Doubles

STEPS = 100  # of Newton's method, at most; ten are usual


def fit_logistic(inputs: Doubles, target: npt.ArrayLike, *, strength: float = 1.0) -> tuple[Doubles, float]:
    """Minimise sum of log-loss + |weights|^2 / (2 * strength), the intercept not being penalised, by Newton's method.

    `inputs` are scaled to about 1, shape `(rows, k)`; `target` is in [0, 1], where a share counts as two rows, one of
    each answer, shape `(rows,)`. Returns weights of shape `(k,)` and the intercept.
    """
    wanted, rows = np.asarray(target, dtype=np.float64), len(inputs)
    design = np.column_stack([inputs, np.ones(rows)])
    penalty = np.append(np.full(inputs.shape[1], 1 / strength), 0.0)

    def loss(parameters: Doubles) -> float:
        odds = design @ parameters
        return float(np.logaddexp(0, odds).sum() - wanted @ odds + penalty @ parameters**2 / 2)

    found, value = np.zeros(len(penalty)), loss(np.zeros(len(penalty)))
    for _ in range(STEPS):
        share = expit(design @ found)
        slope = design.T @ (share - wanted) + penalty * found
        if np.abs(slope).max() <= 1e-7 * rows:
            break
        curved = design.T @ (design * (share * (1 - share))[:, None]) + np.diag(penalty + 1e-9)
        step = np.linalg.solve(curved, slope)
        while (reached := loss(found - step)) > value and np.abs(step).max() > 1e-12:
            step = step / 2  # the loss is convex: a shorter step is lower
        found, value = found - step, reached
    return found[:-1], float(found[-1])

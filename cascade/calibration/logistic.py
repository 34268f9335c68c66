"""Logistic regression with a ridge penalty, for few inputs: curves of risk and the learned router need no more."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

Values = npt.NDArray[np.float64]


def fit_logistic(inputs: Values, target: npt.ArrayLike, *, strength: float = 1.0) -> tuple[Values, float]:
    """Minimise sum of log-loss + |weights|^2 / (2 * strength), the intercept not being penalised.

    `inputs` are scaled to about 1, shape `(rows, k)`; `target` is in [0, 1], where a share counts as two rows, one of
    each answer, shape `(rows,)`. Returns weights of shape `(k,)` and the intercept.
    """
    rows, wanted = len(inputs), np.asarray(target, dtype=np.float64)

    def loss(parameters: Values) -> tuple[float, Values]:
        weights = parameters[:-1]
        odds = inputs @ weights + parameters[-1]
        value = np.logaddexp(0, odds).sum() - wanted @ odds + weights @ weights / (2 * strength)
        error = expit(odds) - wanted
        return float(value) / rows, np.append(inputs.T @ error + weights / strength, error.sum()) / rows

    found = minimize(loss, np.zeros(inputs.shape[1] + 1), jac=True, method="BFGS", options={"gtol": 1e-7}).x
    return found[:-1], float(found[-1])

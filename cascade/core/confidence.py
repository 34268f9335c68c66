"""From logits to probabilities, and from probabilities to one number in [0, 1] per row, higher when surer.

Yes/no labels (`multi_label`, one or several, a sigmoid each) are as sure as the least sure one: each measure is taken
of (p, 1 - p) of every label and the minimum counts. One output that is no yes/no label is that of a regression: a
number, which is the answer itself, and of which nothing says how sure it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from cascade.core.rows import FloatArray, IntArray

_LEAST = 1e-6  # no model is surer than that, however its softmax rounds


def softmax(logits: FloatArray) -> FloatArray:
    """Probabilities over the last axis, stable for logits up to 1e38. Shape `(..., labels)` to the same."""
    result: FloatArray = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result /= result.sum(axis=-1, keepdims=True)
    return result


def sigmoid(logits: FloatArray) -> FloatArray:
    """1 / (1 + e^-x) for each element, without overflow at either end."""
    small = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits >= 0, 1, small) / (1 + small))


def probabilities(
    logits: FloatArray, *, multi_label: bool = False, temperature: float = 1.0, prior: FloatArray | None = None
) -> FloatArray:
    """Calibrated probabilities of a head, float32 (temperature scaling: Guo et al., ICML 2017). Shape `(..., labels)`.

    `multi_label`: sigmoid per label instead of softmax. Without it a single output is a number and stays as it is.
    `temperature`: logits are divided by it first; above 1 makes less sure. `prior`: added then (`evidence`).
    """
    if not multi_label and logits.shape[-1] == 1:
        return np.asarray(logits, dtype=np.float32)
    function = sigmoid if multi_label else softmax
    scaled = logits / np.float32(temperature)
    if prior is not None:
        scaled = scaled + prior
    return function(np.asarray(scaled, dtype=np.float32))


def evidence(probabilities: FloatArray, *, weight: float, multi_label: bool = False) -> FloatArray:
    """What one model's answer adds to another's logits, so that the two multiply (Hinton 2002: products of experts).

    Log-probabilities, or log-odds of yes/no labels, times `weight`: how much the answer counts beside the other's, at 1
    as much. Shape `(..., labels)` to the same.
    """
    sure = np.clip(probabilities, _LEAST, 1.0)
    if not multi_label and probabilities.shape[-1] > 1:
        return np.asarray(weight * np.log(sure), dtype=np.float32)
    return np.asarray(weight * (np.log(sure) - np.log(np.clip(1 - probabilities, _LEAST, 1.0))), dtype=np.float32)


def log_loss(logits: npt.NDArray[np.floating], truth: npt.ArrayLike, *, multi_label: bool = False) -> float:
    """Mean negative log-likelihood of the right labels, stable at both ends; what temperatures are fitted by.

    Shapes are those of `fit_temperature`, the logits taken after their temperature.
    """
    wanted = np.asarray(truth)
    if multi_label or logits.shape[-1] == 1:  # log(1 + e^x) - y x
        wanted = wanted.reshape(logits.shape).astype(logits.dtype)
        return float((np.logaddexp(0, logits) - wanted * logits).mean(dtype=np.float64))
    most = logits.max(axis=1)
    whole = np.log(np.exp(logits - most[:, None]).sum(axis=1)) + most
    return float((whole - np.take_along_axis(logits, wanted[:, None], axis=1)[:, 0]).mean(dtype=np.float64))


def answers(probabilities: FloatArray, *, multi_label: bool = False) -> IntArray:
    """What a head answers, in a form in which two answers are equal where all their columns are.

    Shape `(..., labels)` to `(..., 1)`, the number of the likeliest label; with `multi_label` to the same, 1 where a
    probability is at least 0.5 and 0 elsewhere. Numbers of a regression have no such form: they are all 0.
    """
    if multi_label:
        return (probabilities >= 0.5).astype(np.int64)
    return np.asarray(probabilities.argmax(axis=-1, keepdims=True).astype(np.int64))


Measure: TypeAlias = Callable[..., FloatArray]
"""Called with probabilities `(rows, labels)` and `multi_label=`: how sure each row is, in [0, 1]. Shape `(rows,)`.

NaN where the probabilities are; 1 for numbers of a regression.
"""


def max_probability(probabilities: FloatArray, *, multi_label: bool = False) -> FloatArray:
    """The probability of the answer, the largest one (Right Tool, ACL 2020); of yes/no labels max(p, 1 - p)."""
    return _measured(probabilities, multi_label, lambda p: p.max(axis=1), lambda p: np.maximum(p, 1 - p))


def margin(probabilities: FloatArray, *, multi_label: bool = False) -> FloatArray:
    """The largest probability less the second largest. In [0, 1]; yes/no: |2p - 1|."""
    return _measured(probabilities, multi_label, _apart, lambda p: np.abs(2 * p - 1))


def certainty(probabilities: FloatArray, *, multi_label: bool = False) -> FloatArray:
    """1 - H / log(labels), H the entropy of DeeBERT's rule (ACL 2020). 0: uniform, 1: one label."""
    return _measured(
        probabilities,
        multi_label,
        lambda p: 1 + _plogp(p).sum(axis=1) / np.log(p.shape[1]),
        lambda p: 1 + (_plogp(p) + _plogp(1 - p)) / np.log(2),
    )


def _measured(
    p: FloatArray,
    multi_label: bool,
    of_labels: Callable[[FloatArray], npt.NDArray[np.floating]],
    of_label: Callable[[FloatArray], npt.NDArray[np.floating]],
) -> FloatArray:
    """A measure of one distribution, shape `(rows, labels)` to `(rows,)`, or of yes/no labels, to the same shape."""
    if not multi_label and p.shape[-1] == 1:
        sure = np.where(np.isnan(p[:, 0]), np.nan, 1.0)
    else:
        sure = of_label(p).min(axis=1) if multi_label else of_labels(p)
    clipped: FloatArray = np.minimum(np.maximum(sure, 0), 1).astype(np.float32, copy=False)  # clip takes twice as long
    return clipped


def _apart(p: FloatArray) -> npt.NDArray[np.floating]:
    top = np.partition(p, -2, axis=1)
    return top[:, -1] - top[:, -2]


def _plogp(p: FloatArray) -> npt.NDArray[np.floating]:
    return p * np.log(np.where(p > 0, p, 1))

"""From confidence to accuracy, one rising map of few steps for each exit, for `exit_accuracy.Accuracy`.

What answers of some confidence were worth on held-out examples is a rising function of it (isotonic regression:
Zadrozny & Elkan, KDD 2002; as the exit rule of PCEE, arXiv 2412.19325, which also has bins). Its steps are merged to
few: a step of five examples tells nothing, and the map stands in the manifest. What "accurate" means is the caller's:
right as labelled; not harmed (right, or full depth wrong too); as full depth answers, which needs no labels. It leaves
to others: the policy (`exit_accuracy`), a single number per exit (`temperature`), promises (`certify`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.isotonic import IsotonicRegression

from cascade.batch import FloatArray
from cascade.calibration.thresholds import between
from cascade.checks import check_whole
from cascade.exceptions import OptionError
from cascade.exit_accuracy import StepMap, least_confidence
from cascade.routing import Router, Threshold, defer_all

__all__ = ["fit_map", "fit_maps", "router_at"]

Values = npt.NDArray[np.float64]


def fit_map(confidence: FloatArray, right: npt.ArrayLike, *, knots: int = 20, least: int = 20) -> StepMap:
    """The accuracy of answers by their confidence.

    Args:
        confidence: of each answer, such as `confidence.max_probability`; with a blend, of what is blended. Shape
            `(rows,)`. Rows may be words.
        right: whether the answer counts as accurate, 0 or 1. Shape `(rows,)`.
        knots: steps at most.
        least: rows of a step at least, as far as there are so many.

    Raises:
        OptionError: no rows, or arrays of other shapes.
    """
    check_whole("knots", knots, "20 steps tell what some thousand examples can")
    check_whole("least", least, "20 keeps single examples from making a step")
    wanted = np.asarray(right, dtype=np.float64)
    if confidence.ndim != 1 or not len(confidence) or wanted.shape != confidence.shape:
        raise OptionError(
            f"a map needs one or more answers, and for each whether it is right, was: confidence {confidence.shape}, "
            f"right {wanted.shape}; give arrays of one length"
        )
    sure: Values = np.where(np.isnan(confidence), 0, confidence).astype(np.float64)
    fitted = IsotonicRegression(y_min=0, y_max=1).fit_transform(sure, wanted)
    order = np.argsort(sure, kind="stable")
    sure, fitted = sure[order], fitted[order]
    starts = np.flatnonzero(np.diff(fitted, prepend=-1) > 1e-9)
    rows = np.diff(np.append(starts, len(sure))).astype(np.float64)
    ends = _merged(rows, fitted[starts], knots=knots, least=least)
    begins = np.cumsum(ends[:-1, 0]).astype(np.int64)
    edges = [0.0, *(between(float(sure[begin - 1]), float(sure[begin])) for begin in begins)]
    return tuple((edge, round(float(accuracy), 6)) for edge, accuracy in zip(edges, ends[:, 1], strict=True))


def fit_maps(confidence: FloatArray, right: npt.ArrayLike, *, knots: int = 20, least: int = 20) -> tuple[StepMap, ...]:
    """`fit_map` for each exit.

    Args:
        confidence: at each exit. Shape `(rows, exits)`.
        right: whether the answer there counts as accurate. Shape `(rows, exits)`.
        knots: as in `fit_map`.
        least: as in `fit_map`.

    Raises:
        OptionError: no rows, or arrays of other shapes.
    """
    wanted = np.asarray(right)
    if confidence.ndim != 2 or wanted.shape != confidence.shape:
        raise OptionError(
            f"maps need answers of shape (rows, exits), was: confidence {confidence.shape}, right {wanted.shape}; "
            "give a column for each exit"
        )
    return tuple(
        fit_map(confidence[:, exit_], wanted[:, exit_], knots=knots, least=least)
        for exit_ in range(confidence.shape[1])
    )


def router_at(steps: StepMap, accuracy: float) -> Router:
    """The router that keeps tier 1's answers where they were accurate enough.

    A threshold on accuracy is one on confidence, so the plain `Threshold` says it all.

    Args:
        steps: of tier 1 (`fit_map`).
        accuracy: the same as an `Accuracy`'s threshold means.

    Returns:
        `defer_all` where no confidence reaches it.
    """
    least = least_confidence(steps, accuracy)
    return Threshold(least) if least <= 1 else defer_all


def _merged(rows: Values, accuracy: Values, *, knots: int, least: int) -> Values:
    """Neighbouring steps joined, those first whose joining costs the least squared error (Ward, 1963).

    Args:
        rows: of each step. Shape `(steps,)`.
        accuracy: of each step, rising. Shape `(steps,)`.
        knots: steps at most that are left.
        least: rows of a step that is left, unless it is the only one.

    Returns:
        Rows and accuracy of each step that is left. Shape `(left, 2)`.
    """
    steps = np.stack([rows, accuracy], axis=1)
    while len(steps) > 1:
        small = steps[:, 0] < least
        touched = small[:-1] | small[1:]
        if not touched.any() and len(steps) <= knots:
            break
        (n, a), (m, b) = steps[:-1].T, steps[1:].T
        price = np.where(touched | (len(steps) > knots), n * m / (n + m) * (b - a) ** 2, np.inf)
        at = int(price.argmin())
        joined = (n[at] + m[at], (n[at] * a[at] + m[at] * b[at]) / (n[at] + m[at]))
        steps = np.concatenate([steps[:at], [joined], steps[at + 2 :]])
    return steps

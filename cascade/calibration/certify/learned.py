"""A router that learns where tier 2 helps, taken only where it is worth more than tier 1's largest probability.

Post-hoc deferral (Jitkrittum et al., NeurIPS 2023): a logistic model on tier 1's answer is fitted to "tier 1 is wrong
and tier 2 right". It must win out of sample, at the same shares, by more than chance explains (paired sign-flip test).
"""

from __future__ import annotations

import math

import numpy as np

from cascade.calibration.logistic import fit_logistic
from cascade.calibration.texts import TextAnswers
from cascade.core.confidence import answers as answers_of
from cascade.core.confidence import max_probability
from cascade.core.rows import FloatArray, IntArray
from cascade.exceptions import OptionError
from cascade.policies.learned_routing import Learned, features
from cascade.policies.routing import RoutingState

TOP = 3  # probabilities that the model sees
FEWEST = 10  # examples that tier 2 helps, below which nothing is learned
FOLDS = 5
SHARES = (0.05, 0.1, 0.2, 0.3, 0.4)  # of rows that are deferred; the rules are compared over all of them together
LEVEL = 0.05
FLIPS = 2000


def helps(answers: TextAnswers) -> FloatArray:
    """How much of a harm it is to keep tier 1's answer about each item.

    1 where tier 1 is wrong and tier 2 right, else 0. Without labels, where the two differ, how sure tier 2 is of its
    answer, else 0. Shape `(items,)`.
    """
    several, full = answers.multi_label, answers.full_probabilities
    first, second = answers_of(answers.tier1, multi_label=several), answers_of(full, multi_label=several)
    differ = (first != second).any(axis=1)
    if answers.truth is None:
        return np.where(differ, max_probability(full, multi_label=several), 0).astype(np.float32)
    mended: FloatArray = (differ & (second == answers.goal).all(axis=1)).astype(np.float32)
    return mended


def fit_router(state: RoutingState, helping: FloatArray) -> Learned:
    """A router that estimates where tier 2 helps, its threshold being the usual 0.95.

    `helping`: how much it does (`helps`), in [0, 1]; everywhere or nowhere is an `OptionError`.
    """
    if not 0 < helping.sum() < len(helping):
        raise OptionError(
            f"learning where tier 2 helps needs rows that it helps and others, got {helping.sum():g} of "
            f"{len(helping)} rows; give more examples"
        )
    inputs = np.stack(features(state, top=min(TOP, state.probabilities.shape[1])), axis=1)
    middle, scale = inputs.mean(axis=0), inputs.std(axis=0)
    scale[scale < 1e-9] = 1.0
    weights, intercept = fit_logistic((inputs - middle) / scale, helping)
    weights = weights / scale
    return Learned(0.95, tuple(weights.tolist()), float(intercept - weights @ middle))


def better_router(answers: TextAnswers, *, seed: int = 0) -> Learned | None:
    """The learned router where it beats the largest probability out of sample; its threshold is still to be chosen.

    `answers`: of examples on which nothing is tested later.
    """
    helping, state = helps(answers), answers.routing_state
    rows = len(helping)
    if not FEWEST <= helping.sum() <= rows - FEWEST:
        return None
    rng = np.random.default_rng(seed)
    # Helped rows are dealt out evenly, so that each part has some.
    order = rng.permutation(rows)
    part = np.empty(rows, dtype=np.int64)
    part[order[np.argsort(-helping[order], kind="stable")]] = np.arange(rows) % FOLDS
    gains = np.zeros(rows)
    for number in range(FOLDS):
        inside, outside = np.flatnonzero(part == number), np.flatnonzero(part != number)
        router, seen = fit_router(_select(state, outside), helping[outside]), _select(state, inside)
        for sign, sure in ((-1, router.score(seen)), (1, seen.confidence)):
            rank = np.empty(len(inside), dtype=np.int64)
            rank[np.argsort(np.where(np.isnan(sure), -1, sure), kind="stable")] = np.arange(len(inside))
            for share in SHARES:
                kept = inside[rank >= math.floor(share * len(inside) + 1e-9)]
                gains[kept] += sign * helping[kept] / len(SHARES)
    gains = gains[gains != 0]
    if not len(gains):
        return None
    # One-sided p-value of a mean above 0, were every gain as likely a loss (Fisher's randomisation test).
    signs = rng.choice([-1.0, 1.0], size=(FLIPS, len(gains)))
    p_value = (1 + np.count_nonzero(signs @ gains >= gains.sum() - 1e-12)) / (1 + FLIPS)
    return fit_router(state, helping) if p_value <= LEVEL else None


def _select(state: RoutingState, rows: IntArray) -> RoutingState:
    return RoutingState(state.probabilities[rows], state.confidence[rows], state.lengths[rows], state.multi_label)

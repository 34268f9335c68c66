"""Learning where tier 2 helps, and whether that is worth more than tier 1's largest probability.

Post-hoc deferral (Jitkrittum et al., NeurIPS 2023): a logistic model on tier 1's sorted probabilities, certainty,
margin and length is fitted to "tier 1 is wrong and tier 2 right". It is taken only where it wins out of sample: every
example is judged by a model that has not seen it (cross-validation), both rules defer the same share, and the harm
that is left must be smaller by more than chance explains (paired sign-flip test).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from cascade.core.checks import check_share, check_whole
from cascade.core.confidence import answers, max_probability
from cascade.core.rows import FloatArray, IntArray
from cascade.exceptions import OptionError
from cascade.policies.learned_routing import Learned, features
from cascade.policies.routing import Router, RoutingState, Threshold

__all__ = ["Choice", "Figures", "chosen_router", "fit_router", "helps"]

TOP = 3  # probabilities that the model sees
FEWEST = 10  # examples that tier 2 helps, below which nothing is learned
FLIPS = 2000

Values = npt.NDArray[np.float64]


def helps(tier1: FloatArray, full: FloatArray, truth: npt.ArrayLike | None, *, multi_label: bool = False) -> FloatArray:
    """How much of a harm it is to keep tier 1's answer.

    Args:
        tier1: probabilities of tier 1. Shape `(rows, labels)`.
        full: of tier 2 at full depth. Shape `(rows, labels)`.
        truth: numbers of the right labels, shape `(rows,)`; of yes/no labels zeros and ones, shape `(rows, labels)`.
            `None` without labels.
        multi_label: the labels are independent yes/no decisions.

    Raises:
        OptionError: a truth of another shape.

    Returns:
        1 where tier 1 is wrong and tier 2 right, else 0. Without labels, where the two differ, how sure tier 2 is of
        its answer, else 0. Shape `(rows,)`.
    """
    first, second = answers(tier1, multi_label=multi_label), answers(full, multi_label=multi_label)
    differ = (first != second).any(axis=1)
    if truth is None:
        return np.where(differ, max_probability(full, multi_label=multi_label), 0).astype(np.float32)
    goal = np.asarray(truth)
    if goal.shape not in (second.shape, (second.size,)):
        raise OptionError(
            f"truth must be a label for each of the {len(second)} rows, was: shape {goal.shape}; give numbers of "
            "labels, or zeros and ones for independent ones"
        )
    goal = goal.reshape(second.shape)
    mended: FloatArray = (differ & (second == goal).all(axis=1)).astype(np.float32)
    return mended


def fit_router(
    tier1: FloatArray,
    lengths: IntArray,
    helping: FloatArray,
    *,
    multi_label: bool = False,
    threshold: float = 0.95,
) -> Learned:
    """A router that estimates where tier 2 helps.

    Args:
        tier1: probabilities of tier 1. Shape `(rows, labels)`.
        lengths: tokens of each row. Shape `(rows,)`.
        helping: how much tier 2 helps (`helps`), in [0, 1]. Shape `(rows,)`.
        multi_label: the labels are independent yes/no decisions.
        threshold: of the router.

    Raises:
        OptionError: tier 2 helps everywhere or nowhere, or arrays of other shapes.
    """
    rows = len(tier1)
    if helping.shape != (rows,) or lengths.shape != (rows,) or not 0 < helping.sum() < rows:
        raise OptionError(
            f"learning where tier 2 helps needs rows that it helps and others, was: {helping.sum():g} of {rows} rows "
            f"(helping {helping.shape}, lengths {lengths.shape}); give more examples"
        )
    state = RoutingState(tier1, max_probability(tier1, multi_label=multi_label), lengths, multi_label)
    inputs = np.stack(features(state, top=min(TOP, tier1.shape[1])), axis=1)
    middle, scale = inputs.mean(axis=0), inputs.std(axis=0)
    scale[scale < 1e-9] = 1.0
    scaled = (inputs - middle) / scale
    # A share of an example is two examples, one for each answer.
    weight = np.concatenate([helping, 1 - helping]).astype(np.float64)
    used = weight > 0
    target = np.repeat([1, 0], rows)[used]
    model = LogisticRegression(C=1.0, max_iter=1000)
    model.fit(np.concatenate([scaled, scaled])[used], target, sample_weight=weight[used])
    weights = model.coef_[0] / scale
    bias = float(model.intercept_[0] - weights @ middle)
    return Learned(threshold, tuple(weights.tolist()), bias)


@dataclass(frozen=True)
class Figures:
    """What the comparison saw, out of sample.

    Attributes:
        examples: that were compared.
        shares: of the rows that both rules deferred.
        learned, max_probability: harm that each leaves, as a share of all rows, at each of these.
        p_value: how likely a rule that is no better looks so much better.
    """

    examples: int
    shares: tuple[float, ...]
    learned: tuple[float, ...]
    max_probability: tuple[float, ...]
    p_value: float


@dataclass(frozen=True)
class Choice:
    """Which kind of router it is to be.

    Attributes:
        router: the learned one, if it won; its threshold is still to be chosen. `None`: `routing.Threshold`.
        why: in a sentence.
        figures: `None` where there was too little to compare.
    """

    router: Learned | None
    why: str
    figures: Figures | None

    def score(self, state: RoutingState) -> FloatArray:
        """What the router's threshold is compared with. Shape `(rows,)`."""
        return state.confidence if self.router is None else self.router.score(state)

    def at(self, threshold: float) -> Router:
        """The router with this threshold."""
        return Threshold(threshold) if self.router is None else self.router.at(threshold)

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {
            "router": "Threshold" if self.router is None else "Learned",
            "why": self.why,
            "figures": None if self.figures is None else asdict(self.figures),
        }


def chosen_router(
    tier1: FloatArray,
    lengths: IntArray,
    helping: FloatArray,
    *,
    multi_label: bool = False,
    shares: Sequence[float] = (0.05, 0.1, 0.2, 0.3, 0.4),
    folds: int = 5,
    level: float = 0.05,
    seed: int = 0,
) -> Choice:
    """The learned router where it beats the largest probability out of sample, else none.

    Args:
        tier1: probabilities of tier 1, of examples on which nothing is tested later. Shape `(rows, labels)`.
        lengths: tokens of each row. Shape `(rows,)`.
        helping: how much tier 2 helps (`helps`). Shape `(rows,)`.
        multi_label: the labels are independent yes/no decisions.
        shares: of rows that are deferred; the rules are compared over all of them together.
        folds: parts of the examples; each is judged by a router that was fitted to the others.
        level: the learned router is taken if its p-value is at most this.
        seed: of the parts and of the test.

    Raises:
        OptionError: an impossible share, number of folds or level.
    """
    given = tuple(check_share("shares", share, "give shares of the rows such as 0.2") for share in shares)
    check_whole("folds", folds, "5 leaves four fifths to learn from", least=2)
    check_share("level", level, "0.05 is wrong once in twenty times")
    helped = float(helping.sum())
    if helped < FEWEST or len(helping) - helped < FEWEST:
        return Choice(
            None, f"tier 2 helps {helped:g} of {len(helping)} examples; {FEWEST} at least would tell where", None
        )
    rng = np.random.default_rng(seed)
    # Helped examples are dealt out evenly, so that each part has some.
    order = rng.permutation(len(helping))
    order = order[np.argsort(-helping[order], kind="stable")]
    part = np.empty(len(helping), dtype=np.int64)
    part[order] = np.arange(len(helping)) % folds
    by_confidence = max_probability(tier1, multi_label=multi_label)
    missed = np.zeros((2, len(given), len(helping)))
    for number in range(folds):
        inside, outside = np.flatnonzero(part == number), np.flatnonzero(part != number)
        router = fit_router(tier1[outside], lengths[outside], helping[outside], multi_label=multi_label)
        state = RoutingState(tier1[inside], by_confidence[inside], lengths[inside], multi_label)
        for rule, sure in enumerate((router.score(state), by_confidence[inside])):
            rank = np.empty(len(inside), dtype=np.int64)
            rank[np.argsort(np.where(np.isnan(sure), -1, sure), kind="stable")] = np.arange(len(inside))
            for place, share in enumerate(given):
                kept = inside[rank >= math.floor(share * len(inside) + 1e-9)]
                missed[rule, place, kept] = helping[kept]
    learned, plain = missed.mean(axis=2)
    figures = Figures(
        len(helping),
        given,
        tuple(np.round(learned, 6).tolist()),
        tuple(np.round(plain, 6).tolist()),
        _sign_flips((missed[1] - missed[0]).mean(axis=0), rng),
    )
    told = (
        f"deferring {', '.join(f'{share:.0%}' for share in given)} of {len(helping)} held-out examples, the learned "
        f"router leaves {learned.mean():.3%} harm on average and the largest probability {plain.mean():.3%} "
        f"(p = {figures.p_value:.3g})"
    )
    if figures.p_value > level:
        return Choice(None, f"{told}: no clear gain, so the largest probability is kept", figures)
    return Choice(fit_router(tier1, lengths, helping, multi_label=multi_label), f"{told}: learned", figures)


def _sign_flips(gains: Values, rng: np.random.Generator) -> float:
    """One-sided p-value of a mean above 0, were every gain as likely a loss (Fisher's randomisation test)."""
    gains = gains[gains != 0]
    if not len(gains):
        return 1.0
    signs = rng.choice([-1.0, 1.0], size=(FLIPS, len(gains)))
    return float((1 + np.count_nonzero(signs @ gains >= gains.sum() - 1e-12)) / (1 + FLIPS))

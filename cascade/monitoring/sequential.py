"""Bounds on the rate of an event that hold at all times at once: an interval for it, and an alarm when it rises.

Both bet against a rate. Where the rate is `m`, capital of 1 reaches `1 / d` with a probability of at most `d`, ever
(Ville's inequality), so that looking after every outcome costs nothing. Outcomes are 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from cascade.core.checks import check_inside
from cascade.core.rows import BoolArray, Doubles, IntArray
from cascade.exceptions import OptionError

# Bets of an interval: from those that suit 10 outcomes, which get a little more of the capital, to a million.
LAMBDAS: Final[Doubles] = 8 * 2 ** (-np.arange(22) / 2)
WEIGHTS: Final[Doubles] = (1 + np.arange(22)) ** -0.5 / ((1 + np.arange(22)) ** -0.5).sum()
HALVINGS: Final = 60

# Alternatives of the detector: by how much the odds of the event have risen, and the weight of the bet that is best
# then. Large rises are found soon, with little capital too.
ALTERNATIVES: Final = ((1.5, 0.35), (2.0, 0.35), (4.0, 0.2), (10.0, 0.1))
HORIZON: Final = 500  # three tenths of the capital begin to bet within so many outcomes


def rate_bounds(
    events: int | IntArray, examples: int | IntArray, *, confidence: float = 0.95
) -> tuple[Doubles, Doubles]:
    """An interval for the rate of an event, from counts, which may be looked at after every outcome.

    With the probability `confidence` all intervals of an endless stream, each from the counts up to then, hold the
    rate. They do so for a rate that changes too: then for the mean, up to then, of the probability that each outcome
    had given those before. (In the exponential form of the bets the mean of the logarithms of their expectations is
    largest where all probabilities are equal.) Without outcomes: the interval from 0 to 1.

    Sources: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86 (2024);
    Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform Chernoff bounds via nonnegative supermartingales", Probability
    Surveys 17 (2020), for the exponential form.

    Args:
        events: outcomes with the event. Any shape.
        examples: outcomes. Of the same shape, or one that broadcasts, as the lower and the upper limits are.
        confidence: in (0, 1); each side has half of what is missing to 1.

    Counts that cannot be, or an impossible confidence, are an `OptionError`.
    """
    check_inside("confidence", confidence, "0.95 is usual")
    ones, count = np.broadcast_arrays(np.asarray(events, np.float64), np.asarray(examples, np.float64))
    if not np.all((ones >= 0) & (ones <= count)):
        raise OptionError(f"events must be from 0 to examples, got {events!r} of {examples!r}; count both again")
    needed = float(np.log(2 / (1 - confidence)))
    return 1 - _upper(count - ones, count, needed), _upper(ones, count, needed)


def _upper(events: Doubles, examples: Doubles, needed: float) -> Doubles:
    """The least rate against which bets on fewer events have made `needed`, a logarithm; 1 if there is none."""
    least, most = np.zeros(events.shape), np.ones(events.shape)
    none = _capital_against(most, events, examples) < needed
    for _ in range(HALVINGS):
        rate = (least + most) / 2
        refuted = _capital_against(rate, events, examples) >= needed
        least, most = np.where(refuted, least, rate), np.where(refuted, rate, most)
    return np.where(none, 1.0, most)


def _capital_against(rate: Doubles, events: Doubles, examples: Doubles) -> Doubles:
    """Capital, as a logarithm, of bets that the rate is smaller. It grows with `rate`."""
    expected = np.log1p(rate[..., None] * np.expm1(-LAMBDAS))  # of each outcome's exp(-lambda * outcome)
    capital = np.log(WEIGHTS) - LAMBDAS * events[..., None] - examples[..., None] * expected
    return np.asarray(np.logaddexp.reduce(capital, axis=-1))


@dataclass(frozen=True, eq=False)
class EProcess:
    """Where bets stand: after how many outcomes, and the logarithms of their capital. Shape `(..., alternatives)`."""

    outcomes: int = 0
    logs: Doubles | None = None


def e_process(outcomes: BoolArray, bound: float, *, begun: EProcess | None = None) -> tuple[Doubles, EProcess]:
    """Capital of bets that the rate has risen above a bound, after each outcome.

    A share `w_t` of the starting capital begins to bet at outcome `t`, so that a rise half-way is not held against
    what was lost before:

        S_t = (S_{t-1} + w_t) * (1 + bet * (x_t - bound))
        capital_t = S_t + the shares that have not begun

    averaged over the bets that are best for some alternatives (`q / bound` after a 1, `(1 - q) / (1 - bound)` after a
    0, where `q` is the alternative's rate), by their weights. As long as no outcome's probability, given those before,
    is above the bound, it is a supermartingale from 1: it ever reaches `1 / d` with a probability of at most `d`. The
    shares that have not begun after `t` are `(1 + t / 500) ** -0.5`, so that the evidence which a rise at `t` takes
    grows as `1.5 log t`.

    Sources: Shin, Ramdas and Rinaldo, "E-detectors: a nonparametric framework for sequential change detection", arXiv
    2203.03532; Podkopaev and Ramdas, "Tracking the risk of a deployed model and detecting harmful distribution
    shifts", ICLR 2022.

    `outcomes`: 0/1, the last axis in order of time; streams beside each other are independent; shape `(..., n)`.
    `bound`: in (0, 1); `begun`: goes on from there. Returned are the logarithm of the capital after each outcome, shape
    `(..., n)`, and what to go on from.
    """
    rates = [rise * bound / (1 - bound + rise * bound) for rise, _ in ALTERNATIVES]
    happened = np.asarray(outcomes, dtype=np.bool_)
    gains = [np.where(happened, math.log(rate / bound), math.log((1 - rate) / (1 - bound))) for rate in rates]
    return bet([(weight, own) for (_, weight), own in zip(ALTERNATIVES, gains, strict=True)], begun=begun)


def bet(bets: Sequence[tuple[float, Doubles]], *, begun: EProcess | None = None) -> tuple[Doubles, EProcess]:
    """The capital of several bets, as in `e_process`.

    `bets`: weight of each, and the logarithms of what it multiplies its capital by at each outcome, shape `(..., n)`;
    the mean of these factors is at most 1, given what was before.
    """
    begun = begun or EProcess()
    shape = bets[0][1].shape
    if not shape[-1]:
        return np.zeros(shape), begun
    times = np.arange(begun.outcomes, begun.outcomes + shape[-1] + 1)
    unspent = (1 + times / HORIZON) ** -0.5
    total = np.broadcast_to(np.log(unspent[1:]), shape)
    logs = np.empty((*shape[:-1], len(bets)))
    for number, (weight, gains) in enumerate(bets):
        made = np.cumsum(gains, axis=-1)  # by one unit of capital that began with the first of these outcomes
        shares = np.log(unspent[:-1] - unspent[1:]) - (made - gains)  # in such units
        if begun.logs is not None:
            shares[..., 0] = np.logaddexp(shares[..., 0], begun.logs[..., number])
        capital = made + np.logaddexp.accumulate(shares, axis=-1)
        total = np.logaddexp(total, capital + np.log(weight))
        logs[..., number] = capital[..., -1]
    return total, EProcess(int(times[-1]), logs)


def alarm_of(totals: Doubles, begun: EProcess, confidence: float) -> int | None:
    """Number of the outcome, from 1, with which the capital is enough for an alarm, if it ever is. Shape `(n,)`."""
    enough = totals >= -np.log(1 - confidence)
    return begun.outcomes + int(enough.argmax()) + 1 if enough.any() else None


@dataclass(frozen=True, kw_only=True, eq=False)
class EDetector:
    """Raises the alarm once it is shown that an event has become more frequent than a bound.

    While the rate is at most the bound, the probability of an alarm is at most `1 - confidence`, over the whole of an
    endless stream. A detector is a value: `after` gives the next. `process`: the bets, until the alarm; `alarm_at`:
    number of the outcome, from 1, that raised the alarm; later ones are not looked at.
    """

    bound: float
    confidence: float = 0.95
    process: EProcess = field(default_factory=EProcess, repr=False)
    alarm_at: int | None = None

    def __post_init__(self) -> None:
        check_inside("bound", self.bound, "it is a share of all answers, such as 0.02")
        check_inside("confidence", self.confidence, "0.95 is usual")

    def after(self, outcomes: BoolArray) -> EDetector:
        """The detector after these outcomes. Shape `(n,)`, in order of time."""
        if self.alarm_at is not None:
            return self
        totals, process = e_process(outcomes, self.bound, begun=self.process)
        return replace(self, process=process, alarm_at=alarm_of(totals, self.process, self.confidence))

"""Bounds on the rate of an event that hold at all times at once: an interval for it, and a watch for its rising.

Both are bets against a rate. Who bets on the next outcome at odds that are fair, or worse, if the rate is `m` cannot
expect to gain, so capital that was 1 reaches `1 / d` with a probability of at most `d`, ever (Ville's inequality).
Looking after every outcome, for ever, costs nothing. Bets are on 0/1 outcomes; the one that is best against a rate `m`
if `q` is true multiplies the capital by `q / m` after a 1 and by `(1 - q) / (1 - m)` after a 0.

Sources: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86 (2024), for
intervals from bets; Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform Chernoff bounds via nonnegative
supermartingales", Probability Surveys 17 (2020), for their exponential form, which also holds for rates that change;
Shin, Ramdas and Rinaldo, "E-detectors: a nonparametric framework for sequential change detection", arXiv 2203.03532,
for bets that begin anew at every time; Podkopaev and Ramdas, "Tracking the risk of a deployed model and detecting
harmful distribution shifts", ICLR 2022, for both in the service of a model in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Final

import numpy as np
import numpy.typing as npt

from cascade.core.rows import BoolArray, IntArray
from cascade.exceptions import OptionError

__all__ = ["Capital", "Watch", "capital_after", "check_inside", "rate_bounds"]

Doubles = npt.NDArray[np.float64]

# Odds of the bets of an interval, as logarithms: from those that suit 10 outcomes to those that suit a million.
TILTS: Final[Doubles] = 8 * 2 ** (-np.arange(22) / 2)
# Large tilts, which suit few outcomes, get a little more of the capital.
TILT_SHARES: Final[Doubles] = (1 + np.arange(22)) ** -0.5 / ((1 + np.arange(22)) ** -0.5).sum()
HALVINGS: Final = 60

# By how much the odds of the event have risen if a bet of the watch is the best one, and its share of the capital:
# large rises are found soon, with little capital too.
RISES: Final = ((1.5, 0.35), (2.0, 0.35), (4.0, 0.2), (10.0, 0.1))
HORIZON: Final = 500  # three tenths of the capital begin to bet within so many outcomes


def check_inside(name: str, value: object, remedy: str) -> float:
    """A number strictly between 0 and 1.

    Raises:
        OptionError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < 1:
        raise OptionError(f"{name} must be above 0 and below 1, was: {value!r}; {remedy}")
    return float(value)


def rate_bounds(
    events: int | IntArray, examples: int | IntArray, *, confidence: float = 0.95
) -> tuple[Doubles, Doubles]:
    """An interval for the rate of an event, from counts, which may be looked at after every outcome.

    With the probability `confidence` all intervals of an endless stream, each from the counts up to then, hold the
    rate. They do so for a rate that changes too: then for the mean, up to then, of the probability that each outcome
    had given those before. (In the exponential form of the bets the mean of the logarithms of their expectations is
    largest where all probabilities are equal.) No outcomes, the interval from 0 to 1.

    Args:
        events: outcomes with the event. Any shape.
        examples: outcomes. Of the same shape, or one that broadcasts.
        confidence: in (0, 1); each side has half of what is missing to 1.

    Returns:
        Lower and upper limits.

    Raises:
        OptionError: counts that cannot be, or an impossible confidence.
    """
    check_inside("confidence", confidence, "0.95 is usual")
    ones, count = np.broadcast_arrays(np.asarray(events, np.float64), np.asarray(examples, np.float64))
    if not np.all((ones >= 0) & (ones <= count)):
        raise OptionError(f"events must be from 0 to examples, were: {events!r} of {examples!r}; count both again")
    needed = float(np.log(2 / (1 - confidence)))
    return 1 - _upper(count - ones, count, needed), _upper(ones, count, needed)


def _upper(events: Doubles, examples: Doubles, needed: float) -> Doubles:
    """The least rate against which bets on fewer events have made that much, as a logarithm; 1 if there is none."""
    least, most = np.zeros(events.shape), np.ones(events.shape)
    none = _against(most, events, examples) < needed
    for _ in range(HALVINGS):
        rate = (least + most) / 2
        refuted = _against(rate, events, examples) >= needed
        least, most = np.where(refuted, least, rate), np.where(refuted, rate, most)
    return np.where(none, 1.0, most)


def _against(rate: Doubles, events: Doubles, examples: Doubles) -> Doubles:
    """Capital, as a logarithm, of bets that the rate is smaller. It grows with `rate`."""
    fair = np.log1p(rate[..., None] * np.expm1(-TILTS))  # what each outcome's exp(-tilt * outcome) is expected to be
    capital = np.log(TILT_SHARES) - TILTS * events[..., None] - examples[..., None] * fair
    return np.asarray(np.logaddexp.reduce(capital, axis=-1))


@dataclass(frozen=True, eq=False)
class Capital:
    """What the bets of a watch have made so far.

    Attributes:
        outcomes: how many were bet on.
        logs: logarithms, by bet. Shape `(..., bets)`; `None` before the first outcome.
    """

    outcomes: int = 0
    logs: Doubles | None = None


def capital_after(
    outcomes: BoolArray, bound: float, *, begun: Capital | None = None, rises: Sequence[tuple[float, float]] = RISES
) -> tuple[Doubles, Capital]:
    """Capital of bets that the rate has risen above a bound, after each outcome.

    A share `w_t` of the starting capital begins to bet at outcome `t`, so that a rise half-way is not held against
    what was lost before:

        S_t = (S_{t-1} + w_t) * (1 + bet * (x_t - bound))
        capital_t = S_t + the shares that have not begun

    averaged over the bets that are best for some `rises`, by their shares. As long as no outcome's probability, given
    those before, is above the bound, it is a supermartingale from 1: it ever reaches `1 / d` with a probability of at
    most `d`. The shares that have not begun after `t` are `(1 + t / 500) ** -0.5`, so that the evidence which a rise at
    `t` takes grows as `1.5 log t`.

    Args:
        outcomes: 0/1, the last axis in order of time; streams beside each other are independent. Shape `(..., n)`.
        bound: in (0, 1).
        begun: goes on from there.
        rises: by how much each bet takes the odds of the event to have risen, and its share; shares add up to 1.

    Returns:
        The logarithm of the capital after each outcome, shape `(..., n)`, and what to go on from.
    """
    begun = begun or Capital()
    count = outcomes.shape[-1]
    if not count:
        return np.zeros(outcomes.shape), begun
    times = np.arange(begun.outcomes, begun.outcomes + count + 1)
    unspent = (1 + times / HORIZON) ** -0.5
    total = np.broadcast_to(np.log(unspent[1:]), outcomes.shape)
    logs = np.empty((*outcomes.shape[:-1], len(rises)))
    for bet, (rise, part) in enumerate(rises):
        supposed = rise * bound / (1 - bound + rise * bound)
        gains = np.where(outcomes, np.log(supposed / bound), np.log((1 - supposed) / (1 - bound)))
        made = np.cumsum(gains, axis=-1)  # by one unit of capital that began with the first of these outcomes
        shares = np.log(unspent[:-1] - unspent[1:]) - (made - gains)  # in such units
        if begun.logs is not None:
            shares[..., 0] = np.logaddexp(shares[..., 0], begun.logs[..., bet])
        capital = made + np.logaddexp.accumulate(shares, axis=-1)
        total = np.logaddexp(total, capital + np.log(part))
        logs[..., bet] = capital[..., -1]
    return total, Capital(int(times[-1]), logs)


@dataclass(frozen=True, kw_only=True, eq=False)
class Watch:
    """Raises the alarm once it is shown that an event has become more frequent than a bound.

    While the rate is at most the bound, the probability of an alarm is at most `1 - confidence`, over the whole of an
    endless stream. A watch is a value: `after` gives the next.

    Attributes:
        bound: the rate, in (0, 1).
        confidence: in (0, 1).
        capital: of the bets, until the alarm.
        alarm_at: number of the outcome, from 1, that raised the alarm; what comes after it is not looked at.
    """

    bound: float
    confidence: float = 0.95
    capital: Capital = field(default_factory=Capital)
    alarm_at: int | None = None

    def __post_init__(self) -> None:
        check_inside("bound", self.bound, "it is a share of all answers, such as 0.02")
        check_inside("confidence", self.confidence, "0.95 is usual")

    def after(self, outcomes: BoolArray) -> Watch:
        """The watch after these outcomes. Shape `(n,)`, in order of time."""
        if self.alarm_at is not None:
            return self
        totals, capital = capital_after(outcomes, self.bound, begun=self.capital)
        enough = totals >= -np.log(1 - self.confidence)
        alarm = self.capital.outcomes + int(enough.argmax()) + 1 if enough.any() else None
        return replace(self, capital=capital, alarm_at=alarm)

"""What a count of events, or a mean of bounded values, says about the rate behind it: p-values and bounds.

Everything here tests the null hypothesis that the true rate (or mean) is *at least* `bound`: a small p-value speaks
for the claim that it is below. Nothing is approximate. Counts are tested by the exact binomial tail; values in [0, 1]
by a betting martingale. All of them assume examples that were drawn independently from the texts that the claim is
about.

To test several rates at once (harm in every class) claim their maximum: its p-value is the largest of theirs, and
nothing has to be corrected, as the claim fails as soon as one of them does (intersection-union test; Berger 1982).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, betaincinv  # scipy.stats has these as well, at a hundred times the overhead
from scipy.stats import binom, nbinom

from cascade.core.checks import check_whole
from cascade.core.rows import IntArray
from cascade.exceptions import OptionError

__all__ = [
    "allowed",
    "check_inside",
    "examples_needed",
    "examples_to_test",
    "p_value",
    "p_value_of_mean",
    "upper_bound",
    "upper_bounds",
]

Table = npt.NDArray[np.float64]
"""Probabilities; in double precision, unlike those of the tiers, as small ones matter here."""

LEVEL = 0.05
"""The error for which the bets of `p_value_of_mean` are sized; they are fair, and the p-value valid, for any other."""


def p_value(events: IntArray | int, examples: IntArray | int, bound: float) -> Table:
    """The chance of so few events or fewer, were their true rate `bound`: P(Bin(examples, bound) <= events).

    Args:
        events: how many examples are events, each at most its `examples`. Any shape that fits that of `examples`.
        examples: how many there were; none of them is no evidence, and gives 1.
        bound: in (0, 1).

    Returns:
        P-values, in the shape of `events` and `examples` together. Valid for any true rate of at least `bound`.

    Raises:
        OptionError: a bound outside (0, 1), or counts that cannot be.
    """
    check_inside("bound", bound)
    events, examples = _counted(events, examples)
    return np.asarray(bdtr(events, examples, bound), dtype=np.float64)


def p_value_of_mean(values: npt.ArrayLike, bound: float, *, level: float = LEVEL) -> float:
    """P-value of "the mean of values in [0, 1] is at least `bound`", by betting against it.

    A gambler stakes a share of her capital, fixed before each value is seen, on that value being below the bound. If
    the mean is at least `bound`, her capital is a supermartingale: it ever reaches 1/p with probability p at most. The
    bets are those of the WSR bound of Bates et al. (JACM 2021, section 3.1.3), after Waudby-Smith and Ramdas (JRSS-B
    2024). They adapt to the variance, so values that vary little need few examples.

    Args:
        values: in the order in which they were drawn, or shuffled by a seed chosen beforehand; never sorted by what
            they say. Shape `(n,)`; none of them is no evidence, and gives 1.
        bound: in (0, 1).
        level: the error at which the p-value will be compared; it sizes the bets and nothing else.

    Raises:
        OptionError: a bound or level outside (0, 1), or values outside [0, 1].
    """
    check_inside("bound", bound)
    check_inside("level", level)
    seen = _unit_interval(values)
    if not len(seen):
        return 1.0
    count = np.arange(1, len(seen) + 1)
    mean = (0.5 + np.cumsum(seen)) / (count + 1)
    variance = (0.25 + np.cumsum((seen - mean) ** 2)) / (count + 1)
    before = np.concatenate(([0.25], variance[:-1]))  # a bet knows the values before its own
    bets = np.minimum(1.0, np.sqrt(2 * math.log(1 / level) / (len(seen) * before)))
    with np.errstate(divide="ignore"):  # no bet loses everything: 1 - (1 - bound) > 0; at bounds near 0 it rounds so
        capital = np.cumsum(np.log1p(-bets * (seen - bound)))
    return float(np.exp(-max(0.0, float(capital.max()))))


def upper_bound(events: int, examples: int, *, confidence: float = 0.95) -> float:
    """The largest rate that so few events do not rule out: the one-sided Clopper-Pearson bound.

    Args:
        events: how many examples are events.
        examples: how many there were.
        confidence: with which the true rate is at most this.

    Raises:
        OptionError: a confidence outside (0, 1), or counts that cannot be.
    """
    return float(upper_bounds(events, examples, confidence=confidence))


def upper_bounds(events: IntArray | int, examples: IntArray | int, *, confidence: float = 0.95) -> Table:
    """`upper_bound` of many counts, in the shape of `events` and `examples` together; each holds by itself only."""
    check_inside("confidence", confidence)
    events, examples = _counted(events, examples)
    rest = np.asarray(examples - events)
    # Where every example is an event (or there is none) nothing is ruled out; 1 stands in for a parameter that has
    # to be above 0.
    found = betaincinv(events + 1, np.maximum(rest, 1), confidence)
    return np.where(rest == 0, 1.0, found)


def allowed(examples: int, bound: float, *, confidence: float = 0.95) -> int:
    """The most events in so many examples that still certify a rate below `bound`; -1 where not even none would.

    Args:
        examples: how many there are.
        bound: in (0, 1).
        confidence: in (0, 1).

    Raises:
        OptionError: one of the two outside (0, 1), or a negative number of examples.
    """
    check_inside("bound", bound)
    check_inside("confidence", confidence)
    examples = check_whole("examples", examples, "give how many there are", least=0)
    level = 1 - confidence
    first = int(binom.ppf(level, examples, bound))  # the least count whose tail reaches the level
    return first if float(bdtr(first, examples, bound)) <= level else first - 1


def examples_needed(bound: float, *, confidence: float = 0.95, rate: float = 0.0) -> int:
    """The least number of examples that certifies a point whose events come at `rate`, if they come as often as that.

    At so many examples ceil(rate * examples) events are still allowed. A sample has more than its expectation about
    every other time, so plan with a rate a little above the one that you saw.

    Args:
        bound: in (0, 1).
        confidence: in (0, 1).
        rate: of events, below `bound`. Needs grow with 1 / (bound - rate)^2, and so do the memory and time of this.

    Raises:
        OptionError: a bound or confidence outside (0, 1), or a rate that is not below the bound.
    """
    check_inside("bound", bound)
    check_inside("confidence", confidence)
    if not 0 <= rate < bound:
        raise OptionError(
            f"rate must be at least 0 and below the bound {bound}, was: {rate!r}; "
            "no number of examples certifies a rate that is not"
        )
    start, block = 0, 1
    while True:
        events = np.arange(start, start + block)
        trials = _least(events, bound, confidence)
        enough = np.flatnonzero(rate * trials <= events + 1e-9)
        if len(enough):
            return int(trials[enough[0]])
        start, block = start + block, 2 * block


def examples_to_test(examples: int, bound: float, *, confidence: float = 0.95, most: float = 0.85) -> int:
    """How many of `examples` to test on; the others are for choosing what is tested.

    About `most` of them, but no more than are of use: events are whole, so 1,274 examples allow no more of them than
    1,182 do (6 at 1 % and 95 %), and the 92 serve better in choosing. Where there are few, all that not a single event
    needs. In simulations (bound 1 %, 500 to 5,000 examples) shares of 0.8 to 0.9 differ by less than a point in what
    is saved, and are better than those without this rounding by up to 4.

    Args:
        examples: how many there are.
        bound: in (0, 1).
        confidence: in (0, 1).
        most: share of them at most, unless fewer than the claim needs at all.

    Returns:
        Below `examples` where one can both choose and test; `examples` where there is none to choose with: refuse.

    Raises:
        OptionError: a bound, confidence or share outside (0, 1), or fewer than no examples.
    """
    check_inside("most", most)
    examples = check_whole("examples", examples, "give how many there are", least=0)
    within = allowed(math.floor(most * examples), bound, confidence=confidence)
    return min(examples, int(_least(np.asarray(max(within, 0)), bound, confidence)))


def check_inside(name: str, value: float) -> None:
    """A number strictly between 0 and 1: claims about impossible or certain events need no test.

    Raises:
        OptionError: it is something else.
    """
    if not 0 < value < 1:
        raise OptionError(f"{name} must be above 0 and below 1, was: {value!r}; 0.01 is one in a hundred")


def _least(events: IntArray, bound: float, confidence: float) -> Table:
    # P(Bin(n, bound) <= k) is the chance that the (k + 1)th event comes after n trials: the least n at which k events
    # certify is a quantile of that waiting time, exactly.
    return np.asarray(nbinom.ppf(confidence, events + 1, bound) + events + 1, dtype=np.float64)


def _counted(events: IntArray | int, examples: IntArray | int) -> tuple[IntArray, IntArray]:
    found, total = np.asarray(events), np.asarray(examples)
    if not np.issubdtype(found.dtype, np.integer) or not np.issubdtype(total.dtype, np.integer):
        raise OptionError(f"events and examples must be whole numbers, were: {found.dtype}, {total.dtype}; count them")
    if (found < 0).any() or (found > total).any():
        raise OptionError(
            f"events must be at least 0 and at most the number of examples, were: {events!r} of {examples!r}; "
            "count each example once"
        )
    return found, total


def _unit_interval(values: npt.ArrayLike) -> Table:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not ((array >= 0) & (array <= 1)).all():
        raise OptionError(
            f"values must be a row of numbers in [0, 1], were: shape {array.shape}"
            f"{f', {array.min()} to {array.max()}' if array.size else ''}; divide them by the largest that there can be"
        )
    return array

"""What a count of events says about the rate behind it: exact p-values, limits and sample sizes.

The null hypothesis is that the true rate is at least `bound`; examples are independent. Of several rates (harm in every
class) the largest p-value counts, uncorrected (intersection-union test; Berger 1982).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile

import numpy as np
from scipy.special import bdtr, betaincinv  # binom.cdf and beta.ppf of scipy.stats, without their overhead
from scipy.stats import nbinom

from cascade.core.checks import check_inside
from cascade.core.rows import Doubles, IntArray
from cascade.exceptions import OptionError


def p_value(events: IntArray | int, examples: IntArray | int, bound: float) -> Doubles:
    """The exact tail P(Bin(examples, bound) <= events), elementwise; 1 without examples.

    A bound outside (0, 1) is an `OptionError`.
    """
    check_inside("bound", bound, "0.01 is one in a hundred")
    return np.asarray(bdtr(np.asarray(events), np.asarray(examples), bound), dtype=np.float64)


def upper_limit(events: IntArray | int, examples: IntArray | int, *, confidence: float = 0.95) -> Doubles:
    """The one-sided Clopper-Pearson limit: the largest rate that so few events do not rule out, elementwise.

    It holds for a setting that was fixed before the examples were seen; of one that the same counts selected it is an
    estimate. A confidence outside (0, 1) is an `OptionError`.
    """
    check_inside("confidence", confidence, "0.95 is usual")
    found = np.asarray(events)
    rest = np.asarray(examples) - found
    return np.where(rest == 0, 1.0, betaincinv(found + 1, np.maximum(rest, 1), confidence))


def examples_needed(bound: float, *, confidence: float = 0.95, rate: float = 0.0) -> int:
    """The least number of examples that certifies a setting whose events come at `rate`, if they come as expected.

    `rate` must be below `bound` or is an `OptionError`; the number grows with 1 / (bound - rate)^2. A sample has more
    events than its expectation about every other time: plan with a few more.
    """
    check_inside("bound", bound, "0.01 is one in a hundred")
    check_inside("confidence", confidence, "0.95 is usual")
    if not 0 <= rate < bound:
        raise OptionError(f"rate must be at least 0 and below the bound {bound}, got {rate!r}; lower the rate")
    start, block = 0, 1
    while True:
        events = np.arange(start, start + block)
        # P(Bin(n, bound) <= k) is the chance that event k + 1 comes after n trials: a quantile of that waiting time.
        trials = nbinom.ppf(confidence, events + 1, bound) + events + 1
        enough = np.flatnonzero(rate * trials <= events + 1e-9)
        if len(enough):
            return int(trials[enough[0]])
        start, block = start + block, 2 * block


def fixed_sequence(p_values: Iterable[float], *, level: float = 0.05) -> int:
    """How many leading points pass, each tested at the full level, up to the first that fails. NaN does not pass.

    The order must be fixed before these examples are seen; nothing is assumed about how risk changes along it. The
    chance that any point that passed is unsafe is at most the level: the first unsafe point has to pass, which is one
    test (fixed-sequence testing; "Learn then Test", Angelopoulos et al. 2021). A level outside (0, 1) is an
    `OptionError`.
    """
    check_inside("level", level, "0.05 is usual")
    return sum(1 for _ in takewhile(lambda value: value <= level, p_values))

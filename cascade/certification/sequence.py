"""Testing many points, one after the other, without paying for their number; and a bootstrap of a ratio.

Points are tested in an order that was fixed before these examples were seen, safest first, each at the full level,
until one fails (fixed-sequence testing, "Learn then Test": Angelopoulos et al. 2021, section 3.2). The probability
that any of those passed is unsafe is at most the level: a wrong pass needs the *first* unsafe one of the order to pass,
which is one test. Nothing is assumed about how risk changes along the order; that it grows only gives power.

It leaves to others: p-values of counts and means (`bounds`), which points and in which order.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from cascade.batch import BoolArray, IntArray
from cascade.certification.bounds import check_inside
from cascade.checks import check_whole
from cascade.exceptions import OptionError

__all__ = ["bootstrap_p_value", "fixed_sequence"]

AT_ONCE = 4_000_000  # weights drawn at a time, 32 MB


def fixed_sequence(p_values: Iterable[float], *, level: float = 0.05) -> int:
    """How many leading points pass: p-value at most `level`, up to the first that fails.

    The last that passes is number `fixed_sequence(...) - 1`; 0 says that not even the first does.

    Args:
        p_values: in the order of the test. Read up to the first failure and no further, as each may be expensive.
        level: the error allowed to the whole sequence, 1 - confidence.

    Raises:
        OptionError: a level outside (0, 1).
    """
    check_inside("level", level)
    passed = 0
    for p_value in p_values:
        # Not "is above": a p-value that is no number passes nothing.
        if not p_value <= level:
            break
        passed += 1
    return passed


def bootstrap_p_value(
    harmed: npt.NDArray[np.integer] | BoolArray,
    words: IntArray,
    bound: float,
    *,
    seed: int,
    repetitions: int = 2000,
) -> float:
    """P-value of "at least `bound` of all words are harmed", whole sentences being resampled. *Approximate*.

    Words of one sentence are harmed together, so words are no independent examples; sentences are. The Bayesian
    bootstrap (Rubin 1981) weighs the sentences by random weights from the uniform Dirichlet distribution, and the
    p-value is the share of the weightings under which the rate reaches the bound. A plain bootstrap cannot imagine
    harm that it has not seen, and would certify 10 sentences without any. So one more sentence is put beside the
    others, as long as the longest and harmed in every word (Gaffke's bound: Learned-Miller and Thomas, "A new
    confidence interval for the mean of a bounded random variable", 2019). With sentences of one word this *is* the
    exact binomial test. In general no proof is known that the p-value is valid, though no counter-example is either;
    moreover sentences longer than the longest seen are not accounted for, and the weights are sampled. Prefer sentences
    as units, whose test is exact.

    Args:
        harmed: harmed words of each sentence. Shape `(n,)`.
        words: words of each, at least as many. Shape `(n,)`; no words at all are no evidence, and give 1.
        bound: in (0, 1).
        seed: of the weights.
        repetitions: weightings; the p-value is a multiple of 1 / (repetitions + 1), and never 0.

    Raises:
        OptionError: a bound outside (0, 1), too few repetitions, or counts that cannot be.
    """
    check_inside("bound", bound)
    repetitions = check_whole("repetitions", repetitions, "2000 give p-values to about 0.005 near 0.05", least=1)
    if harmed.shape != words.shape or harmed.ndim != 1 or (harmed < 0).any() or (harmed > words).any():
        raise OptionError(
            f"harmed and words must be one count per sentence, harmed words being at most its words, were: "
            f"shapes {harmed.shape} and {words.shape}; count each word once"
        )
    longest = int(words.max(initial=0))
    if not longest:
        return 1.0
    # The rate reaches the bound where the weighted excess, harmed - bound * words, reaches 0: no ratio is needed, nor
    # need the weights (exponential numbers) be divided by their sum.
    excess = np.append(harmed - bound * words, (1 - bound) * longest)
    random = np.random.default_rng(seed)
    reached, step = 0, max(1, AT_ONCE // len(excess))
    for done in range(0, repetitions, step):
        weights = random.standard_exponential((min(step, repetitions - done), len(excess)))
        reached += int(np.count_nonzero(weights @ excess >= 0))
    return (reached + 1) / (repetitions + 1)

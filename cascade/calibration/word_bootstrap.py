"""A rate among words, tested by resampling whole sentences. *Approximate*.

Words of one sentence are harmed together, so they are no independent examples; sentences are. The Bayesian bootstrap
(Rubin 1981) weighs the sentences by random weights from the uniform Dirichlet distribution; the share of weightings
under which the rate reaches a bound is the p-value of "it does". Alone it certifies too easily, the more so the fewer
events it has seen: of 100 to 700 real sentences whose true rate was the bound it passed 6 to 12 % at a level of 5 %. So

* one more sentence is put beside the others, of mean length and with twice as many events as the worst that was seen
  (0.7 to 2.4 % then). Gaffke's bound adds the worst that there can be (Learned-Miller and Thomas 2019),
  the longest sentence with an event in every word, and needs ten times the sentences;
* a p-value is never below (1 - bound)^sentences: the chance that wholly harmed sentences, did all harm come in such,
  were never seen.

What stays unproved: events that come all in a few of the longest sentences. The exact test counts sentences (`bounds`).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from cascade.calibration.bounds import check_inside
from cascade.core.rows import IntArray
from cascade.exceptions import OptionError

__all__ = ["REPETITIONS", "p_value_of_rate", "sentences_needed", "upper_rate", "weighted_rates"]

REPETITIONS = 2000  # p-values to about 0.005 near 0.05
AT_ONCE = 4_000_000  # weights drawn at a time, 32 MB
MOST = 10_000  # times as many sentences that `sentences_needed` looks at
SAMPLE = 5000  # sentences that tell it what one looks like

Table = npt.NDArray[np.float64]


def weighted_rates(events: IntArray, words: IntArray, *, seed: int, times: float = 1.0) -> Table:
    """The rate under random weights of the sentences and of the one beside them, sorted, largest first.

    Args:
        events: words of each sentence that are events. Shape `(n,)`.
        words: of each sentence, at least as many. Shape `(n,)`.
        seed: of the weights.
        times: as if there were so many times as many sentences like these: a sum of `k` weights, each from the
            exponential distribution, comes from the gamma distribution of shape `k`.

    Returns:
        Shape `(REPETITIONS,)`; all 1 where there are no words.

    Raises:
        OptionError: counts that cannot be.
    """
    if events.shape != words.shape or events.ndim != 1 or (events < 0).any() or (events > words).any():
        raise OptionError(
            "events and words must be one count per sentence, events being at most its words, were: "
            f"shapes {events.shape} and {words.shape}; count each word once"
        )
    longest = int(words.max(initial=0))
    if not longest:
        return np.ones(REPETITIONS)
    worse = min(max(2 * int(events.max()), 1), longest)
    both = np.stack((np.append(events, worse), np.append(words, max(words.mean(), worse))), axis=1).astype(np.float64)
    random = np.random.default_rng(seed)
    rates = np.empty(REPETITIONS)
    step = max(1, AT_ONCE // len(both))
    for begin in range(0, REPETITIONS, step):
        shape = (min(step, REPETITIONS - begin), len(both))
        if times == 1:
            weights = random.standard_exponential(shape)
        else:
            weights = random.standard_gamma(np.append(np.full(len(events), times), 1.0), shape)
        above, below = (weights @ both).T
        rates[begin : begin + len(above)] = above / below
    return np.sort(rates)[::-1]


def p_value_of_rate(events: IntArray, words: IntArray, bound: float, *, seed: int) -> float:
    """P-value of "at least `bound` of all words are events".

    Args:
        events: words of each sentence that are events. Shape `(n,)`.
        words: of each sentence; without any the p-value is 1. Shape `(n,)`.
        bound: in (0, 1).
        seed: of the weights.

    Raises:
        OptionError: a bound outside (0, 1), or counts that cannot be.
    """
    check_inside("bound", bound)
    return _p_value(weighted_rates(events, words, seed=seed), bound, float(np.count_nonzero(words)))


def upper_rate(events: IntArray, words: IntArray, *, confidence: float, seed: int) -> float:
    """The largest rate that these sentences do not rule out: bounds above it have p-values within 1 - `confidence`.

    Args:
        events: words of each sentence that are events. Shape `(n,)`.
        words: of each sentence; without any the rate may be 1. Shape `(n,)`.
        confidence: in (0, 1).
        seed: of the weights.

    Raises:
        OptionError: a confidence outside (0, 1), or counts that cannot be.
    """
    check_inside("confidence", confidence)
    rates, level, sentences = weighted_rates(events, words, seed=seed), 1 - confidence, np.count_nonzero(words)
    within = math.floor(level * (REPETITIONS + 1) + 1e-9) - 1
    if within < 0 or not sentences:
        return 1.0
    return max(float(rates[within]), 1 - level ** (1 / sentences))


def sentences_needed(events: IntArray, words: IntArray, bound: float, *, confidence: float, seed: int) -> int | None:
    """How many sentences like these would keep a bound, if events came as often as in them.

    A sample has more events than its expectation about every other time: plan with a few more.

    Args:
        events: words of each sentence that are events. Shape `(n,)`.
        words: of each sentence. Shape `(n,)`.
        bound: in (0, 1).
        confidence: in (0, 1).
        seed: of the weights.

    Returns:
        `None` where the rate is not below the bound, or nearly as large.

    Raises:
        OptionError: a bound or confidence outside (0, 1), or counts that cannot be.
    """
    check_inside("bound", bound)
    check_inside("confidence", confidence)
    some = np.flatnonzero(words)[:SAMPLE]
    events, words = events[some], words[some]
    if not events.sum() < bound * words.sum():
        return None

    def enough(times: float) -> bool:
        rates = weighted_rates(events, words, seed=seed, times=times)
        return _p_value(rates, bound, times * len(words)) <= 1 - confidence

    low, high = 0.0, 1 / len(words)
    while not enough(high):
        low, high = high, 2 * high
        if high > MOST:
            return None
    while high - low > 0.01 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return math.ceil(high * len(words))


def _p_value(rates: Table, bound: float, sentences: float) -> float:
    unseen = (1 - bound) ** sentences
    return max(float((np.count_nonzero(rates >= bound) + 1) / (len(rates) + 1)), float(unseen))

"""Bets against a rate: worked examples, and promises tried on simulated streams."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import beta

from cascade.core.rows import BoolArray
from cascade.exceptions import OptionError
from cascade.monitoring.sequential import ALTERNATIVES, EDetector, e_process, rate_bounds

ALARM = np.log(20)


def streams(rates: object, runs: int, seed: int = 0) -> BoolArray:
    """Outcomes of independent streams. `rates`: of each outcome. Shape `(runs, outcomes)`."""
    chances = np.asarray(rates, dtype=np.float64)
    return np.random.default_rng(seed).random((runs, len(chances))) < chances


def first(alarms: BoolArray) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Number of the outcome that raised the alarm, from 1; a number beyond all others where none did."""
    return np.where(alarms.any(axis=1), alarms.argmax(axis=1) + 1, 10**9)


def slow_capital(outcomes: list[bool], bound: float, rises: tuple[tuple[float, float], ...]) -> list[float]:
    """The recursion as the docstring of `e_process` has it."""
    unspent = [(1 + time / 500) ** -0.5 for time in range(len(outcomes) + 1)]
    made, totals = [0.0] * len(rises), []
    for time, outcome in enumerate(outcomes):
        for number, (rise, _) in enumerate(rises):
            odds = rise * bound / (1 - bound)
            bet = (odds / (1 + odds) - bound) / (bound * (1 - bound))
            made[number] = (made[number] + unspent[time] - unspent[time + 1]) * (1 + bet * (outcome - bound))
        parts = [part * one for (_, part), one in zip(rises, made, strict=True)]
        totals.append(sum(parts) + unspent[time + 1])
    return totals


@given(
    st.lists(st.booleans(), min_size=1, max_size=30),
    st.floats(0.001, 0.999),
    st.integers(0, 30),
)
def test_capital_is_the_recursion_at_once_or_in_parts(outcomes: list[bool], bound: float, cut: int) -> None:
    array = np.array(outcomes)
    expected = slow_capital(outcomes, bound, ALTERNATIVES)
    totals, capital = e_process(array, bound)
    np.testing.assert_allclose(np.exp(totals), expected, rtol=1e-9)
    before, begun = e_process(array[:cut], bound)
    behind, end = e_process(array[cut:], bound, begun=begun)
    np.testing.assert_allclose(np.exp(np.concatenate((before, behind))), expected, rtol=1e-9)
    assert (capital.outcomes, end.outcomes) == (len(outcomes), len(outcomes))


@given(st.floats(0.01, 0.99), st.integers(1, 8))
def test_capital_is_expected_to_stay_1_at_the_bound(bound: float, length: int) -> None:
    every = np.array(list(np.ndindex(*(2,) * length)), dtype=np.bool_)  # all streams of that length
    chances = np.where(every, bound, 1 - bound).prod(axis=1)
    totals, _ = e_process(every, bound)
    np.testing.assert_allclose(chances @ np.exp(totals), np.ones(length), rtol=1e-9)


def test_streams_beside_each_other_are_as_alone() -> None:
    both = streams(np.full(400, 0.1), 2)
    together, capital = e_process(both, 0.05)
    for row in range(2):
        alone, own = e_process(both[row], 0.05)
        np.testing.assert_array_equal(together[row], alone)
        assert capital.logs is not None
        assert own.logs is not None
        np.testing.assert_array_equal(capital.logs[row], own.logs)


def test_capital_survives_many_quiet_outcomes() -> None:
    quiet = np.zeros(200_000, dtype=np.bool_)
    _, begun = e_process(quiet, 0.3)
    totals, _ = e_process(np.ones(40, dtype=np.bool_), 0.3, begun=begun)
    assert np.isfinite(totals).all()
    assert totals[-1] > ALARM


def test_false_alarms_of_steady_streams() -> None:
    totals, _ = e_process(streams(np.full(4_000, 0.02), 400), 0.02)  # the worst allowed: exactly the bound
    false = (totals >= ALARM).any(axis=1).mean()
    assert 0 < false <= 0.05  # some: the bound is not idle


@pytest.mark.parametrize(("before", "after", "quiet", "late"), [(0.015, 0.1, 1_000, 150), (0.005, 0.08, 3_000, 200)])
def test_an_alarm_soon_after_a_shift(before: float, after: float, quiet: int, late: int) -> None:
    """A likelihood ratio that bets from the start alone takes more than 500 outcomes after 3,000 quiet ones."""
    totals, _ = e_process(streams(np.repeat([before, after], [quiet, 500]), 100), 0.02)
    delay = first(totals >= ALARM) - quiet
    assert (delay <= 0).mean() <= 0.05
    assert (delay <= 500).all()
    assert np.median(delay) < late


def test_the_alarm_comes_at_the_same_outcome_however_it_is_fed() -> None:
    outcomes = streams(np.repeat([0.01, 0.3], [100, 200]), 1)[0]
    whole = EDetector(bound=0.02).after(outcomes)
    parts = EDetector(bound=0.02)
    for begin in range(0, len(outcomes), 7):
        parts = parts.after(outcomes[begin : begin + 7])
    assert whole.alarm_at is not None
    assert whole.alarm_at > 100
    assert parts.alarm_at == whole.alarm_at
    assert parts.after(outcomes) is parts  # looks no further
    assert EDetector(bound=0.02).after(outcomes[:0]).alarm_at is None
    sure = EDetector(bound=0.02, confidence=0.9999).after(outcomes).alarm_at
    assert sure is not None
    assert sure > whole.alarm_at
    totals, _ = e_process(outcomes, 0.02)
    assert whole.alarm_at == first(totals[None] >= ALARM)[0]


def test_interval_of_quiet_outcomes_by_hand() -> None:
    """Of 100 outcomes without the event: the capital of all bets at the upper limit is 40."""
    lower, upper = rate_bounds(0, 100)
    shares = np.arange(1, 23) ** -0.5
    tilts = 8 * 2 ** (-np.arange(22) / 2)
    capital = (shares / shares.sum()) @ (1 - upper * (1 - np.exp(-tilts))) ** -100
    assert capital == pytest.approx(40)
    assert lower == 0
    assert 0.03 < upper < 0.05  # 0.036 if looked at once


def test_intervals_are_wider_than_those_for_one_look_but_not_twice_as_wide() -> None:
    counts = np.array([10, 100, 1_000, 10_000, 100_000])
    for rate in (0.02, 0.1, 0.5):
        events = (counts * rate).astype(np.int64)
        lower, upper = rate_bounds(events, counts)
        once = beta.ppf(0.975, events + 1, counts - events) - beta.ppf(0.025, np.maximum(events, 1e-9), counts - events)
        ratio = (upper - lower) / once
        assert (ratio > 1).all()
        assert (ratio < 1.9).all()
        assert (lower <= events / counts).all()
        assert (events / counts <= upper).all()


@example(0, 0)
@given(st.integers(0, 1_000), st.integers(0, 1_000))
def test_what_is_no_event_is_the_mirror(events: int, others: int) -> None:
    lower, upper = rate_bounds(events, events + others)
    low, high = rate_bounds(others, events + others)
    assert lower == pytest.approx(1 - high)
    assert upper == pytest.approx(1 - low)
    assert 0 <= lower <= upper <= 1
    if not events + others:
        assert (float(lower), float(upper)) == (0, 1)


@pytest.mark.parametrize("rates", [[0.01] * 3, [0.2] * 3, [0.02, 0.4, 0.1]])
def test_intervals_hold_the_mean_of_the_rates_at_all_times_at_once(rates: list[float]) -> None:
    every = np.repeat(rates, [100, 100, 200])
    outcomes, times = streams(every, 400), np.arange(3, 400, 4)  # looked at after every fourth outcome
    pairs, which = np.unique(outcomes.cumsum(axis=1)[:, times] * 401 + times + 1, return_inverse=True)
    lower, upper = (limit[which.reshape(-1, len(times))] for limit in rate_bounds(*np.divmod(pairs, 401)))
    mean = (every.cumsum() / np.arange(1, 401))[times]
    assert ((lower > mean) | (upper < mean)).any(axis=1).mean() <= 0.05


@pytest.mark.parametrize(
    ("events", "examples", "confidence", "message"),
    [
        (3, 2, 0.95, "events must be from 0 to examples, got 3 of 2; count both again"),
        (-1, 2, 0.95, "events must be from 0 to examples, got -1 of 2; count both again"),
        (1, 2, 1, "confidence must be above 0 and below 1, got 1; 0.95 is usual"),
    ],
)
def test_impossible_counts(events: int, examples: int, confidence: float, message: str) -> None:
    with pytest.raises(OptionError, match=f"^{message}$"):
        rate_bounds(events, examples, confidence=confidence)


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.5, float("nan"), True, "0.5"])
def test_impossible_bounds(value: float) -> None:
    with pytest.raises(OptionError, match=f"^bound must be above 0 and below 1, got {value!r}; it is a share of all"):
        EDetector(bound=value)
    with pytest.raises(OptionError, match=r"^confidence must be above 0 and below 1"):
        EDetector(bound=0.1, confidence=value)

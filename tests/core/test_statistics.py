"""Intervals with exact coverage, ratios that are known, percentiles."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.core.statistics import Interval, in_turns, median_interval, percentile, shown, speed_up
from cascade.exceptions import OptionError


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0], Interval(3.0, 3.0, 3.0, 0.0, 1)),
        ([1.0, 2.0, 4.0], Interval(2.0, 1.0, 4.0, 0.75, 3)),
        ([7.0, 1.0, 3.0, 2.0, 5.0, 6.0, 4.0], Interval(4.0, 1.0, 7.0, 1 - 2 / 128, 7)),
        # Of 9 the second smallest and largest: 1 - 2 * (1 + 9) / 512.
        (list(map(float, range(1, 10))), Interval(5.0, 2.0, 8.0, 1 - 20 / 512, 9)),
        ([1.0, 2.0], Interval(1.5, 1.0, 2.0, 0.5, 2)),
    ],
)
def test_worked_examples(values: list[float], expected: Interval) -> None:
    assert median_interval(values) == expected


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    samples = rng.lognormal(size=(4000, 9))  # the true median is 1
    found = [median_interval(row.tolist()) for row in samples]
    covered = np.mean([interval.low <= 1 <= interval.high for interval in found])
    assert covered == pytest.approx(found[0].coverage, abs=0.015)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=40))
def test_the_median_lies_inside(values: list[float]) -> None:
    interval = median_interval(values)
    assert interval.low <= interval.median <= interval.high
    assert interval.median == pytest.approx(float(np.median(values)))


def test_a_ratio_is_taken_within_its_repeat() -> None:
    # The machine is four times slower in the middle; the ratio is 2 throughout.
    drift = [1.0, 1.0, 4.0, 4.0, 4.0, 1.0, 1.0]
    found = speed_up([2 * d for d in drift], drift)
    assert found is not None
    assert (found.low, found.median, found.high) == (2, 2, 2)


def test_repeats_that_one_of_them_left_out_do_not_count() -> None:
    found = speed_up([3.0, None, 8.0, 100.0], [1.0, 5.0, 2.0, None])
    assert found == Interval(3.5, 3.0, 4.0, 0.5, 2)
    with pytest.raises(OptionError, match="at least one sample"):
        speed_up([None, 1.0], [1.0, None])


def test_no_samples() -> None:
    with pytest.raises(OptionError, match="a median needs at least one sample, got none; run more repeats"):
        median_interval([])


def test_ratios_in_words() -> None:
    assert [shown(None), shown(Interval(1, 1, 1, 0.98, 7))] == ["", "1"]
    assert shown(Interval(2.0, 1.9, 2.1, 0.98, 7)) == "2.00 [1.90, 2.10]"
    assert Interval(2.0, 1.9, 2.1, 0.75, 3).text(".1f") == "2.0 [1.9, 2.1] (75%)"


@pytest.mark.parametrize(("share", "expected"), [(50, 5), (95, 10), (99, 10), (0, 1), (10, 1), (11, 2)])
def test_percentiles_are_samples(share: float, expected: float) -> None:
    assert percentile(np.arange(10, 0, -1.0), share) == expected


@pytest.mark.parametrize(("seconds", "turns"), [(math.inf, 5), (14.0, 3), (0.0, 2)])
def test_turns_go_back_and_forth_as_long_as_there_is_time(seconds: float, turns: int) -> None:
    """Two ways take 1 and 2 seconds; with a run before them, three turns end after 12 seconds, four after 15."""
    now, order = [0.0], list[str]()

    def way(name: str, taken: float) -> None:
        order.append(name)
        now[0] += taken

    ways = {"a": partial(way, "a", 1.0), "b": partial(way, "b", 2.0)}
    found = in_turns(ways, turns=5, least=2, seconds=seconds, clock=lambda: now[0])
    assert found == {"a": [1.0] * turns, "b": [2.0] * turns}
    assert "".join(order) == "abbaabbaab"[: 2 * turns]

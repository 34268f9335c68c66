from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cascade.core.checks import check_logits, check_mask, check_names, check_share, check_temperature, check_whole
from cascade.exceptions import BundleError, OptionError

NAN, INF = float("nan"), float("inf")
FALSE = np.zeros(3, dtype=np.bool_)


@pytest.mark.parametrize(
    ("check", "values", "message"),
    [
        (
            lambda value: check_whole("size", value, "try 3"),
            (0, -1, 1.0, True, "3", None),
            r"^size must be a whole number of at least 1, got .*; try 3$",
        ),
        (
            lambda value: check_whole("size", value, "try 3", least=0),
            (-1,),
            r"^size must be a whole number of at least 0, got -1; try 3$",
        ),
        (
            lambda value: check_share("share", value, "try 0.5"),
            (-0.1, 1.1, NAN, True, "0.5", None),
            r"^share must be in \[0, 1\], got .*; try 0.5$",
        ),
        (
            lambda value: check_mask(value, 2, "router", 5, "to defer"),
            (np.zeros(3), FALSE[:2, None], FALSE, None, True),
            r"^the router 5 must return bools of shape \(2,\), got .* to defer$",
        ),
        (check_temperature, (0, -1, INF, NAN), r"^temperature must be above 0 and finite, got .*; 1 changes nothing$"),
    ],
)
def test_bad_values(check: Callable[[Any], object], values: tuple[Any, ...], message: str) -> None:
    for value in values:
        with pytest.raises(OptionError, match=message):
            check(value)


def test_good_values_become_plain_ones() -> None:
    assert type(check_whole("size", np.int64(3), "")) is int
    assert check_whole("size", 0, "", least=0) == 0
    assert type(check_share("share", np.float32(0.5), "")) is float
    assert check_share("share", 1, "") == 1.0
    np.testing.assert_array_equal(check_mask([True, False], 2, "", None, ""), [True, False])


def test_names_of_a_graph() -> None:
    check_names("it", ("a",), ("x", "y"), known={"a", "b"}, needed=("x",))
    message = r"^it must have inputs among \['a', 'b'\] and the outputs \['x'\], got .*again$"
    for inputs, outputs in ((("a", "c"), ("x",)), (("a",), ("y",))):
        with pytest.raises(BundleError, match=message):
            check_names("it", inputs, outputs, known={"a", "b"}, needed=("x",))


def test_logits() -> None:
    logits = np.zeros((2, 3), dtype=np.float32)
    assert check_logits(logits, (2, 3), "it") is logits
    message = r"^it must return logits of shape \(2, 4\), got \(2, 3\); its labels .*again$"
    with pytest.raises(BundleError, match=message):
        check_logits(logits, (2, 4), "it")

import numpy as np
import pytest

from cascade.checks import check_mask, check_share, check_whole
from cascade.exceptions import OptionError


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3", None])
def test_whole_numbers(value: object) -> None:
    with pytest.raises(OptionError, match=r"^size must be a whole number of at least 1, was: .*; try 3$"):
        check_whole("size", value, "try 3")


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), True, "0.5", None])
def test_shares(value: object) -> None:
    with pytest.raises(OptionError, match=r"^share must be in \[0, 1\], was: .*; try 0.5$"):
        check_share("share", value, "try 0.5")


def test_good_values_become_plain_ones() -> None:
    assert type(check_whole("size", np.int64(3), "")) is int
    assert type(check_share("share", np.float32(0.5), "")) is float
    assert check_share("share", 1, "") == 1.0


@pytest.mark.parametrize("mask", [np.zeros(3), np.zeros((2, 1), dtype=bool), np.zeros(3, dtype=bool), None, True])
def test_masks(mask: object) -> None:
    with pytest.raises(OptionError, match=r"^the router f must return bools of shape \(2,\), returned: .* to defer$"):
        check_mask(mask, 2, "the router f", "to defer")


def test_a_list_of_bools_is_a_mask() -> None:
    np.testing.assert_array_equal(check_mask([True, False], 2, "", ""), [True, False])

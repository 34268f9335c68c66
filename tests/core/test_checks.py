import numpy as np
import pytest

from cascade.core.checks import check_logits, check_mask, check_names, check_share, check_temperature, check_whole
from cascade.exceptions import BundleError, OptionError


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


def test_another_least_whole_number() -> None:
    assert check_whole("size", 0, "", least=0) == 0
    with pytest.raises(OptionError, match=r"^size must be a whole number of at least 0, was: -1; try 3$"):
        check_whole("size", -1, "try 3", least=0)


@pytest.mark.parametrize("temperature", [0, -1, float("inf"), float("nan")])
def test_temperatures(temperature: float) -> None:
    with pytest.raises(OptionError, match=r"^temperature must be above 0 and finite, was: .*; 1 changes nothing$"):
        check_temperature(temperature)


def test_names_of_a_graph() -> None:
    check_names("it", ("a",), ("x", "y"), known={"a", "b"}, needed=("x",))
    for inputs, outputs in ((("a", "c"), ("x",)), (("a",), ("y",))):
        with pytest.raises(
            BundleError, match=r"^it must have inputs among \['a', 'b'\] and the outputs \['x'\], had: .*again$"
        ):
            check_names("it", inputs, outputs, known={"a", "b"}, needed=("x",))


def test_logits() -> None:
    logits = np.zeros((2, 3), dtype=np.float32)
    assert check_logits(logits, (2, 3), "it") is logits
    with pytest.raises(
        BundleError, match=r"^it must return logits of shape \(2, 4\), returned: \(2, 3\); its labels .*again$"
    ):
        check_logits(logits, (2, 4), "it")

"""Checks of option values that several rooms share. Messages name rule, value and remedy."""

from __future__ import annotations

from numbers import Real

import numpy as np

from cascade.exceptions import OptionError

__all__ = ["check_mask", "check_share", "check_whole"]


def check_whole(name: str, value: object, remedy: str) -> int:
    """A whole number of at least 1.

    Raises:
        OptionError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise OptionError(f"{name} must be a whole number of at least 1, was: {value!r}; {remedy}")
    return int(value)


def check_share(name: str, value: object, remedy: str) -> float:
    """A number in [0, 1].

    Raises:
        OptionError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise OptionError(f"{name} must be in [0, 1], was: {value!r}; {remedy}")
    return float(value)


def check_mask(mask: object, rows: int, who: str, meaning: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """One bool per row, as policies return them.

    Raises:
        OptionError: another type or shape.
    """
    array = np.asarray(mask)
    if array.shape != (rows,) or array.dtype != np.bool_:
        raise OptionError(
            f"{who} must return bools of shape ({rows},), returned: {array.dtype} of shape {array.shape}; "
            f"return a mask with True for each row {meaning}"
        )
    return array

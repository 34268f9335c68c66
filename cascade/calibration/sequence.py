"""Testing many points, one after the other, without paying for their number.

Points are tested in an order that was fixed before these examples were seen, safest first, each at the full level,
until one fails (fixed-sequence testing; "Learn then Test", Angelopoulos et al. 2021). The probability
that any of those passed is unsafe is at most the level: a wrong pass needs the *first* unsafe one of the order to pass,
which is one test. Nothing is assumed about how risk changes along the order; that it grows only gives power.
"""

from __future__ import annotations

from collections.abc import Iterable

from cascade.calibration.bounds import check_inside

__all__ = ["fixed_sequence"]


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

"""Shares and limits in percent for people. An upper limit is rounded up: it may not look tighter than it is."""

from __future__ import annotations

from decimal import ROUND_CEILING, Context, Decimal

_UP = Context(prec=3, rounding=ROUND_CEILING)


def percent(share: float) -> str:
    """To three digits: 0.01 -> "1 %", 0.004167 -> "0.417 %"."""
    return f"{float(f'{float(share) * 100:.3g}'):g} %"


def percent_up(share: float) -> str:
    """An upper limit to three digits, never below it: 0.010049 -> "1.01 %"."""
    # Twelve digits first: 0.07 * 100 is a hair above 7 in floating point, and is no more than 7 %.
    exact = Decimal(f"{float(share) * 100:.12g}")
    return f"{float(_UP.plus(exact)):g} %"

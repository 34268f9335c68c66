"""Calibration: operating points from labelled examples.

examples     what each tier and exit answers on them, and what it costs
observing    running and timing the tiers once to find that out
thresholds   replaying thresholds on it: the cheapest point that loses no more than was allowed
"""

from __future__ import annotations

from cascade.calibration.examples import Costs, Examples
from cascade.calibration.observing import observe
from cascade.calibration.thresholds import Grid, OperatingPoint, Points, choose, front, replay

__all__ = ["Costs", "Examples", "Grid", "OperatingPoint", "Points", "choose", "front", "observe", "replay"]

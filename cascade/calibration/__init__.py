"""Calibration: operating points from labelled examples.

examples     what each tier and exit answers on them, and what it costs
observing    running and timing the tiers once to find that out (`timing`: a graph by itself)
thresholds   replaying thresholds on it: the cheapest point that loses no more than was allowed
points       what that gives

words, word_observing, word_thresholds: the same of a tagger, whose words leave one by one; word_choosing: its points
really run.
"""

from __future__ import annotations

from cascade.calibration.examples import Costs, Examples
from cascade.calibration.observing import observe
from cascade.calibration.points import OperatingPoint, Points, front
from cascade.calibration.thresholds import Grid, choose, replay
from cascade.calibration.word_choosing import Tried, choose_words
from cascade.calibration.word_observing import observe_costs
from cascade.calibration.word_thresholds import WordGrid, WordPoint, replay_words
from cascade.calibration.words import WordCosts, leave

__all__ = [
    "Costs",
    "Examples",
    "Grid",
    "OperatingPoint",
    "Points",
    "Tried",
    "WordCosts",
    "WordGrid",
    "WordPoint",
    "choose",
    "choose_words",
    "front",
    "leave",
    "observe",
    "observe_costs",
    "replay",
    "replay_words",
]

"""Calibration: thresholds from examples, with or without a guarantee. Needs the `calibrate` extra.

examples     what each tier and exit answers on them, and what it costs
observing    running and timing the tiers once to find that out (`timing`: a graph by itself)
thresholds   replaying thresholds on it: the cheapest point that loses no more than was allowed
points       what that gives

words, word_observing, word_thresholds: the same of a tagger, whose words leave one by one; word_choosing: its points
really run.

claims         what can be asked: a bound on the drop, on disagreement, on deferral, on the mean cost
certify        the whole for texts: choose a path on one share of the examples, test it on the other
answers        what both tiers say at every exit, recorded once
replay         what a setting would have answered
losses         which answers count against it
curves         risk by confidence, one unit for tier 1 and all exits
heads          tier 1 and every exit side by side, as a path needs to know them
paths          which settings are tested, and in which order
shares         what a setting does on the testing share, and whether that passes
outcomes       what came of it, as values
bounds         exact p-values and bounds of a rate, and of a bounded mean
means          such a mean in its own unit
sequence       testing in an order that is fixed before the data is seen
issuing        from an outcome to the certificate that a bundle keeps

temperature    one number per tier and exit by which logits are divided
helping        where tier 2 helps, for `learned_routing.Learned`; whether that beats the largest probability
reliability    how far confidence can be trusted: ECE, AUROC, risk against coverage

word_calibrating             the whole for taggers; word_outcomes: what it found
word_answers, word_costs     sentences, what a setting really answers on them, what that costs
word_candidates, word_paths  which settings are tested, and in which order
word_events, word_bootstrap  what is counted, by sentence or by word; resampling whole sentences
word_outcomes                what was found, as values

report, reporting            what a report shows, as values; making it from an outcome
charts, plots, page          its charts, its pictures, its page
"""

from __future__ import annotations

from cascade.exceptions import MissingExtraError

try:
    import scipy as scipy
    import sklearn as sklearn
except ImportError as error:  # pragma: no cover - exercised in a subprocess by the tests
    raise MissingExtraError(
        "cascade.calibration needs the calibrate extra, but "
        f'{error.name} is missing; pip install "cascade-encoder[calibrate]"'
    ) from error

from cascade.calibration.examples import Costs, Examples  # the door is guarded first
from cascade.calibration.observing import observe  # the door is guarded first
from cascade.calibration.points import OperatingPoint, Points, front  # the door is guarded first
from cascade.calibration.thresholds import Grid, choose, replay  # the door is guarded first
from cascade.calibration.word_choosing import Tried, choose_words  # the door is guarded first
from cascade.calibration.word_observing import observe_costs  # the door is guarded first
from cascade.calibration.word_thresholds import WordGrid, WordPoint, replay_words  # the door is guarded first
from cascade.calibration.words import WordCosts, leave  # the door is guarded first

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

"""From a fine-tuned checkpoint and texts to a bundle, a certificate and a report. Needs three extras.

options    what a user chooses
looking    the checkpoint and the texts: what they are, and everything that is refused
shares     which texts are learned from, which choose, which certify
work       steps whose results are whole or absent, so that a build goes on where it ended; the time and the bar
original   what the original model answers
tiers      second tiers with exits, first tiers
exporting  bundles of them; how often full depth answers as the original
numbers    what is different for a regression
choosing   the cheapest of all, and its certificate
measuring  seconds in turns, the user's own pipeline among them
report     one page, one line
building   the whole
"""

from __future__ import annotations

from cascade.training.build.building import Built, build
from cascade.training.build.options import BuildOptions

__all__ = ["BuildOptions", "Built", "build"]

"""What a classifier does with a sample of texts, as far as a plan depends on it: lengths, who is deferred, who leaves.

It leaves to others: what follows from it (`planner`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cascade.batch import BoolArray, IntArray
from cascade.classifier import Classifier
from cascade.results import Routes
from cascade.routing import defer_all
from cascade.tokenizer import Text

__all__ = ["Observed", "observe"]


@dataclass(frozen=True, eq=False)
class Observed:
    """What a classifier does with some texts.

    Attributes:
        lengths: tokens of each row. Shape `(rows,)`.
        deferred: which rows tier 2 answered. Shape `(rows,)`.
        exits: share of the deferred rows that left at each exit.
        exits_alone: the same where every row is deferred.
    """

    lengths: IntArray
    deferred: BoolArray
    exits: tuple[float, ...]
    exits_alone: tuple[float, ...]


def observe(classifier: Classifier, texts: Sequence[Text]) -> Observed:
    """Run a classifier on texts like those of the workload, labelled or not, and once more with tier 2 alone."""
    batch = classifier.tokenizer.encode(texts).batch
    routes = classifier.cascade.score(batch).routes
    alone = classifier.with_router(defer_all).cascade.score(batch).routes
    layers = classifier.tier2.layers
    return Observed(batch.lengths, routes.tier == 2, _shares(routes, layers), _shares(alone, layers))


def _shares(routes: Routes, layers: Sequence[int]) -> tuple[float, ...]:
    """Of the rows that tier 2 answered, how many left at each exit; all at the last where there are none."""
    exits = routes.exit[routes.tier == 2]
    if not len(exits):
        return (*[0.0] * (len(layers) - 1), 1.0)
    return tuple(float(np.mean(exits == layer)) for layer in layers)

"""A tagger's exits replayed on frozen answers.

A policy is asked about the probabilities that every exit gave while no word left, so no model runs here. That is exact
where sentences leave whole; where words leave one by one it is near: those that stay would have seen the others in the
state they left in. The chosen points are run (`choosing`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cascade.core.rows import FloatArray, IntArray, Units
from cascade.policies import exits
from cascade.policies.exits import ExitPolicy
from cascade.policies.unit_exits import UnitState

__all__ = ["leave"]


def leave(policy: ExitPolicy, probabilities: FloatArray, words: Units, layers: Sequence[int]) -> IntArray:
    """At which exit each word would leave.

    Args:
        policy: any exit policy.
        probabilities: at every exit, as `all_exits` gives them. Shape `(words, exits, labels)`.
        words: the words that these are.
        layers: number of the layer below each exit, counted from 1.

    Returns:
        Number of the exit, counted from 0. Shape `(words,)`.
    """
    last = len(layers) - 1
    taken = np.full(len(words), last, dtype=np.int64)
    rows, ids = words.row_of, words.first_ids
    inside = np.arange(len(words))
    for number in range(last):
        if not len(inside):
            break
        under_way = np.zeros(words.n_rows, dtype=np.bool_)
        under_way[rows[inside]] = True
        live = np.flatnonzero(under_way[rows])
        state = UnitState(
            exit_index=number,
            exit_layer=layers[number],
            last=False,
            probabilities=probabilities[inside, number],
            history=probabilities[inside, : number + 1],
            sentences=rows[live],
            places=np.searchsorted(live, inside),
            ids=ids[inside],
        )
        gone = exits.decide(policy, state)
        taken[inside[gone]] = number
        inside = inside[~gone]
    return taken

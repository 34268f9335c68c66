"""Exit policies replayed on frozen answers: the probabilities that every exit gave while no unit left.

That is exact where rows leave whole. Where words leave one by one it is near: those that stay would have seen the
others in the state they left in, so a tagger's points are run before one is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cascade.core.rows import FloatArray, IntArray, Units, read_only
from cascade.policies import exits
from cascade.policies.exits import ExitPolicy, ExitState, Never
from cascade.policies.unit_exits import UnitState


def state_at(
    history: FloatArray,
    layers: Sequence[int],
    index: int,
    *,
    multi_label: bool = False,
    words: Units | None = None,
    inside: IntArray | None = None,
) -> ExitState:
    """What an exit policy sees of units at the exit of this index. `history`: shape `(units, exits, labels)`.

    `words`: see `leave`; `inside`: which of them these are, all if left out.
    """
    last, seen = index == len(layers) - 1, read_only(history[:, : index + 1])
    state = ExitState(index, layers[index], last, read_only(history[:, index]), seen, multi_label)
    if words is None:
        return state
    inside, rows = np.arange(len(words)) if inside is None else inside, words.row_of
    under_way = np.zeros(words.n_rows, dtype=np.bool_)
    under_way[rows[inside]] = True
    live = np.flatnonzero(under_way[rows])
    places, ids = np.searchsorted(live, inside), words.first_ids[inside]
    return UnitState(**vars(state), sentences=rows[live], places=places, ids=ids)


def leave(
    policy: ExitPolicy,
    history: FloatArray,
    layers: Sequence[int],
    *,
    words: Units | None = None,
    multi_label: bool = False,
) -> IntArray:
    """At which exit each unit would leave: its number, counted from 0. Shape `(units,)`.

    `history`: probabilities at every exit, shape `(units, exits, labels)`; `layers`: number of the layer below each
    exit, from 1; `words`: the words that these are; `None` where units are rows.
    """
    taken = np.full(len(history), len(layers) - 1, dtype=np.int64)
    inside = np.arange(0 if isinstance(policy, Never) else len(history))
    for index in range(len(layers) - 1):
        if not len(inside):
            break
        state = state_at(history[inside], layers, index, multi_label=multi_label, words=words, inside=inside)
        gone = exits.decide(policy, state)
        taken[inside[gone]] = index
        inside = inside[~gone]
    return taken

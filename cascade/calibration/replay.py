"""What a cascade would have answered with any router, exit policy and blend, from answers that were recorded once.

The policies themselves are asked, as the engine asks them, so a replay is what running would give, up to float
rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.calibration.answers import Answers
from cascade.calibration.examples import Costs
from cascade.core.confidence import max_probability
from cascade.core.rows import BoolArray, FloatArray, IntArray
from cascade.policies import decoding as decoders
from cascade.policies import exits, routing
from cascade.policies import windows as window_policies
from cascade.policies.decoding import Decoder
from cascade.policies.exits import ExitPolicy, ExitState, Never
from cascade.policies.routing import DeferAll, Router, RoutingState
from cascade.policies.windows import WindowPolicy

__all__ = ["Replayed", "Setting", "replay"]

Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Setting:
    """Everything that decides who answers what, but for temperatures.

    Attributes:
        router: who is deferred.
        exit_policy: who leaves tier 2 early.
        blend: how much tier 1's answer counts beside tier 2's.
        windows, decoding: of a tagger.
    """

    router: Router
    exit_policy: ExitPolicy
    blend: float = field(default=0.0, kw_only=True)
    windows: WindowPolicy | None = field(default=None, kw_only=True)
    decoding: Decoder | None = field(default=None, kw_only=True)

    def to_json(self) -> dict[str, Any]:
        """Plain values, as manifests have them; `windows` and `decoding` where there are any."""
        written: dict[str, Any] = {
            "router": routing.to_json(self.router),
            "exit_policy": exits.to_json(self.exit_policy),
            "blend": self.blend,
        }
        if self.windows is not None:
            written["windows"] = window_policies.to_json(self.windows)
        if self.decoding is not None:
            written["decoding"] = decoders.to_json(self.decoding)
        return written


@dataclass(frozen=True, eq=False)
class Replayed:
    """What a setting does to recorded examples.

    Attributes:
        answers: shape `(documents, columns)`, as `confidence.answers` gives them.
        deferred: which rows tier 2 answers. Shape `(rows,)`.
        exits: number of the exit, from 0, at which each row leaves; -1 where tier 1 answers. Shape `(rows,)`.
        seconds: what each document costs, in the unit of the costs. Shape `(documents,)`.
    """

    answers: IntArray
    deferred: BoolArray
    exits: IntArray
    seconds: Seconds


def replay(answers: Answers, setting: Setting, costs: Costs) -> Replayed:
    """Route, leave and merge as the engine does.

    Args:
        answers: what was recorded.
        setting: its router sees all rows at once, so no `Budget`, whose share would be one of these examples.
        costs: per token, one for each exit.

    Raises:
        OptionError: a policy returned something other than a mask of one bool per row.
    """
    rows, several = len(answers.lengths), answers.multi_label
    if isinstance(setting.router, DeferAll):
        deferred = np.ones(rows, dtype=np.bool_)
    else:
        sure = max_probability(answers.tier1, multi_label=several)
        deferred = routing.decide(setting.router, RoutingState(answers.tier1, sure, answers.lengths, several))
    chosen = np.flatnonzero(deferred)
    # Where everything is deferred tier 1 is not run, and has no answer that could count.
    both = answers.tier2 if isinstance(setting.router, DeferAll) else answers.blended(setting.blend)
    left = np.full(rows, -1, dtype=np.int64)
    left[chosen] = _exits(both[chosen], setting.exit_policy, answers.layers, multi_label=several)
    found = answers.tier1.copy()
    found[chosen] = both[chosen, left[chosen]]
    return Replayed(
        answers=answers.answered(found),
        deferred=deferred,
        exits=left,
        seconds=_seconds(answers, setting, left, costs),
    )


def _exits(history: FloatArray, policy: ExitPolicy, layers: tuple[int, ...], *, multi_label: bool) -> IntArray:
    """Number of the exit at which each row leaves. Shape `(rows, exits, labels)` to `(rows,)`."""
    left = np.full(len(history), len(layers) - 1, dtype=np.int64)
    if isinstance(policy, Never):
        return left
    inside = np.arange(len(history))
    for exit_, layer in enumerate(layers[:-1]):
        if not len(inside):
            break
        known = history[inside, : exit_ + 1]
        state = ExitState(
            exit_index=exit_,
            exit_layer=layer,
            last=False,
            probabilities=known[:, -1],
            history=known,
            multi_label=multi_label,
        )
        gone = exits.decide(policy, state)
        left[inside[gone]] = exit_
        inside = inside[~gone]
    return left


def _seconds(answers: Answers, setting: Setting, left: IntArray, costs: Costs) -> Seconds:
    upto = np.append(np.cumsum(costs.stages), 0.0)  # the last stands for -1: tier 2 is not run
    first = 0.0 if isinstance(setting.router, DeferAll) else costs.tier1
    rows = answers.lengths * (costs.always + first + upto[left])
    total: Seconds = np.bincount(answers.documents, weights=rows, minlength=len(answers)).astype(np.float64)
    return total

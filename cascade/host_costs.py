"""What the parts of a loaded bundle cost on one machine, as frozen values that can be written down and read again.

It leaves to others: finding it out (`measuring`), keeping it on disk (`cost_cache`), what a call costs (`schedule`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from cascade.cost_model import CostModel
from cascade.exceptions import DataError

__all__ = ["GraphCosts", "HostCosts"]


@dataclass(frozen=True)
class GraphCosts:
    """Of something that runs a batch.

    Attributes:
        alone: by itself on all threads.
        beside: on one thread, while every other thread does the same with a batch of its own.
        lone: by itself on one thread.
    """

    alone: CostModel
    beside: CostModel
    lone: CostModel


@dataclass(frozen=True)
class HostCosts:
    """Of all parts of a bundle, in seconds of a batch.

    Attributes:
        threads: that the parts were given.
        layers: of tier 2's exits.
        tokenize: texts to rows.
        call: of routing, merging and naming the answers of a call.
        tier1: a batch of padded rows (tokens: those of the grid), with all that happens around the graph.
        embed: of tier 2.
        stages: of tier 2.
        between: around one run of a stage where nobody leaves: index arithmetic, softmax.
        stop: around one run of a stage where some leave: the same, asking who, and packing the others anew.
        start: of starting threads for batches side by side.
    """

    threads: int
    layers: tuple[int, ...]
    tokenize: CostModel
    call: CostModel
    tier1: GraphCosts
    embed: GraphCosts
    stages: tuple[GraphCosts, ...]
    between: GraphCosts
    stop: GraphCosts
    start: float

    @property
    def error(self) -> float:
        """The largest of the graphs' median errors, at points left out of the fits: what predictions cannot beat."""
        graphs = (self.tier1, *self.stages)
        return max(error for graph in graphs for error in (graph.alone.median_error, graph.beside.median_error))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, made: object) -> HostCosts:
        """What `to_json` made, perhaps by somebody else.

        Raises:
            DataError: it is something else.
        """
        try:
            return cls(
                threads=_whole(made, "threads"),
                layers=tuple(_whole({"layer": layer}, "layer") for layer in _list(made, "layers")),
                tokenize=_model(_field(made, "tokenize")),
                call=_model(_field(made, "call")),
                tier1=_graph(_field(made, "tier1")),
                embed=_graph(_field(made, "embed")),
                stages=_stages(made),
                between=_graph(_field(made, "between")),
                stop=_graph(_field(made, "stop")),
                start=_number(made, "start"),
            )
        except (TypeError, ValueError, KeyError) as error:
            raise DataError(f"a host's costs must be as they were written, but {error!r}; measure them again") from None


def _field(made: object, name: str) -> object:
    if not isinstance(made, Mapping):
        raise TypeError(f"{name} is in no object")
    return made[name]


def _list(made: object, name: str) -> list[object]:
    found = _field(made, name)
    if not isinstance(found, list | tuple) or not found:
        raise TypeError(f"{name} must be a list")
    return list(found)


def _number(made: object, name: str) -> float:
    found = _field(made, name)
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < math.inf:
        raise TypeError(f"{name} must be a number of at least 0")
    return found


def _whole(made: object, name: str) -> int:
    found = _field(made, name)
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        raise TypeError(f"{name} must be a whole number")
    return found


def _graph(made: object) -> GraphCosts:
    alone, beside, lone = (_model(_field(made, name)) for name in ("alone", "beside", "lone"))
    return GraphCosts(alone=alone, beside=beside, lone=lone)


def _stages(made: object) -> tuple[GraphCosts, ...]:
    stages = tuple(map(_graph, _list(made, "stages")))
    if len(stages) != len(_list(made, "layers")):
        raise ValueError("stages and layers must be equally many")
    return stages


def _model(made: object) -> CostModel:
    weights: dict[str, Any] = {field.name: _number(made, field.name) for field in fields(CostModel)}
    return CostModel(**{**weights, "knee": _whole(made, "knee")})

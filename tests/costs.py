"""Costs that are known, for the tests of what follows from them."""

from __future__ import annotations

from cascade.cost_model import CostModel
from cascade.host_costs import GraphCosts, HostCosts

__all__ = ["costs", "linear"]


def linear(
    fixed: float, per_token: float = 0.0, *, error: float = 0.01, beyond: float = 0.0, knee: int = 0
) -> CostModel:
    """A cost of a batch and of its tokens."""
    return CostModel(fixed, per_token, 0.0, 0.0, error, error, beyond, knee)


def costs(
    *,
    threads: int = 2,
    tier1: float = 1e-6,
    stage: float = 1e-5,
    fixed: float = 1e-4,
    around: float = 0.0,
    stop: float = 0.0,
    start: float = 0.0,
    error: float = 0.01,
    knee: int = 0,
) -> HostCosts:
    """Of three stages, every graph alone 1.5 times as fast per token as beside others."""

    def graph(per_token: float, fixed: float = fixed) -> GraphCosts:
        beyond = per_token if knee else 0.0
        one = linear(fixed, per_token, error=error, beyond=beyond, knee=knee)
        faster = 1.5 if threads > 1 else 1
        return GraphCosts(linear(fixed, per_token / faster, error=error, beyond=beyond, knee=knee), one, one)

    return HostCosts(
        threads=threads,
        layers=(1, 2, 3),
        tokenize=linear(0, 1e-7),
        call=linear(1e-5),
        tier1=graph(tier1),
        embed=graph(0.0, 0.0),
        stages=(graph(stage),) * 3,
        between=graph(0.0, around),
        stop=graph(0.0, stop),
        start=start,
    )

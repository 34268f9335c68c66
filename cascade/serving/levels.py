"""The levels of a bundle: its policies as they are, then in steps cheaper ones, at last the first tier alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cascade.core.confidence import max_probability
from cascade.policies.exits import AtExit, each
from cascade.policies.registry import ModelInfo, Tunable
from cascade.policies.routing import Budget, defer_none
from cascade.policies.settings import Policies

STEPS = 4


def levels_of(policies: Policies, tiers: Sequence[ModelInfo], *, steps: int = STEPS) -> tuple[Policies, ...]:
    """Policies by level, the first as given, no two in a row equal.

    Thresholds of `Tunable` policies go down in even steps to where nothing is deferred and all units exit; what cannot
    be tuned stays. At the last level no tier defers, and where a tier has exits all units leave it at the first one.
    """
    found = [policies]
    for step in range(1, steps):
        share = 1 - step / steps
        routers = [_eased(own, share, tier) for own, tier in zip(policies.routers, tiers, strict=False)]
        exits = [_eased(own, share, tier) for own, tier in zip(policies.exits, tiers, strict=True)]
        found.append(replace(policies, routers=tuple(routers), exits=tuple(exits)))
    cheapest = replace(policies, routers=(defer_none,) * len(policies.routers))
    if tiers[0].layers:  # otherwise exits are those of tiers that nothing reaches
        leave = tuple(
            AtExit(tier.layers[0]) if tier.layers else own for own, tier in zip(policies.exits, tiers, strict=True)
        )
        cheapest = replace(cheapest, exits=leave)
    found.append(cheapest)
    return tuple(own for number, own in enumerate(found) if number == 0 or own != found[number - 1])


def scores_of(policy: Any) -> float | tuple[float, ...] | None:
    """What a `Tunable` policy takes as `at`, as it is set: some keep doubt, 1 - score. `None`: another."""
    threshold = getattr(policy, "threshold", None)
    if threshold is None or not isinstance(policy, Tunable):
        return None
    return next((own for own in (threshold, each(threshold, lambda one: 1 - one)) if policy.at(own) == policy), None)


def _eased(policy: Any, share: float, tier: ModelInfo) -> Any:
    """A policy that asks for less: a share of the way from no demand at all to its own."""
    if isinstance(policy, Budget):
        return replace(policy, max_deferred=policy.max_deferred * share)
    parts = getattr(policy, "policies", None)
    if parts is not None:
        return replace(policy, policies=tuple(_eased(part, share, tier) for part in parts))
    scores, least = scores_of(policy), 0.0
    if scores is None:
        return policy
    if getattr(policy, "measure", None) is max_probability:  # no unit is less sure than this
        least = 0.5 if tier.multi_label else 1 / max(len(tier.labels), 1)
    return policy.at(each(scores, lambda own: round(min(own, least + max(own - least, 0) * share), 9)))

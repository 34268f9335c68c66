"""Routers: which rows tier 1 hands to tier 2.

A router is called with a `RoutingState` and returns a mask, True = defer.
 Rows are sequences: of a document cut into windows each window is
routed by itself. A row whose confidence is NaN counts as the least sure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias, TypeVar

import numpy as np

from cascade.core.checks import check_mask, check_share
from cascade.core.confidence import MEASURES, Measure, max_probability
from cascade.core.rows import BoolArray, FloatArray, IntArray
from cascade.exceptions import OptionError

__all__ = [
    "Budget",
    "DeferAll",
    "DeferNone",
    "Router",
    "RoutingState",
    "Threshold",
    "decide",
    "defer_all",
    "defer_none",
    "from_json",
    "shipped",
    "to_json",
]


@dataclass(frozen=True, eq=False)
class RoutingState:
    """What a router may look at.

    Attributes:
        probabilities: of tier 1, after its temperature. Shape `(rows, labels)`.
        confidence: the largest probability of each row (`confidence.max_probability`). Shape `(rows,)`.
        lengths: tokens of each row: what deferring it costs. Shape `(rows,)`.
        multi_label: the labels are independent yes/no decisions.
    """

    probabilities: FloatArray
    confidence: FloatArray
    lengths: IntArray
    multi_label: bool = False


Router: TypeAlias = Callable[[RoutingState], BoolArray]
"""A mask of shape `(rows,)`, True = defer."""

_REMEDY = "give a number such as 0.2"

Score: TypeAlias = Callable[..., FloatArray]
"""A confidence measure: `(probabilities, *, multi_label) -> confidence of shape (rows,)`."""


def decide(router: Router, state: RoutingState) -> BoolArray:
    """Ask a router and check what it returned.

    Raises:
        OptionError: the router returned something other than a mask of one bool per row.
    """
    return check_mask(router(state), len(state.probabilities), f"the router {router!r}", "to defer")


@dataclass(frozen=True)
class Threshold:
    """Defer the rows whose confidence is below a threshold.

    Attributes:
        threshold: in [0, 1]. 0 defers nobody.
        score: the measure of confidence, from `cascade.core.confidence` or your own.
    """

    threshold: float
    score: Score = max_probability

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", check_share("threshold", self.threshold, _REMEDY))
        _check_score(self.score)

    def __call__(self, state: RoutingState) -> BoolArray:
        """Mask of shape `(rows,)`, True = defer."""
        sure: BoolArray = self.score(state.probabilities, multi_label=state.multi_label) >= self.threshold
        return ~sure


@dataclass(frozen=True)
class Budget:
    """Defer the least sure share of the rows that are routed together.

    Of `n` rows exactly floor(`max_deferred` * n) are deferred; of equally sure rows the earlier ones. Routed together
    are all rows of a `predict`, but only those of a buffer in a `stream`.

    Attributes:
        max_deferred: the share, in [0, 1].
        score: the measure of confidence, from `cascade.core.confidence` or your own.
    """

    max_deferred: float
    score: Score = max_probability

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_deferred", check_share("max_deferred", self.max_deferred, _REMEDY))
        _check_score(self.score)

    def __call__(self, state: RoutingState) -> BoolArray:
        """Mask of shape `(rows,)`, True = defer."""
        sure = self.score(state.probabilities, multi_label=state.multi_label)
        # 0.29 * 100 is a hair below 29 in floating point; nobody means 28.
        count = math.floor(self.max_deferred * len(sure) + 1e-9)
        order = np.argsort(np.where(np.isnan(sure), -np.inf, sure), kind="stable")
        mask = np.zeros(len(sure), dtype=np.bool_)
        mask[order[:count]] = True
        return mask


@dataclass(frozen=True, repr=False)
class DeferNone:
    """Tier 1 alone; use the ready-made value `defer_none`."""

    def __call__(self, state: RoutingState) -> BoolArray:
        """Mask of shape `(rows,)`, all False."""
        return np.zeros(len(state.probabilities), dtype=np.bool_)

    def __repr__(self) -> str:
        return "defer_none"


@dataclass(frozen=True, repr=False)
class DeferAll:
    """Tier 2 alone, tier 1 is not run; use the ready-made value `defer_all`."""

    def __call__(self, state: RoutingState) -> BoolArray:
        """Mask of shape `(rows,)`, all True."""
        return np.ones(len(state.probabilities), dtype=np.bool_)

    def __repr__(self) -> str:
        return "defer_all"


defer_none = DeferNone()
"""Tier 1 answers everything; tier 2 is not run."""

defer_all = DeferAll()
"""Tier 2 answers everything; tier 1 is not run."""


_SHIPPED: dict[str, type] = {}

_Kind = TypeVar("_Kind", bound=type)


def shipped(kind: _Kind) -> _Kind:
    """Make a frozen dataclass of another file known to `to_json` and `from_json`, under its class's name.

    Its fields are written as they are: numbers and tuples of them.
    """
    _SHIPPED[kind.__name__] = kind
    return kind


def to_json(router: Router) -> dict[str, Any]:
    """A plain dict from which `from_json` makes an equal router.

    Raises:
        OptionError: a caller's own callable or measure, which has no written form.
    """
    if isinstance(router, DeferNone | DeferAll):
        return {"policy": repr(router)}
    if isinstance(router, Threshold | Budget):
        if not isinstance(router.score, Measure) or MEASURES.get(router.score.name) != router.score:
            raise OptionError(
                f"only the measures of cascade.core.confidence can be saved, was: {router.score!r}; "
                f"choose from {', '.join(MEASURES)} before saving"
            )
        number = (
            {"threshold": router.threshold} if isinstance(router, Threshold) else {"max_deferred": router.max_deferred}
        )
        score = {} if router.score == max_probability else {"score": router.score.name}
        return {"policy": type(router).__name__, **number, **score}
    for name, kind in _SHIPPED.items():
        if type(router) is kind:
            return {"policy": name} | {field: _plain(getattr(router, field)) for field in _names(kind)}
    raise OptionError(
        f"only the routers of cascade.policies can be saved, was: {router!r}; "
        "set one of them with with_router before saving"
    )


def from_json(written: Mapping[str, Any]) -> Router:
    """The router that `to_json` wrote.

    Raises:
        OptionError: an unknown name, a missing or misspelt field, an impossible value.
    """
    if not isinstance(written, Mapping):
        raise OptionError(f'a router must be written {{"policy": name, ...}}, was: {written!r}; see to_json')
    given = {key: value for key, value in written.items() if key != "policy"}
    name = written.get("policy")
    if isinstance(name, str) and name in _SHIPPED:
        kind = _SHIPPED[name]
        if set(given) != set(_names(kind)):
            raise OptionError(
                f"the router {name} must have the fields {_names(kind)}, were: {sorted(given)}; see to_json"
            )
        router: Router = kind(**given)
        return router
    if not isinstance(name, str) or name not in _FIELDS:
        known = ", ".join([*_FIELDS, *_SHIPPED])
        raise OptionError(f"the router must be one of {known}, was: {name!r}; choose one of them")
    required = _FIELDS[name]
    if not required:
        if given:
            raise OptionError(f"the router {name} must have no fields, were: {sorted(given)}; see to_json")
        return defer_none if name == "defer_none" else defer_all
    score = MEASURES.get(str(given.pop("score", "max_probability")))
    if set(given) != set(required) or score is None:
        raise OptionError(
            f"the router {name} must have the fields {list(required)} and perhaps a score from "
            f"{', '.join(MEASURES)}, was: {dict(written)}; see to_json"
        )
    if name == "Threshold":
        return Threshold(given["threshold"], score)
    return Budget(given["max_deferred"], score)


_FIELDS: dict[str, tuple[str, ...]] = {
    "Threshold": ("threshold",),
    "Budget": ("max_deferred",),
    "defer_none": (),
    "defer_all": (),
}


def _names(kind: type) -> list[str]:
    return [field.name for field in fields(kind) if field.init]


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _check_score(score: object) -> None:
    if not callable(score):
        raise OptionError(
            f"score must be a measure of confidence, was: {score!r}; use one of cascade.core.confidence, "
            f"{', '.join(MEASURES)}, or a function of (probabilities, *, multi_label)"
        )

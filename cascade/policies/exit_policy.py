"""What an exit policy is: what it is asked, whether its answer and itself are fit, its written form.

`exits` offers all of it again beside its policies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, TypeAlias, TypeVar

from cascade.core.checks import check_mask
from cascade.core.rows import BoolArray, FloatArray
from cascade.exceptions import OptionError

__all__ = ["ExitPolicy", "ExitState", "check", "decide", "from_json", "shipped", "to_json"]

_Policy = TypeVar("_Policy", bound=type)


@dataclass(frozen=True, eq=False)
class ExitState:
    """What a policy may look at, for the rows that are still inside.

    Attributes:
        exit_index: number of this exit, counted from 0.
        exit_layer: number of the layer below it, counted from 1; exits are named by it.
        last: whether this is full depth.
        probabilities: of the head at this exit. Shape `(rows, labels)`.
        history: of every head so far, this one last. Shape `(rows, exit_index + 1, labels)`.
        multi_label: the labels are independent yes/no decisions.
    """

    exit_index: int
    exit_layer: int
    last: bool
    probabilities: FloatArray
    history: FloatArray
    multi_label: bool = False


ExitPolicy: TypeAlias = Callable[[ExitState], BoolArray]
"""A mask of shape `(rows,)`, True = leave."""


def decide(policy: ExitPolicy, state: ExitState) -> BoolArray:
    """Ask a policy and check what it returned.

    Raises:
        OptionError: the policy returned something other than a mask of one bool per row.
    """
    return check_mask(policy(state), len(state.probabilities), f"the exit policy {policy!r}", "that leaves")


def check(policy: ExitPolicy, layers: Sequence[int]) -> None:
    """Whether a policy fits a model with exits after these layers. A caller's own callable always does.

    Raises:
        OptionError: thresholds that are not one per exit, or a layer without an exit.
    """
    if isinstance(policy, tuple(_SHIPPED.values())) and hasattr(policy, "check"):
        policy.check(layers)


_SHIPPED: dict[str, type] = {}


def shipped(kind: _Policy) -> _Policy:
    """Make a frozen dataclass known to `check`, `to_json` and `from_json`, under its `name` or its class's.

    Its fields are written as they are: numbers, tuples of them, an `Enum`, other policies.
    """
    _SHIPPED[getattr(kind, "name", kind.__name__)] = kind
    return kind


def to_json(policy: ExitPolicy) -> dict[str, Any]:
    """A plain dict from which `from_json` makes an equal policy.

    Raises:
        OptionError: a caller's own callable, which has no written form.
    """
    for name, kind in _SHIPPED.items():
        if type(policy) is kind:
            return {"policy": name} | {field: _plain(getattr(policy, field)) for field in _fields(kind)}
    raise OptionError(
        f"only the exit policies of cascade.policies can be saved, was: {policy!r}; "
        "set one of them with with_exit_policy before saving"
    )


def from_json(written: Mapping[str, Any]) -> ExitPolicy:
    """The policy that `to_json` wrote.

    Raises:
        OptionError: an unknown name, a missing or misspelt field, an impossible value.
    """
    if not isinstance(written, Mapping):
        raise OptionError(f'an exit policy must be written {{"policy": name, ...}}, was: {written!r}; see to_json')
    given = {key: value for key, value in written.items() if key != "policy"}
    name = written.get("policy")
    kind = _SHIPPED.get(name) if isinstance(name, str) else None
    if kind is None:
        raise OptionError(f"the exit policy must be one of {', '.join(_SHIPPED)}, was: {name!r}; choose one of them")
    expected = _fields(kind)
    if set(given) != set(expected):
        raise OptionError(f"the exit policy {name} must have the fields {expected}, were: {sorted(given)}; see to_json")
    if "policies" in given:
        if not isinstance(given["policies"], list | tuple):
            raise OptionError(f"policies must be a list, was: {given['policies']!r}; see to_json")
        given["policies"] = tuple(map(from_json, given["policies"]))
    policy: ExitPolicy = kind(**given)
    return policy


def _fields(kind: type) -> list[str]:
    return [field.name for field in fields(kind) if field.init]


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return list(map(_plain, value))
    if isinstance(value, Enum):
        return value.value
    return to_json(value) if callable(value) else value

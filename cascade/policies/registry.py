"""One registry per kind of policy: the written form of its policies, and whether one fits a model.

A policy is a frozen dataclass that is called with a state. `register` makes its class savable and loadable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np

from cascade.core.rows import BoolArray, FloatArray
from cascade.exceptions import OptionError

P = TypeVar("P", bound=Callable[..., Any])
C = TypeVar("C", bound=type)


@dataclass(frozen=True)
class ModelInfo:
    """What a policy can know of the tier that it is set for: the argument of a policy's `check`.

    `labels`: their names, in order, empty where they are not known; `layers`: layer numbers of the tier's exits,
    rising, empty for a tier without exits; `words`: units are the words of sentences, not whole texts; `multi_label`:
    the labels are independent yes/no decisions.
    """

    labels: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    words: bool = False
    multi_label: bool = False

    @property
    def exits(self) -> str:
        """The layer numbers in words, for messages."""
        return ", ".join(map(str, self.layers)) or "none"

    @property
    def regression(self) -> bool:
        """Whether the answer is a number."""
        return len(self.labels) == 1 and not (self.multi_label or self.words)


class Registry(Generic[P]):
    """The policies of one kind by name.

    The written form is `{"policy": name, field: value, ...}` with the fields of the dataclass. Values are numbers,
    strings, `None`, tuples, other policies of the kind. A class attribute `retired` has fields that older bundles write
    and no policy has any more, each with the only value that is still read; `for_labels` says that numbers of a
    regression, which have no confidence, are refused.

    `kind`: what messages call a policy of this kind; `setter`: the pipeline's method that sets one; `otherwise`: what
    to do for a regression, where a policy is for labels; `gone`: by the name of a policy that went, what to do.
    """

    def __init__(self, kind: str, setter: str, otherwise: str = "", gone: Mapping[str, str] | None = None) -> None:
        self._kind, self._setter, self._otherwise, self._gone = kind, setter, otherwise, gone or {}
        self._classes: dict[str, type] = {}

    def register(self, cls: C) -> C:
        """Make a frozen dataclass savable under its class attribute `name`, or under its own name without one.

        Another class, or one whose name is taken, is an `OptionError`.
        """
        if not is_dataclass(cls) or not cls.__dataclass_params__.frozen:  # type: ignore[attr-defined]
            raise OptionError(f"the class of the {self._kind} must be a frozen dataclass, got {cls!r}; decorate it")
        own = [field.name for field in fields(cls)]
        name = cls.__name__ if "name" in own else getattr(cls, "name", cls.__name__)
        known = self._classes.get(name, cls)
        if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):  # a cell may run twice
            raise OptionError(f"every {self._kind} must have a name of its own, got {name!r} again; rename {cls!r}")
        self._classes[name] = cls
        return cls

    def to_json(self, policy: P) -> dict[str, Any]:
        """A plain dict from which `from_json` makes an equal policy; an `OptionError` if it has no written form."""
        for name, cls in self._classes.items():
            if type(policy) is cls:
                return {"policy": name} | {own.name: self._plain(getattr(policy, own.name)) for own in _fields(cls)}
        raise OptionError(
            f"only a registered {self._kind} can be saved, got {policy!r}; register its class, or set one of "
            f"cascade.policies with {self._setter}, before saving"
        )

    def from_json(self, written: object) -> P:
        """The policy that `to_json` wrote. A field with a default may be missing.

        An unknown name, a missing or misspelt field, or an impossible value is an `OptionError`.
        """
        if not isinstance(written, Mapping):
            raise OptionError(f'the {self._kind} must be written {{"policy": name, ...}}, got {written!r}; see to_json')
        name = written.get("policy")
        cls = self._classes.get(name) if isinstance(name, str) else None
        if cls is None:
            remedy = self._gone.get(str(name), "choose one of them, or import the module that registers it")
            raise OptionError(f"the {self._kind} must be one of {', '.join(self._classes)}, got {name!r}; {remedy}")
        names, retired = [field.name for field in _fields(cls)], getattr(cls, "retired", {})
        needed = [one.name for one in _fields(cls) if one.default is MISSING and one.default_factory is MISSING]
        given = [key for key in written if key != "policy" and (key not in retired or written[key] != retired[key])]
        if not set(needed) <= set(given) <= set(names):
            raise OptionError(f"the {self._kind} {name} must have fields {needed or names}, got {given}; see to_json")
        try:
            policy: P = cls(**{key: self._value(written[key]) for key in given})
        except OptionError:
            raise
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise OptionError(f"the {self._kind} {name} must have possible values, but {error}; see to_json") from error
        return policy

    def check(self, policy: P, model: ModelInfo) -> None:
        """Ask a policy whether it fits a model, if it has a `check(model)`. A caller's own class is asked too.

        One that does not fit, or cannot be called, is an `OptionError`.
        """
        if not callable(policy):
            raise OptionError(f"the {self._kind} must be callable, got {policy!r}; use one of cascade.policies")
        if model.regression and getattr(policy, "for_labels", False):
            raise OptionError(
                f"{type(policy).__name__} must be asked about labels, got a regression; {self._otherwise}"
            )
        check = getattr(policy, "check", None)
        if callable(check):
            check(model)

    def _plain(self, value: Any) -> Any:
        if isinstance(value, tuple):
            return list(map(self._plain, value))
        if isinstance(value, np.generic):
            return value.item()
        if value is None or isinstance(value, bool | int | float | str):
            return value
        return self.to_json(value)

    def _value(self, written: object) -> object:
        if isinstance(written, list | tuple):
            return tuple(map(self._value, written))
        return self.from_json(written) if isinstance(written, Mapping) else written


@dataclass(frozen=True, repr=False)
class ReadyMade:
    """A policy without fields, of which there is one value: that is its name, and how it is shown."""

    name: ClassVar[str]

    def __repr__(self) -> str:
        return self.name


class Same(ReadyMade):
    """A ready-made policy with the same answer for all units."""

    answer: ClassVar[bool]

    def __call__(self, state: Any) -> BoolArray:
        return np.full(len(state.probabilities), self.answer)


def _fields(cls: type) -> list[Field[Any]]:
    return [field for field in fields(cls) if field.init]


@runtime_checkable
class Tunable(Protocol):
    """A policy that compares a score with a threshold. Calibration and tuning know no more of it than this.

    An exit policy lets a unit exit where its score is at least the threshold; a router keeps it there and defers it
    below. `policy.at(t)(state)` is therefore `policy.score(state) >= t`, negated for a router.
    """

    def score(self, state: Any) -> FloatArray:
        """How sure each unit is, in [0, 1], higher is surer. NaN counts as unsure. Shape `(units,)`."""

    def at(self, threshold: Any) -> Any:
        """The same policy with this threshold in [0, 1]; an exit policy also takes a tuple with one per exit."""


def tunable(policy: object, default: Any) -> Any:
    """What is `Tunable` of a policy: itself or a part of an `any_of`; `default` where nothing is."""
    parts: Sequence[object] = (policy, *getattr(policy, "policies", ()))
    return next((part for part in parts if isinstance(part, Tunable)), default)

"""`Policies`: all that decides how the tiers of a bundle are used, as one frozen value with one written form."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from cascade.core.checks import check_share, is_number
from cascade.exceptions import OptionError
from cascade.policies import decoding, exits, reading, routing, windows
from cascade.policies.decoding import Decoder
from cascade.policies.exits import ExitPolicy
from cascade.policies.reading import ReadingPolicy
from cascade.policies.registry import ModelInfo
from cascade.policies.routing import Router
from cascade.policies.windows import WindowPolicy

T = TypeVar("T")
_SINGLE: Final[Mapping[str, Any]] = {"windows": windows, "decoding": decoding, "reading": reading}
"""Policies of which there is one for all tiers, and the modules of their kinds."""


@dataclass(frozen=True)
class Policies:
    """The policies of K tiers. Compared by value; a policy that is a function of your own by identity.

    `dataclasses.replace` gives one with other policies.

    Attributes:
        routers: what each tier defers to the next one, K - 1.
        exits: the exit policy of each tier, `never` for a tier without exits, K.
        blend: how much the answers of all tiers before count beside those of the next one where both were asked, each
            in [0, 1], K - 1; zeros if left out.
        temperatures: what logits are divided by: of each tier one number per exit, one for a tier without exits, K.
        windows: which words the next tier reads around deferred ones; `None` for classifiers.
        decoding: labels from probabilities; `None` for classifiers.
        reading: after which rows of a long text a tier with exits has its answer; `None`: all are read.

    Numbers that do not fit each other, or are impossible, are an `OptionError`, all faults at once.
    """

    routers: tuple[Router, ...]
    exits: tuple[ExitPolicy, ...]
    temperatures: tuple[tuple[float, ...], ...]
    blend: tuple[float, ...] = ()
    windows: WindowPolicy | None = None
    decoding: Decoder | None = None
    reading: ReadingPolicy | None = None

    def __post_init__(self) -> None:
        for name in ("routers", "exits", "blend"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "temperatures", tuple(map(tuple, self.temperatures)))
        if not self.blend:
            object.__setattr__(self, "blend", (0.0,) * len(self.routers))
        faults = []
        tiers = len(self.exits)
        for name, count in (("routers", tiers - 1), ("blend", tiers - 1), ("temperatures", tiers)):
            if not tiers or len(getattr(self, name)) != count:
                faults.append(f"{name} must be {max(count, 0)} for {tiers} tiers, got {len(getattr(self, name))}")
        for one in self.blend:
            _catch(faults, check_share, "blend", one, "0 ignores the tiers before")
        for own in self.temperatures:
            if not own or not all(is_number(one) and 0 < one < math.inf for one in own):
                faults.append(f"temperatures must be above 0 and finite, one per exit, got {own}; 1 changes nothing")
        _all_at_once("policies must fit each other", faults, "see cascade.policies.Policies")
        object.__setattr__(self, "blend", tuple(map(float, self.blend)))
        object.__setattr__(self, "temperatures", tuple(tuple(map(float, own)) for own in self.temperatures))

    def full_depth(self) -> Policies:
        """These policies but that the last tier answers everything at full depth: nothing is safer."""
        routers, never = (routing.defer_all,) * len(self.routers), (exits.never,) * len(self.exits)
        return replace(self, routers=routers, exits=never, reading=None)

    def check(self, tiers: Sequence[ModelInfo]) -> None:
        """Whether these policies fit a bundle's tiers, first to last; if not an `OptionError`, all faults at once."""
        faults: list[str] = []
        if len(tiers) != len(self.exits):
            faults.append(f"there must be policies for {len(tiers)} tiers, got them for {len(self.exits)}")
        for number, (tier, exit_policy, own) in enumerate(zip(tiers, self.exits, self.temperatures, strict=False), 1):
            count = len(tier.layers) or 1
            if len(own) != count:
                faults.append(f"temperatures must be one per exit, got {len(own)} for {count} of tier {number}")
            if not tier.layers and exit_policy != exits.never:
                faults.append(f"tier {number} has no exits, its exit policy must be never, got {exit_policy!r}")
            elif tier.layers:
                _catch(faults, exits.check, exit_policy, tier)
        numbers = (*self.blend, *(one - 1 for own in self.temperatures for one in own))
        if any(numbers) and any(tier.regression for tier in tiers):
            faults.append(f"a regression must have blend 0 and temperatures 1, got {self.blend}, {self.temperatures}")
        for router, tier in zip(self.routers, tiers, strict=False):
            _catch(faults, routing.check, router, tier)
        for tier in tiers[1:]:
            if self.windows is not None and tier.layers:
                _catch(faults, windows.check, self.windows, tier)
        for name in [one for one in ("decoding", "reading") if tiers and getattr(self, one) is not None]:
            _catch(faults, _SINGLE[name].check, getattr(self, name), tiers[-1])
        words = bool(tiers) and tiers[0].words
        for name in ("windows", "decoding"):
            if (getattr(self, name) is not None) != words:
                faults.append(f"{name} must be {'given for a tagger' if words else 'left out of a classifier'}")
        _all_at_once("policies must fit the tiers", faults, "set others")

    def to_json(self) -> dict[str, Any]:
        """A plain dict from which `from_json` makes an equal value.

        A policy that is a function of your own has no written form and is an `OptionError`.
        """
        written: dict[str, Any] = {
            "routers": list(map(routing.to_json, self.routers)),
            "exits": list(map(exits.to_json, self.exits)),
            "blend": list(self.blend),
            "temperatures": list(map(list, self.temperatures)),
        }
        single = ((name, kind, getattr(self, name)) for name, kind in _SINGLE.items())
        return written | {name: kind.to_json(policy) for name, kind, policy in single if policy is not None}

    @classmethod
    def from_json(cls, written: object) -> Policies:
        """The value that `to_json` wrote; another form is an `OptionError` with all faults at once."""
        if not isinstance(written, Mapping):
            raise OptionError(f"policies must be an object, got {written!r}; see Policies.to_json")
        given = dict(written)
        faults: list[str] = []
        for name in ("routers", "exits", "blend", "temperatures"):
            value = given.get(name)
            if not isinstance(value, list | tuple):
                faults.append(f"{name} must be a list, got {value!r}")
                given[name] = []
        given["routers"] = [_catch(faults, routing.from_json, one) for one in given["routers"]]
        given["exits"] = [_catch(faults, exits.from_json, one) for one in given["exits"]]
        for name, kind in _SINGLE.items():
            if given.get(name) is not None:
                given[name] = _catch(faults, kind.from_json, given[name])
        own = ("routers", "exits", "blend", "temperatures", *_SINGLE)
        faults += [f"{name} is no setting, there are {', '.join(own)}" for name in given if name not in own]
        if not all(isinstance(tier, list | tuple) for tier in given["temperatures"]):
            faults.append(f"temperatures must be a list per tier, got {given['temperatures']!r}")
        _all_at_once("policies must be as to_json writes them", faults, "see Policies.to_json")
        return cls(**given)


def _catch(faults: list[str], function: Callable[..., T], *arguments: Any) -> T | None:
    """What a function returns; an `OptionError` becomes one of the faults."""
    try:
        return function(*arguments)
    except OptionError as error:
        faults.append(str(error))
        return None


def _all_at_once(rule: str, faults: Sequence[str], remedy: str) -> None:
    if faults:
        raise OptionError(f"{rule}, but {'; '.join(dict.fromkeys(faults))}; {remedy}")

"""The written form of a certificate: which fields it has and what may stand in each, all faults named at once."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, TypeAlias

from cascade.core.checks import is_number, is_whole

__all__ = ["faults", "shown"]

UNITS: Final = ("text", "sentence", "word")
OF_TAGGERS: Final = ("windows", "decoding")
SHOWN: Final = 100

_Rule: TypeAlias = tuple[str, Callable[[Any], bool]]


def faults(written: object) -> list[str]:
    """What is wrong with the shape of a written certificate, all of it, each as `name must be ..., was: ...`.

    Whether it still is about the models and policies beside it is another question: `Certificate.differences`.
    """
    found = _faults_of(written, _RULES, "certificate")
    if not isinstance(written, Mapping):
        return found
    inner = {name: written[name] for name in _INNER if isinstance(written.get(name), Mapping)}
    for name, values in inner.items():
        found += _faults_of(values, _INNER[name], name)
    policies, safer = written.get("policies"), written.get("safer")
    settings: dict[str, object] = {"policies": policies} if isinstance(policies, Mapping) else {}
    settings |= {f"safer[{number}]": one for number, one in enumerate(safer if isinstance(safer, list | tuple) else ())}
    tagging = any(isinstance(one, Mapping) and set(OF_TAGGERS) & set(one) for one in settings.values())
    for name, one in settings.items():
        found += _faults_of(one, _OF_A_TAGGER if tagging else _OF_A_CLASSIFIER, name)
    for few, many, values in (
        ("events", "examples", written),
        ("events of disagreement", "examples of disagreement", inner.get("disagreement", {})),
        ("chosen_on of data", "examples of data", inner.get("data", {})),
    ):
        least, most = (values.get(name.split()[0]) for name in (few, many))
        if is_whole(least) and is_whole(most) and least > most:
            found.append(f"{few} must be at most {many}, was: {least} of {most}")
    return found


def _faults_of(written: object, rules: Mapping[str, _Rule], name: str) -> list[str]:
    if not isinstance(written, Mapping):
        return [f"{name} must be an object, was: {shown(written)}"]
    lacking, unknown = [key for key in rules if key not in written], [key for key in written if key not in rules]
    found = [f"{name} must have the field {key}" for key in lacking]
    found += [f"{name} must not have the field {key}" for key in unknown]
    inside = "" if name == "certificate" else f" of {name}"
    return found + [
        f"{key}{inside} must be {rule}, was: {shown(written[key])}"
        for key, (rule, fulfilled) in rules.items()
        if key in written and not fulfilled(written[key])
    ]


def _is_date(value: object) -> bool:
    try:
        return datetime.fromisoformat(str(value)).tzinfo is not None
    except ValueError:
        return False


def _are_temperatures(value: object) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 2 or not isinstance(value[1], list | tuple):
        return False
    return all(is_number(one) and 0 < one < math.inf for one in (value[0], *value[1]))


def _are_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)


_TEXT: Final[_Rule] = ("a string", lambda value: isinstance(value, str))
_OBJECT: Final[_Rule] = ("an object", lambda value: isinstance(value, Mapping))
_LIST: Final[_Rule] = ("a list", lambda value: isinstance(value, list | tuple))
_ANY: Final[_Rule] = ("a whole number of at least 0", lambda value: is_whole(value) and value >= 0)
_SOME: Final[_Rule] = ("a whole number of at least 1", lambda value: is_whole(value) and value >= 1)
_AMOUNT: Final[_Rule] = ("a number of at least 0 and finite", lambda value: is_number(value) and 0 <= value < math.inf)

_RULES: Final[Mapping[str, _Rule]] = {
    "claim": _TEXT,
    "ask": _OBJECT,
    "confidence": ("a number between 0 and 1", lambda value: is_number(value) and 0 < value < 1),
    "unit": (f"one of {', '.join(UNITS)}", lambda value: value in UNITS),
    "examples": _SOME,
    "events": ("null or a whole number of at least 0", lambda value: value is None or _ANY[1](value)),
    "bound": _AMOUNT,
    "upper": _AMOUNT,
    "disagreement": _OBJECT,
    "method": _TEXT,
    "data": _OBJECT,
    "policies": _OBJECT,
    "models": (
        "an object of hashes",
        lambda value: isinstance(value, Mapping) and all(isinstance(one, str) for one in value.values()),
    ),
    "library_version": _TEXT,
    "date": ("a date and time with an offset, in ISO's form", _is_date),
    "safer": _LIST,
    "warnings": ("a list of strings", _are_texts),
}
_INNER: Final[Mapping[str, Mapping[str, _Rule]]] = {
    "disagreement": {"events": _ANY, "examples": _SOME, "upper": _AMOUNT},
    "data": {"name": _TEXT, "sha256": _TEXT, "examples": _SOME, "chosen_on": _ANY},
}
_OF_A_CLASSIFIER: Final[Mapping[str, _Rule]] = {
    "router": _OBJECT,
    "exit_policy": _OBJECT,
    "blend": ("in [0, 1]", lambda value: is_number(value) and 0 <= value <= 1),
    "temperatures": ("[of tier 1, [of each exit]], all above 0 and finite", _are_temperatures),
}
_OF_A_TAGGER: Final[Mapping[str, _Rule]] = {**_OF_A_CLASSIFIER, **dict.fromkeys(OF_TAGGERS, _OBJECT)}


def shown(value: object) -> str:
    """A value as it stands in a file, clipped to what fits a line of an error message."""
    text = "missing" if value is None else json.dumps(value, default=repr, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."

"""Reading JSON that somebody else may have written: every fault is named, and none ends in another error.

The form of an object is that of a dataclass: its fields, of which those with a default may be missing. What a field
must be its type says: `Annotated[int, numbered(1)]` has a rule of its own, and objects inside have the form of theirs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Final, NoReturn, TypeAlias, TypeVar, cast, get_args, get_origin, get_type_hints

from cascade.core.checks import is_number, is_whole
from cascade.exceptions import BundleError, OptionError, printable
from cascade.policies.settings import Policies

MOST: Final = 2**31 - 1  # numbers that fit an index of any kind
DEEPEST: Final = 64
SHOWN: Final = 100

T = TypeVar("T")
Rule: TypeAlias = tuple[str, Callable[[Any], bool]]
"""What a value must be, in words, and whether one is."""


def numbered(least: int) -> Rule:
    """A whole number of at least `least` that fits 32 bits."""
    return (f"a whole number from {least} to {MOST}", lambda value: is_whole(value) and least <= value <= MOST)


def one_of(*names: str) -> Rule:
    """One of these strings."""
    return (f"one of {', '.join(names)}", lambda value: isinstance(value, str) and value in names)


def _are_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)


OBJECT: Final[Rule] = ("an object", lambda value: isinstance(value, Mapping))
OPTIONAL: Final[Rule] = ("null or an object", lambda value: value is None or isinstance(value, Mapping))
SIZE: Final[Rule] = ("a whole number of at least 0", lambda value: is_whole(value) and value >= 0)
LIST: Final[Rule] = ("a list", lambda value: isinstance(value, list | tuple))
SOME: Final[Rule] = ("a list that is not empty", lambda value: isinstance(value, list | tuple) and len(value) > 0)
Positive: TypeAlias = Annotated[int, numbered(1)]
_OF_TYPES: Final[Mapping[object, Rule]] = {
    str: ("a string", lambda value: isinstance(value, str)),
    int: numbered(0),
    bool: ("true or false", lambda value: isinstance(value, bool)),
    float: ("a number of at least 0 and finite", lambda value: is_number(value) and 0 <= value < math.inf),
    tuple[str, ...]: ("a list of strings", _are_texts),
    Mapping[str, str]: (
        "an object of strings",
        lambda value: isinstance(value, Mapping) and _are_texts([*value.values()]),
    ),
}


@cache
def _form(kind: type) -> Mapping[str, tuple[Rule, Any]]:
    """Of each field its rule, and its type without one."""
    hints, found = get_type_hints(kind, include_extras=True), {}
    for own in fields(cast("Any", kind)):
        hint, *rules = get_args(hints[own.name]) if get_origin(hints[own.name]) is Annotated else (hints[own.name],)
        found[own.name] = (rules[0] if rules else _OF_TYPES.get(hint, OBJECT), hint)
    return found


def parse(text: str, name: str) -> dict[str, Any]:
    """A JSON object. `name`: of the file, for messages.

    A `BundleError`: it is no JSON, no object, nested too deeply, or has numbers or strings that no file can hold.
    """
    try:
        raw = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        if "\\u" in text:
            json.dumps(raw, ensure_ascii=False).encode()
    except RecursionError:
        raise BundleError(f"{name} must be JSON, but it is nested too deeply; export the bundle again") from None
    except ValueError as error:
        surrogate = isinstance(error, UnicodeEncodeError)
        reason = "a string has half a surrogate pair" if surrogate else str(error).partition(";")[0]
        raise BundleError(f"{name} must be JSON, but {reason}; export the bundle again") from None
    if not isinstance(raw, dict):
        raise BundleError(f"{name} must be a JSON object, got {type(raw).__name__}; export the bundle again")
    level: list[object] = [raw]
    for _ in range(DEEPEST):
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [value for values in inner for value in values]
    if level:
        raise BundleError(f"{name} must be nested at most {DEEPEST} deep, got more; export the bundle again")
    return raw


def faults_of(written: object, kind: type, name: str = "") -> list[str]:
    """What is wrong with an object, each fault as `field of name must be ..., got ...`.

    `kind`: the dataclass whose fields it must have, no others; `name`: what messages call it, empty for a whole file.
    """
    if not isinstance(written, Mapping):
        return [f"{name or 'it'} must be an object, got {shown(written)}"]
    owned = {own.name: own for own in fields(kind)}
    needed = [key for key, own in owned.items() if own.default is own.default_factory is MISSING]
    found = [f"{name or 'it'} must have the field {key}" for key in needed if key not in written]
    found += [f"{name or 'it'} must not have the field {shown(key)}" for key in written if key not in owned]
    for key, ((rule, fulfilled), hint) in _form(kind).items():
        if key in written and fulfilled(written[key]):
            found += _faults_inside(written[key], hint, key, name)
        elif key in written:
            found.append(f"{key}{f' of {name}' if name else ''} must be {rule}, got {shown(written[key])}")
    return found


def _faults_inside(value: Any, hint: Any, key: str, name: str) -> list[str]:
    """What is wrong with the objects in a field `key` of the object `name`."""
    origin, inner, called = get_origin(hint), get_args(hint), f"{key} of {name}" if name else key
    if origin is tuple:
        return [fault for i, one in enumerate(value) for fault in _faults_inside(one, inner[0], f"{key}[{i}]", name)]
    if origin is Mapping:
        pairs = ((f"{key}[{shown(own)}]", one) for own, one in value.items())
        return [fault for own, one in pairs for fault in _faults_inside(one, inner[1], own, name)]
    kinds = [kind for kind in inner or (hint,) if is_dataclass(kind)]
    if not kinds or (value is None and len(kinds) < len(inner)):
        return []
    if kinds == [Policies]:
        try:
            Policies.from_json(value)
        except OptionError as error:
            return [f"{name}: {error}" if name else str(error)]
        return []
    if len(kinds) == 1:
        return faults_of(value, cast("type", kinds[0]), called)
    known = {kind.kind: kind for kind in cast("list[Any]", kinds)}
    rule, fulfilled = one_of(*known)
    if not isinstance(value, Mapping) or not fulfilled(value.get("kind")):
        return [f"{called} must be an object whose kind is {rule}"]
    return faults_of({own: one for own, one in value.items() if own != "kind"}, known[value["kind"]], called)


def made(written: Mapping[str, Any], kind: type[T]) -> T:
    """The dataclass from which `plain` made an object; it has no faults."""
    form = _form(cast("type", kind)).items()
    return kind(**{key: _made(written[key], hint) for key, (_, hint) in form if key in written})


def _made(value: Any, hint: Any) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple:
        return tuple(_made(one, inner[0]) for one in value)
    if origin is Mapping:
        return {key: _made(one, inner[1]) for key, one in value.items()}
    kinds: list[Any] = [kind for kind in inner or (hint,) if is_dataclass(kind)]
    if value is None or not kinds:
        return value
    kind = next(one for one in kinds if len(kinds) == 1 or one.kind == value["kind"])
    return Policies.from_json(value) if kind is Policies else made(value, kind)


def plain(value: Any) -> Any:
    """A value as JSON has it: dataclasses, policies among them, as objects, of some kinds with their `kind`."""
    if isinstance(value, Policies):
        return value.to_json()
    if is_dataclass(value):
        kind = {"kind": own} if (own := getattr(value, "kind", None)) else {}
        return kind | {own.name: plain(getattr(value, own.name)) for own in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    return list(map(plain, value)) if isinstance(value, list | tuple) else value


def shown(value: object) -> str:
    """A value as it stands in a file, clipped to what fits a line of an error message."""
    text = printable(json.dumps(value, default=repr, ensure_ascii=False))
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _finite(written: str) -> float:
    number = float(written)
    return number if math.isfinite(number) else _refuse(written[:SHOWN])


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")

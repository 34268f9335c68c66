"""Labels as files have them, in a model's own spelling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cascade.core.rows import IntArray
from cascade.exceptions import DataError


def shortened(labels: Sequence[str], most: int = 8) -> str:
    """The first of them, for a message; dots where there are more."""
    return ", ".join(labels[:most]) + ", ..." * (len(labels) > most)


def listed(names: Sequence[str], most: int = 8) -> str:
    """The first of them, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if names[most:] else "")


def spelled(value: object) -> str:
    """A label as a string; 1.0 as 1, which is how files of floats have whole numbers."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def numbers_of(labels: Sequence[str]) -> dict[str, int]:
    """The number of each label, by its name.

    Where names are transformers' own for labels without names (`LABEL_0`, `LABEL_1`, ...), numbers stand for them too:
    data that such a model learned from have numbers.
    """
    names = {name: number for number, name in enumerate(labels)}
    if list(labels) == [f"LABEL_{number}" for number in range(len(labels))]:
        names |= {str(number): number for number in range(len(labels))}
    return names


def own_names(
    given: Sequence[str | tuple[str, ...] | None], labels: Sequence[str], *, multi_label: bool = False
) -> list[str | tuple[str, ...] | None]:
    """Labels by the model's names; those that it does not have stay as they are.

    `given`: of each text a name, several, or None. Of independent labels (`multi_label`) it may be a 0 or 1 for each of
    the model's, in its order, if all texts have that; of a single such label also without a list.
    """
    if multi_label and all(own is None or _is_multi_hot(own, len(labels)) for own in given):
        pairs = (None if own is None else zip(labels, own, strict=True) for own in given)
        return [None if own is None else tuple(name for name, yes in own if yes == "1") for own in pairs]
    numbers = numbers_of(labels)
    if len(numbers) == len(labels):
        return list(given)

    def named(one: str) -> str:
        return labels[numbers[one]] if one in numbers else one

    return [own if own is None else named(own) if isinstance(own, str) else tuple(map(named, own)) for own in given]


def label_numbers(
    given: Sequence[str | tuple[str, ...]],
    labels: Sequence[str],
    *,
    multi_label: bool = False,
    source: object,
    lines: Sequence[int] | None = None,
) -> list[list[int]]:
    """The labels of each example as numbers, however they are written (`own_names`).

    A label that the model does not have is a `DataError` with the number of its example, or its line. `source`: what
    messages call all of them; `lines`: where in it each stands.
    """
    numbers, found = numbers_of(labels), []
    for row, own in enumerate(own_names(given, labels, multi_label=multi_label), 1):
        several: Sequence[str] = (own,) if isinstance(own, str) else own or ()
        unknown = [name for name in several if name not in numbers]
        if unknown:
            remedy = ", say with --label-separator what stands between several" if multi_label else ""
            known = f"{len(labels)} labels: {shortened(labels)}"
            raise DataError(
                f"{_place(source, row, lines)} has the label {unknown[0]!r}, which the model does not have ({known}); "
                f"correct it{remedy}, or take data and a model that belong together"
            )
        found.append([numbers[name] for name in several])
    return found


def _place(source: object, row: int, lines: Sequence[int] | None) -> str:
    return f"{source}: example {row}" if lines is None else f"{source}: line {lines[row - 1]}"


def as_array(
    own: Sequence[Sequence[int]], count: int, *, multi_label: bool, source: object, lines: Sequence[int] | None = None
) -> IntArray:
    """Numbers of the labels of examples as one array. Shape `(examples,)`; of independent labels `(examples, count)`.

    Those are zeros and ones. Where labels exclude each other, a `DataError` names the example that has not just one.
    """
    if multi_label:
        return np.array([np.isin(np.arange(count), one) for one in own], np.int64).reshape(-1, count)
    for row, one in enumerate(own, 1):
        if len(one) != 1:
            remedy = "correct it, or train with --multi-label for several"
            raise DataError(f"{_place(source, row, lines)} must have one label, got {len(one)}; {remedy}")
    return np.array(own, np.int64).reshape(-1)


def _is_multi_hot(own: str | tuple[str, ...], count: int) -> bool:
    return len(own) == count and (count == 1 or not isinstance(own, str)) and set(own) <= {"0", "1"}

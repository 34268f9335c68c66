"""Examples as they are given: which of them count, and labels as numbers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import chain

import numpy as np

from cascade.core.labels import numbers_of
from cascade.core.rows import IntArray
from cascade.exceptions import DataError

SHOWN = 8  # names in a message


def distinct(items: Sequence[object]) -> IntArray:
    """Numbers of the items that are no copy of an earlier one, blanks aside. Shape `(distinct,)`.

    A guarantee counts independent examples, and a copy tells nothing new: it counts once, in one share.
    """
    first: dict[Hashable, int] = {}
    for number, item in enumerate(items):
        first.setdefault(_key(item), number)
    return np.fromiter(first.values(), dtype=np.int64, count=len(first))


def copies_said(total: int, kept: int, what: str) -> tuple[str, ...]:
    """A warning where copies were left out. `what`: in the plural."""
    if kept == total:
        return ()
    return (f"{total - kept} of {total} {what} are copies of others and were left out: each counts once",)


def unseen(truth: IntArray | None, labels: Sequence[str]) -> tuple[str, ...]:
    """A warning where a label has no example. `truth`: numbers, or zeros and ones per label; `None` says nothing."""
    if truth is None:
        return ()
    counts = truth.sum(axis=0) if truth.ndim == 2 else np.bincount(truth, minlength=len(labels))
    missing = [label for label, count in zip(labels, counts.tolist(), strict=True) if not count]
    return (f"there is no example of {listed(missing)}: nothing was tested of it",) if missing else ()


def listed(names: Sequence[str]) -> str:
    """The first eight, and how many more there are."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if names[SHOWN:] else "")


def tag_numbers(sentences: Sequence[Sequence[str]], tags: Sequence[Sequence[str]], labels: Sequence[str]) -> IntArray:
    """The numbers of tags among a model's labels, all sentences one after the other. Shape `(words,)`.

    A `DataError` tells the sentence, from 1, whose tags are not one per word, or have one that the model does not know.
    """
    if len(sentences) != len(tags):
        raise DataError(
            f"every sentence must have its tags, got {len(sentences)} sentences and tags for {len(tags)}; leave the "
            "tags out, or give them for all"
        )
    numbers = numbers_of(labels)
    for number, (words, own) in enumerate(zip(sentences, tags, strict=True), start=1):
        if len(words) != len(own):
            raise DataError(
                f"there must be one tag per word, sentence {number} has {len(words)} words and {len(own)} tags; "
                "correct it or drop it"
            )
        unknown = [tag for tag in own if tag not in numbers]
        if unknown:
            known = ", ".join(labels[:SHOWN]) + (", ..." if len(labels) > SHOWN else "")
            raise DataError(
                f"tags must be the model's ({known}), sentence {number} has {unknown[0]!r}; rename it or drop it"
            )
    return np.fromiter(map(numbers.__getitem__, chain.from_iterable(tags)), dtype=np.int64)


def _key(item: object) -> Hashable:
    if isinstance(item, str):
        return " ".join(item.split())
    if isinstance(item, list | tuple):
        return tuple(map(_key, item))
    return repr(item)

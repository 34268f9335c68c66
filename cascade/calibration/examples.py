"""Examples as they are given: which of them count, and labels as numbers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import chain

import numpy as np

from cascade.core.labels import label_numbers
from cascade.core.rows import IntArray
from cascade.exceptions import DataError


def distinct(items: Sequence[object]) -> IntArray:
    """Numbers of the items that are no copy of an earlier one, blanks aside. Shape `(distinct,)`.

    A guarantee counts independent examples, and a copy tells nothing new: it counts once, in one share.
    """
    first: dict[Hashable, int] = {}
    for number, item in enumerate(items):
        first.setdefault(key_of(item), number)
    return np.fromiter(first.values(), dtype=np.int64, count=len(first))


def copies_said(total: int, kept: int, what: str) -> tuple[str, ...]:
    """A warning where copies were left out. `what`: in the plural."""
    if kept == total:
        return ()
    return (f"{total - kept} of {total} {what} are copies of others and were left out: each counts once",)


def tag_numbers(sentences: Sequence[Sequence[str]], tags: Sequence[Sequence[str]], labels: Sequence[str]) -> IntArray:
    """The numbers of tags among a model's labels, all sentences one after the other. Shape `(words,)`.

    A `DataError` tells the sentence, from 1, whose tags are not one per word, or have one that the model does not know.
    """
    if len(sentences) != len(tags):
        raise DataError(
            f"every sentence must have its tags, got {len(sentences)} sentences and tags for {len(tags)}; leave the "
            "tags out, or give them for all"
        )
    for number, (words, own) in enumerate(zip(sentences, tags, strict=True), start=1):
        if len(words) != len(own):
            raise DataError(
                f"there must be one tag per word, sentence {number} has {len(words)} words and {len(own)} tags; "
                "correct it or drop it"
            )
    found = label_numbers([tuple(own) for own in tags], labels, source="the tags")
    return np.array(list(chain.from_iterable(found)), dtype=np.int64)


def key_of(item: object) -> Hashable:
    """What copies of an item have in common: its text, pair or words but for how long blanks are."""
    if isinstance(item, str):
        return " ".join(item.split())
    if isinstance(item, list | tuple):
        return tuple(map(key_of, item))
    return repr(item)

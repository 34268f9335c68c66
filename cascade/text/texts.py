"""What a caller may give as a text, and texts made fit for the tokenizer."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, TypeAlias

import numpy as np

from cascade.core.rows import IntArray
from cascade.core.tables import column_of, is_null
from cascade.exceptions import InputError

Text: TypeAlias = "str | tuple[str, str] | Mapping[str, str]"
"""What a caller may give."""

RowText: TypeAlias = "str | tuple[str, str]"
"""What it is read as: a text, or a pair."""

REMEDY = 'give a str, a pair (str, str) or {"text": str, "text_pair": str}'


def check_texts(texts: object, *, pairs: bool = False) -> Iterable[Any]:
    """Several items in an order, a column of a table as a list, or an `InputError`; the items are not looked at.

    `pairs`: an item may be a pair, so that a tuple may be one pair or several texts and is refused.
    """
    texts = column_of(texts)
    if isinstance(texts, str | bytes | Mapping):
        remedy = "write [text] for one text"
    elif pairs and isinstance(texts, tuple | AbstractSet):
        remedy = "write [(first, second)] for a pair or list(texts) for several texts"
    elif isinstance(texts, AbstractSet) or not isinstance(texts, Iterable):
        remedy = "put them into a list"
    else:
        return texts
    raise InputError(f"texts must be a list of texts, got {type(texts).__name__}; {remedy}")


def read_texts(texts: Iterable[Text]) -> list[RowText]:
    """Texts and pairs of any form; an `InputError` names position and type of the first text that is none."""
    rows = list(check_texts(texts))
    if set(map(type, rows)) <= {str}:
        return rows
    return [_read_text(row, position) for position, row in enumerate(rows)]


def _read_text(text: object, position: int) -> RowText:
    if isinstance(text, str):
        return text
    if isinstance(text, list):  # as in transformers: it is mostly a batch in a batch
        raise InputError(
            f"a text must be no list, got {reprlib.repr(text)} as text {position}; write (first, second) for a pair, "
            "or give the texts in one list"
        )
    if isinstance(text, tuple):
        if len(text) != 2:
            raise InputError(f"a pair must hold two texts, got {len(text)} in text {position}; {REMEDY}")
        first, second = text
    elif isinstance(text, Mapping):
        if "text" not in text:
            keys = ", ".join(map(repr, text)) or "none"
            raise InputError(f'a text as a mapping must have the key "text", got {keys} in text {position}; {REMEDY}')
        first, second = text["text"], text.get("text_pair")
        if second is None and isinstance(first, str):
            return first
    else:
        refuse_null(text, position)
        raise InputError(f"a text must be a string, got {type(text).__name__} as text {position}; {REMEDY}")
    for side, value in (("first", first), ("second", second)):
        if not isinstance(value, str):
            raise InputError(
                f"both texts of a pair must be strings, got {type(value).__name__} as the {side} of text {position}; "
                f"{REMEDY}"
            )
    return first, second


def refuse_null(text: object, position: int) -> None:
    """An `InputError` where a column has no text."""
    if is_null(text):
        raise InputError(f"a text must be a string, got a null as text {position}; give an empty text, or drop the row")


def is_pair(text: object) -> bool:
    """Whether what a caller gave is a pair, in either form."""
    return isinstance(text, tuple) or (isinstance(text, Mapping) and text.get("text_pair") is not None)


def is_empty(item: str | Sequence[str]) -> bool:
    """Whether a text, a pair or a sentence of words has no character but blanks."""
    text = item if isinstance(item, str) else "".join(item)
    return not text or text.isspace()


def empty_items(items: Iterable[str | Sequence[str]]) -> IntArray:
    """Numbers of those that `is_empty`, rising. Shape `(empty,)`."""
    return np.array([number for number, item in enumerate(items) if is_empty(item)], dtype=np.int64)


def is_ascii(row: RowText) -> bool:
    """Whether a text, or both of a pair, are ASCII."""
    return row.isascii() if isinstance(row, str) else row[0].isascii() and row[1].isascii()


def repair_row(row: RowText) -> RowText:
    """A text or pair that the Rust tokenizer takes, see `repair_text`."""
    return repair_text(row) if isinstance(row, str) else (repair_text(row[0]), repair_text(row[1]))


def repair_text(text: str) -> str:
    """A text that the Rust tokenizer takes: surrogate pairs become the character they spell, lone ones U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text

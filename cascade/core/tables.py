"""Answers as Arrow tables, and columns of tables as lists: whole columns at once, pyarrow imported when needed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial
from importlib import import_module
from itertools import chain
from typing import Any

import numpy as np

from cascade.exceptions import InputError, MissingExtraError


def require(name: str, what: str) -> Any:
    """A module; a `MissingExtraError` where it is not installed. `what`: needs it, in words."""
    try:
        return import_module(name)
    except ImportError:
        wanted = "'cascade-encoder[jobs]'" if name.startswith("pyarrow") else name
        raise MissingExtraError(f"{what} needs {name}, which is not installed; pip install {wanted}") from None


def predictions_table(predictions: Any, *, routes: bool = False) -> Any:
    """`Predictions` as a `pyarrow.Table` with a row per text.

    Columns: `label`, a string as a dictionary over all labels; `score`, its probability as float32, of a regression the
    number; with `routes` `route`, `struct<tier: int32, exit_layer: int32, confidence: float>`. Multi-label: `label` and
    `score` are lists. Without pyarrow a `MissingExtraError`.
    """
    pa = require("pyarrow", "a table")
    chances = predictions.probabilities.astype(np.float32, copy=False)
    if predictions.multi_label:
        lists = partial(pa.ListArray.from_arrays, _numbers(pa, np.cumsum([0, *map(len, predictions.labels)])))
        label = lists(_named(pa, chain.from_iterable(predictions.labels), predictions.names))
        score = lists(_numbers(pa, chances[chances >= 0.5]))
    else:
        label = _named(pa, predictions.labels, predictions.names)
        score = _numbers(pa, chances.max(axis=1))
    columns = {"label": label, "score": score}
    return pa.table(columns | ({"route": _route(pa, predictions.routes)} if routes else {}))


def tags_table(predictions: Any, *, routes: bool = False) -> Any:
    """`TagPredictions` as a `pyarrow.Table` with a row per sentence or text.

    Columns of lists, a value per word: `tags`, strings as dictionaries over all labels; `scores`, their probabilities
    as float32; of texts `spans`, `[begin, end]` in characters; with `routes` `route`, as in `predictions_table`.
    """
    pa = require("pyarrow", "a table")
    offsets, chances = _numbers(pa, predictions.offsets), predictions.probabilities
    tags = _named(pa, chain.from_iterable(predictions.tags), predictions.names)
    score = chances[np.arange(len(chances)), tags.indices.to_numpy()] if predictions.names else chances.max(axis=1)
    lists = partial(pa.ListArray.from_arrays, offsets)
    columns = {"tags": lists(tags), "scores": lists(_numbers(pa, score))}
    if predictions.spans is not None:
        columns["spans"] = lists(pa.FixedSizeListArray.from_arrays(_numbers(pa, predictions.spans.ravel()), 2))
    if routes:
        columns["route"] = lists(_route(pa, predictions.routes.words))
    return pa.table(columns)


def column_of(items: Any) -> Any:
    """A column of a table (of pyarrow, pandas, polars, numpy) as the list of its values; anything else as it is.

    A whole table, which would be read as the names of its columns, is an `InputError`.
    """
    if isinstance(items, str | bytes | list | tuple):
        return items
    if hasattr(items, "columns"):
        names = [*[*getattr(items, "column_names", items.columns)][:8], "text"]  # pyarrow's `columns` are values
        raise InputError(
            f"texts must be one column, got a {type(items).__name__} with the columns "
            f"{', '.join(map(repr, names[:-1])) or '(none)'}; give one of them, as in table[{names[0]!r}]"
        )
    for name in ("to_pylist", "to_list", "tolist"):
        if callable(convert := getattr(items, name, None)):
            return convert()
    return items


def is_null(value: object) -> bool:
    """Whether a value of a column is missing: `None`, NaN, or pandas' own."""
    return value is None or (isinstance(value, float) and math.isnan(value)) or type(value).__name__ == "NAType"


def _named(pa: Any, values: Iterable[str], names: tuple[str, ...]) -> Any:
    """Strings as a dictionary, over all names where these are known."""
    if not names:
        return pa.array(values, pa.string()).dictionary_encode()
    numbers, content = {name: number for number, name in enumerate(names)}, [name.encode() for name in names]
    ends = pa.py_buffer(np.cumsum([0, *map(len, content)], dtype=np.int32))
    found = np.array([numbers[one] for one in values], dtype=np.int32)
    strings = pa.StringArray.from_buffers(len(names), ends, pa.py_buffer(b"".join(content)))
    return pa.DictionaryArray.from_arrays(_numbers(pa, found), strings)


def _route(pa: Any, routes: Any) -> Any:
    columns = ("tier", "exit_layer", "confidence")
    return pa.StructArray.from_arrays([_numbers(pa, getattr(routes, name)) for name in columns], list(columns))


def _numbers(pa: Any, values: Any) -> Any:
    """Numbers as int32 or float32. `pa.array` would first import pandas if it is there: half of a command's start."""
    values = np.ascontiguousarray(values, dtype=np.float32 if values.dtype.kind == "f" else np.int32)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])

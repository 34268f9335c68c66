"""Answers as Arrow tables, and columns of tables as lists: whole columns at once, pyarrow imported when needed."""

from __future__ import annotations

import math
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
        given = pa.array(predictions.labels, pa.list_(pa.string()))
        label = pa.ListArray.from_arrays(given.offsets, _named(pa, given.flatten(), predictions.names))
        score = pa.ListArray.from_arrays(given.offsets, pa.array(chances[chances >= 0.5]))
    else:
        label = _named(pa, pa.array(predictions.labels, pa.string()), predictions.names)
        score = pa.array(chances.max(axis=1))
    columns = {"label": label, "score": score}
    return pa.table(columns | ({"route": _route(pa, predictions.routes)} if routes else {}))


def tags_table(predictions: Any, *, routes: bool = False) -> Any:
    """`TagPredictions` as a `pyarrow.Table` with a row per sentence or text.

    Columns of lists, a value per word: `tags`, strings as dictionaries over all labels; `scores`, their probabilities
    as float32; of texts `spans`, `[begin, end]` in characters; with `routes` `route`, as in `predictions_table`.
    """
    pa = require("pyarrow", "a table")
    offsets, chances = pa.array(predictions.offsets.astype(np.int32)), predictions.probabilities
    tags = _named(pa, pa.array(list(chain.from_iterable(predictions.tags)), pa.string()), predictions.names)
    score = chances[np.arange(len(chances)), tags.indices.to_numpy()] if predictions.names else chances.max(axis=1)
    lists = partial(pa.ListArray.from_arrays, offsets)
    columns = {"tags": lists(tags), "scores": lists(pa.array(score.astype(np.float32)))}
    if predictions.spans is not None:
        flat = pa.array(predictions.spans.astype(np.int32).ravel())
        columns["spans"] = lists(pa.FixedSizeListArray.from_arrays(flat, 2))
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


def _named(pa: Any, values: Any, names: tuple[str, ...]) -> Any:
    """Strings as a dictionary, over all names where these are known."""
    if not names:
        return values.dictionary_encode()
    numbers = import_module("pyarrow.compute").index_in(values, value_set=pa.array(names))
    return pa.DictionaryArray.from_arrays(numbers, pa.array(names))


def _route(pa: Any, routes: Any) -> Any:
    columns = {
        "tier": routes.tier.astype(np.int32),
        "exit_layer": routes.exit_layer.astype(np.int32),
        "confidence": routes.confidence.astype(np.float32),
    }
    return pa.StructArray.from_arrays([pa.array(column) for column in columns.values()], list(columns))

"""Answers as tables, and columns of tables as texts."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cascade.core.results import Predictions, Routes, SentenceRoutes, Stats, TagPredictions
from cascade.core.tables import column_of
from cascade.exceptions import InputError, MissingExtraError

NAMES = ("bad", "good", "odd")


def routes(count: int) -> Routes:
    return Routes(np.arange(count) % 2 + 1, np.arange(count) * 2, np.linspace(0.5, 1, count, dtype=np.float32))


def predictions(rows: list[list[float]], *, multi_label: bool = False) -> Predictions:
    p = np.array(rows, dtype=np.float32).reshape(-1, 3)
    labels: Any = [NAMES[best] for best in p.argmax(axis=1)]
    if multi_label:
        labels = [tuple(name for name, yes in zip(NAMES, row, strict=True) if yes) for row in p >= 0.5]
    return Predictions(labels, p, routes(len(p)), Stats(), NAMES, multi_label=multi_label)


def tagged(spans: Any = None) -> TagPredictions:
    p = np.array([[0.5, 0.25, 0.25], [0, 0.75, 0.25], [0.25, 0, 0.75]], dtype=np.float32)
    # A decoder may choose another tag than the likeliest: the second of the first sentence.
    return TagPredictions(
        [["bad", "odd"], [], ["odd"]], p, SentenceRoutes(routes(3), np.array([0, 2, 2, 3])), Stats(), spans, NAMES
    )


ROWS = [[0.5, 0.25, 0.25], [0.25, 0.75, 0]]
STRUCT = pa.struct([("tier", pa.int32()), ("exit_layer", pa.int32()), ("confidence", pa.float32())])


def test_labels_are_dictionaries_over_all_labels_and_scores_float32() -> None:
    table = predictions(ROWS).to_arrow()
    assert table.schema.types == [pa.dictionary(pa.int32(), pa.string()), pa.float32()]
    assert table["label"].chunk(0).dictionary.to_pylist() == list(NAMES)
    assert table.to_pydict() == {"label": ["bad", "good"], "score": [0.5, 0.75]}
    unnamed = Predictions(["b", "a"], np.array(ROWS), routes(2), Stats())
    assert unnamed.to_arrow()["label"].chunk(0).dictionary.to_pylist() == ["b", "a"]


def test_several_labels_are_lists() -> None:
    table = predictions([[0.5, 0.75, 0.25], [0, 0.25, 0], [0, 0, 1]], multi_label=True).to_arrow()
    assert table["label"].type.value_type == pa.dictionary(pa.int32(), pa.string())
    assert table.to_pydict() == {"label": [["bad", "good"], [], ["odd"]], "score": [[0.5, 0.75], [], [1.0]]}


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_table_without_rows_has_the_same_columns(multi_label: bool) -> None:
    filled, empty = (predictions(rows, multi_label=multi_label).to_arrow(routes=True) for rows in (ROWS, []))
    assert empty.schema == filled.schema
    assert len(empty) == 0


def test_routes_are_a_struct() -> None:
    table = predictions(ROWS).to_arrow(routes=True)
    assert table["route"].type == STRUCT
    assert table["route"].to_pylist() == [
        {"tier": 1, "exit_layer": 0, "confidence": 0.5},
        {"tier": 2, "exit_layer": 2, "confidence": 1.0},
    ]


def test_tags_are_lists_with_the_probability_of_each_tag() -> None:
    spans = np.array([[0, 1], [2, 4], [0, 3]])
    table = tagged(spans).to_arrow(routes=True)
    assert table["route"].type == pa.list_(STRUCT)
    assert table.drop_columns("route").to_pylist() == [
        {"tags": ["bad", "odd"], "scores": [0.5, 0.25], "spans": [[0, 1], [2, 4]]},
        {"tags": [], "scores": [], "spans": []},
        {"tags": ["odd"], "scores": [0.75], "spans": [[0, 3]]},
    ]
    assert [len(one) for one in table["route"].to_pylist()] == [2, 0, 1]
    assert tagged().to_arrow().column_names == ["tags", "scores"]


def test_dicts_and_data_frames() -> None:
    pandas = pytest.importorskip("pandas")
    assert predictions(ROWS).to_dicts()[0] == {"label": "bad", "score": 0.5}
    frame = predictions(ROWS).to_pandas(routes=True)
    assert isinstance(frame.label.dtype, pandas.CategoricalDtype)
    assert frame.label.tolist() == ["bad", "good"]
    assert list(frame) == ["label", "score", "route"]


@pytest.mark.parametrize(("name", "extra"), [("pyarrow", r"'cascade-encoder\[jobs\]'"), ("pandas", "pandas")])
def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, name: str, extra: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    if name == "pyarrow":
        monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace())  # which is asked for first
    with pytest.raises(MissingExtraError, match=rf"needs {name}, which is not installed; pip install {extra}"):
        predictions(ROWS).to_pandas()


def test_columns_are_lists_of_python_strings() -> None:
    for column in (pa.array(["a", "b"]), pa.chunked_array([["a"], ["b"]]), np.array(["a", "b"])):
        assert [type(one) for one in column_of(column)] == [str, str]
    pandas = pytest.importorskip("pandas")
    assert column_of(pandas.Series(["a", "b"], index=[7, 3])) == ["a", "b"]
    given = iter(["a"])
    assert column_of(given) is given  # what is no column is read as it comes


@pytest.mark.parametrize("table", [pa.table({"a": [1], "b": ["x"]}), SimpleNamespace(columns=["a", "b"])])
def test_a_whole_table_is_refused_by_its_columns(table: Any) -> None:
    with pytest.raises(
        InputError, match=r"must be one column, got a \w+ with the columns 'a', 'b'; give .* table\['a'\]"
    ):
        column_of(table)

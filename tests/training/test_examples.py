"""Texts and sentences from files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from cascade.exceptions import CascadeError, DataError
from cascade.text.labelled import Columns
from cascade.training.data import Examples, joined, label_names, read_file
from tests.training.commands import write


def test_sentences_from_jsonl_parquet_and_text(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [{"tokens": ["a", "film"], "tags": ["X", "NOUN"]}, {"tokens": [], "tags": []}]
    parquet.write_table(pa.Table.from_pylist(records), tmp_path / "rows.parquet")
    for file in (write(tmp_path / "rows.jsonl", records), tmp_path / "rows.parquet"):
        found = read_file(file, words=True)
        assert (found.items, found.labels) == ([["a", "film"]], [("X", "NOUN")])  # one without words teaches nothing
    (tmp_path / "rows.txt").write_text("they laugh\n\nit is\n")
    plain = read_file(tmp_path / "rows.txt", words=True, require_labels=False)
    assert (plain.items, plain.labels) == ([["they", "laugh"], ["it", "is"]], None)
    columns = Columns(tokens_column="words", label_column="pos")
    renamed = write(tmp_path / "renamed.jsonl", [{"words": ["a"], "pos": ["X"]}])
    assert read_file(renamed, words=True, columns=columns).items == [["a"]]
    part = read_file(write(tmp_path / "part.jsonl", [{"tokens": ["a"]}]), words=True, require_labels=False)
    assert part.labels is None
    assert joined([found, part]).labels is None
    assert joined([found, found]).labels == [("X", "NOUN")] * 2


GOOD = {"tokens": ["a"], "tags": ["X"]}


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([GOOD, {"tokens": ["a", "b"], "tags": ["X"]}], "line 2: there must be one tag per word, got 2 words, 1 tags;"),
        ([GOOD, {"tokens": ["a"]}], "line 2: there must be a column 'tags'"),
        ([GOOD, {"tokens": ["a"], "tags": "X"}], "line 2: column 'tags' must be a list of tags, got 'X'"),
        ([{"tokens": [], "tags": []}], "must hold at least one example, has none"),
    ],
)
def test_bad_lines_are_named(records: list[Any], message: str, tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", records)
    with pytest.raises(DataError, match=message) as raised:
        read_file(rows, words=True)
    assert str(rows) in str(raised.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.jsonl", "but it is missing; check the path"),
        ("none", "but it is missing; check the path"),
        ("rows.txt", "line 1: there must be a column 'tags'"),
        ("rows.xml", "the suffix of a file must be one of"),
    ],
)
def test_bad_files(name: str, message: str, tmp_path: Path) -> None:
    for suffix in ("txt", "xml"):
        (tmp_path / f"rows.{suffix}").write_text("tokens,tags\na,X\n")
    with pytest.raises(CascadeError, match=message):
        read_file(tmp_path / name, words=True)


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (["10", "9", "-1"], ["-1", "9", "10"]),
        (["b", "a"], ["a", "b"]),
        ([("b", "a"), ()], ["a", "b"]),
        ([("I-b", "B-b", "O"), ("B-a", "I-a")], ["O", "B-a", "I-a", "B-b", "I-b"]),
        ([("O", "X")], ["O", "X"]),
    ],
)
def test_order_of_labels(labels: list[Any], wanted: list[str]) -> None:
    assert label_names(Examples(["x"] * len(labels), labels, "here")) == wanted


@pytest.mark.parametrize("missing", ["torch", "transformers"])
def test_the_door_names_the_extra(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None\nimport cascade.training.data"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'pip install "cascade-encoder[train]"' in done.stderr

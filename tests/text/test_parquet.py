"""Examples from parquet."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from cascade.exceptions import DataError, MissingExtraError
from cascade.text.reading import OnError, read_examples
from cascade.text.records import FileFormat
from tests.text.files import Pipe, write


def test_parquet(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    rows = [{"text": "a", "label": ["x", "y"]}, {"text": None, "label": ["x"]}, {"text": "b", "label": None}]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), file)
    examples = list(read_examples(file, on_error=OnError.NULL))
    assert [(example.line, example.text, example.label) for example in examples] == [
        (1, "a", ("x", "y")),
        (2, None, None),
        (3, "b", None),
    ]
    with pytest.raises(DataError, match=r"a.parquet, line 2: column 'text' must be a string, got NoneType"):
        list(read_examples(file))
    piped = read_examples(Pipe(file.read_bytes()), format=FileFormat.PARQUET, on_error=OnError.NULL)
    assert [example.text for example in piped] == ["a", None, "b"]
    with pytest.raises(DataError, match=r"a.parquet: there must be a column 'sentence', got 'text', 'label'"):
        list(read_examples(file, text_column="sentence", on_error=OnError.SKIP))
    with pytest.raises(DataError, match=r"a.parquet: it must be a parquet file, but: .*; write it again"):
        list(read_examples(write(file, b"PAR1 and no more")))


def test_columns_of_parquet_that_nobody_asked_for(tmp_path: Path) -> None:
    """They are not read, whatever they hold; what cannot be read of the others is a fault of its row."""
    file = tmp_path / "a.parquet"
    broken = pa.Array.from_buffers(pa.utf8(), 3, pa.array([b"a", b"\xff", b"c"], pa.binary()).buffers())
    late = pa.array([2**62] * 3, pa.int64())
    times = {"late": late.view(pa.timestamp("us")), "zone": late.view(pa.timestamp("us", "Nowhere/At_All"))}
    columns = {"text": broken, "other": broken, "day": pa.array([date(2000, 1, 1)] * 3), **times}
    pyarrow.parquet.write_table(pa.table(columns), file)
    examples = list(read_examples(file, on_error=OnError.NULL))
    assert [(example.line, example.text) for example in examples] == [(1, "a"), (2, None), (3, "c")]
    assert str(examples[1].error).startswith(
        f"{file}, line 2: column 'text' must hold values that can be read, but it is not UTF-8: invalid start byte; "
    )
    assert examples[0].record == {"text": "a"}
    for column in ("late", "zone", "day"):
        found = list(read_examples(file, text_column=column, on_error=OnError.NULL))
        assert [example.text for example in found] == [None] * 3
    whole = read_examples(file, text_column="text", all_columns=True, on_error=OnError.NULL)
    assert [example.text for example in whole] == [None] * 3
    pyarrow.parquet.write_table(pa.table({"text": ["a", "bbb"], "day": columns["day"][:2]}), file)
    (first, second) = read_examples(file, all_columns=True, on_error=OnError.NULL, max_line=2)
    assert (first.text, first.record["day"], second.text) == ("a", date(2000, 1, 1), None)
    pyarrow.parquet.write_table(pa.Table.from_arrays([broken, broken], ["text", "text"]), file)
    with pytest.raises(DataError, match=r"a.parquet: columns must be distinct, twice: \['text'\]; write it again"):
        list(read_examples(file))


def test_names_in_parquet_that_are_no_text(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pa.table({"text": ["a"], "zzzz": ["b"]}), file, store_schema=False)
    file.write_bytes(file.read_bytes().replace(b"zzzz", b"\xff\xfe\xfd\xfc"))
    with pytest.raises(DataError, match=r"a.parquet: it must be a parquet file, but: 'utf-8' .*; write it again"):
        list(read_examples(file))


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(
        MissingExtraError, match=r"needs pyarrow.parquet, which is not installed; pip install .*\[jobs\]"
    ):
        read_examples(write(tmp_path / "a.parquet", b""))

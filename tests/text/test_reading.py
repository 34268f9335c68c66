"""Examples from files: every format, every fault with its line, nothing lost or reordered."""

from __future__ import annotations

import csv
import io
import re
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.exceptions import DataError, OptionError
from cascade.text.reading import Example, OnError, read_examples
from cascade.text.records import FileFormat
from tests.text.files import PACK, as_csv, jsonl, write

RECORDS: list[dict[str, Any]] = [
    {"text": "a good film", "label": "positive"},
    {"text": "", "label": "negative"},
    {"text": 'quoted "so", and\nover lines', "label": "positive"},
    {"text": "電影 é", "label": "negative"},
]


@pytest.fixture(params=["jsonl", "ndjson", "csv", "tsv", "parquet", "csv.gz", "tsv.zst", "jsonl.ZST", "jsonl.gz"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"examples.{request.param}"
    form, _, packed = request.param.lower().partition(".")
    if form == "parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(RECORDS), path)
        return path
    content = jsonl(*RECORDS) if "json" in form else as_csv(RECORDS, "\t" if form == "tsv" else ",")
    return write(path, PACK[packed and f".{packed}"](content.encode()))


def test_round_trip(file: Path) -> None:
    examples = list(read_examples(file, require_label=True))
    assert [dict(example.record) for example in examples] == RECORDS
    assert [(example.text, example.label) for example in examples] == [
        (record["text"], record["label"]) for record in RECORDS
    ]
    lines = [2, 3, 4, 6] if "sv" in file.name else [1, 2, 3, 4]
    assert [example.line for example in examples] == lines
    assert list(read_examples(str(file))) == examples


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("end", [True, False])
def test_text_lines(tmp_path: Path, newline: str, end: bool) -> None:
    file = write(tmp_path / "a.txt", newline.join(["\ufeffone", "", " two\x0c\u2028 "]) + newline * end)
    examples = list(read_examples(file))
    assert [(example.line, example.text) for example in examples] == [(1, "one"), (2, ""), (3, " two\x0c\u2028 ")]
    assert examples[0] == Example(line=1, text="one", label=None, record={"text": "one"})


def test_blank_lines_of_jsonl_and_csv_do_not_count(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", '\ufeff{"text": "a"}\n\n  \n{"text": "b"}\n\n')
    assert [(example.line, example.text) for example in read_examples(file)] == [(1, "a"), (4, "b")]
    file = write(tmp_path / "a.csv", "\ufeff\ntext\na\n\n\nb\n\n")
    assert [(example.line, example.text) for example in read_examples(file)] == [(3, "a"), (6, "b")]


def test_what_others_take_for_missing_or_for_ends_of_lines_is_text(tmp_path: Path) -> None:
    texts = ["NaN", "null", "None", "", "NA", "one\u2028two\x85three\x1c"]
    for name, content in (
        ("a.csv", as_csv([{"text": text, "id": 1} for text in texts])),
        ("a.jsonl", jsonl(*({"text": text} for text in texts))),
        ("a.txt", "\n".join(texts)),
    ):
        assert [example.text for example in read_examples(write(tmp_path / name, content))] == texts


def test_pairs(tmp_path: Path) -> None:
    rows = [{"text": "a", "text_pair": "b"}, {"text": "a", "text_pair": None}, {"text": "a"}]
    file = write(tmp_path / "a.jsonl", jsonl(*rows))
    assert [example.text for example in read_examples(file)] == [("a", "b"), "a", "a"]
    rows = [{"premise": "a", "hypothesis": "b"}, {"premise": "a"}, {"premise": "a", "hypothesis": None}]
    file = write(tmp_path / "b.jsonl", jsonl(*rows))
    named = read_examples(file, text_column="premise", pair_column="hypothesis", on_error=OnError.NULL)
    assert [example.text for example in named] == [("a", "b"), None, None]
    file = write(tmp_path / "a.csv", "text,text_pair,label\na,b,c\na,,c\n")
    assert [example.text for example in read_examples(file)] == [("a", "b"), ("a", "")]


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("a", "a"),
        (3, "3"),
        (["a", "b"], ("a", "b")),
        ([1, 2], ("1", "2")),
        ([], ()),
        (None, None),
        ("", None),
        (2.5, "2.5"),
        (1.0, "1"),
        ([0.0, 1.0], ("0", "1")),
        (float("nan"), None),
    ],
)
def test_labels(tmp_path: Path, value: object, label: object) -> None:
    file = write(tmp_path / "a.jsonl", jsonl({"text": "a", "intent": value}))
    assert [example.label for example in read_examples(file, label_column="intent")] == [label]


@pytest.mark.parametrize("value", [True, {"a": 1}, ["a", None], [True], [float("nan")]])
def test_labels_of_other_types_are_read_if_they_are_wanted(tmp_path: Path, value: object) -> None:
    file = write(tmp_path / "a.jsonl", jsonl({"text": "a", "label": value}))
    with pytest.raises(DataError, match=r"line 1: column 'label' must be a string, a number or a list"):
        list(read_examples(file))
    assert [example.label for example in read_examples(file, label_column=None)] == [None]
    with pytest.raises(OptionError, match="require_label must come with a label_column, got None; name the column"):
        read_examples(file, label_column=None, require_label=True)


def test_several_labels_in_one_string(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", b"text,label\na,x|y z\nb,\nc,x | \n")
    read = read_examples(file, label_separator="|", require_label=True)
    assert [example.label for example in read] == [("x", "y z"), (), ("x",)]
    assert [example.label for example in read_examples(file)] == ["x|y z", None, "x | "]
    with pytest.raises(OptionError, match="label_separator must be one or more characters, got none; such as"):
        read_examples(file, label_separator="")


@pytest.mark.parametrize("record", [{"text": "a"}, {"text": "a", "label": None}, {"text": "a", "label": ""}])
def test_a_label_may_be_required(tmp_path: Path, record: dict[str, Any]) -> None:
    file = write(tmp_path / "a.jsonl", jsonl({"text": "a", "label": 1}, record))
    assert [example.label for example in read_examples(file)] == ["1", None]
    with pytest.raises(DataError, match=r"a.jsonl, line 2: (there must be a column|column) 'label'"):
        list(read_examples(file, require_label=True))


BAD_JSONL = b"""{"text": "first"}
{"text": "open
[1, 2]
{"txt": "a", "n": 1}
{"text": 5}
{"text": "caf\xe9"}
{"text": "last"}
"""
JSONL_FAULTS = [
    r"a.jsonl, line 2: a line must be JSON, but at character 10: .*, got '..text.: .open'; correct the line, or leave",
    r"a.jsonl, line 3: a line must be a JSON object, got list \(\[1, 2\]\); correct",
    r"a.jsonl, line 4: there must be a column 'text', got 'txt', 'n'; correct",
    r"a.jsonl, line 5: column 'text' must be a string, got int \(5\); correct",
    r"a.jsonl, line 6: a line must be UTF-8, got 0xe9 as byte 14; correct",
]

BAD_CSV = b"""text,label
first,x
one
one,two,three
"a"b,x
caf\xe9,x
"never closed,x
after,y
5" disk,x
"two
lines",z
"""
CSV_FAULTS = [
    r"a.csv, line 3: a row must have 2 fields as the header has, got 1; correct the line, or",
    r"a.csv, line 4: a row must have 2 fields as the header has, got 3; correct",
    r"a.csv, line 5: a row must be csv with quotes closed and doubled, but: .*; correct",
    r"a.csv, line 6: a line must be UTF-8, got 0xe9 as byte 4; correct",
    r"a.csv, line 7: a row must be csv with quotes closed and doubled, but up to line 9: .*; correct",
]


@pytest.mark.parametrize(
    ("name", "content", "faults", "last"),
    [("a.jsonl", BAD_JSONL, JSONL_FAULTS, (7, "last")), ("a.csv", BAD_CSV, CSV_FAULTS, (10, "two\nlines"))],
)
def test_bad_lines_are_skipped_or_become_null(
    tmp_path: Path, name: str, content: bytes, faults: list[str], last: tuple[int, str]
) -> None:
    errors: list[DataError] = []
    file = write(tmp_path / name, content)
    examples = list(read_examples(file, on_error=OnError.NULL, report=errors.append))
    bad = [int(fault.partition(":")[0].rpartition(" ")[2]) for fault in faults]
    assert [example.line for example in examples] == [bad[0] - 1, *bad, last[0]]
    assert [example.text for example in examples] == ["first", *[None] * len(bad), last[1]]
    assert [example.error for example in examples] == [None, *errors, None]
    for pattern, error in zip(faults, errors, strict=True):
        assert re.search(pattern, str(error))
    assert examples[1].record == {}
    skipped = list(read_examples(file, on_error=OnError.SKIP))
    assert [(example.line, example.text) for example in skipped] == [(bad[0] - 1, "first"), last]
    stopping = read_examples(file)
    assert next(stopping).text == "first"
    with pytest.raises(DataError, match=faults[0]) as caught:
        next(stopping)
    assert "\n" not in str(caught.value)


def test_quotes_that_are_never_closed(tmp_path: Path) -> None:
    """One takes no more than a line may have; one that is open at the end is a fault of its line."""
    file = write(tmp_path / "a.csv", 'text\n"open\n' + f"{'fine' * 25}\n" * 3000)
    errors: list[DataError] = []
    examples = list(read_examples(file, on_error=OnError.SKIP, report=errors.append, max_line=131_072))
    assert [example.line for example in examples][-1] == 3002
    assert 1600 < len(examples) < 1800
    with pytest.raises(DataError, match=r"line 2: a row must be csv .* up to line 1300: more than 131,072 bytes"):
        raise errors[0]
    assert len(errors) == 1
    file = write(tmp_path / "a.csv", 'text\nfine\n"open\nmore\n')
    with pytest.raises(DataError, match=r"a.csv, line 3: a row must be csv .*, but up to line 4: "):
        list(read_examples(file))
    assert [example.line for example in read_examples(file, on_error=OnError.SKIP)] == [2]


def test_numbers_and_brackets_without_end(tmp_path: Path) -> None:
    deep = "[" * 200_000
    file = write(tmp_path / "a.jsonl", f'{{"text": {deep}\n{{"text": "b"}}\n')
    assert [example.text for example in read_examples(file, on_error=OnError.NULL)] == [None, "b"]
    if hasattr(sys, "get_int_max_str_digits"):  # the limit is younger than Python 3.10.0
        file = write(tmp_path / "b.jsonl", '{"text": ' + "1" * 5000 + "}\n")
        with pytest.raises(DataError, match="line 1: a line must be JSON, but: "):
            list(read_examples(file))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("txt,label\na,b\n", r"a.csv: line 1: there must be a column 'text', got 'txt', 'label'; name one"),
        ("text,a,a\na,b,c\n", r"a.csv: line 1: columns must be distinct, twice: \['a'\]; correct the header"),
        ('"text\n', r"a.csv: line 1: a row must be csv .*; correct the header"),
        ("text\n", r"a.csv must hold at least one example, but it is empty; check the file"),
        ("", r"a.csv must hold at least one example"),
        (b"", r"a.jsonl must hold at least one example"),
    ],
)
def test_faults_of_a_file_as_a_whole(tmp_path: Path, content: str | bytes, message: str) -> None:
    file = write(tmp_path / ("a.csv" if isinstance(content, str) else "a.jsonl"), content)
    with pytest.raises(DataError, match=message):
        list(read_examples(file, on_error=OnError.SKIP))


@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.text("ab", min_size=1)), min_size=1))
def test_csv_as_python_writes_it(rows: list[tuple[str, str]]) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(["text", "label"])
    writer.writerows((text.replace("\0", ""), label) for text, label in rows)
    stream = io.BytesIO(out.getvalue().encode())
    examples = read_examples(stream, format=FileFormat.CSV)
    assert [(example.text, example.label) for example in examples] == [(text.replace("\0", ""), y) for text, y in rows]


@given(st.lists(st.sampled_from(["a,b", '"a",b', 'a"b,c', '"a"b', "é,x", "", '"",""', "\xff"]), max_size=12))
def test_no_line_of_csv_without_open_quotes_is_lost(lines: list[str]) -> None:
    stream = io.BytesIO("\n".join(["text,label", "first,x", *lines, "last,x"]).encode("latin-1"))
    examples = list(read_examples(stream, format=FileFormat.CSV, on_error=OnError.NULL))
    assert [example.line for example in examples] == [
        number for number, line in enumerate(["first,x", *lines, "last,x"], start=2) if line
    ]


@pytest.mark.parametrize("file_format", [FileFormat.TEXT, FileFormat.JSONL, FileFormat.CSV])
def test_memory_does_not_grow(file_format: FileFormat) -> None:
    class Endless(io.RawIOBase):
        def __init__(self) -> None:
            self.lines = self._make()

        def _make(self) -> Iterator[bytes]:
            yield b'{"text": 1}\n' if file_format is FileFormat.JSONL else b"text\n"
            for _ in range(3000):
                yield b'{"text": "%s"}\n' % (b"a" * 1000) if file_format is FileFormat.JSONL else b"a" * 1000 + b"\n"

        def readline(self, size: int | None = -1, /) -> bytes:
            return next(self.lines, b"")

    tracemalloc.start()
    try:
        stream: Any = Endless()
        count = sum(1 for _ in read_examples(stream, format=file_format, on_error=OnError.SKIP))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count >= 3000
    assert peak < 500_000


def test_lists_of_words(tmp_path: Path) -> None:
    file = tmp_path / "words.jsonl"
    file.write_text('{"words": ["a", "b"], "text": "x"}\n{"words": []}\n{"words": "a b"}\n{"words": ["a", null]}\n{}\n')
    found = list(read_examples(file, tokens_column="words", label_column=None, on_error=OnError.NULL))
    assert [(example.tokens, example.text) for example in found] == [
        (["a", "b"], None),
        ([], None),
        *[(None, None)] * 3,
    ]
    assert "column 'words' must be a list of words, got str ('a b')" in str(found[2].error)
    assert "column 'words' must be a list of words, got list (['a', None])" in str(found[3].error)
    assert "there must be a column 'words', got none" in str(found[4].error)

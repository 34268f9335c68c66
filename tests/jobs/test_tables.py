from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cascade import Classifier, Tagger
from cascade.exceptions import DataError, OptionError
from cascade.jobs import cutting, rows
from cascade.jobs.rows import Block, blocks
from cascade.jobs.running import predict_tables
from cascade.jobs.settings import ALL, Settings
from tests.jobs.making import seen, texts, write
from tests.models.toy import toy_bundle

SMALL: dict[str, Any] = {"part_rows": 90}
NAMES = ("a.parquet", "a.feather", "a.ipc", "a.arrow", "a.jsonl", "a.csv", "a.tsv", "a.jsonl.gz", "a.csv.gz")


@pytest.mark.parametrize("name", NAMES)
def test_every_format_is_read_in_order(clf: Classifier, tmp_path: Path, name: str) -> None:
    given = texts(257)
    given[5], given[100], given[101] = 'good,\n"bad"\tfilm', "plot\r\n", ""
    file = write(tmp_path / name, {"id": range(257), "text": given})
    out = tmp_path / "out"
    counts = predict_tables(clf, [file], out, Settings(keep=("id",), routes=True, **SMALL))
    want = clf.predict(given)
    got = pq.read_table(out)
    assert list(map(int, got["id"].to_pylist())) == list(range(257))
    assert got["label"].to_pylist() == want.labels
    assert got["route"].combine_chunks().field("tier").to_pylist() == want.routes.tier.tolist()
    np.testing.assert_allclose(got["score"].to_numpy(), want.probabilities.max(axis=1), atol=1e-6)
    assert (counts.rows, counts.units, counts.empty, counts.unread) == (257, 257, 1, 0)
    assert sorted(seen(out)) == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]


def test_lines_of_text(clf: Classifier, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"good\nbad film\n\nplot")
    predict_tables(clf, [tmp_path / "a.txt"], tmp_path / "o.parquet", Settings(keep=ALL, part_rows=2))
    got = pq.read_table(tmp_path / "o.parquet")
    assert got["text"].to_pylist() == ["good", "bad film", "", "plot"]
    assert got["label"].to_pylist() == clf.predict(["good", "bad film", "", "plot"]).labels


def test_files_of_a_folder_share_parts(clf: Classifier, tmp_path: Path) -> None:
    given = texts(300)
    for number, name in enumerate(("a.parquet", "deep/b.jsonl", "z.ipc")):
        begin = number * 100
        write(tmp_path / "in" / name, {"text": given[begin : begin + 100], "id": range(begin, begin + 100)}, 37)
    (tmp_path / "in" / "_hidden.parquet").touch()
    (tmp_path / "in" / "notes.md").touch()
    predict_tables(clf, [tmp_path / "in"], tmp_path / "out", Settings(keep=("id",), part_rows=120))
    parts = [pq.read_table(tmp_path / "out" / name) for name in sorted(seen(tmp_path / "out"))]
    assert [len(part) for part in parts] == [120, 120, 60]
    assert [one for part in parts for one in part["id"].to_pylist()] == list(range(300))
    assert [one for part in parts for one in part["label"].to_pylist()] == clf.predict(given).labels
    predict_tables(clf, [str(tmp_path / "in" / "[a]*.parquet"), tmp_path / "in" / "z.ipc"], tmp_path / "two.csv")
    assert len((tmp_path / "two.csv").read_text().splitlines()) == 201


def test_one_file_of_each_format(clf: Classifier, tmp_path: Path) -> None:
    given, ids = texts(200), [0.1 + one for one in range(200)]
    file, want = write(tmp_path / "a.parquet", {"id": ids, "text": given}), clf.predict(given)
    settings = Settings(keep=("id",), routes=True, top_k=2, **SMALL)
    for name in ("o.parquet", "o.jsonl", "o.csv"):
        predict_tables(clf, [file], tmp_path / name, settings)
    table = pq.read_table(tmp_path / "o.parquet")
    assert table.schema.field("label").type == pa.dictionary(pa.int32(), pa.string())
    assert table.schema.field("score").type == pa.float32()
    assert table["label"].to_pylist() == want.labels
    assert table.column_names == ["id", "label", "score", "route", "top"]
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ids
    best = round(float(want.probabilities[7].max()), 6)
    assert (lines[7]["label"], lines[7]["score"], lines[7]["top"][0]["score"]) == (want.labels[7], best, best)
    assert lines[7]["route"]["tier"] == want.routes[7].tier
    with (tmp_path / "o.csv").open(newline="") as stream:
        cells = list(csv.DictReader(stream))
    assert [json.loads(row.pop("route")) | {"id": float(row["id"]), "label": row["label"]} for row in cells] == [
        line["route"] | {"id": line["id"], "label": line["label"]} for line in lines
    ]
    assert sorted(path.name for path in (tmp_path / "o.csv.parts").iterdir()) == ["_cascade"]


def test_pairs(clf: Classifier, tmp_path: Path) -> None:
    pairs: list[Any] = [("good", "bad film"), ("plot", ""), ("dull", None)]
    file = write(tmp_path / "a.parquet", {"text": [a for a, _ in pairs], "text_pair": [b for _, b in pairs]})
    predict_tables(clf, [file], tmp_path / "o.parquet")
    want = clf.predict([("good", "bad film"), ("plot", ""), "dull"]).labels
    assert pq.read_table(tmp_path / "o.parquet")["label"].to_pylist() == want
    predict_tables(clf, [file], tmp_path / "n.parquet", Settings(text="text_pair", pair="text", on_error="null"))
    assert pq.read_table(tmp_path / "n.parquet")["label"].to_pylist()[2] is None


def test_several_labels(tmp_path: Path) -> None:
    several = Classifier.from_pretrained(toy_bundle(tmp_path / "m", multi_label=True).folder, threads=1)
    given = texts(50)
    predict_tables(several, [write(tmp_path / "a.parquet", {"text": given})], tmp_path / "o.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [tuple(line["label"]) for line in lines] == several.predict(given).labels


def test_words_texts_and_entities(tagger: Tagger, tmp_path: Path) -> None:
    given = texts(120)
    words = [text.split() for text in given]
    file = write(tmp_path / "a.parquet", {"tokens": words, "text": given})
    predict_tables(tagger, [file], tmp_path / "w.parquet", Settings(tokens="tokens", routes=True, **SMALL))
    table, want = pq.read_table(tmp_path / "w.parquet"), tagger.predict(words)
    assert (table["tokens"].to_pylist(), table["tags"].to_pylist()) == (words, want.tags)
    assert [len(one) for one in table["route"].to_pylist()] == list(map(len, words))
    predict_tables(tagger, [file], tmp_path / "t.jsonl", Settings(**SMALL))
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [line["tags"] for line in lines] == tagger.predict_texts(given).tags
    assert [line["tokens"] for line in lines] == words
    predict_tables(tagger, [file], tmp_path / "e.parquet", Settings(strategy="first", **SMALL))
    found = [row["entities"] for row in pq.read_table(tmp_path / "e.parquet").to_pylist()]
    assert [[one["word"] for one in row] for row in found] == [
        [one["word"] for one in row] for row in tagger(given, aggregation_strategy="first")
    ]


BAD = """{"text": "good", "id": 1}
{"text": null, "id": 2}
{"te

{"text": "bad", "id": "x"}
{"text": "film", "id": 5}
"""


def test_rows_that_cannot_be_read(clf: Classifier, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "dull", "id": 0}\n' * 1000 + BAD)
    with pytest.raises(DataError, match=r"a.jsonl, line 1002: column 'text' must be a string, got NoneType .*skip"):
        predict_tables(clf, [file], tmp_path / "o.parquet", Settings(keep=("id",)))
    predict_tables(clf, [file], tmp_path / "n.parquet", Settings(keep=("id",), on_error="null"))
    last = pq.read_table(tmp_path / "n.parquet").slice(1000).to_pylist()
    assert [row["id"] for row in last] == [1, 2, None, None, 5]
    assert [row["label"] is None for row in last] == [False, True, True, True, False]
    assert last[3]["error"] == f"{file}, line 1005: column 'id' must be int64 as in the first rows, got 'x'"
    counts = predict_tables(clf, [file], tmp_path / "o.parquet", Settings(keep=("id",), on_error="skip"))  # it goes on
    assert [row["id"] for row in pq.read_table(tmp_path / "o.parquet").slice(1000).to_pylist()] == [1, 5]
    assert (counts.rows, counts.unread) == (1005, 3)


def test_cells_that_cannot_be_read(clf: Classifier, tmp_path: Path) -> None:
    cells = pa.array([b"good", b"b\xffd", None, b"film", b"long " * 9]).cast(pa.binary())
    column = pa.Array.from_buffers(pa.string(), 5, cells.buffers())
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": column, "id": range(5)}), file)
    settings = Settings(keep=("id",), on_error="null", max_line=40, prefix="my_")
    predict_tables(clf, [file], tmp_path / "o.parquet", settings)
    got = pq.read_table(tmp_path / "o.parquet")
    assert got.column_names == ["id", "my_label", "my_score", "my_error"]
    assert [one is None for one in got["my_label"].to_pylist()] == [False, True, True, False, True]
    errors = got["my_error"].to_pylist()
    assert "row 2: column 'text' must hold values that can be read, but it is not UTF-8" in errors[1]
    assert errors[2].startswith(f"{file}, row 3: column 'text' must be a string, got NoneType")
    assert "more than 40 characters" in errors[4]


def test_words_that_are_none(tagger: Tagger, tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", {"tokens": [["a"], None, ["b", None], []]})
    predict_tables(tagger, [file], tmp_path / "o.parquet", Settings(tokens="tokens", on_error="null"))
    assert [one is None for one in pq.read_table(tmp_path / "o.parquet")["tags"].to_pylist()] == [
        False,
        True,
        True,
        False,
    ]


def test_empty_texts(clf: Classifier, tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", {"text": ["good", " ", ""], "id": [1, 2, 3]})
    counts = predict_tables(clf, [file], tmp_path / "o.parquet", Settings(on_empty="null"))
    assert [one is None for one in pq.read_table(tmp_path / "o.parquet")["label"].to_pylist()] == [False, True, True]
    assert (counts.rows, counts.empty, counts.units) == (3, 2, 1)
    with pytest.raises(DataError, match="a text must have a character that is no blank, got ' '"):
        predict_tables(clf, [file], tmp_path / "e.parquet", Settings(on_empty="error"))


def refused(clf: Classifier, tmp_path: Path, inputs: list[Any], settings: Settings | None = None) -> str:
    """What is said of inputs; nothing is left in the output's place."""
    with pytest.raises((DataError, OptionError)) as error:
        predict_tables(clf, inputs, tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()
    return str(error.value)


def test_files_that_are_refused(clf: Classifier, tmp_path: Path) -> None:
    good = write(tmp_path / "good.parquet", {"text": ["a"], "id": [1]})
    keep = Settings(keep=("id",))
    other = write(tmp_path / "other.parquet", {"body": ["a"]})
    told = refused(clf, tmp_path, [good, other])
    assert told == f"there must be a column 'text', got 'body' in {other}; name one of them"
    for name in ("o.csv", "o.tsv"):
        told = refused(clf, tmp_path, [good, write(tmp_path / name, {"body": ["a"]})])
        assert f"{name}: line 1: there must be a column 'text', got 'body'" in told
    numbers = write(tmp_path / "numbers.parquet", {"text": [1]})
    assert "column 'text' must hold strings, got int64 in" in refused(clf, tmp_path, [good, numbers])
    nested = write(tmp_path / "nested.parquet", {"text": [{"body": "a"}]})
    assert "must hold strings, got struct<body: string> in" in refused(clf, tmp_path, [nested])
    typed = write(tmp_path / "typed.parquet", {"text": ["a"], "id": ["x"]})
    told = refused(clf, tmp_path, [good, typed], keep)
    assert "must have one type in all files, got 'id' as int64 and as string in" in told
    for name, kind in (("float.parquet", "double"), ("float.jsonl", "double"), ("text.csv", "string")):
        told = refused(clf, tmp_path, [good, write(tmp_path / name, {"text": ["a"], "id": [1.5]})], keep)
        assert f"got 'id' as int64 and as {kind} in {tmp_path / name}; leave it out" in told
    fewer = write(tmp_path / "fewer.parquet", {"text": ["a"]})
    assert "kept must be in all files, but 'id' is not" in refused(clf, tmp_path, [good, fewer], keep)
    assert "kept must be in all files, but 'id' is not" in refused(clf, tmp_path, [good, fewer], Settings(keep=ALL))
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text('{"text": "a", "id": 1}\n{"text": "a", "id": "x"}\n')
    assert "must have one type, but 'id' of" in refused(clf, tmp_path, [mixed], keep)
    for suffix in ("parquet", "arrow"):
        cut = tmp_path / f"cut.{suffix}"
        cut.write_bytes(write(tmp_path / f"a.{suffix}", {"text": texts(100)}).read_bytes()[:-20])
        assert f"cut.{suffix} must be a whole {suffix} file, but:" in refused(clf, tmp_path, [cut])
    packed = tmp_path / "cut.jsonl.gz"
    packed.write_bytes(write(tmp_path / "a.jsonl.gz", {"text": texts(100)}).read_bytes()[:-20])
    assert "cut.jsonl.gz must be a whole jsonl file, but:" in refused(clf, tmp_path, [packed])
    labelled = write(tmp_path / "gold.parquet", {"text": ["a"], "label": ["b"]})
    told = refused(clf, tmp_path, [labelled], Settings(keep=ALL))
    assert (
        "must have other names than answers, got 'label' for both; leave it out of --keep, or give a --prefix" in told
    )


def test_inputs_that_are_refused(clf: Classifier, tmp_path: Path) -> None:
    good = write(tmp_path / "good.parquet", {"text": ["a"]})
    assert "but there is none" in refused(clf, tmp_path, [tmp_path / "missing.parquet"])
    assert "but there is none" in refused(clf, tmp_path, [tmp_path / "*.feather"])
    assert "must be distinct files" in refused(clf, tmp_path, [good, tmp_path])
    (tmp_path / "a.doc").touch()
    assert "the suffix of an input must be one of .txt," in refused(clf, tmp_path, [tmp_path / "a.doc"])
    assert "must hold at least one row" in refused(
        clf, tmp_path, [write(tmp_path / "e.parquet", {"text": pa.array([], pa.string())})]
    )
    with pytest.raises(OptionError, match="must be another file than the input"):
        predict_tables(clf, [good], good)
    with pytest.raises(OptionError, match="format csv must have its suffix"):
        predict_tables(clf, [good], tmp_path / "o.parquet", Settings(form="csv"))
    with pytest.raises(OptionError, match="a new or empty folder or a job's"):
        predict_tables(clf, [good], tmp_path)
    with pytest.raises(OptionError, match="form must be one of parquet, jsonl, csv, got 'xml'"):
        Settings(form="xml")


def test_blocks_are_bounded_and_depend_on_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "BLOCK_ROWS", 5)
    monkeypatch.setattr(rows, "BLOCK_SIZE", 10)
    lengths = [1, 2, 3, 4, 0, 1, 50, 1, 1, 1, 1, 1, 1, 9, 2]
    items = ["x" * length for length in lengths]
    kept = pa.table({"long": ["y" * (160 if number == 7 else 0) for number in range(15)]})
    whole = Block(items, [None] * 15, kept)
    cuts = []
    for ends in ([15], [1, 2, 3, 15], range(1, 16), [7, 7, 8, 15]):
        pieces = [whole.slice(begin, end) for begin, end in zip([0, *ends], ends, strict=False)]
        cuts.append([[len(item) for item in block.items] for block in blocks(pieces)])
    assert cuts[0] == [[1, 2, 3, 4, 0], [1], [50], [1], [1, 1, 1, 1, 1], [9], [2]]
    assert cuts == cuts[:1] * 4


def test_blocks_of_long_texts_have_fewer_rows() -> None:
    found = [
        len(next(iter(blocks([Block(["x" * size] * rows, [None] * rows, pa.table({"id": range(rows)}))]))))
        for size, rows in ((20, 3000), (75, 3000), (2000, 300), (1_000_000, 3))
    ]
    assert found == [2048, 987, 167, 1]


def test_many_parts_and_a_bar(clf: Classifier, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "a.parquet", {"text": texts(40)}, 7)
    predict_tables(clf, [file], tmp_path / "out", Settings(part_rows=3), show_progress=True)
    assert len(seen(tmp_path / "out")) == 14
    drawn = capsys.readouterr().err
    assert "40/40" in drawn
    assert "% deferred" in drawn


def test_parts_are_cut_by_bytes_too(clf: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "PART_BYTES", 2000)
    given = texts(100)
    for name in ("a.parquet", "a.jsonl", "a.csv"):
        out = tmp_path / f"out {name[2:]}"
        predict_tables(clf, [write(tmp_path / name, {"text": given})], out)
        assert 1 < len(seen(out)) < 8
        assert pq.read_table(out)["label"].to_pylist() == clf.predict(given).labels

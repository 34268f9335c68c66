"""Labelled sentences as `cascade-bench` reads them, and entity F1."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascade.exceptions import DataError, MissingExtraError, OptionError
from cascade_bench.tag_data import TagColumns, Tagged, entity_f1, read_tagged
from tests.models.tagged import lines
from tests.models.toy_tags import TAGS


def test_reading(tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    file.write_text(lines([["a", "b"], [], ["c"]], [["O", "B-PER"], [], ["I-LOC"]]))
    found = read_tagged(str(file), TAGS)
    assert found.sentences == [["a", "b"], ["c"]]
    assert found.targets.tolist() == [0, 1, 4]
    assert (len(found), found.unit, found.entities) == (3, "words", True)
    assert found.right([["O", "O"], ["I-LOC"]]) == 2
    file.write_text(json.dumps({"words": ["a"], "upos": ["X"]}))
    assert read_tagged(str(file), ("X", "Y"), columns=TagColumns("words", "upos")).entities is False


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"tokens": ["a"]}\n', "line 1: there must be a column 'tags'"),
        ('{"tokens": ["a"], "tags": ["O"]}\n{"tokens": "a", "tags": ["O"]}\n', "line 2: tokens must be a list of str"),
        ('{"tokens": ["a"], "tags": [1]}\n', r"line 1: tags must be a list of strings, was: \[1\]"),
        ('{"tokens": ["a"], "tags": []}\n', "line 1: there must be a tag for each word, were: 1 words and 0 tags"),
        ('{"tokens": ["a"], "tags": ["Z"]}\n', r"tags must be the bundle's \(O, B-PER, .*\), was: 'Z'; correct"),
        ("nonsense\n", "line 1: a line must be JSON"),
        ('{"tokens": [], "tags": []}\n', "must hold at least one word, but it holds none"),
    ],
)
def test_bad_lines(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        read_tagged(str(file), TAGS)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl must be a file of labelled sentences, but it is missing"):
        read_tagged(str(tmp_path / "none.jsonl"), TAGS)
    (tmp_path / "some.csv").write_text("a\n")
    with pytest.raises(OptionError, match=r"the suffix of a file must be one of \.jsonl, \.ndjson, \.parquet, was"):
        read_tagged(str(tmp_path / "some.csv"), TAGS)


def test_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    file = tmp_path / "some.parquet"
    parquet.write_table(pa.table({"tokens": [["a", "b"]], "tags": [["O", "B-PER"]]}), file)
    assert read_tagged(str(file), TAGS).tags == [["O", "B-PER"]]


def test_entity_f1_counts_whole_entities(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two entities; one is found, one is cut short: precision and recall are 1/2.
    right = [["B-PER", "I-PER", "O"], ["B-LOC"]]
    found = [["B-PER", "O", "O"], ["B-LOC"]]
    assert entity_f1(right, found) == pytest.approx(0.5)
    assert entity_f1([["O"]], [["O"]]) == 0
    tagged = Tagged([["a", "b", "c"], ["d"]], right, np.array([1, 2, 0, 3]), entities=True)
    assert tagged.f1(found) == pytest.approx(0.5)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert tagged.f1(found) is None
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name.startswith("seqeval"):
            raise ImportError(name="seqeval")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match="entity F1 needs the bench extra, but seqeval is missing"):
        entity_f1(right, found)

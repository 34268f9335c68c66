"""Labelled data from files and from `datasets` names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from cascade.exceptions import DataError
from cascade.training import data


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> datasets.Dataset:
    """What `load_dataset` gives for any name, while the test runs."""
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["negative", "positive"])}
    )
    made = datasets.Dataset.from_dict({"text": ["good", "bad", "dull"], "label": [1, 0, 0]}, features=features)
    asked: list[tuple[str, str]] = []

    def load(name: str, *, split: str) -> datasets.Dataset:
        asked.append((name, split))
        if name == "nobody/nothing":
            raise FileNotFoundError("Couldn't find 'nobody/nothing' on the Hub\nand more")
        return made

    monkeypatch.setattr(datasets, "load_dataset", load)
    made.asked = asked
    return made


def test_a_data_set_by_name_gives_its_class_names(table: Any) -> None:
    found = data.read("someone/reviews")
    assert found.texts == ["good", "bad", "dull"]
    assert found.labels == ["positive", "negative", "negative"]
    data.read("someone/reviews:validation")
    assert table.asked == [("someone/reviews", "train"), ("someone/reviews", "validation")]


def test_a_data_set_that_is_not_there(table: Any) -> None:
    with pytest.raises(
        DataError, match=r"nobody/nothing must be a file or a data set \(name:split\), but Couldn't find"
    ):
        data.read("nobody/nothing")


def test_a_data_set_without_the_column(table: Any) -> None:
    with pytest.raises(DataError, match="must have the column sentence, has: text, label"):
        data.read("someone/reviews", columns=data.Columns(text="sentence"))


def test_names_of_lists_pairs_and_missing_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "text_pair": datasets.Value("string"),
            "label": [datasets.ClassLabel(names=["a", "b"])],
        }
    )
    made = datasets.Dataset.from_dict({"text": ["x"], "text_pair": ["y"], "label": [[0, 1]]}, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: made)
    found = data.read("some/pairs")
    assert found.texts == [("x", "y")]
    assert found.labels == [("a", "b")]
    bare = datasets.Dataset.from_dict({"text": ["x"], "label": [-1]})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: bare)
    with pytest.raises(DataError, match="example 1 has no label; label it or drop it"):
        data.read("some/unlabelled")
    assert data.read("some/unlabelled", require_labels=False).labels is None


def test_numbers_sort_as_numbers_and_words_as_words() -> None:
    assert data.label_names(data.Examples(["x"] * 3, ["10", "9", "-1"], "here")) == ["-1", "9", "10"]
    assert data.label_names(data.Examples(["x"] * 2, ["b", "a"], "here")) == ["a", "b"]


def test_label_numbers() -> None:
    examples = data.Examples(["x", "y"], [("a", "b"), ()], "here")
    np.testing.assert_array_equal(data.label_numbers(examples, ["a", "b"], multi_label=True), [[1, 1], [0, 0]])
    with pytest.raises(DataError, match="here: example 1 must have one label, has 2; use --multi-label for several"):
        data.label_numbers(examples, ["a", "b"], multi_label=False)


def test_padding() -> None:
    rows = data.Rows(ids=[[5, 6, 7], [8]], types=[[0, 0, 1], [0]], targets={"labels": np.array([1, 0])})
    batch = data.Pad(9)([rows[0], rows[1]])
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 1], [0, 0, 0]]
    assert batch["labels"].tolist() == [1, 0]


@pytest.mark.parametrize("missing", ["torch", "transformers", "accelerate"])
def test_the_door_names_the_extra(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None\nimport cascade.training"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'pip install "cascade-encoder[train]"' in done.stderr


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no.jsonl"):
        data.read(tmp_path / "no.jsonl")

"""What `cascade calibrate` reads, and what it refuses in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cascade import DataError
from cascade.cli.calibrate.data import examples_of
from cascade.text.labelled import Columns
from tests.cli.calibrate.conftest import write
from tests.models.cli import Command


def test_columns(run: Command, model: Path, examples: list[dict[str, str]], tmp_path: Path) -> None:
    file = write(tmp_path / "d.jsonl", [{"said": one["text"], "meant": one["label"]} for one in examples])
    arguments = ("calibrate", model, "--data", file, "--max-drop", "0.3", "--text-column", "said")
    run.well(*arguments, "--label-column", "meant")
    assert "has none in the column 'label'" in run(*arguments).err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--max-drop", "0.1", "--agreement", "0.2"), "--max-drop and --agreement exclude each other; ask for one"),
        (("--no-guarantee", "--per-class"), "--per-class must be used with a guarantee, got --max-drop without a guar"),
        (("--agreement", "0.1", "--no-guarantee"), "--no-guarantee must be used with --max-drop, got --agreement"),
        (("--no-guarantee", "--f1"), "--f1 must be used with taggers, but"),
        (("--max-drop", "1.5"), "--max-drop must be above 0 and below 1, got 1.5"),
        (("--confidence", "1"), "--confidence must be above 0 and below 1, got 1.0"),
        (("--tokens-column", "x"), "--tokens-column must be used with taggers, but"),
        (("--write", "--output", "x"), "--write and --output exclude each other, both were given; leave one out"),
        (("--json", "missing/x.json"), "--json must be a file in a folder that is there, got missing/x.json"),
    ],
)
def test_bad_use(run: Command, model: Path, data: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in run.refused("calibrate", model, "--data", data, *arguments)


def test_bad_places(run: Command, model: Path, data: Path, tmp_path: Path) -> None:
    said = run.refused("calibrate", model, "--data", tmp_path / "none.jsonl")
    assert said == f"Error: --data must be a file of examples, got {tmp_path}/none.jsonl; check the path\n"
    said = run.refused("calibrate", model, "--data", data, "--output", model)
    assert said == f"Error: --output must not be there yet, got {model}; choose another folder\n"
    said = run.refused("calibrate", "somebody/model", "--data", data, "--write")
    assert said.startswith("Error: --write needs a bundle in a folder, got somebody/model; give --output FOLDER")
    before = data.read_bytes()
    said = run.refused("calibrate", model, "--data", data, "--json", data)
    assert said.startswith("Error: an output must be another file than the input, got ")
    assert data.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            {"text": "good", "label": "great"},
            ": line 601 has the label 'great', which the model does not have (3 labels: negative, neutral, ",
        ),
        (
            {"text": "good"},
            ", line 601: every text must have a label, or none, got 1 of 601 without; label them, or ta",
        ),
        ({"text": "good", "label": ["negative", "neutral"]}, ": line 601 must have one label, got 2; correct it"),
        ({"label": "neutral"}, ", line 601: there must be a column 'text'"),
    ],
)
def test_bad_lines(
    run: Command, model: Path, examples: list[Any], tmp_path: Path, line: dict[str, Any], message: str
) -> None:
    file = write(tmp_path / "bad.jsonl", [*examples, line])
    assert f"{file}{message}" in run.refused("calibrate", model, "--data", file)


def test_several_labels_as_files_have_them(tmp_path: Path) -> None:
    names = ("LABEL_0", "b, c")

    def truth(labels: list[Any], labels_of: tuple[str, ...] = names, several: bool = True) -> Any:
        file = write(tmp_path / "d.jsonl", [{"text": "x", "label": label} for label in labels])
        return examples_of(file, Columns(), words=False, labels=labels_of, multi_label=several)[1].tolist()

    assert truth([("1", "0"), ("0", "1")]) == [[1, 0], [0, 1]]
    assert truth(["b, c", ("LABEL_0", "b, c"), ()]) == [[0, 1], [1, 1], [0, 0]]
    assert truth(["1", "0"], ("LABEL_0", "LABEL_1"), several=False) == [1, 0]
    assert truth(["1", "0"], ("toxic",)) == [[1], [0]]
    with pytest.raises(
        DataError, match=r"has the label 'LABEL_0,b, c', which .* correct it, say with --label-separator what"
    ):
        truth(["LABEL_0,b, c"])
    with pytest.raises(DataError, match=r"without; write \[\], or in a csv give --label-separator, where none applies"):
        truth(["LABEL_0", None])

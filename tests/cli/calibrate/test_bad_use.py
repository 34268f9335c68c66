"""What `cascade calibrate` reads, and what it refuses in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cascade import DataError
from cascade.cli.calibrate.data import labelled_texts
from cascade.text.reading import Example
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
        ({"text": "good", "label": "great"}, "labels must be the bundle's (negative, neutral, positive), got 'great'"),
        ({"text": "good"}, "every text must have a label, or none, got 1 of 601 without; label them, or take them out"),
        ({"text": "good", "label": ["negative", "neutral"]}, "there must be exactly one label, got 2"),
        ({"label": "neutral"}, "there must be a column 'text'"),
    ],
)
def test_bad_lines(
    run: Command, model: Path, examples: list[Any], tmp_path: Path, line: dict[str, Any], message: str
) -> None:
    file = write(tmp_path / "bad.jsonl", [*examples, line])
    said = run.refused("calibrate", model, "--data", file)
    assert f"{file}, line 601: " in said
    assert message in said


def test_several_labels_as_files_have_them() -> None:
    names, file = ("LABEL_0", "b, c"), Path("f")

    def truth(labels: list[Any], labels_of: tuple[str, ...] = names, several: bool = True) -> Any:
        read = [Example(line, "x", label, {}) for line, label in enumerate(labels, 1)]
        return labelled_texts(read, file, labels_of, multi_label=several).truth.tolist()

    assert truth([("1", "0"), ("0", "1")]) == [[1, 0], [0, 1]]
    assert truth(["b, c", ("LABEL_0", "b, c"), ()]) == [[0, 1], [1, 1], [0, 0]]
    assert truth(["1", "0"], ("LABEL_0", "LABEL_1"), several=False) == [1, 0]
    assert truth(["1", "0"], ("toxic",)) == [[1], [0]]
    with pytest.raises(DataError, match="got 'LABEL_0,b, c'; give --label-separator if these are several, rename"):
        truth(["LABEL_0,b, c"])
    with pytest.raises(DataError, match=r"without; write \[\], or in a csv give --label-separator, where none applies"):
        truth(["LABEL_0", None])

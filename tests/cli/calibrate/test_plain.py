"""`cascade calibrate` without a guarantee: thresholds by the accuracy lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cascade import Classifier
from tests.cli.calibrate.conftest import make, manifest
from tests.models.cli import Command, lines


def test_thresholds_without_a_guarantee(run: Command, data: Path, tmp_path: Path) -> None:
    folder, report = tmp_path / "mine", tmp_path / "report.json"
    make(folder)
    command = ("calibrate", folder, "--data", data, "--no-guarantee", "--max-drop", "0.03")
    done = run.well(*command, "--write", "--json", str(report))
    assert "points, allowed 3\n" in done.out
    assert ", full tier 2 " in done.out
    written = json.loads(report.read_text())
    assert written["guarantee"] is False
    assert written["point"]["drop"] <= 0.03 + 1e-9
    classifier = Classifier.from_pretrained(folder, threads=1)
    assert classifier.policies.to_json() == written["policies"]
    note = manifest(folder)["figures"]["operating_point"]
    assert (note["data"], note["asked"]) == ("data.jsonl", "--max-drop 0.03")
    # What was replayed is what the written bundle does.
    given = lines(data.read_text())
    made = classifier.predict([line["text"] for line in given]).labels
    right = sum(a == line["label"] for a, line in zip(made, given, strict=True))
    assert right / 600 == pytest.approx(written["point"]["accuracy"])
    again = run("calibrate", folder, "--data", data, "--max-drop", "0.2")
    assert "Warning: the bundle was made with a file of the same name; " in again.out

"""The simulations really run, small."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from cascade.calibration.certify.claims import Agreement, MaxDrop
from cascade_bench.systems.local import Model
from tests.bench.conftest import labelled_lines, texts, write_lines
from tests.models.toy import random_texts
from tests.simulations import certificates, shift


def run(command: click.Command, *arguments: object) -> str:
    done = CliRunner().invoke(command, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_certificates(bundle: Path, classifier: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_lines(tmp_path / "d.jsonl", labelled_lines(classifier, texts(200)))
    monkeypatch.setattr(certificates, "ASKS", {"agreement": Agreement(0.6), "drop": MaxDrop(0.002)})
    out = run(certificates.main, bundle, "--data", data, "--runs", 3, "--texts", 60, "--stream", 50)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("| ")]
    assert [row[:2] for row in rows[1:7]] == [
        [name, how] for name in ("agreement", "drop") for how in ("with", "without")
    ] + [["agreement", "copies"], ["agreement", "copies as given"]]
    assert rows[3][2].startswith("3 of 3 (100.0 %; 29.2-100.0)")  # 0.002 takes far more texts
    assert [row[0] for row in rows[8:]] == ["examples added", "other seeds"]
    looks = list(certificates.looks(np.random.default_rng(0), 20_000))
    uncounted, counted = ([float(row[place].split("(")[1].split()[0]) for row in looks] for place in (1, 2))
    assert min(uncounted) > 6
    assert max(counted) <= 5


def test_shift(bundle: Path, tmp_path: Path) -> None:
    files = {}
    for seed, name in enumerate(("one", "same")):
        files[name] = tmp_path / f"{name}.txt"
        files[name].write_text("\n".join(random_texts(400, seed=seed)), encoding="utf-8")
    other = tmp_path / "other" / "dev.jsonl"
    other.parent.mkdir()
    other.write_text((json.dumps({"tokens": ["never", "heard"] * 9}) + "\n") * 400, encoding="utf-8")
    arguments = ("--calibration", files["one"], "--held-out", files["same"], "--other", other)
    out = run(shift.main, bundle, *arguments, "--streams", 4, "--texts", 2000)
    assert out.count(": 2,000 held-out texts: no alarm in 4 streams\n") == 2
    found = re.findall(r"  other, (at once|after 5,000 others): alarm in 4 of 4 streams, at text (\d+) in the", out)
    assert [when for when, _ in found] == ["at once", "after 5,000 others"] * 2
    assert all(int(text) < 100 for _, text in found)

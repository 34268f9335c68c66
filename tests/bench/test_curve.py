"""The curve: settings of the front, what is timed, the command."""

from __future__ import annotations

import json
from pathlib import Path

from cascade_bench.curve import WORST, ahead, best_policies, sweep
from cascade_bench.systems.local import answered, whole
from cascade_bench.table.data import read_data
from tests.bench.conftest import Case, Run, write_lines

SMALL = ("--points", 2, "--repeats", 2, "--threads", 1)


def test_settings_of_the_front(case: Case) -> None:
    """They are few, each cheaper and worse than the next as calibration sees it, and really run."""
    model, data = case.model, read_data(str(case.data), case.model)
    found = best_policies(model, data, 4)
    assert 1 <= len(found) <= 4
    assert len(set(map(repr, found))) == len(found)
    full = data.accuracy(answered(whole(model), data.items).labels)
    right = [data.accuracy(answered(model.with_policies(own), data.items).labels) for own in found]
    assert min(right) >= full - WORST - 0.05  # of a tagger's halted words a replay is near, not exact
    assert right[-1] >= full - 0.05
    assert len(best_policies(model, data, 1)) == 1


def test_what_is_timed(case: Case) -> None:
    model, data = case.model, read_data(str(case.data), case.model)
    found = sweep(model, data, points=2, repeats=2)
    rows = found.rows
    keys = [row.key for row in rows]
    assert keys[:5] == ["full", "cut-2", "cut-1", "tier1", "cascade"]
    assert keys[5:] == ["A", "B"][: len(keys) - 5] != []
    assert all(row.name.startswith(f"{row.key}: ") and len(row.seconds) == 2 for row in rows[5:])
    best = max(rows, key=lambda row: (row.accuracy, row.speed))
    assert best in ahead(found)
    slower = [row for row in rows if row.accuracy < best.accuracy and row.speed <= best.speed]
    assert not [row for row in slower if row in ahead(found)]


def test_the_command(run: Run, bundle: Path, data: Path, tmp_path: Path) -> None:
    first = tmp_path / "first.json"
    done = run("curve", bundle, "--data", data, *SMALL, "--json", first)
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].split()[:6] == ["system", "accuracy", "points", "deferred", "mean", "layer"]
    assert [line.split("  ")[0] for line in lines[1:3]] == ["tier 2, full depth", "tier 2 cut after layer 2"]
    assert "Lettered settings were chosen on these rows.\nNothing else is both faster and as good as: " in done.out
    names = [entry["name"] for entry in json.loads(first.read_text())["benchmarks"]]
    assert names[:5] == ["full", "cut-2", "cut-1", "tier1", "cascade"]


def test_a_single_row_without_a_label(run: Run, bundle: Path, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "one.jsonl", [{"text": "good film"}])
    done = run("curve", bundle, "--data", file, *SMALL)
    assert done.status == 0, done.err
    assert "Only 1 rows" in done.out
    assert "agreement with tier 2 at full depth is reported" in done.out


def test_a_file_that_cannot_be_written_is_said_first(run: Run, bundle: Path, tmp_path: Path) -> None:
    done = run("curve", bundle, "--data", tmp_path / "missing.jsonl", "--json", tmp_path / "none" / "file")
    assert "--json must be a file in a folder that is there" in done.err

"""The curve: candidates, the front, what is timed, the picture, the command."""

from __future__ import annotations

import json
from functools import partial
from itertools import accumulate, count
from pathlib import Path

import matplotlib.text
import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.image import imread

from cascade_bench import plot
from cascade_bench.curve import Curve, Tried, candidates, front, spread, sweep
from cascade_bench.systems.local import Answered, Model, System
from cascade_bench.table.data import read_data
from tests.bench.conftest import Case, Run, texts, write_lines
from tests.models.tagged import sentences

SMALL = ("--deferrals", 3, "--exits", 2, "--points", 2, "--repeats", 2, "--threads", 1)


def point(seconds: float, accuracy: float) -> Tried:
    return Tried(System("some", "some", lambda _items: Answered([])), accuracy, seconds)


def test_the_front() -> None:
    slow, fast, middle = point(4, 0.9), point(1, 0.7), point(3, 0.8)
    assert front([slow, point(2, 0.7), point(4, 0.8), fast, middle]) == [fast, middle, slow]


def test_a_handful_is_spread_from_end_to_end() -> None:
    seconds = [1.0, 1.01, 1.02, 3.0, 3.01, 9.0, 9.01]
    points = [point(one, 0.5 + 0.05 * number) for number, one in enumerate(seconds)]
    assert [points.index(one) for one in spread(points, 3)] in ([0, 3, 6], [0, 4, 6])
    assert spread(points, 7) == points
    assert spread(points, 1) == [points[-1]]
    assert spread([], 3) == []


def test_candidates_defer_what_they_should(classifier: Model, tagger: Model) -> None:
    found = candidates(classifier, texts(), deferrals=3, exits=2)
    deferring = [one for one in found if one.key.endswith(", never")]
    shares = [one.run(texts()).deferred for one in deferring]
    assert shares == pytest.approx([0.02, np.sqrt(0.02 * 0.7), 0.7], abs=0.05)
    assert len(found) == len(deferring) * 3 + 2
    assert sum(one.key.startswith("defer_all, ") for one in found) == 2
    shown = {one.key.split("), ")[1] for one in found if one.key.startswith("Threshold")}
    assert shown == {"MaxProbability(threshold=0.995)", "MaxProbability(threshold=0.4)", "never"}
    tags = candidates(tagger, sentences(20), deferrals=2, exits=1)
    assert all("TokenExit(" in one.key or one.key.endswith("never") for one in tags)


def test_what_is_timed(case: Case) -> None:
    model, data = case.model, read_data(str(case.data), case.model)
    found = sweep(model, data, deferrals=2, exits=1, points=2, repeats=2)
    rows = found.table.rows
    keys = [row.key for row in rows]
    assert keys[:5] == ["full", "cut-2", "cut-1", "tier1", "cascade"]
    assert 1 <= len(keys[5:]) <= 2
    assert [row.name.split(": ")[0] for row in rows[5:]] == ["A", "B"][: len(keys) - 5]
    tried = {one.system.key: one for one in found.tried}
    for row in rows[5:]:
        assert row.accuracy == tried[row.key].accuracy
        assert row.accuracy == data.accuracy(tried[row.key].system.run(data.items).labels)
        assert len(row.seconds) == 2
    best = max(rows, key=lambda row: (row.accuracy, row.speed))
    assert best.key in found.ahead
    slower = [row for row in rows if row.accuracy < best.accuracy and row.speed <= best.speed]
    assert found.ahead.isdisjoint(row.key for row in slower)


@pytest.fixture
def small(classifier: Model, data: Path) -> Curve:
    """Each pass takes a second longer than the one before: whatever the machine does, its front has two ends."""
    seconds = partial(next, accumulate(count(1.0)))
    read = read_data(str(data), classifier)
    return sweep(classifier, read, deferrals=3, exits=2, points=2, repeats=2, clock=seconds)


def test_what_is_timed_is_drawn(small: Curve) -> None:
    (axes,) = plot.draw(small).axes
    assert axes.get_xlabel() == "speed-up over full depth (ratio of seconds, log scale)"
    assert axes.get_ylabel() == "accuracy (% of 40 texts)"
    drawn = [container for container in axes.containers if isinstance(container, ErrorbarContainer)]
    assert [container.lines[0].get_marker() for container in drawn] == ["o", "s", "^", "D"]
    named = {text.get_text() for text in axes.findobj(matplotlib.text.Text)}
    assert {"A", "B", "1", "2", "3", "front", "tier 1 alone"} <= named
    (low, high), shown = axes.get_xlim(), [row.over_full for row in small.table.rows if row.over_full]
    assert all(low < ratio.low <= ratio.high < high for ratio in shown)


def test_the_command(run: Run, bundle: Path, data: Path, tmp_path: Path) -> None:
    first, picture = tmp_path / "first.json", tmp_path / "curve.png"
    done = run("curve", bundle, "--data", data, *SMALL, "--json", first, "--png", picture)
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].split()[:7] == ["front", "system", "accuracy", "points", "deferred", "mean", "layer"]
    assert [line[7:].split("  ")[0] for line in lines[1:3]] == ["tier 2, full depth", "tier 2 cut after layer 2"]
    assert "of the front of 11 that ran once" in done.out
    assert imread(picture).shape[:2] == (840, 1200)
    names = [entry["name"] for entry in json.loads(first.read_text())["benchmarks"]]
    assert names[:5] == ["full", "cut-2", "cut-1", "tier1", "cascade"]


def test_a_single_row_without_a_label(run: Run, bundle: Path, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "one.jsonl", [{"text": "good film"}])
    done = run("curve", bundle, "--data", file, *SMALL, "--png", tmp_path / "one.png")
    assert done.status == 0, done.err
    assert "Only 1 rows" in done.out
    assert "agreement with tier 2 at full depth is reported" in done.out


@pytest.mark.parametrize("option", ["--json", "--png"])
def test_files_that_cannot_be_written_are_said_first(run: Run, bundle: Path, tmp_path: Path, option: str) -> None:
    done = run("curve", bundle, "--data", tmp_path / "missing.jsonl", option, tmp_path / "none" / "file")
    assert f"{option} must be a file in a folder that is there" in done.err

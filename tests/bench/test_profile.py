"""The profile: the profiler's events, every part, the whole command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cascade_bench.profile import Point, look, measure, parts, points, read
from cascade_bench.systems.local import Model
from tests.bench.conftest import Case, Run


def test_the_grid() -> None:
    found = points((1, 4), (8, 64, 4000), max_length=32)
    assert [point.name for point in found] == ["1x8", "1x32", "4x8", "4x8 mixed", "4x32", "4x32 mixed"]
    assert found[-1] == Point((8, 16, 24, 32), mixed=True)
    assert found[-1].tokens == 80
    assert points((64,), (128,), max_length=512) == []  # more tokens than any batch has


def event(name: str, kind: str, dur: int, inputs: list[dict[str, list[int]]], made: list[int]) -> dict[str, object]:
    facts = {"op_name": kind, "input_type_shape": inputs, "output_type_shape": [{"float": made}]}
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": dur, "args": facts}


def test_what_the_profiler_says() -> None:
    int8 = event("a", "MatMulIntegerToFloat", 900, [{"uint8": [6, 8]}, {"float": []}, {"float": [5]}], [6, 5])
    attention = event("b", "MatMul", 90, [{"float": [2, 4, 3, 8]}, {"float": [2, 4, 8, 3]}], [2, 4, 3, 3])
    packed = event("c", "MatMul", 10, [{"float": [2, 3, 8]}], [2, 3, 7])
    other = event("d", "Gelu", 400, [{"float": [6, 5]}], [6, 5])
    first = [int8, attention, packed, other]
    later = [{**one, "dur": one["dur"] * share // 10} for share in (1, 2, 3) for one in first]  # type: ignore[operator]
    seen = read([{"cat": "Session", "name": "run", "dur": 1}, *first, *later])
    assert seen == pytest.approx({"MatMulIntegerToFloat": 180e-6, "Gelu": 80e-6, "MatMul": 20e-6})


def test_a_real_graph_under_the_profiler(classifier: Model, tagger: Model) -> None:
    found = parts(classifier)
    assert [part.key for part in found] == ["tier1", "embed", "stage-1", "stage-2", "stage-3"]
    seen = look(found[2].backend, found[2].feeds(np.array([3, 5])), runs=2)
    assert {"MatMul", "Tanh", "Gather"} <= set(seen)
    assert min(seen.values()) >= 0
    last = parts(tagger)[-1]
    assert last.backend.run(last.feeds(np.array([3, 5])))["logits"].shape[0] == 8


def test_every_part_at_every_point(classifier: Model) -> None:
    found, grid = parts(classifier), points((1, 4), (4, 8), max_length=16)
    made = measure(found, grid, repeats=2)
    assert set(made.seconds) == {(part.key, point) for part in found for point in grid}
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in made.seconds.values())
    assert made.reference.name == "4x8"
    assert {part.key for part in found} == set(made.operators)


def test_the_command(run: Run, case: Case, tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    options = ["--rows", 1, "--rows", 3, "--lengths", 4, "--lengths", 8, "--repeats", 1, "--threads", 1, "--json", file]
    done = run("profile", case.bundle, *options)
    assert done.status == 0, done.err
    head = next(line for line in done.out.splitlines() if line.startswith("rows x longest"))
    assert head.split()[3:] == ["tokens", "tier", "1", "embed", "layer", "1", "layer", "2", "layer", "3"]
    assert "Share of the time by operator, 3x8 tokens:" in done.out
    read = json.loads(file.read_text())
    assert {"tier1 1x4", "stage-2 3x8 mixed"} <= {entry["name"] for entry in read["benchmarks"]}


def test_a_bad_grid(run: Run, bundle: Path) -> None:
    assert "'none' is not a valid integer" in run("profile", bundle, "--rows", "none").err
    done = run("profile", bundle, "--rows", "5000", "--lengths", "8")  # 40000 tokens
    assert done.err == "Error: the grid must have points, got none; give rows and lengths\n"

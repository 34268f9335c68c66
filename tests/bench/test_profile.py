"""The profile: the profiler's events, every graph of every tier, the command."""

from __future__ import annotations

import pytest

from cascade.pipelines.loading import load
from cascade_bench.profile import as_text, measure, read
from tests.bench.conftest import Case, Run, texts
from tests.models.tagged import sentences


def event(name: str, kind: str, dur: int) -> dict[str, object]:
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": dur, "args": {"op_name": kind}}


def test_what_the_profiler_says() -> None:
    seen = read([{"cat": "Session", "name": "run", "dur": 1}, event("a", "MatMul", 90), event("b", "Gelu", 400)] * 2)
    assert seen == pytest.approx({"MatMul": 180e-6, "Gelu": 800e-6})


def test_shares() -> None:
    found = {("tier 1", ""): {"MatMul": 0.001}, ("tier 2", "embed"): {"Gather": 0.002, "MatMul": 0.006}}
    lines = [line.split() for line in as_text(found).splitlines()]
    assert lines[1:3] == [["tier", "1", "1.00", "11.1%"], ["tier", "2", "embed", "8.00", "88.9%"]]
    assert lines[-2:] == [["MatMul", "100.0%", "75.0%"], ["Gather", "0.0%", "25.0%"]]


def test_every_graph_of_every_tier(case: Case) -> None:
    model = load(case.bundle, threads=1)
    found = measure(model, sentences(5) if case.tagging else texts(5), repeats=2, threads=1)
    stages = [("tier 2", name) for name in ("embed", "to layer 1", "to layer 2", "to layer 3")]
    assert list(found) == [("tier 1", ""), *stages]
    assert {"MatMul", "Tanh", "Gather"} <= set(found["tier 2", "to layer 2"])
    assert all(seconds >= 0 for own in found.values() for seconds in own.values())


def test_the_command(run: Run, case: Case) -> None:
    done = run("profile", case.bundle, "--data", case.data, "--repeats", 1, "--threads", 1)
    assert done.status == 0, done.err
    assert done.out.splitlines()[0].split() == ["tier", "graph", "ms", "share"]
    assert "40 items, means of 1 passes." in done.out
    assert "Missing option '--data'" in run("profile", case.bundle).err

"""The profile: the profiler's events, products whose answer is known, the whole command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cascade_bench.profile.measuring import look, measure, read
from cascade_bench.profile.parts import Point, parts, points
from cascade_bench.profile.peak import Product, runner
from cascade_bench.systems.local import Model
from tests.bench.conftest import Case, Run
from tests.models.toy import WIDTH


def test_the_grid() -> None:
    found = points((1, 4), (8, 64, 4000), max_length=32)
    assert [point.name for point in found] == ["1x8", "1x32", "4x8", "4x8 mixed", "4x32", "4x32 mixed"]
    assert found[-1] == Point((8, 16, 24, 32), mixed=True)
    assert found[-1].tokens == 80
    assert points((64,), (128,), max_length=512) == []  # more tokens than any batch has


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_products(precision: str) -> None:
    product = Product(precision, 3, 8, 5)
    outputs = runner(product, threads=1)()
    assert isinstance(outputs, list)
    assert outputs[0].shape == (3, 5)
    assert np.abs(outputs[0]).max() > 0
    assert product.operations == 2 * 3 * 8 * 5


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
    assert dict(seen.seconds) == pytest.approx({"MatMulIntegerToFloat": 180e-6, "Gelu": 80e-6, "MatMul": 20e-6})
    assert dict(seen.operations) == {"int8": 2 * 6 * 8 * 5, "fp32": 2 * 8 * 3 * 8 * 3 + 2 * 6 * 8 * 7}


def test_a_real_graph_under_the_profiler(classifier: Model, tagger: Model) -> None:
    found = parts(classifier)
    assert [part.key for part in found] == ["tier1", "embed", "stage-1", "stage-2", "stage-3"]
    seen = look(found[2].backend, found[2].feeds(np.array([3, 5])), runs=2)
    assert {"MatMul", "Tanh", "Gather"} <= set(seen.seconds)
    assert min(seen.seconds.values()) >= 0
    assert seen.operations["fp32"] >= 2 * 8 * WIDTH * WIDTH
    last = parts(tagger)[-1]
    assert last.backend.run(last.feeds(np.array([3, 5])))["logits"].shape[0] == 8


@pytest.fixture(autouse=True)
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {kind: Product(kind, 8, 8, 8) for kind in ("fp32", "int8")}
    monkeypatch.setattr("cascade_bench.profile.measuring.LARGE", small)


def test_every_part_at_every_point(classifier: Model) -> None:
    found, grid = parts(classifier), points((1, 4), (4, 8), max_length=16)
    made = measure(found, grid, threads=1, repeats=2)
    assert set(made.seconds) == {(part.key, point) for part in found for point in grid}
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in made.seconds.values())
    assert made.reference.name == "4x8"
    assert "embed" not in made.shares  # nothing is multiplied there
    assert made.operators["stage-1"].operations["fp32"] >= 2 * 32 * WIDTH * WIDTH
    assert made.shares["stage-1"].median > 0
    # The share by hand, of the first repeat: operations at the rate of the large products, by the part's seconds.
    rate = made.turns.seconds["fp32 8x8x8"][0]
    own = made.turns.seconds["stage-1 4x8"][0]
    assert rate is not None
    assert own is not None
    share = made.operators["stage-1"].operations["fp32"] / (2 * 8**3) * rate / own
    assert min(abs(end / share - 1) for end in (made.shares["stage-1"].low, made.shares["stage-1"].high)) < 1e-9


def test_the_command(run: Run, case: Case, tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    options = ["--rows", 1, "--rows", 3, "--lengths", 4, "--lengths", 8, "--repeats", 1, "--threads", 1, "--json", file]
    done = run("profile", case.bundle, *options)
    assert done.status == 0, done.err
    head = next(line for line in done.out.splitlines() if line.startswith("rows x longest"))
    assert head.split()[3:] == ["tokens", "tier", "1", "embed", "layer", "1", "layer", "2", "layer", "3"]
    assert "Share of the time by operator, 3x8 tokens:" in done.out
    read = json.loads(file.read_text())
    assert {"fp32 8x8x8", "tier1 1x4", "stage-2 3x8 mixed"} <= {entry["name"] for entry in read["benchmarks"]}


def test_a_bad_grid(run: Run, bundle: Path) -> None:
    assert "'none' is not a valid integer" in run("profile", bundle, "--rows", "none").err
    done = run("profile", bundle, "--rows", "5000", "--lengths", "8")  # 40000 tokens
    assert done.err == "Error: the grid must have points, got none; give rows and lengths\n"


def test_without_onnx_the_extra_is_named() -> None:
    code = "import sys\nsys.modules['onnx'] = None\nfrom cascade_bench.cli import main\nmain(['profile', 'x'])\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        'Error: measuring the host needs the bench extra, but onnx is missing; pip install "cascade-encoder[bench]"\n'
    )

"""The profile: cost models that are known, the profiler's events, products whose answer is known, the whole command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cascade.exceptions import OptionError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade_bench import interleaving
from cascade_bench.ceiling import Product, runner
from cascade_bench.cli import main
from cascade_bench.cost_model import Size, fit
from cascade_bench.operators import look, read
from cascade_bench.parts import Point, parts, points
from cascade_bench.profile import measure
from tests.models.toy import WIDTH, toy_bundle
from tests.models.toy_tags import tag_bundle

SIZES = [Size(rows, rows * longest, longest) for rows in (1, 4, 16) for longest in (8, 32, 128)]
SIZES += [Size(8, 100, 50), Size(16, 300, 64)]


def test_a_known_cost_is_found_again() -> None:
    model = fit(SIZES, [2e-4 + 5e-6 * s.tokens + 1e-5 * s.rows + 3e-8 * s.tokens * s.longest for s in SIZES])
    assert model.fixed == pytest.approx(2e-4)
    assert model.per_token == pytest.approx(5e-6)
    assert model.per_row == pytest.approx(1e-5)
    assert model.per_token_and_longest == pytest.approx(3e-8)
    assert model.largest_error == pytest.approx(0, abs=1e-9)
    assert model(Size(2, 10, 6)) == pytest.approx(2e-4 + 5e-5 + 2e-5 + 1.8e-6)


def test_no_weight_is_negative() -> None:
    # More rows at equal tokens cost less here; a free fit would give rows a negative weight.
    model = fit(SIZES, [1e-3 + 5e-6 * s.tokens - 1e-5 * s.rows for s in SIZES])
    assert model.per_row == 0
    assert min(model.fixed, model.per_token, model.per_token_and_longest) >= 0
    assert 0 < model.median_error < 0.2


def test_the_error_is_that_of_points_left_out() -> None:
    seconds = [1e-6 * s.tokens for s in SIZES]
    seconds[0] *= 3
    assert fit(SIZES, seconds).largest_error == pytest.approx(2 / 3, abs=0.01)  # a third of what that point took


def test_too_few_points() -> None:
    with pytest.raises(OptionError, match="a cost model needs at least 5 points of the grid, had 4; give more sizes"):
        fit(SIZES[:4], [1.0] * 4)


def test_the_grid() -> None:
    found = points((1, 4), (8, 64, 4000), max_length=32)
    assert [point.name for point in found] == ["1x8", "1x32", "4x8", "4x8 mixed", "4x32", "4x32 mixed"]
    assert found[-1] == Point((8, 16, 24, 32), mixed=True)
    assert found[-1].size == Size(4, 80, 32)
    assert points((64,), (128,), max_length=512) == []  # more tokens than any batch has


@pytest.mark.parametrize(
    "product",
    [Product("fp32", 1, 3, 8, 5), Product("fp32", 2, 3, 8, 5), Product("int8", 1, 3, 8, 5)],
    ids=lambda product: product.name,
)
def test_products(product: Product) -> None:
    outputs = runner(product, threads=1)()
    assert isinstance(outputs, list)
    assert outputs[0].shape == ((2, 3, 5) if product.batch == 2 else (3, 5))
    assert np.abs(outputs[0]).max() > 0
    assert product.operations == 2 * product.batch * 3 * 8 * 5


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
    assert dict(seen.products) == {
        Product("int8", 1, 6, 8, 5): 1,
        Product("fp32", 8, 3, 8, 3): 1,
        Product("fp32", 1, 6, 8, 7): 1,
    }


def test_a_real_graph_under_the_profiler(tmp_path: Path) -> None:
    found = parts(Classifier.from_pretrained(toy_bundle(tmp_path / "bundle").folder, threads=1))
    assert [part.key for part in found] == ["tier1", "embed", "stage-1", "stage-2", "stage-3"]
    seen = look(found[2].backend, found[2].feeds(np.array([3, 5])), runs=2)
    assert {"MatMul", "Tanh", "Gather"} <= set(seen.seconds)
    assert min(seen.seconds.values()) >= 0
    assert seen.products[Product("fp32", 1, 8, WIDTH, WIDTH)] == 1


@pytest.fixture(autouse=True)
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interleaving, "SHORTEST", 1e-9)
    small = {kind: Product(kind, 1, 8, 8, 8) for kind in ("fp32", "int8")}
    monkeypatch.setattr("cascade_bench.profile.LARGE", small)


def test_every_part_at_every_point(tmp_path: Path) -> None:
    found = parts(Classifier.from_pretrained(toy_bundle(tmp_path / "bundle").folder, threads=1))
    grid = points((1, 4), (4, 8), max_length=16)
    made = measure(found, grid, threads=1, repeats=2)
    assert set(made.seconds) == {(part.key, point) for part in found for point in grid}
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in made.seconds.values())
    assert made.reference.name == "4x8"
    assert "embed" not in made.shares  # nothing is multiplied there
    share = made.shares["stage-1"]
    assert share.operations["fp32"] >= 2 * 32 * WIDTH * WIDTH
    assert share.products.median > 0
    assert share.ceiling.median > 0


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(list(map(str, arguments)))
        seen = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, seen.out, seen.err

    return run


@pytest.mark.parametrize("make", [toy_bundle, tag_bundle])
def test_the_command(run: Run, tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "bundle")
    file = tmp_path / "profile.json"
    options = ["--rows", "1,3", "--lengths", "4,8", "--repeats", 1, "--threads", 1, "--json", file]
    status, out, err = run("profile", tmp_path / "bundle", *options)
    assert status == 0, err
    head = next(line for line in out.splitlines() if line.startswith("rows x longest"))
    assert head.split()[3:] == ["tokens", "tier", "1", "embed", "layer", "1", "layer", "2", "layer", "3"]
    assert "Share of the time by operator, 3x8 tokens:" in out
    read = json.loads(file.read_text())
    entries = {entry["fullname"]: entry for entry in read["benchmarks"]}
    assert entries["profile/stage-2 3x8 mixed"]["extra_info"]["tokens"] == 2 + 5 + 8
    assert any(entry["group"] == "ceiling" for entry in read["benchmarks"])
    assert set(read["cost_models"]) == {"tier1", "embed", "stage-1", "stage-2", "stage-3"}
    assert read["reference"] == "3x8"


def test_a_bad_grid(run: Run, tmp_path: Path) -> None:
    model = toy_bundle(tmp_path / "bundle").folder
    status, _, err = run("profile", model, "--rows", "1,none")
    assert (status, err) == (
        2,
        "Error: --rows must be whole numbers with commas between, was: 1,none; write 1,16,64\n",
    )
    status, _, err = run("profile", model, "--rows", "1", "--lengths", "4")
    assert (status, err) == (2, "Error: a cost model needs at least 5 points of the grid, had 1; give more sizes\n")


def test_without_onnx_the_extra_is_named() -> None:
    code = "import sys\nsys.modules['onnx'] = None\nfrom cascade_bench.cli import main\nmain(['profile', 'x'])\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        'Error: measuring the host needs the bench extra, but onnx is missing; pip install "cascade-encoder[bench]"\n'
    )


def test_a_taggers_parts(tmp_path: Path) -> None:
    tag_bundle(tmp_path / "bundle")
    found = parts(Tagger.from_pretrained(tmp_path / "bundle", threads=1))
    made = found[-1].backend.run(found[-1].feeds(np.array([3, 5])))
    assert made["logits"].shape[0] == 8

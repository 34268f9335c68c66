"""`cascade-bench compare`: ratios paired by repeat, the status of a bound, one line for files of another shape."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cascade.exceptions import DataError
from cascade_bench.compare import compare_files
from cascade_bench.report_json import benchmark, document, write_json
from tests.bench.test_cli import Run, run  # noqa: F401  # a fixture is found by its name


def write(file: Path, samples: Mapping[str, Sequence[float]], **machine: Any) -> Path:
    write_json(file, document(machine, [benchmark("curve", name, data) for name, data in samples.items()]))
    return file


def test_ratios_are_paired_by_repeat(tmp_path: Path) -> None:
    # The machine slows down fivefold halfway; B is always twice as fast.
    a = write(tmp_path / "a.json", {"full": [1.0, 1.2, 5.0, 6.0, 5.5, 1.1, 1.0]})
    b = write(tmp_path / "b.json", {"full": [0.5, 0.6, 2.5, 3.0, 2.75, 0.55, 0.5]})
    (row,) = compare_files(a, b).rows
    assert (row.ratio.median, row.ratio.low, row.ratio.high) == pytest.approx((2, 2, 2))
    assert row.ratio.samples == 7
    assert (row.before, row.after) == (1.2, 0.6)


def test_a_repeat_without_a_turn_is_left_out(tmp_path: Path) -> None:
    made = document({}, [benchmark("table", "full", [1.0, 3.0], info={"seconds_by_repeat": [1.0, None, 3.0]})])
    write_json(tmp_path / "a.json", made)
    b = write(tmp_path / "b.json", {"full": [1.0, 100.0, 1.5]})
    (row,) = compare_files(tmp_path / "a.json", b).rows
    assert row.ratio.samples == 2
    assert row.ratio.median == pytest.approx(1.5)


@pytest.mark.parametrize(("bound", "status"), [(None, 0), ("0.4", 0), ("0.5", 0), ("0.51", 1), ("1", 1)])
def test_the_bound_decides_the_status(run: Run, tmp_path: Path, bound: str | None, status: int) -> None:  # noqa: F811
    a = write(tmp_path / "a.json", {"full": [1.0] * 7, "tier1": [1.0] * 7})
    b = write(tmp_path / "b.json", {"full": [2.0] * 7, "tier1": [0.5] * 7})
    done = run("compare", a, b, *([] if bound is None else ["--at-least", bound]))
    assert done.status == status, done.err
    full, tier1 = (line for line in done.out.splitlines() if line.startswith(("full", "tier1")))
    assert "0.500  [0.500, 0.500]" in full
    assert full.rstrip().endswith("too slow" if status else "slower")
    assert tier1.rstrip().endswith("faster")
    assert done.err == (f"1 of 2 are less than {bound} times as fast in B.\n" if status else "")


def test_a_median_below_the_bound_fails_though_the_interval_holds_it(run: Run, tmp_path: Path) -> None:  # noqa: F811
    a = write(tmp_path / "a.json", {"full": [1.0] * 7})
    b = write(tmp_path / "b.json", {"full": [0.9, 0.9, 0.95, 1.1, 1.2, 1.2, 1.3]})
    done = run("compare", a, b, "--at-least", 1)
    assert done.status == 1
    assert "too slow, though not clearly" in done.out


def test_names_that_one_file_lacks_are_said(run: Run, tmp_path: Path) -> None:  # noqa: F811
    a = write(tmp_path / "a.json", {"full": [1.0, 1.0], "old": [1.0]}, threads=1)
    b = write(tmp_path / "b.json", {"full": [1.0, 1.0], "new": [1.0]}, threads=2)
    done = run("compare", a, b)
    assert done.status == 0, done.err
    assert "Only in A: old." in done.out
    assert "Only in B: new." in done.out
    assert "They differ in threads: 1 and 2." in done.out


def test_a_file_of_pytest_benchmark_will_do(tmp_path: Path) -> None:
    entry = {"name": "test_pack", "extra_info": {}, "stats": {"data": [0.1, 0.1, 0.2]}}
    for name in "ab":
        (tmp_path / name).write_text(json.dumps({"machine_info": {"cpu": {}}, "benchmarks": [entry]}))
    (row,) = compare_files(tmp_path / "a", tmp_path / "b").rows
    assert row.ratio.median == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("{", "must be JSON"),
        ("[]", "must hold a list of benchmarks"),
        ('{"benchmarks": []}', "must hold a list of benchmarks"),
        ('{"benchmarks": [{"name": "full", "stats": {"median": 1}}]}', "must have a name and raw samples"),
        ('{"benchmarks": ["full"]}', "must have a name and raw samples"),
        ('{"benchmarks": [{"name": "full", "stats": {"data": [0]}}]}', "raw samples above 0"),
        ('{"benchmarks": [{"name": "full", "stats": {"data": []}}]}', "raw samples"),
        ('{"benchmarks": [{"name": "x", "stats": {"data": [1]}}]}', "share the name of a benchmark"),
        (
            '{"benchmarks": [{"name": "full", "stats": {"data": [1]}}, {"name": "full", "stats": {"data": [1]}}]}',
            "'full' is there twice",
        ),
    ],
)
def test_files_of_another_shape(run: Run, tmp_path: Path, text: str | None, said: str) -> None:  # noqa: F811
    a, b = write(tmp_path / "a.json", {"full": [1.0]}), tmp_path / "b.json"
    if text is not None:
        b.write_text(text)
    done = run("compare", a, b)
    assert done.status == 2
    assert said in done.err
    assert len(done.err.splitlines()) == 1


def test_no_repeat_in_common(tmp_path: Path) -> None:
    for name, seconds in (("a", [1.0, None]), ("b", [None, 1.0])):
        write_json(
            tmp_path / name, document({}, [benchmark("table", "full", [1.0], info={"seconds_by_repeat": seconds})])
        )
    with pytest.raises(DataError, match="samples of the same repeats"):
        compare_files(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("bound", ["0", "-1", "nan", "inf"])
def test_a_bound_is_a_ratio(run: Run, tmp_path: Path, bound: str) -> None:  # noqa: F811
    a = write(tmp_path / "a.json", {"full": [1.0]})
    done = run("compare", a, a, f"--at-least={bound}")
    assert done.status == 2
    assert "--at-least must be above 0 and finite" in done.err

"""The guard of `make bench`: ratios by hand, the pinned file, and the suite itself on a toy."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cascade.bundle.opening import Bundle
from cascade.exceptions import DataError
from cascade.pipelines.classifier import Classifier
from cascade_bench import interleaving
from cascade_bench.harness.guard import RATIOS, Contender, Ratio, contenders, measure
from cascade_bench.harness.pins import Pin, Pins, cpu_kind, pins_of, read_pins, shortfall, write_pins
from cascade_bench.harness.reference import Plain
from cascade_bench.harness.summary import Summary
from cascade_bench.statistics import Interval
from tests.models.toy import SENTENCES, toy_bundle

ROOT = Path(__file__).parents[2]
KIND = "amx_int8, 2 threads"
PINS = Pins("2026-01-31", "some machine", {"full / plain": Pin(2.0, 0.25)})
TEXTS = [*SENTENCES[0].split(), SENTENCES[0], "", SENTENCES[1], "not good"] * 9


def interval(median: float, low: float | None = None) -> Interval:
    return Interval(median, median if low is None else low, median, 0.96, 15)


def facts(*flags: str, threads: int = 2) -> dict[str, Any]:
    cpu = {"model": "some CPU", "flags": list(flags), "count": 2, "available": 2, "cgroup_quota": None}
    versions = {"cascade": "1"}
    return {
        "cpu": cpu,
        "machine": "x86_64",
        "threads": threads,
        "python_version": "3.11",
        "versions": versions,
        "git": "ab12",
    }


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return toy_bundle(tmp_path_factory.mktemp("guard") / "toy")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pinned.json"


def test_kinds_of_cpu() -> None:
    assert cpu_kind(facts("avx2", "avx512_vnni", "amx_int8")) == KIND
    assert cpu_kind(facts("avx512_vnni", threads=1)) == "avx512_vnni, 1 thread"
    assert cpu_kind(facts("avx2", threads=4)) == "x86_64, 4 threads"


def test_a_ratio_at_its_floor_holds() -> None:
    assert shortfall("full / plain", interval(1.5), PINS) is None
    assert shortfall("full / plain", interval(9.0), PINS) is None


def test_one_that_is_not_pinned_holds() -> None:
    assert shortfall("cascade / full", interval(0.1), PINS) is None


def test_one_below_is_told_in_one_line() -> None:
    assert shortfall("full / plain", Interval(1.4321, 1.1, 1.6, 0.96, 15), PINS) == (
        "full / plain must be at least 1.5 (2 on 2026-01-31, less 25%), was: 1.43 (1.1 to 1.6 in 15 turns); "
        "look for what became slower, or pin anew with --pin if that is meant"
    )


def test_pins_of_a_run() -> None:
    made = pins_of({"steady": interval(1.23456, low=1.2), "rough": interval(2.0, low=1.395)}, facts("amx_int8"))
    assert made.ratios == {"steady": Pin(1.23, 0.15), "rough": Pin(2.0, 0.31)}
    wider = pins_of({"steady": interval(1.23456, low=1.2)}, facts("amx_int8"), tolerances={"steady": 0.3})
    assert wider.ratios == {"steady": Pin(1.23, 0.3)}
    assert "some CPU" in made.machine
    assert "amx_int8" in made.machine
    assert len(made.date) == len("2026-01-31")


def test_what_a_run_pins_it_holds_itself() -> None:
    measured = {"rough": interval(2.0, low=0.2)}
    assert shortfall("rough", measured["rough"], pins_of(measured, facts())) is None


def test_round_trip(file: Path) -> None:
    assert read_pins(file, "toy", KIND) is None
    write_pins(file, "toy", KIND, PINS)
    assert read_pins(file, "toy", KIND) == PINS
    assert read_pins(file, "toy", "avx_vnni, 2 threads") is None
    assert read_pins(file, "other", KIND) is None


def test_other_pins_stay(file: Path) -> None:
    for name, kind in (("one", KIND), ("two", KIND), ("two", "avx_vnni, 2 threads")):
        write_pins(file, name, kind, PINS)
    new = replace(PINS, ratios={"full / plain": Pin(3.0)})
    write_pins(file, "two", KIND, new)
    assert read_pins(file, "two", KIND) == new
    assert read_pins(file, "two", "avx_vnni, 2 threads") == PINS
    assert read_pins(file, "one", KIND) == PINS
    assert [found.name for found in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("text", ["{", "\xff"], ids=["not JSON", "not UTF-8"])
def test_a_file_that_is_no_json(file: Path, text: str) -> None:
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"pinned\.json must be a JSON file of pinned ratios, but: .*; restore it"):
        read_pins(file, "toy", KIND)
    with pytest.raises(DataError, match="must be a JSON file"):
        write_pins(file, "toy", KIND, PINS)


@pytest.mark.parametrize("text", ["[]", '{"toy": 3}'])
def test_a_file_of_something_else(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(DataError, match="must hold pinned ratios by bundle and kind of CPU, holds something else"):
        read_pins(file, "toy", KIND)


@pytest.mark.parametrize(
    "made",
    [
        3,
        {"date": "today"},
        {"date": "today", "machine": "", "ratios": []},
        {"date": "today", "machine": "", "ratios": {"full": {"value": 1.0}}},
        {"date": "today", "machine": "", "ratios": {"full": {"value": 0, "tolerance": 0.1}}},
        {"date": "today", "machine": "", "ratios": {"full": {"value": 1.0, "tolerance": 1.0}}},
    ],
)
def test_pins_of_another_form(file: Path, made: object) -> None:
    file.write_text(json.dumps({"toy": {KIND: made}}))
    with pytest.raises(DataError, match="toy, amx_int8, 2 threads must have a date, a machine, and ratios"):
        read_pins(file, "toy", KIND)


@pytest.fixture(autouse=True)
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interleaving, "SHORTEST", 1e-9)


def test_ratios_are_of_seconds_by_text() -> None:
    now = [0.0]

    def taking(seconds: float) -> Callable[[], None]:
        def run() -> None:
            now[0] += seconds

        return run

    running = {"bulk": Contender(taking(2.0), 100), "one": Contender(taking(0.5), 10)}
    ratios = [Ratio("one / bulk", "one", "bulk"), Ratio("none / bulk", "none", "bulk")]
    found = measure(running, turns=7, ratios=ratios, clock=lambda: now[0])
    assert list(found) == ["one / bulk"]
    assert found["one / bulk"].median == pytest.approx(0.4)
    assert found["one / bulk"].samples == 7


def test_contenders_of_a_bundle(bundle: Bundle) -> None:
    classifier = Classifier.from_pretrained(bundle.folder, threads=2)
    plain, one = Plain.from_folder(bundle.folder, threads=2), Classifier.from_pretrained(bundle.folder, threads=1)
    running = contenders(classifier, plain, TEXTS, threads=2, one_thread=one)
    assert {key for ratio in RATIOS for key in (ratio.contender, ratio.base)} == set(running)
    assert running["full"].texts == len(TEXTS)
    assert running["one"].texts == running["one-tier1"].texts == 32
    tiers = {name: tiers_of(running[name]) for name in ("full", "tier1", "one-thread", "one", "one-tier1")}
    assert tiers == {"full": {2}, "tier1": {1}, "one-thread": {2}, "one": {2}, "one-tier1": {1}}
    assert tiers_of(running["cascade"]) == {1, 2}
    assert "one-thread" not in contenders(one, plain, TEXTS, threads=1, one_thread=None)
    assert contenders(one, plain, TEXTS[:3], threads=1, one_thread=None)["one"].texts == 3


def tiers_of(contender: Contender) -> set[int]:
    made = contender.run()
    answers: list[Any] = made if isinstance(made, list) else [made]
    assert sum(len(one.labels) for one in answers) == contender.texts
    return {int(tier) for one in answers for tier in one.routes.tier}


def test_the_summary() -> None:
    measured = {"full / plain": Interval(1.8, 1.7, 1.9, 0.96, 15), "cascade / full": interval(4.0)}
    summary = Summary("toy", KIND, measured, PINS)
    assert summary.title == "ratios of toy, amx_int8, 2 threads, pinned on 2026-01-31"
    assert [" ".join(line.split()) for line in summary.lines()] == [
        "full / plain 1.8 (1.7 to 1.9 in 15 turns) pinned 2, at least 1.5",
        "cascade / full 4 (4 to 4 in 15 turns) not pinned",
    ]


def run_suite(bundle: Path, file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """`pytest bench/harness/test_guard.py`, as a user runs it."""
    suite = ["bench/harness/test_guard.py", "--bundle", str(bundle), "--pinned", str(file), "--threads", "1"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *suite, *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_without_pins_it_says_how_to_make_them(bundle: Bundle, file: Path) -> None:
    done = run_suite(bundle.folder, file)
    assert done.returncode == 0, done.stdout
    assert "1 passed, 7 skipped" in done.stdout
    assert "toy has no pinned ratios for " in done.stdout
    assert f"pytest bench/harness/test_guard.py --bundle {bundle.folder} --pin" in done.stdout
    assert not file.exists()


def test_pinned_it_holds_until_something_is_slower(bundle: Bundle, file: Path) -> None:
    done = run_suite(bundle.folder, file, "--pin", "--turns", "1")
    assert done.returncode == 0, done.stdout
    assert "ratios of toy, " in done.stdout
    assert "7 passed, 1 skipped" in done.stdout
    assert "threads / one needs two threads" in done.stdout
    (kinds,) = (pins := json.loads(file.read_text())).values()
    (made,) = kinds.values()
    assert list(made["ratios"]) == [ratio.name for ratio in RATIOS if ratio.name != "threads / one"]
    for pin in made["ratios"].values():
        pin["value"] /= 100
    made["ratios"]["cascade / full"]["value"] = 1e6
    del made["ratios"]["tier 1 / full"]
    file.write_text(json.dumps(pins))
    done = run_suite(bundle.folder, file, "--turns", "1")
    assert done.returncode == 1
    assert "cascade / full must be at least 8.5e+05 (1e+06 on " in done.stdout
    assert "tier 1 / full is not pinned yet; pin anew with --pin on a quiet machine" in done.stdout
    assert "1 failed, 5 passed, 2 skipped" in done.stdout
    assert json.loads(file.read_text()) == pins


def test_a_folder_that_is_not_there(file: Path) -> None:
    done = run_suite(file.parent / "none", file)
    assert done.returncode == 0
    assert "--bundle must be a folder that is there" in done.stdout

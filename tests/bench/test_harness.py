"""The regression check of `make bench`: ratios by hand, the file of references, and the command on a toy."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cascade.core.statistics import Interval
from cascade.exceptions import DataError
from cascade.pipelines.classifier import Classifier
from cascade_bench.harness.check import (
    FILE,
    RATIOS,
    Ratio,
    Reference,
    References,
    Work,
    check,
    cpu_kind,
    measure,
    read_references,
    references_of,
    shortfall,
    works,
    write_references,
)
from tests.models.toy import SENTENCES

KIND = "amx_int8, 2 threads"
HELD = References("2026-01-31", "some machine", {"full / products": Reference(2.0, 0.25)})
TEXTS = [*SENTENCES[0].split(), SENTENCES[0], "", SENTENCES[1], "not good"] * 9


def interval(median: float, low: float | None = None) -> Interval:
    return Interval(median, median if low is None else low, median, 0.96, 15)


def facts(*flags: str, threads: int = 2) -> dict[str, Any]:
    cpu = {"model": "some CPU", "flags": list(flags), "count": 2, "available": 2, "cgroup_quota": None}
    more = {"machine": "x86_64", "threads": threads, "python_version": "3.11", "git": "ab12"}
    return {"cpu": cpu, "versions": {"cascade": "1"}, **more}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "references.json"


def test_kinds_of_cpu() -> None:
    assert cpu_kind(facts("avx2", "avx512_vnni", "amx_int8")) == KIND
    assert cpu_kind(facts("avx512_vnni", threads=1)) == "avx512_vnni, 1 thread"
    assert cpu_kind(facts("avx2", threads=4)) == "x86_64, 4 threads"


def test_what_falls_short_is_told_in_one_line() -> None:
    assert shortfall("full / products", interval(1.5), HELD) is None
    assert shortfall("cascade / full", interval(0.1), HELD) is None  # it has no reference
    assert shortfall("full / products", Interval(1.4321, 1.1, 1.6, 0.96, 15), HELD) == (
        "full / products must be at least 1.5 (2 on 2026-01-31, less 25%), got 1.43 (1.1 to 1.6 in 15 turns); "
        "look for what became slower, or use --write-reference if that is meant"
    )


def test_references_of_a_run() -> None:
    measured = {"steady": interval(1.23456, low=1.2), "rough": interval(2.0, low=1.395)}
    made = references_of(measured, facts("amx_int8"))
    assert made.ratios == {"steady": Reference(1.23, 0.15), "rough": Reference(2.0, 0.31)}
    wider = references_of(measured, facts("amx_int8"), tolerances={"steady": 0.3})
    assert wider.ratios["steady"] == Reference(1.23, 0.3)
    assert "some CPU" in made.machine
    assert len(made.date) == len("2026-01-31")
    rough = {"rough": interval(2.0, low=0.2)}
    assert shortfall("rough", rough["rough"], references_of(rough, facts())) is None


def test_the_file_keeps_what_others_wrote(file: Path) -> None:
    assert read_references(file, "two", KIND) is None
    for name, kind in (("one", KIND), ("two", KIND), ("two", "avx_vnni, 2 threads")):
        write_references(file, name, kind, HELD)
    new = replace(HELD, ratios={"full / products": Reference(3.0)})
    write_references(file, "two", KIND, new)
    assert read_references(file, "two", KIND) == new
    assert read_references(file, "two", "avx_vnni, 2 threads") == read_references(file, "one", KIND) == HELD
    assert read_references(file, "other", KIND) is None
    assert [found.name for found in file.parent.iterdir()] == [file.name]


def test_the_shipped_file_can_be_read() -> None:
    names = json.loads(FILE.read_text(encoding="utf-8"))
    assert all(read_references(FILE, name, kind) for name, kinds in names.items() for kind in kinds)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "must be a JSON file of reference ratios"),
        ("\xff", "must be a JSON file of reference ratios"),
        ("[]", "must hold reference ratios by bundle and kind of CPU"),
        ('{"toy": 3}', "must hold reference ratios by bundle and kind of CPU"),
    ],
)
def test_a_file_of_something_else(file: Path, text: str, said: str) -> None:
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=said):
        read_references(file, "toy", KIND)
    with pytest.raises(DataError, match=said):
        write_references(file, "toy", KIND, HELD)


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
def test_references_of_another_form(file: Path, made: object) -> None:
    file.write_text(json.dumps({"toy": {KIND: made}}))
    with pytest.raises(DataError, match="toy, amx_int8, 2 threads must have a date, a machine, and ratios"):
        read_references(file, "toy", KIND)


def test_ratios_are_of_seconds_by_text() -> None:
    now = [0.0]

    def taking(seconds: float) -> Callable[[], None]:
        def run() -> None:
            now[0] += seconds

        return run

    running = {"bulk": Work(taking(2.0), 100), "one": Work(taking(0.5), 10)}
    ratios = [Ratio("one / bulk", "one", "bulk"), Ratio("none / bulk", "none", "bulk")]
    found = measure(running, turns=7, ratios=ratios, clock=lambda: now[0])
    assert list(found) == ["one / bulk"]
    assert found["one / bulk"].median == pytest.approx(0.4)
    assert found["one / bulk"].samples == 7


def test_works_of_a_bundle(bundle: Path) -> None:
    classifier, one = (Classifier.from_pretrained(bundle, threads=threads) for threads in (2, 1))
    running = works(classifier, TEXTS, threads=2, one_thread=one)
    assert {key for ratio in RATIOS for key in (ratio.work, ratio.base)} == set(running)
    assert running["full"].texts == len(TEXTS)
    assert running["one"].texts == running["one-tier1"].texts == 32
    tiers = {name: tiers_of(running[name]) for name in ("full", "tier1", "one-thread", "one", "one-tier1", "cascade")}
    alone = {"full": {2}, "tier1": {1}, "one-thread": {2}, "one": {2}, "one-tier1": {1}}
    assert tiers == {**alone, "cascade": {1, 2}}
    assert "one-thread" not in works(one, TEXTS[:3], threads=1, one_thread=None)


def tiers_of(work: Work) -> set[int]:
    made = work.run()
    answers: list[Any] = made if isinstance(made, list) else [made]
    assert sum(len(one.labels) for one in answers) == work.texts
    return {int(tier) for one in answers for tier in one.routes.tier}


def run(bundle: Path, file: Path, *options: str) -> Result:
    arguments = [str(bundle), "--reference", str(file), "--threads", "1", "--turns", "1", *options]
    return CliRunner().invoke(check, arguments)


def test_it_holds_until_something_is_slower(bundle: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cascade_bench.harness.check.TEXTS", 40)
    monkeypatch.setattr("cascade_bench.harness.check.PRODUCTS", 2)
    done = run(bundle, file)
    assert done.exit_code == 0
    assert "bundle has no reference ratios for " in done.output
    assert not file.exists()
    done = run(bundle, file, "--write-reference")
    assert done.exit_code == 0, done.output
    (kinds,) = (made := json.loads(file.read_text())).values()
    (own,) = kinds.values()
    assert list(own["ratios"]) == [ratio.name for ratio in RATIOS if ratio.name != "threads / one"]
    for held in own["ratios"].values():
        held["value"] /= 100
    own["ratios"]["cascade / full"]["value"] = 1e6
    del own["ratios"]["tier 1 / full"]
    file.write_text(json.dumps(made))
    done = run(bundle, file)
    assert done.exit_code == 1
    assert "cascade / full must be at least 8.5e+05 (1e+06 on " in done.output
    assert done.output.count("must be at least") == 1
    assert json.loads(file.read_text()) == made

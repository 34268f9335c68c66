"""`cascade-bench compare`: the status of a bound, two installs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cascade.exceptions import BundleError, OptionError
from cascade_bench.compare import Install, compare_installs
from cascade_bench.systems.process import Job
from tests.bench.conftest import Case, Run, texts
from tests.test_floors import ROOT


def compared(
    run: Run, case: Case, monkeypatch: pytest.MonkeyPatch, rows: Mapping[str, Sequence[float]], *options: object
) -> Any:
    """The command, given seconds of B by name; all of A are 1."""
    found = {name: ([1.0] * len(own), own) for name, own in rows.items()}
    monkeypatch.setattr("cascade_bench.compare.compare_installs", lambda *_given, **_options: (found, ["A note."]))
    return run("compare", ROOT, ROOT, "--model", case.bundle, "--data", case.data, *options)


@pytest.mark.parametrize(("bound", "status"), [(None, 0), ("0.4", 0), ("0.5", 0), ("0.51", 1), ("1", 1)])
def test_the_bound_decides_the_status(
    run: Run, case: Case, monkeypatch: pytest.MonkeyPatch, bound: str | None, status: int
) -> None:
    options = [] if bound is None else ["--at-least", bound]
    done = compared(run, case, monkeypatch, {"full": [2.0] * 7, "tier1": [0.5] * 7}, *options)
    assert done.status == status, done.err
    full, tier1 = (line for line in done.out.splitlines() if line.startswith(("full", "tier1")))
    assert "0.500 [0.500, 0.500]" in full
    assert full.rstrip().endswith("too slow" if status else "slower")
    assert tier1.rstrip().endswith("faster")
    assert done.out.splitlines()[-1] == "A note."
    assert done.err == (f"1 of 2 are less than {bound} times as fast in B.\n" if status else "")


def test_a_median_below_the_bound_fails_though_the_interval_holds_it(
    run: Run, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"full": [0.9, 0.9, 0.95, 1.1, 1.2, 1.2, 1.3]}
    done = compared(run, case, monkeypatch, seconds, "--at-least", 1)
    assert done.status == 1
    assert "too slow, though not clearly" in done.out


def test_few_repeats_decide_nothing(run: Run, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"full": [0.5] * 2, "tier1": [2.0] * 2, "tier2": [2.0] * 5}
    done = compared(run, case, monkeypatch, seconds, "--at-least", 1)
    said = [line.rstrip().split("  ")[-1] for line in done.out.splitlines()[1:4]]
    assert said == ["too few repeats to say", "too slow, though not clearly", "too slow"]


USE = ("--model", "x", "--data", "y")
BOUND = "--at-least must be above 0 and finite"
CLASSIFIER = """
import os
PLACE = os.getcwd(), sorted((name, value) for name, value in os.environ.items() if name != "PYTHONPATH")
class _Model:
    def __init__(self, threads): self.threads, self.depth = threads, "exits"
    def with_router(self, router): self.depth += router; return self
    def with_exit_policy(self, policy): self.depth += policy; return self
    def predict(self, texts): return _Made([f"{LABEL} {self.depth} {PLACE}" for _ in texts])
class _Made:
    def __init__(self, labels): self.labels = labels
class Classifier:
    @staticmethod
    def from_pretrained(model, threads):
        if model == "broken": raise ValueError("no such bundle")
        return _Model(threads)
"""


def fake(folder: Path, label: str) -> Path:
    """A checkout whose `cascade` answers with a word."""
    package = folder / "cascade"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"__version__ = {label!r}\nLABEL = {label!r}\n{CLASSIFIER}")
    policies = 'defer_all = "+all"\nnever = "+never"\n'
    (package / "policies.py").write_text(policies)
    return folder


def job(folder: Path, model: str = "some") -> Job:
    folder.mkdir()
    return Job(model, "", str(folder), 1, 0)


def test_two_installs_run_with_their_own_code_in_turns(tmp_path: Path) -> None:
    """What answers differently is said; their environment is the same."""
    installs = [Install.of(str(fake(tmp_path / name, name))) for name in "ab"]
    seen: list[str] = []
    found, notes = compare_installs(
        installs, job(tmp_path / "work"), texts(9), threads=(1,), repeats=3, progress=seen.append, pause=0
    )
    assert list(found) == [
        "full depth, 1 thread, all",
        "full depth, 1 thread, one by one",
        "cascade, 1 thread, all",
        "cascade, 1 thread, one by one",
    ]
    assert all(len(before) == len(after) == 3 for before, after in found.values())
    assert f"A: cascade a in {tmp_path / 'a' / 'cascade'}." in notes
    assert f"B: cascade b in {tmp_path / 'b' / 'cascade'}." in notes
    assert "cascade, 1 thread: B answers as A on 0.00%." in notes
    assert "full depth, 1 thread: A" in seen
    alike = [Install.of(str(fake(tmp_path / "alike" / name, "same"))) for name in "ab"]
    _, notes = compare_installs(alike, job(tmp_path / "again"), texts(3), threads=(1,), repeats=1, pause=0)
    assert not any("answers as" in note for note in notes)


def test_an_install_that_fails_says_why(tmp_path: Path) -> None:
    installs = [Install.of(str(fake(tmp_path / name, name))) for name in "ab"]
    with pytest.raises(BundleError, match="install A must answer with this bundle, but: ValueError: no such bundle"):
        compare_installs(installs, job(tmp_path / "work", "broken"), texts(3), repeats=1, pause=0)


def test_what_is_an_install(tmp_path: Path) -> None:
    assert Install.of(str(ROOT)) == Install(sys.executable, str(ROOT))
    assert Install.of(sys.executable) == Install(sys.executable)
    for other in (tmp_path, tmp_path / "none"):
        with pytest.raises(OptionError, match="an install must be a Python interpreter or a folder with cascade/"):
            Install.of(str(other))


def test_the_command_on_this_checkout_twice(run: Run, case: Case) -> None:
    options = ("--threads", 1, "--repeats", 1)
    done = run("compare", ROOT, ROOT, "--model", case.bundle, "--data", case.data, *options)
    assert done.status == 0, done.err
    assert done.out.splitlines()[0].split("  ")[0] == "benchmark"
    assert f"A: cascade 0.1.0 in {ROOT / 'cascade'}." in done.out
    assert "answers as" not in done.out
    assert sum(" thread, " in line for line in done.out.splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        *(((ROOT, ROOT, *USE, f"--at-least={bound}"), BOUND) for bound in ("0", "-1", "nan", "inf")),
        ((ROOT, ROOT), "Missing option '--model'"),
        (("a.json", ROOT, *USE), "an install must be a Python interpreter or a folder"),
    ],
)
def test_bad_use(run: Run, arguments: tuple[object, ...], said: str) -> None:
    done = run("compare", *arguments)
    assert done.status == 2
    assert said in done.err

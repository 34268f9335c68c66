from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cascade import planner
from cascade.classifier import Classifier
from cascade.exceptions import DataError
from cascade.planner import Planner
from cascade_bench import interleaving
from cascade_bench.cli import main
from cascade_bench.planning import Line, measure
from tests.costs import costs
from tests.toy import toy_bundle

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(interleaving, "SHORTEST", 1e-9)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(list(map(str, arguments)))
        seen = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, seen.out, seen.err

    return run


TEXTS = ["good film", "a bad plot was it", "we laugh", "not very bright", "dull", "we cry we laugh"] * 6


def test_a_line() -> None:
    line = Line("default 1", "cascade", 1, 3.0, [1.0, None, 2.0, 4.0])
    assert line.measured == 2
    assert line.error == 0.5


def test_every_size_of_a_call(tmp_path: Path) -> None:
    classifier = Classifier.from_pretrained(toy_bundle(tmp_path / "bundle").folder, threads=1)
    made = measure(classifier, Planner(costs(threads=1, fixed=1e-2)), TEXTS, (1, 5, 400, 5), repeats=2)
    assert made.texts == 18
    assert list(made.plans) == [1, 5, None]  # no calls that are larger than all there is
    keys = [line.key for line in made.lines]
    assert {"default 1", "default 5", "default all", "exits", "full"} <= set(keys)
    for call, plan in made.plans.items():
        assert (f"plan {'all' if call is None else call}" in keys) is not plan.is_default
        assert (call in made.gains) is not plan.is_default
    assert all(line.measured > 0 and line.predicted > 0 for line in made.lines)


def test_one_text_is_not_enough(tmp_path: Path) -> None:
    classifier = Classifier.from_pretrained(toy_bundle(tmp_path / "bundle").folder, threads=1)
    with pytest.raises(DataError, match="a plan needs texts to look at and others to run, had 1; give a longer file"):
        measure(classifier, Planner(costs(threads=1)), TEXTS[:1], (1,), repeats=1)


def test_the_command(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "measure", lambda *_, **__: costs(threads=1, fixed=1e-2))
    model, data, file = toy_bundle(tmp_path / "bundle").folder, tmp_path / "texts.txt", tmp_path / "plan.json"
    data.write_text("\n".join(TEXTS) + "\n")
    options = ["--calls", "1,6", "--repeats", 2, "--threads", 1, "--json", file]
    status, out, err = run("plan", model, "--data", data, *options)
    assert status == 0, err
    assert out.startswith("18 texts; every way ran in 2 interleaved repeats.")
    for words in ("predicted s  measured s", "1 a call: ", "All at once: ", "Stops of a full batch"):
        assert words in out
    read = json.loads(file.read_text())
    names = [entry["name"] for entry in read["benchmarks"]]
    assert {"default 1", "default 6", "default all", "exits", "full"} <= set(names)
    assert [plan["texts_of_a_call"] for plan in read["plans"]] == [1, 6, None]
    assert read["details"]["costs"]["threads"] == 1
    assert len(list((tmp_path / "cache" / "cascade" / "costs").iterdir())) == 1


def test_bad_calls(run: Run, tmp_path: Path) -> None:
    status, _, err = run("plan", toy_bundle(tmp_path / "bundle").folder, "--data", "x.txt", "--calls", "none")
    assert (status, err) == (2, "Error: --calls must be whole numbers with commas between, was: none; write 1,16,64\n")

"""`cascade-bench` on toy bundles: every command, its files, and one line for whatever is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cascade.bundle.opening import open_bundle
from cascade.calibration import OperatingPoint
from cascade.pipelines.classifier import Classifier
from cascade.policies.exits import AtExit, ExitPolicy, MaxProbability, any_of, never
from cascade.policies.routing import Router, Threshold, defer_all, defer_none
from cascade_bench import interleaving, startup
from cascade_bench.cli import main
from cascade_bench.contenders import contenders
from cascade_bench.data import Columns, read_labelled
from cascade_bench.operating import export_options
from tests.models.toy import SENTENCES, toy_bundle

WORDS = " ".join(SENTENCES).split()


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture(autouse=True)
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass per turn: these tests look at what is printed, not at seconds."""
    monkeypatch.setattr(interleaving, "SHORTEST", 1e-9)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> Done:
        with pytest.raises(SystemExit) as end:
            main(list(map(str, arguments)))
        seen = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return Done(end.value.code, seen.out, seen.err)

    return run


def texts(count: int = 40) -> list[str]:
    rng = np.random.default_rng(4)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 8))) for _ in range(count)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return toy_bundle(tmp_path / "bundle").folder


@pytest.fixture
def data(tmp_path: Path, model: Path) -> Path:
    """Labelled by full-depth tier 2, every ninth wrongly."""
    some = texts()
    full = Classifier.from_pretrained(model, threads=1).with_router(defer_all).with_exit_policy(never)
    labels = list(full.predict(some).labels)
    labels[::9] = ["neutral"] * len(labels[::9])
    file = tmp_path / "data.jsonl"
    file.write_text(
        "".join(json.dumps({"text": t, "label": label}) + "\n" for t, label in zip(some, labels, strict=True))
    )
    return file


def test_table(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    done = run("table", model, "--data", data, "--repeats", 2, "--threads", 1, "--json", file)
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert [line.split("  ")[0] for line in lines[:7]] == [
        "contender",
        "tier 2, full depth",
        "tier 2 cut after layer 2",
        "tier 2 cut after layer 1",
        "tier 1 alone",
        "tier 2 with exits",
        "cascade with exits",
    ]
    assert "The cascade is right on" in done.out
    read = json.loads(file.read_text())
    assert [entry["name"] for entry in read["benchmarks"]] == ["full", "cut-2", "cut-1", "tier1", "exits", "cascade"]
    assert all(len(entry["stats"]["data"]) == 2 for entry in read["benchmarks"])
    assert read["details"]["router"] == "Threshold(threshold=0.9)"
    assert read["machine_info"]["threads"] == 1


def test_markdown(run: Run, model: Path, data: Path) -> None:
    done = run("table", model, "--data", data, "--repeats", 1, "--threads", 1, "--markdown")
    assert done.status == 0, done.err
    assert done.out.startswith("| contender | accuracy | points |")


def test_contenders_are_what_they_are_called(model: Path) -> None:
    classifier = Classifier.from_pretrained(model, threads=1)
    some = texts()
    found = {contender.key: contender.run(some) for contender in contenders(classifier)}
    assert found["full"].mean_layer == 3
    assert found["cut-1"].mean_layer == 1
    assert found["tier1"].deferred == 0
    assert found["tier1"].mean_layer is None
    assert found["exits"].deferred == 1
    second = classifier.predict(some).routes.tier == 2
    assert found["cascade"].deferred == pytest.approx(second.mean())
    assert 0 < second.mean() < 1


def test_thresholds_shows_a_choice_and_changes_nothing(run: Run, model: Path, data: Path) -> None:
    before = (model / "cascade.json").read_bytes()
    done = run("thresholds", model, "--data", data, "--max-drop", 0.03, "--no-caps", "--threads", 1)
    assert done.status == 0, done.err
    assert sum(line.startswith("->") for line in done.out.splitlines()) == 1
    assert "Full-depth tier 2: " in done.out
    assert "For cascade-export: --threshold " in done.out or "use --write" in done.out
    assert (model / "cascade.json").read_bytes() == before


@pytest.mark.parametrize("more", [(), ("--per-exit",), ("--tier1-share", 0.05)])
def test_thresholds_are_written_into_the_bundle(run: Run, model: Path, data: Path, more: tuple[object, ...]) -> None:
    done = run("thresholds", model, "--data", data, "--max-drop", 0.1, "--threads", 1, "--write", *more)
    assert done.status == 0, done.err
    bundle = open_bundle(model)
    chosen = bundle.manifest.figures["operating_point"]
    assert chosen["router"] == bundle.manifest.router
    assert chosen["exit_policy"] == bundle.manifest.exit_policy
    assert chosen["data"] == "data.jsonl"
    assert chosen["drop"] <= 0.1
    classifier = Classifier.from_pretrained(model, threads=1)
    labelled = read_labelled(str(data), classifier.labels)
    right = labelled.right(classifier.predict(labelled.texts).labels)
    assert right / len(labelled) == pytest.approx(chosen["accuracy"])
    assert not [path for path in model.parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("router", "policy", "expected"),
    [
        (Threshold(0.8), MaxProbability(0.95), "--threshold 0.8 --exit-threshold 0.95"),
        (defer_none, MaxProbability(0.5), "--threshold 0.0 --exit-threshold 0.5"),
        (defer_all, MaxProbability(0.5), None),
        (Threshold(0.8), any_of(MaxProbability(0.5), AtExit(2)), None),
        (Threshold(0.8), MaxProbability((0.5, 0.6)), None),
        (Threshold(0.8), never, None),
    ],
)
def test_options_for_the_exporter(router: Router, policy: ExitPolicy, expected: str | None) -> None:
    assert export_options(OperatingPoint(router, policy, 0.9, 0, 0, 0.1, 2, 0.2)) == expected


def test_startup(run: Run, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "startup.json"
    done = run("startup", model, "--samples", 1, "--threads", 1, "--json", file)
    assert done.status == 0, done.err
    assert "resident memory after 100 texts" in done.out
    found = json.loads(file.read_text())
    assert 0 <= found["median"]["import_seconds"] <= found["median"]["classifier_seconds"]
    assert found["median"]["answer_seconds"] > 0
    assert 20 < found["median"]["resident_mib"] <= found["median"]["peak_mib"]


def test_a_process_that_fails_is_told_in_one_line(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "IMPORT", "raise SystemExit('no room')")
    wrong(run, "a fresh process must answer with this bundle, but: no room; see cascade inspect", "startup", model)


def test_several_labels(tmp_path: Path, run: Run) -> None:
    model = toy_bundle(tmp_path / "multi", multi_label=True).folder
    file = tmp_path / "multi.jsonl"
    labels = [["positive", "negative"], [], ["neutral"]]
    file.write_text(
        "".join(json.dumps({"text": t, "label": label}) + "\n" for t, label in zip(texts(3), labels, strict=True))
    )
    found = read_labelled(str(file), ("negative", "neutral", "positive"), multi_label=True)
    assert found.labels == [("negative", "positive"), (), ("neutral",)]
    assert found.targets.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert found.right([("negative", "positive"), (), ("positive",)]) == 2
    assert run("table", model, "--data", file, "--repeats", 1, "--threads", 1).status == 0
    assert run("thresholds", model, "--data", file, "--threads", 1).status == 0


def test_columns_and_pairs(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text("one,two,answer\na,b,positive\nc,d,negative\n")
    columns = Columns(text="one", pair="two", label="answer")
    found = read_labelled(str(file), ("negative", "positive"), columns=columns)
    assert found.texts == [("a", "b"), ("c", "d")]
    assert found.targets.tolist() == [1, 0]


def wrong(run: Run, expected: str, *arguments: object) -> None:
    done = run(*arguments)
    assert done.status == 2
    assert done.out == ""
    assert expected in done.err
    assert done.err.startswith("Error: ")
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize("command", ["table", "thresholds"])
def test_bad_data(run: Run, model: Path, tmp_path: Path, command: str) -> None:
    file = tmp_path / "bad.jsonl"
    wrong(run, "missing; check the path", command, model, "--data", file)
    file.write_text('{"text": "good", "label": "positive"}\n{"text": "bad", "label": "awful"}\n')
    wrong(
        run,
        "line 2: labels must be the bundle's (negative, neutral, positive), was: 'awful'",
        command,
        model,
        "--data",
        file,
    )
    file.write_text('{"text": "good"}\n')
    wrong(run, "line 1", command, model, "--data", file)
    file.write_text('{"text": "good", "label": ["positive", "negative"]}\n')
    wrong(run, "line 1: there must be exactly one label, were: 2", command, model, "--data", file)


def test_bad_use(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    wrong(run, "there is no folder", "table", tmp_path / "none", "--data", data)
    wrong(run, "there is no folder", "startup", tmp_path / "none")
    wrong(run, "--max-drop must be in [0, 1], was: 3.0", "thresholds", model, "--data", data, "--max-drop", 3)
    wrong(run, "--tier1-share must be in [0, 1], was: 3.0", "thresholds", model, "--data", data, "--tier1-share", 3)
    wrong(
        run,
        "--write needs a bundle in a folder, was: some/where",
        "thresholds",
        "some/where",
        "--data",
        data,
        "--write",
    )
    wrong(run, "--json must be a file in a folder that is there", "table", model, "--data", data, "--json", tmp_path)
    wrong(run, "Missing option '--data'", "table", model)
    wrong(run, "0 is not in the range", "table", model, "--data", data, "--repeats", 0)


@pytest.mark.parametrize("command", [(), ("table",), ("startup",), ("thresholds",)])
def test_help_has_an_example(run: Run, command: tuple[str, ...]) -> None:
    done = run(*command, "--help")
    assert done.status == 0
    assert "Example:" in done.out
    assert "cascade-bench " in done.out

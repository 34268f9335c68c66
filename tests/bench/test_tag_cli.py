"""`cascade-bench` on a tagger, as a user calls it: table, thresholds, startup, bad use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cascade.bundle.opening import open_bundle
from cascade.calibration import WordGrid
from cascade.pipelines.tagger import Tagger
from cascade.policies.routing import Threshold
from cascade_bench import interleaving
from tests.bench.test_cli import Run, run  # noqa: F401  # a fixture is found by its name
from tests.models import tiny
from tests.models.tagged import GRID, labelled, lines, sentences
from tests.models.toy_tags import tag_bundle


@pytest.fixture(autouse=True)
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass per turn: these tests look at what is printed, not at seconds."""
    monkeypatch.setattr(interleaving, "SHORTEST", 1e-9)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    policy = {"policy": "TokenExit", "threshold": 0.3, "window": 3}
    return tag_bundle(tmp_path_factory.mktemp("bundles") / "tags", exit_policy=policy, max_length=128).folder


@pytest.fixture(scope="module")
def tagger(model: Path) -> Tagger:
    return Tagger.from_pretrained(model, threads=1)


@pytest.fixture(scope="module")
def data(tagger: Tagger, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled(tagger, tmp_path_factory.mktemp("data"), "dev.jsonl", count=60, seed=4)


@pytest.fixture(scope="module")
def more(tagger: Tagger, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled(tagger, tmp_path_factory.mktemp("data"), "train.jsonl", count=120, seed=5)


def test_table(run: Run, model: Path, data: Path, more: Path, tmp_path: Path) -> None:  # noqa: F811  # the fixture
    file = tmp_path / "table.json"
    options = ("--repeats", 2, "--threads", 1, "--json", file, "--exit-table-data", more)
    done = run("table", model, "--data", data, *options)
    assert done.status == 0, done.err
    shown = done.out.splitlines()
    assert [line.split("  ")[0] for line in shown[:9]] == [
        "contender",
        "tier 2, full depth",
        "tier 2 cut after layer 2",
        "tier 2 cut after layer 1",
        "tier 1 alone",
        "tier 2 with token exit",
        "tier 2 with sentence exit",
        "tier 2 with exits fixed per token id",
        "cascade with windows and exits",
    ]
    for column in ("accuracy", "entity F1", "by tier 1", "mean layer", "words/s", "over full tier 2"):
        assert column in shown[0]
    assert "100.0%" in shown[4]  # tier 1 answers everything there
    assert "Tier 2 with token exit is right on" in done.out
    assert (
        "cascade: TokenExit(threshold=0.3, window=3); tier 2 alone: TokenExit(threshold=0.3, window=3); sentence: "
        in done.out
    )
    read = json.loads(file.read_text())
    assert [entry["name"] for entry in read["benchmarks"]][-4:] == ["exits", "sentence", "by-token", "cascade"]
    assert read["benchmarks"][0]["extra_info"]["entity_f1"] > 0.5
    assert read["details"]["exit_table_data"] == "train.jsonl"
    assert read["details"]["sentences"] == 60
    assert "ExitByToken(" in read["details"]["exit_policies"]["by-token"]
    done = run("table", model, "--data", data, "--repeats", 1, "--threads", 1, "--markdown")
    assert done.out.startswith("| contender | accuracy | points | entity F1 | by tier 1 | mean layer | words/s |")


def test_table_with_a_pipeline(run: Run, tmp_path: Path) -> None:  # noqa: F811  # the fixture
    labels = tiny.TAGS
    tiny.tagger(tmp_path / "checkpoint")
    bundle = tag_bundle(tmp_path / "bundle", labels=labels, tokenizer=tiny.tokenizer())
    file = tmp_path / "some.jsonl"
    some = sentences(10)
    file.write_text(lines(some, [[labels[0]] * len(own) for own in some]))
    done = run(
        "table", bundle.folder, "--data", file, "--repeats", 1, "--threads", 1, "--checkpoint", tmp_path / "checkpoint"
    )
    assert done.status == 0, done.err
    assert "over pipeline" in done.out.splitlines()[0]
    assert "entity F1" not in done.out.splitlines()[0]
    assert "transformers.pipeline, fp32, batches of " in done.out
    assert "Pipeline, sentences/s by batch size on 10 sentences: 1: " in done.out


@pytest.fixture
def small_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    class Small(WordGrid):
        def __init__(self, *, caps: bool) -> None:
            super().__init__(GRID.deferred, GRID.windows, GRID.thresholds, GRID.spread, caps)

    monkeypatch.setattr("cascade_bench.tag_cli.WordGrid", Small)


@pytest.mark.usefixtures("small_grid")
@pytest.mark.parametrize("options", [(), ("--f1",), ("--tier1-share", 0.05, "--no-caps")])
def test_thresholds_are_shown_and_written(
    run: Run,  # noqa: F811  # the fixture
    data: Path,
    tmp_path: Path,
    options: tuple[object, ...],
) -> None:
    model = tag_bundle(tmp_path / "own", router={"policy": "Threshold", "threshold": 0.123}).folder
    before = (model / "cascade.json").read_bytes()
    done = run("thresholds", model, "--data", data, "--max-drop", 0.05, "--threads", 1, *options)
    assert done.status == 0, done.err
    assert "Replayed, 5.00 points allowed, by kind:" in done.out
    assert f"Really run (full-depth tier 2: {'entity F1' if '--f1' in options else 'accuracy'} " in done.out
    assert (model / "cascade.json").read_bytes() == before
    done = run("thresholds", model, "--data", data, "--max-drop", 0.05, "--threads", 1, "--write", *options)
    assert done.status == 0, done.err
    manifest = open_bundle(model).manifest
    chosen = manifest.figures["operating_point"]
    assert (chosen["router"], chosen["exit_policy"]) == (manifest.router, manifest.exit_policy)
    assert chosen["windows"] == manifest.windows
    assert chosen["metric"] == ("entity F1" if "--f1" in options else "word accuracy")
    assert chosen["drop"] <= 0.05 + 1e-9
    assert Tagger.from_pretrained(model, threads=1).router != Threshold(0.123)


def test_startup(run: Run, model: Path) -> None:  # noqa: F811  # the fixture
    done = run("startup", model, "--samples", 1, "--threads", 1)
    assert done.status == 0, done.err
    assert "with all that a Tagger needs" in done.out


def wrong(run: Callable[..., Any], expected: str, *arguments: object) -> None:  # noqa: F811  # the fixture's value
    done = run(*arguments)
    assert (done.status, done.out) == (2, "")
    assert expected in done.err
    assert len(done.err.splitlines()) == 1


def test_bad_use(run: Run, model: Path, data: Path, tmp_path: Path) -> None:  # noqa: F811  # the fixture
    for command in ("table", "thresholds"):
        wrong(run, "missing; check the path", command, model, "--data", tmp_path / "none.jsonl")
    wrong(run, "--per-exit is for classifiers", "thresholds", model, "--data", data, "--per-exit")
    wrong(run, "--write needs a bundle in a folder", "thresholds", "some/where", "--data", data, "--write")


def test_options_of_taggers_are_refused_for_classifiers(run: Run, data: Path, tmp_path: Path) -> None:  # noqa: F811
    from tests.models.toy import toy_bundle

    texts = toy_bundle(tmp_path / "texts").folder
    wrong(run, "--exit-table-data is for taggers", "table", texts, "--data", data, "--exit-table-data", data)
    wrong(run, "--f1 is for taggers", "thresholds", texts, "--data", data, "--f1")

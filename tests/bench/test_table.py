"""The table: systems of a bundle, what the run says of systems whose seconds are known, the command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascade.exceptions import OptionError
from cascade.policies import AtExit, Policies, Threshold, never
from cascade.policies.routing import defer_all
from cascade_bench.curve import best_policies
from cascade_bench.systems.local import Answered, Model, System, alone, answered, systems
from cascade_bench.table.cli import conclusion, method, said_of
from cascade_bench.table.data import Data, read_data
from cascade_bench.table.measuring import Table, as_text, entries, measure
from cascade_bench.timing import machine
from cascade_bench.timing.report import write_json
from tests.bench.conftest import Case, Run, texts, write_lines
from tests.bench.test_timing import World
from tests.models import tiny
from tests.models.tagged import sentences
from tests.models.toy_tags import tag_bundle

DATA = Data([f"text {i}" for i in range(10)], ["a"] * 10)
FACTS = machine.facts(threads=2)


def system(world: World, key: str, seconds: float, right: int, cut: int | None = None) -> System:
    def run(items: Sequence[Any]) -> Answered:
        world.work(key, seconds)()
        return Answered(["a"] * right + ["b"] * (len(items) - right), None, 2.5)

    return System(key, f"the {key}", run, cut)


def made(*, cascade: tuple[float, int], repeats: int = 7, pipeline: float | None = None) -> Table:
    world = World()
    tested = [
        system(world, "full", 4.0, 9, cut=3),
        system(world, "cut-2", 3.0, 8, cut=2),
        system(world, "cut-1", 2.0, 6, cut=1),
        system(world, "cascade", *cascade),
    ]
    if pipeline is not None:
        tested.append(system(world, "transformers", pipeline, 9))
    return measure(tested, DATA, repeats=repeats, clock=world.clock, pause=0)


def test_systems_are_what_they_are_called(case: Case) -> None:
    model, tested = case.model, systems(case.model)
    items: list[Any] = sentences(40) if case.tagging else texts()
    assert [one.key for one in tested] == ["full", "cut-2", "cut-1", "tier1", "exits", "cascade"]
    assert tested[-1].name == f"cascade with {'windows and ' * case.tagging}exits"
    found = {one.key: one.run(items) for one in tested}
    assert [found[key].mean_layer for key in ("full", "cut-2", "cut-1", "tier1")] == [3, 2, 1, None]
    assert (found["tier1"].deferred, found["exits"].deferred) == (0, 1)
    assert found["exits"].labels == answered(model.with_router(defer_all), items).labels
    second = answered(model, items).tiers
    assert second is not None
    assert found["cascade"].deferred == pytest.approx((second == 2).mean())
    assert 0 < (second == 2).mean() < 1


def routes(model: Any) -> Any:
    return model.predict(texts()).routes


@pytest.fixture
def three(classifier: Model) -> Model:
    """The toy's second tier once more as its third."""
    own = classifier.policies
    first, second = (float(np.median(routes(alone(classifier, tier)).confidence)) for tier in (1, 2))
    policies = Policies(
        routers=(Threshold(first), Threshold(second)),
        exits=(never, AtExit(2), own.exits[1]),
        temperatures=(*own.temperatures, own.temperatures[1]),
    )
    tiers = (classifier.tier1, classifier.tier2, classifier.tier2)
    return replace(classifier, tiers=tiers, policies=policies).with_policies(policies)


def test_systems_of_three_tiers(three: Model) -> None:
    tested = {one.key: one for one in systems(three)}
    assert list(tested) == [
        "full",
        "cut-2",
        "cut-1",
        "tier1",
        "tier2",
        "tiers-1-2",
        "tiers-1-3",
        "tiers-2-3",
        "exits",
        "cascade",
    ]
    assert [one.tier for one in tested.values()] == [3, None, None, 1, 2, *[None] * 5]
    asked = {key: set(np.asarray(one.run(texts()).tiers).tolist()) for key, one in tested.items()}
    assert asked["tier1"] == {1}
    assert asked["tier2"] == {2}
    assert asked["tiers-1-2"] == {1, 2}
    assert asked["tiers-1-3"] == {1, 3}
    assert asked["tiers-2-3"] == {2, 3}
    assert asked["exits"] == asked["cut-1"] == {3}
    assert asked["cascade"] == {1, 2, 3}
    assert tested["tier2"].run(texts()).labels == tested["full"].run(texts()).labels  # the same tier at full depth


def test_a_table_of_three_tiers_has_an_oracle(three: Model) -> None:
    items = texts()
    right = answered(three, items).labels
    table = measure(systems(three), Data(items, right), repeats=2, pause=0)
    oracle = table.oracle
    assert oracle is not None
    alone = [table.row(key) for key in ("tier1", "tier2", "full")]
    assert oracle.accuracy >= max(row.accuracy for row in alone)
    assert oracle.by_tier[0] >= alone[0].accuracy
    assert sum(oracle.by_tier) == pytest.approx(1)
    assert oracle.by_tier[2] == 0  # tier 3 is tier 2
    seconds = [row.median_seconds for row in alone]
    assert oracle.over_full == pytest.approx(seconds[2] / np.dot(oracle.by_tier, seconds))
    shown = as_text(table, said_of(table), [])
    assert "An oracle that asks the cheapest tier that is right is right on" in shown
    assert "by tier, %" in shown
    assert "mean layer" in shown
    assert best_policies(three, Data(items, right), 2)


def test_speed_ups_and_accuracy() -> None:
    table = made(cascade=(0.5, 9), pipeline=8.0)
    cascade = table.row("cascade")
    assert (cascade.accuracy, cascade.against_full, cascade.deferred, cascade.mean_layer) == (0.9, 0.0, None, 2.5)
    assert cascade.over_full is not None
    assert (cascade.speed, cascade.over_full.low) == (8, 8)
    assert cascade.over_pipeline is not None
    assert cascade.over_pipeline.median == 16
    assert cascade.median_seconds == 0.5
    assert table.row("cut-1").against_full == pytest.approx(-0.3)
    assert table.row("full").speed == 1


@pytest.mark.parametrize(
    ("cascade", "expected"),
    [
        (
            (1.0, 8),
            "fixed depth that is at least as accurate is the cut-2 (80.00%), beside which the cascade is 3.00 [3.00",
        ),
        ((6.0, 9), "is the full (90.00%), beside which the cascade is 0.67 [0.67, 0.67] times as fast: slower."),
        ((4.0, 9), "the cascade is 1.00 [1.00, 1.00] times as fast: no clear difference."),
        ((2.0, 10), "no cut of the last tier is as accurate, not even full depth; the most accurate is the full"),
    ],
)
def test_the_conclusion_names_the_fastest_depth_that_is_as_accurate(cascade: tuple[float, int], expected: str) -> None:
    assert expected in conclusion(made(cascade=cascade))


def test_too_few_repeats_are_said() -> None:
    assert "[4.00, 4.00] (75%) times as fast" in conclusion(made(cascade=(1.0, 9), repeats=3))


def test_full_depth_comes_first() -> None:
    with pytest.raises(OptionError, match="the first system must be full depth, got another"):
        measure([system(World(), "cascade", 1, 1)], DATA)


def test_text_and_markdown_hold_every_row() -> None:
    table = made(cascade=(0.5, 9))
    how = [method(table, 7), machine.in_words(FACTS)]
    text, markdown = (as_text(table, said_of(table), how, markdown=markdown) for markdown in (False, True))
    assert "| the cascade | 90.00% | +0.00 | 2.50 | 20 | 8.00 [8.00, 8.00] |" in markdown.splitlines()
    assert all(row.name in text for row in table.rows)
    assert "over pipeline" not in markdown
    for printed in (text, markdown):
        assert conclusion(table) in printed
        assert "7 interleaved repeats;" in printed
        assert "2 threads" in printed


def test_json_keeps_the_raw_samples(tmp_path: Path) -> None:
    table = made(cascade=(0.5, 9), pipeline=30.0)
    markdown = as_text(table, [], [method(table, 7)], markdown=True)
    assert "7 interleaved repeats;" in markdown
    assert "| 60.00 [60.00, 60.00] |" in markdown
    write_json(tmp_path / "table.json", FACTS, entries(table), details={"model": "m"})
    read = json.loads((tmp_path / "table.json").read_text())
    found = {entry["name"]: entry for entry in read["benchmarks"]}
    assert found["cascade"]["stats"]["data"] == [0.5] * 7
    assert found["full"]["extra_info"]["over_full"]["median"] == 1
    assert (read["machine_info"]["threads"], read["details"]) == (2, {"model": "m"})


def test_the_command(run: Run, case: Case, tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    done = run("table", case.bundle, "--data", case.data, "--repeats", 2, "--threads", 1, "--json", file)
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert [line.split("  ")[0] for line in lines[:6]] == [
        "system",
        "tier 2, full depth",
        "tier 2 cut after layer 2",
        "tier 2 cut after layer 1",
        "tier 1 alone",
        "tier 2 with exits",
    ]
    assert ("entity F1" in lines[0]) == case.tagging
    assert "The cascade is right on" in done.out
    assert "Settings: router Threshold(" in done.out
    assert ("windows" in done.out.split("Settings: ")[1]) == case.tagging
    read = json.loads(file.read_text())
    assert [entry["name"] for entry in read["benchmarks"]] == ["full", "cut-2", "cut-1", "tier1", "exits", "cascade"]
    assert all(len(entry["stats"]["data"]) == 2 for entry in read["benchmarks"])
    assert read["details"]["router"].startswith("Threshold(")
    assert (read["machine_info"]["threads"], read["details"]["items"]) == (1, 40)
    markdown = run("table", case.bundle, "--data", case.data, "--repeats", 1, "--threads", 1, "--markdown")
    assert markdown.out.startswith("| system | accuracy | points |")


def test_measured_words(tagger: Model, tags_data: Path) -> None:
    data = read_data(str(tags_data), tagger)
    table = measure(systems(tagger), data, repeats=1, pause=0)
    right = answered(tagger, data.items).labels
    assert table.row("cascade").accuracy == data.accuracy(right)
    assert table.row("cascade").f1 == pytest.approx(data.f1(right))


def test_with_a_pipeline(run: Run, tmp_path: Path) -> None:
    tiny.tagger(tmp_path / "checkpoint")
    bundle = tag_bundle(tmp_path / "bundle", labels=tiny.TAGS, tokenizer=tiny.tokenizer())
    lines = [{"tokens": own, "tags": [tiny.TAGS[0]] * len(own)} for own in sentences(10)]
    file = write_lines(tmp_path / "some.jsonl", lines)
    options = ("--repeats", 1, "--threads", 1, "--checkpoint", tmp_path / "checkpoint")
    done = run("table", bundle.folder, "--data", file, *options)
    assert done.status == 0, done.err
    assert "over pipeline" in done.out.splitlines()[0]
    assert "transformers.pipeline, fp32, batches of " in done.out
    assert "Every word is labelled" in done.out


def test_bad_use(run: Run, bundle: Path, data: Path, tmp_path: Path) -> None:
    for expected, arguments in {
        "missing; check the path": (bundle, "--data", tmp_path / "none.jsonl"),
        "there is no folder": (tmp_path / "none", "--data", data),
        "--json must be a file in a folder that is there": (bundle, "--data", data, "--json", tmp_path),
        "Missing option '--data'": (bundle,),
        "0 is not in the range": (bundle, "--data", data, "--repeats", 0),
    }.items():
        done = run("table", *arguments)
        assert done.status == 2
        assert expected in done.err
        assert done.err.startswith("Error: ")

"""Taking turns and what the table says, with contenders whose seconds are known."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascade.exceptions import OptionError
from cascade.text.tokenizer import Text
from cascade_bench import machine, render
from cascade_bench.contenders import Answered, Contender
from cascade_bench.data import Labelled
from cascade_bench.interleaving import Plan, interleave
from cascade_bench.table import Table, measure
from cascade_bench.verdicts import verdict

DATA = Labelled([f"text {i}" for i in range(10)], ["a"] * 10, np.zeros(10, dtype=np.int64))


@dataclass
class World:
    """A clock that moves only when somebody works, on a machine that slows down by half from run to run."""

    now: float = 0.0
    slower: float = 1.0
    ran: list[str] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def work(self, name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            self.ran.append(name)
            self.now += seconds * self.slower

        return run


def contender(world: World, key: str, seconds: float, right: int, cut: int | None = None) -> Contender:
    def run(texts: Sequence[Text]) -> Answered:
        world.work(key, seconds)()
        return Answered(["a"] * right + ["b"] * (len(texts) - right), 0.25, 2.5)

    return Contender(key, f"the {key}", run, cut)


def made(world: World, *, cascade: tuple[float, int], repeats: int = 7, pipeline: float | None = None) -> Table:
    who = [
        contender(world, "full", 4.0, 9, cut=3),
        contender(world, "cut-2", 3.0, 8, cut=2),
        contender(world, "cut-1", 2.0, 6, cut=1),
        contender(world, "cascade", *cascade),
    ]
    if pipeline is not None:
        who.append(contender(world, "pipeline", pipeline, 9))
    return measure(who, DATA, repeats=repeats, clock=world.clock, pause=0)


def test_everyone_has_a_turn_in_every_repeat_in_changing_orders() -> None:
    world = World()
    runs = {name: world.work(name, 1.0) for name in "abc"}
    seen: list[str] = []
    turns = interleave(
        runs, repeats=6, warm_up=dict.fromkeys("abc", 1.0), clock=world.clock, pause=0, progress=seen.append
    )
    assert [sorted(order) for order in turns.orders] == [["a", "b", "c"]] * 6
    assert len({tuple(order) for order in turns.orders}) > 1
    assert [name for order in turns.orders for name in order] == world.ran == seen
    assert turns.seconds == {name: [1.0] * 6 for name in "abc"}


def test_a_slow_contender_runs_in_fewer_repeats_and_a_fast_one_several_times_in_a_turn() -> None:
    world = World()
    runs = {"slow": world.work("slow", 20.0), "fast": world.work("fast", 0.05)}
    turns = interleave(runs, repeats=7, warm_up={"slow": 20.0, "fast": 0.05}, clock=world.clock, pause=0)
    assert turns.seconds["slow"] == [20.0, None, None, 20.0, None, None, 20.0]
    assert turns.plans["fast"] == Plan(tuple(range(7)), 4)
    assert turns.seconds["fast"] == pytest.approx([0.05] * 7)
    assert world.ran.count("fast") == 28


@pytest.mark.parametrize(
    ("seconds", "repeats", "expected"),
    [
        (1.0, 7, Plan((0, 1, 2, 3, 4, 5, 6), 1)),
        (1000.0, 7, Plan((0, 3, 6), 1)),
        (1000.0, 2, Plan((0, 1), 1)),
        (0.0, 1, Plan((0,), 64)),
    ],
)
def test_plans(seconds: float, repeats: int, expected: Plan) -> None:
    assert Plan.of(seconds, repeats) == expected


def test_garbage_is_collected_as_before_afterwards() -> None:
    inside: list[bool] = []

    def broken() -> None:
        inside.append(gc.isenabled())
        raise RuntimeError("broken")

    before = (gc.isenabled(), gc.get_freeze_count())
    with pytest.raises(RuntimeError, match="broken"):
        interleave({"a": broken}, repeats=1, warm_up={"a": 1.0}, pause=0)
    assert inside == [False]
    assert (gc.isenabled(), gc.get_freeze_count()) == before == (True, 0)


def test_no_repeats() -> None:
    with pytest.raises(OptionError, match="repeats must be a whole number of at least 1, was: 0"):
        interleave({}, repeats=0, warm_up={})


def test_speed_ups_and_accuracy() -> None:
    table = made(World(), cascade=(0.5, 9), pipeline=8.0)
    cascade = table.row("cascade")
    assert (cascade.accuracy, cascade.against_full, cascade.deferred, cascade.mean_layer) == (0.9, 0.0, 0.25, 2.5)
    assert (cascade.over_full.median, cascade.over_full.low) == (8, 8)
    assert cascade.over_pipeline is not None
    assert cascade.over_pipeline.median == 16
    assert cascade.median_seconds == 0.5
    assert table.row("cut-1").against_full == pytest.approx(-0.3)
    assert table.row("full").over_full.median == 1


def test_the_verdict_names_the_fastest_depth_that_is_as_accurate() -> None:
    assert verdict(made(World(), cascade=(1.0, 8))) == (
        "The cascade is right on 80.00% and takes 1 s for 10 texts; the fastest fixed depth that is at least as "
        "accurate, the cut-2 (80.00%), takes 3 s, so the cascade is 3.00 times faster [3.00, 3.00]."
    )


@pytest.mark.parametrize(
    ("cascade", "expected"),
    [
        ((6.0, 9), "the full (90.00%), takes 4 s, so the cascade is slower, 0.67 times as fast"),
        ((4.0, 9), "so there is no clear difference: the cascade is 1.00 times as fast"),
        (
            (2.0, 10),
            "no cut of tier 2 is as accurate, not even full depth: the most accurate, the full, is right on 90",
        ),
    ],
)
def test_the_verdict_is_honest(cascade: tuple[float, int], expected: str) -> None:
    assert expected in verdict(made(World(), cascade=cascade))


def test_too_few_repeats_are_said() -> None:
    assert "[4.00, 4.00, covering only 75%]" in verdict(made(World(), cascade=(1.0, 9), repeats=3))


def test_full_depth_comes_first() -> None:
    with pytest.raises(OptionError, match="the first contender must be tier 2 at full depth"):
        measure([contender(World(), "cascade", 1, 1)], DATA)


@pytest.fixture
def facts() -> Mapping[str, Any]:
    return machine.facts(threads=2)


def test_text_and_markdown_hold_every_row(facts: Mapping[str, Any]) -> None:
    table = made(World(), cascade=(0.5, 9))
    text, markdown = render.as_text(table, facts), render.as_markdown(table, facts)
    line = "| the cascade | 90.00% | +0.00 | 25.0% | 2.50 | 20 | 8.00 [8.00, 8.00] |"
    assert line in markdown.splitlines()
    assert markdown.splitlines()[1] == "|---|--:|--:|--:|--:|--:|--:|"
    for row in table.rows:
        assert row.name in text
    assert "over pipeline" not in markdown
    assert verdict(table) in text
    assert "7 interleaved repeats;" in text
    assert "2 threads" in text


def test_slow_contenders_are_named_below(facts: Mapping[str, Any]) -> None:
    table = made(World(), cascade=(0.5, 9), pipeline=30.0)
    markdown = render.as_markdown(table, facts)
    assert "7 interleaved repeats (slow contenders: 3)" in markdown
    assert "| 60.00 [60.00, 60.00] (75%) |" in markdown


def test_json_keeps_the_raw_samples(facts: Mapping[str, Any], tmp_path: Path) -> None:
    table = made(World(), cascade=(0.5, 9), pipeline=30.0)
    file = tmp_path / "table.json"
    render.write_json(file, render.as_json(table, facts, {"model": "m"}))
    read = json.loads(file.read_text(encoding="utf-8"))
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]
    found = {entry["name"]: entry for entry in read["benchmarks"]}
    assert found["cascade"]["stats"]["data"] == [0.5] * 7
    assert found["cascade"]["stats"]["outliers"] == "0;0"
    assert found["pipeline"]["extra_info"]["seconds_by_repeat"] == [30.0, None, None, 30.0, None, None, 30.0]
    assert found["full"]["extra_info"]["speed_up_over_full"]["median"] == 1
    assert read["machine_info"]["threads"] == 2
    assert read["details"] == {"model": "m"}
    assert read["verdict"] == verdict(table)


def test_the_machine(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(
        "model name\t: Toy 1\nflags\t\t: fpu avx2 avx512_vnni\n\nmodel name: Toy 2\n"
    )
    (tmp_path / "proc/meminfo").write_text("MemTotal:       2048 kB\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "proc/self").mkdir()
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("150000 100000\n")
    found = machine.facts(threads=2, root=tmp_path)
    assert found["cpu"]["model"] == "Toy 1"
    assert found["cpu"]["flags"] == ["avx2", "avx512_vnni"]
    assert found["cpu"]["cgroup_quota"] == 1.5
    assert found["memory_mib"] == 2
    assert set(found["versions"]) >= {"cascade", "numpy", "onnxruntime"}
    words = machine.in_words(found)
    assert words.startswith("Toy 1, ")
    assert "control group 1.5, avx512_vnni; 2 threads" in words


def test_a_machine_that_says_nothing(tmp_path: Path) -> None:
    found = machine.facts(threads=1, root=tmp_path)
    assert found["cpu"]["flags"] == []
    assert found["memory_mib"] is None
    assert "no VNNI" in machine.in_words(found)
    json.dumps(found)


def test_a_folder_without_a_checkout_has_no_revision(tmp_path: Path) -> None:
    assert machine.revision(tmp_path) is None

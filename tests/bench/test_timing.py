"""Turns against a clock, facts about a machine, JSON files."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cascade.core.files import check_output
from cascade.core.statistics import Interval
from cascade.exceptions import OptionError
from cascade.runtime.kernels import KINDS
from cascade_bench.timing import interleaving, machine
from cascade_bench.timing.interleaving import best_size, interleave
from cascade_bench.timing.report import benchmark, grid, write_json

SHORTEST = interleaving.SHORTEST  # before a fixture makes turns short


@dataclass
class World:
    """A clock that moves only when something works."""

    now: float = 0.0
    ran: list[str] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def work(self, name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            self.ran.append(name)
            self.now += seconds

        return run


@pytest.fixture
def long_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interleaving, "SHORTEST", SHORTEST)


def test_every_system_has_a_turn_in_every_repeat_in_changing_orders() -> None:
    world, seen = World(), list[str]()
    runs = {name: world.work(name, 1.0) for name in "abc"}
    warm_up = dict.fromkeys("abc", 1.0)
    turns = interleave(runs, repeats=6, warm_up=warm_up, clock=world.clock, pause=0, progress=seen.append)
    orders = [world.ran[begin : begin + 3] for begin in range(0, 18, 3)]
    assert [sum(order.index("a") < order.index(other) for order in orders) for other in "bc"] == [3, 3]
    assert [sorted(order) for order in orders] == [["a", "b", "c"]] * 6
    assert len({tuple(order) for order in orders}) > 1
    assert world.ran == seen
    assert turns == {name: [1.0] * 6 for name in "abc"}


@pytest.mark.usefixtures("long_turns")
def test_a_fast_system_runs_several_times_in_a_turn() -> None:
    world = World()
    runs = {"slow": world.work("slow", 20.0), "fast": world.work("fast", 0.0625), "none": world.work("none", 0.0)}
    warm_up = {"slow": 20.0, "fast": 0.0625, "none": 0.0}
    turns = interleave(runs, repeats=7, warm_up=warm_up, clock=world.clock, pause=0)
    assert turns == {"slow": [20.0] * 7, "fast": [0.0625] * 7, "none": [0.0] * 7}
    assert [world.ran.count(name) for name in ("slow", "fast", "none")] == [7, 7 * 4, 7 * 64]


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


def test_the_best_batch_size_is_the_fastest() -> None:
    seen: list[int] = []

    def seconds(size: int) -> float:
        seen.append(size)
        return {1: 4.0, 8: 1.0, 16: 1.1, 32: 2.0, 64: 0.1}[size] * (1 + seen.count(size))  # the better run counts

    assert best_size((1, 8, 16, 32, 64), 4, seconds) == 8
    assert seen == [1, 1, 8, 8, 16, 16, 32, 32]  # nothing larger than what is much slower


def test_no_repeats() -> None:
    with pytest.raises(OptionError, match="repeats must be a whole number of at least 1"):
        interleave({}, repeats=0, warm_up={})


def test_the_machine(tmp_path: Path) -> None:
    for folder in ("proc/self", "sys/fs/cgroup"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "proc/cpuinfo").write_text("model name\t: Toy 1\nflags\t\t: fpu avx2 avx512_vnni\n\nmodel name: 2\n")
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("150000 100000\n")
    found = machine.facts(threads=2, root=tmp_path)
    assert (found["cpu"]["model"], found["cpu"]["flags"]) == ("Toy 1", ["avx2", "avx512_vnni"])
    assert found["cpu"]["cgroup_quota"] == 1.5
    assert set(found["versions"]) >= {"cascade", "numpy", "onnxruntime"}
    assert machine.in_words(found).startswith("Toy 1, ")
    assert found["kernels"] in KINDS
    found["kernels"] = "avx2"
    assert "control group 1.5, avx512_vnni; kernels: avx2; 2 threads" in machine.in_words(found)


def test_a_machine_that_says_nothing(tmp_path: Path) -> None:
    found = machine.facts(threads=1, root=tmp_path)
    assert found["cpu"]["flags"] == []
    assert "no VNNI" in machine.in_words(found)
    json.dumps(found)
    assert machine.revision(tmp_path) is None  # no checkout


def test_a_benchmark_in_pytest_benchmarks_shape() -> None:
    made = benchmark("full", [2.0, 4.0], {"over": "x"})
    assert made["extra_info"] == {"over": "x"}
    assert made["stats"] == {"median": 3.0, "data": [2.0, 4.0]}
    assert benchmark("full", [2.0])["extra_info"] == {}


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_json(tmp_path / "made.json", {"cpu": "é"}, [{"name": "a"}], notes=Interval(1, 1, 1, 0.5, 1))
    made = json.loads((tmp_path / "made.json").read_text(encoding="utf-8"))
    assert (made["machine_info"], made["benchmarks"], made["notes"]["coverage"]) == ({"cpu": "é"}, [{"name": "a"}], 0.5)
    with pytest.raises(OptionError, match="an output must be a file"):
        write_json(tmp_path, {}, [])
    assert [path.name for path in tmp_path.iterdir()] == ["made.json"]
    with pytest.raises(OptionError, match="--png must be a file in a folder that is there"):
        check_output("--png", tmp_path / "none" / "file")


def test_tables() -> None:
    assert grid(["a", "b"], [["x", "1"]], markdown=True) == "| a | b |\n|---|--:|\n| x | 1 |"
    assert grid(["name", "n"], [["x", "10"]]).splitlines()[1] == "x     10"

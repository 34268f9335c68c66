"""Scenarios: on a clock of their own, where waiting can be worked out by hand, and as a command."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from cascade.exceptions import OptionError
from cascade_bench import interleaving
from cascade_bench.cli import main
from cascade_bench.contenders import Answered, Contender
from cascade_bench.scenarios import Limits, offline, percentile, serve, server, single_stream
from tests.models.toy import toy_bundle
from tests.models.toy_tags import tag_bundle


class World:
    """Time that passes only in work and in sleep."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[int] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds

    def contender(self, fixed: float, each: float, key: str = "full") -> Contender:
        def run(texts: Sequence[object]) -> Answered:
            self.calls.append(len(texts))
            self.now += fixed + each * len(texts)
            return Answered(["a"] * len(texts))

        return Contender(key, key, run)


def test_percentiles_are_latencies_that_were_measured() -> None:
    latencies = np.arange(1.0, 1001.0)
    assert [percentile(latencies, share) for share in (50, 99, 99.9)] == [500, 990, 999]
    assert percentile(np.array([3.0, 1.0]), 99.9) == 3


def test_single_stream_by_hand() -> None:
    world = World()
    who = [world.contender(0.01, 0.001), world.contender(0.001, 0.001, "cascade")]
    made = single_stream(who, ["a"] * 20, limits=Limits(30, 100), clock=world)
    assert {key: len(seconds) for key, seconds in made.items()} == {"full": 30, "cascade": 30}
    np.testing.assert_allclose(made["full"], 0.011)
    np.testing.assert_allclose(made["cascade"], 0.002)


def test_single_stream_ends_in_time() -> None:
    world = World()
    made = single_stream([world.contender(1.0, 0.0)], ["a"], limits=Limits(100, 3.5), clock=world)
    assert len(made["full"]) == 4


def test_offline_answers_all_at_once() -> None:
    world = World()
    turns = offline([world.contender(1.0, 0.5)], ["a"] * 10, repeats=2, clock=world)
    assert turns.seconds["full"] == pytest.approx([6.0, 6.0])
    assert set(world.calls) == {10}


def test_waiting_counts() -> None:
    """Slow arrivals: each text is answered alone, its latency is the call."""
    world = World()
    probe = serve(
        world.contender(0.001, 0.0), ["a"], rate=0.5, bound=0.1, limits=Limits(20, 1e9), clock=world, sleep=world.sleep
    )
    assert set(world.calls) == {1}
    np.testing.assert_allclose(probe.latencies, 0.001)
    assert probe.within
    assert probe.batch == 1


def test_what_waits_is_answered_together() -> None:
    """A call takes a second; at 100 texts per second about a hundred arrive meanwhile, and wait half of it."""
    world = World()
    probe = serve(
        world.contender(1.0, 0.0), ["a"], rate=100, bound=2.5, limits=Limits(5000, 20), clock=world, sleep=world.sleep
    )
    assert world.calls[0] == 1
    assert 80 < np.mean(world.calls[1:-1]) < 120
    assert probe.latencies.mean() == pytest.approx(1.5, abs=0.1)
    assert probe.latencies.max() <= 2.0 + 1e-9
    assert probe.within
    assert probe.throughput == pytest.approx(100, rel=0.2)


def test_who_falls_behind_is_given_up() -> None:
    world = World()
    probe = serve(
        world.contender(0.0, 0.1), ["a"], rate=100, bound=0.5, limits=Limits(2000, 20), clock=world, sleep=world.sleep
    )
    assert not probe.within
    assert len(probe.latencies) < 2000


def test_the_search_finds_the_rate() -> None:
    """A call answers one text in 10 ms, and a bound below two calls allows no queue: far below 100 texts per second."""
    world = World()
    who = [world.contender(0.0, 0.01), world.contender(0.0, 0.001, "cascade")]
    made = server(
        who,
        ["a", "b"],
        highest={"full": 100.0, "cascade": 1000.0},
        bound=0.05,
        limits=Limits(2000, 60),
        clock=world,
        sleep=world.sleep,
    )
    full, cascade = made["full"].best, made["cascade"].best
    assert full is not None
    assert cascade is not None
    assert 20 < full.rate < 100
    assert 500 < cascade.rate < 1000
    assert len(made["full"].probes) == 7
    assert all(probe.within == (probe.rate <= full.rate) for probe in made["full"].probes)


def test_no_rate_is_low_enough() -> None:
    world = World()
    who = [world.contender(0.2, 0.0)]
    made = server(who, ["a"], highest={"full": 5.0}, bound=0.1, limits=Limits(50, 60), clock=world, sleep=world.sleep)
    assert made["full"].best is None


@pytest.mark.parametrize(("queries", "seconds"), [(0, 1.0), (1, 0.0), (1, float("inf"))])
def test_impossible_limits(queries: int, seconds: float) -> None:
    with pytest.raises(OptionError, match="queries must be at least 1 and seconds above 0, were:"):
        Limits(queries, seconds)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(interleaving, "SHORTEST", 1e-9)

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["scenarios", *map(str, arguments)])
        seen = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, seen.out, seen.err

    return run


QUICK = ["--queries", 5, "--seconds", 0.05, "--repeats", 1, "--threads", 1, "--latency", 1000]


def test_the_command(run: Run, tmp_path: Path) -> None:
    model, file, written = toy_bundle(tmp_path / "bundle").folder, tmp_path / "texts.jsonl", tmp_path / "made.json"
    file.write_text('{"text": "good film"}\n{"text": "a dull plot", "label": "no label is read"}\n')
    status, out, err = run(model, "--data", file, *QUICK, "--json", written)
    assert status == 0, err
    assert "p99.9 ms" in out
    assert "Of 5 texts p99.9 is the slowest." in out
    assert "these are not MLPerf results" in out
    read = json.loads(written.read_text())
    names = {entry["name"]: entry for entry in read["benchmarks"]}
    assert set(names) == {
        f"{scenario} {key}" for scenario in ("single stream", "offline", "server") for key in ("full", "cascade")
    }
    assert len(names["single stream full"]["stats"]["data"]) == 5
    assert names["offline cascade"]["extra_info"]["texts"] == 2


def test_a_tagger(run: Run, tmp_path: Path) -> None:
    tag_bundle(tmp_path / "bundle")
    file = tmp_path / "words.jsonl"
    file.write_text('{"tokens": ["a", "film"]}\n{"tokens": ["plot"]}\n')
    status, out, err = run(tmp_path / "bundle", "--data", file, *QUICK)
    assert status == 0, err
    assert "cascade with windows and exits" in out


def test_no_texts(run: Run, tmp_path: Path) -> None:
    model, file = toy_bundle(tmp_path / "bundle").folder, tmp_path / "texts.jsonl"
    file.write_text("")
    status, _, err = run(model, "--data", file, *QUICK)
    assert status == 2
    assert err.startswith("Error: ")
    assert err.count("\n") == 1

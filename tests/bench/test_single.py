"""One text at a time: what counts and what does not, ratios worked by hand, what fails, the command."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from cascade.exceptions import OptionError
from cascade_bench.peers.cli import PeerTable, as_text, compare
from cascade_bench.peers.running import LEAD, Peers, Running, Singles, chosen, one_at_a_time, summarise
from cascade_bench.systems.baselines import BASELINES, Baseline
from cascade_bench.systems.local import by_tier1_alone, whole
from cascade_bench.systems.process import Job, WorkerError, WorkerProcess
from cascade_bench.systems.worker import one_by_one
from cascade_bench.timing import machine
from tests.bench.conftest import Case, Run, bare, far_end, given, numbered

# A far end whose clock says what each text takes: "text 7" is the 8th. Even ones are easy, so tier 1 answers them.
FAR_END = """
import os, sys
from cascade_bench.systems.worker import serve

now = [0.0]

def takes(easy, hard, slow_at_first=0):
    seen = set()
    def load(job):
        def model(texts, size):
            for text in texts:
                now[0] += easy if int(text.split()[1]) % 2 == 0 else hard
                if size == 1 and text not in seen:
                    seen.add(text)
                    now[0] += slow_at_first
            return ["yes" for _ in texts]
        return model
    return load

def dies(job):
    def model(texts, size):
        if size == 1:
            os._exit(9)
        now[0] += 1
        return ["yes" for _ in texts]
    return model

out = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)
loaders = dict(full=takes(0.004, 0.004), cascade=takes(0.001, 0.006), compile=dies)
loaders |= dict(transformers=takes(0.008, 0.012, 5.0), openvino=takes(0.005, 0.002))
serve(sys.stdin, out, loaders=loaders, steps={}, clock=lambda: now[0])
"""


start = partial(far_end, FAR_END)


def single(kinds: Sequence[Baseline], job: Job, texts: int, count: int) -> PeerTable:
    """So many of so many texts one at a time."""
    given = numbered(*["yes"] * texts)
    easy = chosen(texts, count) % 2 == 0
    return compare(kinds, job, given, repeats=1, sizes=(4,), start=start, pause=0.0, single=count, by_tier1=easy)


def test_what_one_text_takes(job: Job) -> None:
    """Worked by hand: seconds are those of the far end's clock, a first sight of 5 s does not count."""
    kinds = [bare(key) for key in ("full", "cascade", "transformers", "openvino")]
    made = single(kinds, job, 21, 21).single
    assert made is not None
    found = {row.key: [round(row.milliseconds(share), 6) for share in (50, 95, 99)] for row in made.rows}
    assert found == {
        "full": [4, 4, 4],
        "cascade": [1, 6, 6],  # 11 of 21 are easy
        "cascade-by-tier1": [1, 1, 1],
        "cascade-deferred": [6, 6, 6],
        "transformers": [8, 12, 12],
        "openvino": [5, 5, 5],
    }
    assert [len(row.seconds) for row in made.rows] == [21, 21, 11, 10, 21, 21]
    assert made.fastest is not None
    assert made.fastest.key == "openvino"
    assert [row.name for row in made.rows][2:4] == [
        "cascade, texts that tier 1 answers",
        "cascade, texts that it defers",
    ]
    # Ten turns: text i is in turn i % 10, so a turn has easy texts only (2 or 3 of them), or hard ones only.
    assert made.singles.turns.tolist() == [number % 10 for number in range(21)]
    by_full = {row.key: row.by_full for row in made.rows}
    by_peer = {row.key: row.by_fastest for row in made.rows}
    assert all(by_full.values())
    assert {key: (round(own.low, 6), round(own.high, 6), own.samples) for key, own in by_full.items() if own} == {
        "full": (1, 1, 10),
        "cascade": (0.25, 1.5, 10),
        "cascade-by-tier1": (0.25, 0.25, 5),
        "cascade-deferred": (1.5, 1.5, 5),
        "transformers": (2, 3, 10),
        "openvino": (0.5, 1.25, 10),
    }
    assert {key: round(own.median, 6) for key, own in by_peer.items() if own} == {
        "full": 1.4,  # the mean of 4 / 5 and 4 / 2
        "cascade": 1.6,  # of 1 / 5 and 6 / 2
        "cascade-by-tier1": 0.2,
        "cascade-deferred": 3,
        "transformers": 3.8,  # of 8 / 5 and 12 / 2
        "openvino": 1,
    }
    assert all(sorted(order) == ["cascade", "full", "openvino", "transformers"] for order in made.singles.orders)
    assert len(set(map(tuple, made.singles.orders))) > 1


def test_it_looks_like_this(job: Job) -> None:
    kinds = [bare(key) for key in ("full", "cascade", "openvino")]
    table = single(kinds, job, 200, 40)
    facts = machine.facts(threads=1)
    text = click.unstyle(as_text(table, facts)).splitlines()
    head = next(number for number, line in enumerate(text) if line.startswith("one at a time"))
    assert head == 6  # after four lines, their head and an empty one
    assert " ".join(text[head].split()) == (
        "one at a time texts p50 ms p95 ms p99 ms p50 by full tier 2's p50 by fastest peer's"
    )
    assert text[head + 1].split("full depth")[1].split()[:5] == ["40", "4.00", "4.00", "4.00", "1"]
    assert text[head + 3].startswith("cascade, texts that tier 1 answers")
    shown = as_text(table, facts, markdown=True)
    assert (
        "\n| one at a time | texts | p50 ms | p95 ms | p99 ms | p50 by full tier 2's | p50 by fastest peer's |\n"
        in shown
    )
    assert "\n|---|--:|--:|--:|--:|--:|--:|\n| cascade, tier 2 at full depth | 40 | 4.00 | 4.00 | 4.00 | 1 |" in shown
    for printed in ("\n".join(text), shown):
        assert "One at a time: 40 texts spread evenly over the file" in printed
        assert "in 10 interleaved turns" in printed
        assert "Fastest peer: OpenVINO, fp32, which has the least p50." in printed


def test_what_fails_is_set_aside_and_the_rest_go_on(job: Job) -> None:
    kinds = [bare(key) for key in ("compile", "cascade", "full")]
    table = single(kinds, job, 3, 50)
    assert table.absent == {BASELINES["compile"].name: "failed: its process ended with status 9"}
    assert table.single is not None
    assert [row.key for row in table.single.rows] == ["cascade", "cascade-by-tier1", "cascade-deferred", "full"]
    assert all(row.by_fastest is None for row in table.single.rows)  # only this engine is left
    assert table.single.singles.texts.tolist() == [0, 1, 2]  # of 50 that were asked for, all that there are
    assert "Fastest peer" not in as_text(table, machine.facts(threads=1))


class Told(WorkerProcess):
    """A process that is none: it notes what it is told."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self.seconds, self.asked = seconds, list[list[int]]()

    def single(self, rows: Sequence[int]) -> list[float]:
        self.asked.append(list(rows))
        return [99.0] * LEAD + [self.seconds(row) for row in rows[LEAD:]]

    def kill(self) -> None:
        pass


def peers_of(job: Job, count: int, **told: Told) -> Peers:
    peers = Peers(job, [f"text {number}" for number in range(count)])
    peers.running.update({key: Running(BASELINES[key], process) for key, process in told.items()})
    return peers


def test_turns(job: Job) -> None:
    """Each turn begins with answers that do not count; all are asked the same, in turns of some 20 texts."""
    full, cascade = Told(float), Told(lambda row: row / 2)
    seen: list[str] = []
    with peers_of(job, 1000, full=full, cascade=cascade) as peers:
        with pytest.raises(OptionError, match="count must be a whole number of at least 1, got 0"):
            one_at_a_time(peers, 0)
        made = one_at_a_time(peers, 500, pause=0.0, progress=seen.append)
    assert len(made.orders) == 25
    assert np.bincount(made.turns).tolist() == [20] * 25
    assert made.texts.tolist() == np.linspace(0, 999, 500).astype(int).tolist()
    assert made.seconds["full"].tolist() == made.texts.tolist()
    assert made.seconds["cascade"].tolist() == (made.texts / 2).tolist()
    assert full.asked == cascade.asked
    assert len(full.asked) == 50  # once before, once that counts
    assert full.asked[:25] == full.asked[25:]
    assert full.asked[0][LEAD:] == made.texts[::25].tolist()
    assert full.asked[0][:LEAD] == full.asked[0][-LEAD:]
    assert seen[:2] == [
        "warm-up: cascade, tier 2 at full depth, one at a time",
        "warm-up: cascade as configured, one at a time",
    ]
    assert len(seen) == 2 + 50


@pytest.mark.parametrize(("count", "turns"), [(1, 1), (4, 4), (10, 10), (60, 10), (210, 10), (1000, 50)])
def test_how_many_turns(job: Job, count: int, turns: int) -> None:
    full = Told(lambda row: row + 1)
    with peers_of(job, 1000, full=full) as peers:
        made = one_at_a_time(peers, count, pause=0.0)
    assert len(made.orders) == turns
    assert len(made.texts) == count
    assert made.seconds["full"].tolist() == (made.texts + 1).tolist()
    assert [row.key for row in summarise(made, [BASELINES["full"]]).rows] == ["full"]


def test_a_first_tier_that_answers_all_or_none() -> None:
    def table(by_tier1: bool) -> list[str]:
        singles, kinds = Singles(np.arange(2), np.arange(2), {"cascade": np.ones(2)}, []), [BASELINES["cascade"]]
        return [row.name for row in summarise(singles, kinds, by_tier1=np.full(2, by_tier1), tagging=True).rows]

    assert table(True) == ["cascade as configured", "cascade, sentences that tier 1 answers"]
    assert table(False) == ["cascade as configured", "cascade, sentences that it defers"]


def test_seconds_are_taken_around_the_answer_alone() -> None:
    now = itertools.count()
    asked: list[tuple[list[object], int]] = []

    def model(texts: Sequence[object], batch_size: int) -> list[str]:
        asked.append((list(texts), batch_size))
        for _ in str(texts[0]):
            next(now)
        return ["yes"]

    assert one_by_one(model, ["a", "bbb"], clock=lambda: float(next(now))) == [2, 4]
    assert asked == [(["a"], 1), (["bbb"], 1)]


def test_single_texts_over_the_pipe(job: Job) -> None:
    given(job, ["text 0", "text 1", "text 2"])
    with start() as process:
        process.load("cascade", job)
        assert process.single([1, 0, 1]) == pytest.approx([0.006, 0.001, 0.006])
        with pytest.raises(WorkerError, match="IndexError"):
            process.single([3])


def test_which_tier_answers_alone(case: Case) -> None:
    """A sentence is deferred with any of its words."""
    four = ["good", "bad", "film", "plot"]
    words = [list(some) for count in (1, 2, 3) for some in itertools.permutations(four, count)]
    items: list[Any] = words if case.tagging else list(map(" ".join, words))
    found = by_tier1_alone(case.model, items).tolist()
    routes: Any = case.model.predict(items).routes
    tiers = [[route.tier for route in own] if case.tagging else [own.tier] for own in routes]
    assert found == [set(own) == {1} for own in tiers]
    assert len(set(found)) == 2  # or nothing is tested
    assert any(len(set(own)) == 2 for own in tiers) == case.tagging  # deferred in part
    assert not by_tier1_alone(whole(case.model), items).any()


def test_the_command(run: Run, case: Case, tmp_path: Path) -> None:
    """Both systems of this engine really run; a baseline whose checkpoint is nowhere fails in its place."""
    written, asked = tmp_path / "peers.json", ["full", "cascade", *([] if case.tagging else ["transformers"])]
    options = [*(f"--only={key}" for key in asked), "--repeats", 2, "--threads", 1, "--single", 4, "--json", written]
    done = run("peers", case.bundle, "--data", case.data, "--checkpoint", tmp_path / "none", *options)
    assert done.status == 0, done.err
    lines, unit = done.out.splitlines(), "sentences" if case.tagging else "texts"
    assert lines[0].split("  ")[0] == "system"
    assert lines[1].startswith("cascade, tier 2 at full depth")
    assert "100.00%" in lines[1]
    assert f"One at a time: 4 {unit} spread evenly over the file" in done.out
    failed = "transformers pipeline, fp32: failed: --checkpoint must be a folder or Hub id"
    assert (failed in done.out) == (not case.tagging)
    read = json.loads(written.read_text())
    assert (read["machine_info"]["threads"], read["details"]["single"]) == (1, 4)
    entries = {entry["name"]: entry for entry in read["benchmarks"]}
    assert list(entries)[:3] == ["full", "cascade", "full-one-at-a-time"]
    assert [len(entries[key]["stats"]["data"]) for key in ("full", "cascade")] == [2, 2]
    assert len(entries["cascade-one-at-a-time"]["stats"]["data"]) == 4
    assert entries["cascade"]["extra_info"]["over_full"]["samples"] == 2
    split = [len(entries[key]["stats"]["data"]) for key in entries if key.startswith(("cascade-by", "cascade-def"))]
    assert sum(split) == 4

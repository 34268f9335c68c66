"""One text at a time: what counts and what does not, worked by hand, what fails, the command."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from cascade_bench.peers.running import Peers, compare
from cascade_bench.systems.baselines import BASELINES, Baseline
from cascade_bench.systems.process import Job, WorkerError
from cascade_bench.systems.worker import one_by_one
from cascade_bench.table.measuring import Table, as_text
from tests.bench.conftest import Case, Run, bare, far_end, given, numbered

# A far end whose clock says what each text takes: "text 7" is the 8th. A first sight of a text costs more.
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
loaders = dict(full=takes(0.004, 0.004), cascade=takes(0.001, 0.006), optimum=dies)
loaders |= dict(transformers=takes(0.008, 0.012, 5.0), openvino=takes(0.005, 0.002))
serve(sys.stdin, out, loaders=loaders, clock=lambda: now[0])
"""


start = partial(far_end, FAR_END)


def single(kinds: Sequence[Baseline], job: Job, texts: int, count: int) -> Table:
    """So many of so many texts one by one, three times."""
    data = numbered(*["yes"] * texts)
    peers = Peers(job, data.items, sizes=(4,), start=lambda _: start(), single=count)
    return compare(kinds, peers, data, repeats=3, pause=0.0)


def test_what_one_text_takes(job: Job) -> None:
    """Worked by hand: seconds are those of the far end's clock, a first sight of 5 s does not count."""
    kinds = [bare(key) for key in ("full", "cascade", "transformers", "openvino")]
    made = single(kinds, job, 21, 21)
    rows = {row.key.removesuffix("-one-by-one"): row for row in made.rows if row.order == "one by one"}
    assert {key: [round(one, 6) for one in row.percentiles or ()] for key, row in rows.items()} == {
        "full": [4, 4, 4],
        "cascade": [1, 6, 6],  # 11 of 21 are easy
        "transformers": [8, 12, 12],
        "openvino": [5, 5, 5],
    }
    assert {key: row.median_seconds for key, row in rows.items()} == pytest.approx(
        {"full": 0.084, "cascade": 0.071, "transformers": 0.208, "openvino": 0.075}
    )
    assert {key: row.speed for key, row in rows.items()} == pytest.approx(
        {"full": 1, "cascade": 84 / 71, "transformers": 84 / 208, "openvino": 84 / 75}
    )
    assert all(row.count == 21 and row.accuracy != row.accuracy for row in rows.values())
    assert rows["cascade"].over_pipeline is not None
    assert rows["cascade"].over_pipeline.median == pytest.approx(208 / 71)
    assert [row.order for row in made.rows][:3] == ["own order", "one by one", "own order"]
    assert all(row.percentiles is None for row in made.rows if row.order != "one by one")


def test_it_looks_like_this(job: Job) -> None:
    table = single([bare("full"), bare("openvino")], job, 200, 40)
    lines = as_text(table, [], ["Measured."], markdown=True).splitlines()
    assert lines[0] == (
        "| system | texts | batch | accuracy | as full tier 2 | texts/s | over full depth | p50 / p95 / p99 ms | "
        "peak MiB |"
    )
    assert lines[3].startswith(
        "| cascade, tier 2 at full depth | one by one |  |  |  | 250 | 1 | 4.00 / 4.00 / 4.00 | "
    )
    assert lines[6].startswith("| OpenVINO, fp32 | one by one | 1 |  |  | ")


def test_what_fails_is_set_aside_and_the_rest_go_on(job: Job) -> None:
    table = single([bare(key) for key in ("optimum", "cascade", "full")], job, 3, 50)
    assert table.absent == {BASELINES["optimum"].name: "failed: its process ended with status 9"}
    assert [row.key for row in table.rows] == ["cascade", "cascade-one-by-one", "full", "full-one-by-one"]
    assert table.row("full-one-by-one").count == 3  # of 50 that were asked for, all that there are


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


def test_the_command(run: Run, case: Case, tmp_path: Path) -> None:
    """Both systems of this engine really run; a baseline whose checkpoint is nowhere fails in its place."""
    written, asked = tmp_path / "peers.json", ["full", "cascade", *([] if case.tagging else ["transformers"])]
    options = [*(f"--only={key}" for key in asked), "--repeats", 2, "--threads", 1, "--single", 4, "--json", written]
    done = run("peers", case.bundle, "--data", case.data, "--checkpoint", tmp_path / "none", *options)
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].split("  ")[0] == "system"
    assert lines[1].startswith("cascade, tier 2 at full depth  own order")
    assert lines[2].startswith("cascade, tier 2 at full depth  one by one")
    assert "100.00%" in lines[1]
    failed = "transformers pipeline, fp32: failed: --checkpoint must be a folder or Hub id"
    assert (failed in done.out) == (not case.tagging)
    read = json.loads(written.read_text())
    assert (read["machine_info"]["threads"], read["details"]["single"]) == (1, 4)
    entries = {entry["name"]: entry for entry in read["benchmarks"]}
    assert list(entries) == ["full", "full-one-by-one", "cascade", "cascade-one-by-one"]
    assert all(len(entry["stats"]["data"]) == 2 for entry in entries.values())
    assert len(entries["cascade-one-by-one"]["extra_info"]["percentiles"]) == 3
    assert entries["cascade"]["extra_info"]["over_full"]["samples"] == 2

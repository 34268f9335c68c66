"""What is not the graphs: worked examples by hand, a real bundle whose graphs are slow, the command."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from cascade.exceptions import DataError
from cascade.pipelines.classifier import Classifier
from cascade.runtime.backend import Array, FunctionBackend, OnnxBackend
from cascade.text.tokenizer import Tokenizer
from cascade_bench import interleaving
from cascade_bench import overhead as measuring
from cascade_bench.cli import main
from cascade_bench.interleaving import Turns
from cascade_bench.overhead import PARTS, Chunks, Overhead, Run, Sample, Watched, Way, measure, union
from tests.models.toy import toy_bundle


@pytest.fixture(autouse=True)
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interleaving, "SHORTEST", 1e-9)


def test_time_with_a_graph_by_hand() -> None:
    runs = [Run(3, 4, 1), Run(0, 1, 1), Run(0.5, 2, 1), Run(0.6, 0.7, 1)]
    assert union(runs) == pytest.approx(3)
    assert union([]) == 0


def test_a_watched_backend_answers_the_same_and_writes_it_down() -> None:
    seconds = itertools.count()
    inner = FunctionBackend(lambda feeds: {"y": feeds["x"] + 1}, ("x",), ("y",))
    runs: list[Run] = []
    watched = Watched(inner, runs, 2, clock=lambda: float(next(seconds)))
    assert (watched.inputs, watched.outputs) == (("x",), ("y",))
    assert watched.run({"x": np.array([1])})["y"].tolist() == [2]
    assert watched.serial.run({"x": np.array([5])})["y"].tolist() == [6]
    with pytest.raises(KeyError):
        watched.run({})
    assert runs == [Run(0, 1, 2), Run(2, 3, 1), Run(4, 5, 2)]


def test_shares_by_hand() -> None:
    way = Way(2, Chunks.KNOWN)
    parts = dict.fromkeys(PARTS, 0.0) | {"tokenize": 0.5, "tier2": 1.5}
    sample = Sample(wall=10.0, graphs=8.0, busy=12.0, parts=parts)
    assert sample.outside == pytest.approx(0.2)
    assert sample.idle(2) == pytest.approx(0.4)
    made = Overhead(5, 3, {way: [sample, Sample(10.0, 9.0, 18.0, parts), sample]}, Turns({}, {}, []))
    assert made.outside(way).median == pytest.approx(0.2)
    assert made.outside(way).low == pytest.approx(0.1)
    assert made.idle(way).median == pytest.approx(0.4)
    assert made.part(way, "tier2") == pytest.approx(0.15)
    assert way.name == "2 threads, chunks known"


def test_parts_and_graphs_make_the_whole(tmp_path: Path) -> None:
    folder = toy_bundle(tmp_path / "bundle").folder
    classifiers = {threads: Classifier.from_pretrained(folder, threads=threads) for threads in (1, 2)}
    made = measure(classifiers, ["good film", "a dull plot"], texts=7, repeats=2)
    assert (made.texts, made.distinct) == (7, 2)
    assert set(made.samples) == {Way(threads, chunks) for threads in (1, 2) for chunks in Chunks}
    for way, taken in made.samples.items():
        assert len(taken) == 2 * made.turns.plans[way.name].passes  # what warmed up does not count
        for sample in taken:
            assert sum(sample.parts.values()) + sample.graphs == pytest.approx(sample.wall)
            assert set(sample.parts) == set(PARTS)
            assert 0 < sample.outside < 1
            assert sample.graphs - 1e-9 <= sample.busy <= 2 * sample.wall


def test_slow_graphs_leave_little_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = OnnxBackend.run

    def slowly(self: OnnxBackend, feeds: Mapping[str, Array]) -> dict[str, Array]:
        time.sleep(0.05)
        return whole(self, feeds)

    monkeypatch.setattr(OnnxBackend, "run", slowly)
    classifier = Classifier.from_pretrained(toy_bundle(tmp_path / "bundle").folder, threads=1)
    made = measure({1: classifier}, ["good film"], texts=4, repeats=1)
    (sample, *_) = made.samples[Way(1, Chunks.KNOWN)]
    assert sample.graphs >= 0.05
    assert sample.outside < 0.5
    assert sample.busy == pytest.approx(sample.graphs)


def test_what_the_tokenizer_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new tokenizer for every call that is to know nothing, without a table where there is to be none."""
    classifier = Classifier.from_pretrained(toy_bundle(tmp_path / "bundle").folder, threads=1)
    asked: list[bool] = []

    class Spied(Tokenizer):
        @classmethod
        def from_file(
            cls, path: str | Path, *, max_length: int, overlap: int | None = None, word_table: bool = True
        ) -> Tokenizer:
            asked.append(word_table)
            assert (max_length, overlap) == (classifier.tokenizer.max_length, classifier.tokenizer.overlap)
            return Tokenizer.from_file(path, max_length=max_length, overlap=overlap, word_table=word_table)

    monkeypatch.setattr(measuring, "Tokenizer", Spied)
    made = measure({1: classifier}, ["good film"], texts=2, repeats=1)
    passes = {way.chunks: len(taken) + 1 for way, taken in made.samples.items()}
    assert asked.count(True) == passes[Chunks.EMPTY]
    assert asked.count(False) == passes[Chunks.NONE]


def test_no_texts() -> None:
    with pytest.raises(DataError, match="there must be at least one text to answer, had none; give another file"):
        measure({}, [])


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["overhead", *map(str, arguments)])
        seen = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, seen.out, seen.err

    return run


def test_the_command(run: Command, tmp_path: Path) -> None:
    model, file, written = toy_bundle(tmp_path / "bundle").folder, tmp_path / "texts.jsonl", tmp_path / "made.json"
    file.write_text('{"text": "good film"}\n{"text": "a dull plot", "label": "no label is read"}\n')
    status, out, err = run(model, "--data", file, "--texts", 5, "--repeats", 1, "--threads", 2, "--json", written)
    assert status == 0, err
    assert "predict on 5 texts: 2 of the file over and over, unchanged." in out
    assert len([line for line in out.splitlines() if line.split()[:2] in (["1", "known"], ["2", "known"])]) == 2
    assert "1 - union of all runs / wall time" in out
    read = json.loads(written.read_text())
    assert [entry["name"] for entry in read["benchmarks"]][:2] == [
        "1 thread, chunks known",
        "1 thread, chunks empty at first",
    ]
    assert len(read["benchmarks"]) == 6
    entry = read["benchmarks"][0]["extra_info"]
    assert set(entry["parts"]) == set(PARTS)
    assert 0 < entry["outside"]["median"] < 1
    assert read["details"]["distinct_texts"] == 2


def test_an_empty_file(run: Command, tmp_path: Path) -> None:
    model, file = toy_bundle(tmp_path / "bundle").folder, tmp_path / "texts.jsonl"
    file.write_text("")
    status, _, err = run(model, "--data", file, "--threads", 1)
    assert status == 2
    assert err.startswith("Error: ")
    assert err.count("\n") == 1

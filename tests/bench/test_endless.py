"""Streams that go on: figures by hand, a real stream of a toy, the command."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cascade.exceptions import DataError, OptionError
from cascade.pipelines.classifier import Classifier
from cascade_bench import endless as measuring
from cascade_bench import interleaving
from cascade_bench.cli import main
from cascade_bench.endless import Endless, Mark, Meters, endless, numbered, threads_against_one
from tests.models.toy import toy_bundle

TEXTS = ["good film", "a dull plot", "we laugh"]


def test_no_two_texts_are_alike_and_all_are_as_long() -> None:
    assert list(numbered(["a", "b"], 3)) == ["a 0000000", "b 7368787", "a 4737574"]
    found = list(numbered(["a", "b"], 50_000))
    assert len(set(found)) == 50_000
    assert {len(text) for text in found} == {len("a 0000000")}
    assert list(numbered(["a"], 2, start=1)) == ["a 7368787", "a 4737574"]
    assert list(numbered([("a", "b")], 1)) == [("a", "b 0000000")]


def test_every_number_comes_once() -> None:
    places = range(0, measuring.NUMBERS, 997)
    assert len({place * measuring.MIXED % measuring.NUMBERS for place in places}) == len(places)
    assert measuring.MIXED % 2
    assert measuring.MIXED % 5


def marks(*values: tuple[int, float, float, float]) -> tuple[Mark, ...]:
    return tuple(itertools.starmap(Mark, values))


def test_a_stream_that_slows_down_and_grows() -> None:
    made = Endless(
        marks((0, 0.0, 0.0, 100.0), (120, 12.0, 6.0, 110.0), (220, 24.0, 11.0, 150.0), (320, 37.0, 16.0, 130.0)),
        first=100,
        distinct=3,
    )
    assert made.begun.texts == 120
    assert made.per_text(beginning=True) == pytest.approx(0.1)
    assert made.per_text(beginning=False) == pytest.approx(25 / 200)
    assert made.slower() == pytest.approx(0.25)
    assert made.slower(processors=True) == pytest.approx(0.0)
    assert made.growth == pytest.approx(40)
    assert made.stretches == pytest.approx([0.1, 0.12, 0.13])


def test_memory_that_only_falls_did_not_grow() -> None:
    made = Endless(marks((0, 0.0, 0.0, 9.0), (1, 1.0, 1.0, 8.0), (2, 2.0, 2.0, 7.0)), first=1, distinct=1)
    assert made.growth == 0


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return toy_bundle(tmp_path / "bundle").folder


def test_texts_are_counted_where_they_are_read(model: Path) -> None:
    """Answers come when 256 texts were read at the earliest; a mark says how many were by then."""
    seconds, processors, memory = itertools.count(), itertools.count(0, 2), iter([50.0, 60.0, 61.0, 62.0])
    meters = Meters(lambda: float(next(seconds)), lambda: float(next(processors)), lambda: next(memory))
    seen: list[str] = []
    made = endless(
        Classifier.from_pretrained(model, threads=1),
        TEXTS,
        texts=9000,
        first=100,
        every=5000,
        progress=seen.append,
        meters=meters,
    )
    assert len(made.marks) == 4
    assert made.marks[0] == Mark(0, 0.0, 0.0, 50.0)
    assert made.begun.texts >= 100
    assert made.begun.texts % 256 == 0  # whole buffers
    assert made.marks[2].texts >= 5000
    assert made.texts == 9000
    assert [mark.seconds for mark in made.marks] == [0, 1, 2, 3]
    assert [mark.processors for mark in made.marks] == [0, 2, 4, 6]
    assert made.growth == pytest.approx(2)
    assert seen[-1] == "9000 texts, 62 MiB"


def test_a_real_look_at_the_meters(model: Path) -> None:
    made = endless(Classifier.from_pretrained(model, threads=1), TEXTS, texts=6000, first=1000, every=1000)
    assert all(after.seconds > before.seconds for before, after in itertools.pairwise(made.marks))
    assert made.marks[0].resident > 10
    assert made.per_text(beginning=False) > 0


def test_what_cannot_be_measured(model: Path) -> None:
    classifier = Classifier.from_pretrained(model, threads=1)
    with pytest.raises(OptionError, match="texts must be more than the first 10, were: 10; stream more, or lower"):
        endless(classifier, TEXTS, texts=10, first=10)
    with pytest.raises(OptionError, match=r"texts must go on after a beginning of 11 .*were: 11; stream more"):
        endless(classifier, TEXTS, texts=11, first=10)
    with pytest.raises(DataError, match="there must be at least one text to stream, had none"):
        endless(classifier, [], texts=11, first=10)


@pytest.fixture(autouse=True)
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interleaving, "SHORTEST", 1e-9)


def test_threads_against_one(model: Path) -> None:
    """On a clock on which the stream of one thread takes three times as long."""
    now, read = [0.0], [set[object](), set[object]()]

    class Fake:
        def __init__(self, number: int, seconds: float) -> None:
            self.number, self.seconds = number, seconds

        def stream(self, texts: object, *, options: object) -> list[object]:
            own: list[object] = list(texts)  # type: ignore[call-overload]  # what it is given
            assert len(own) == 4
            assert not read[self.number] & set(own)
            read[self.number] |= set(own)
            now[0] += self.seconds
            return own

    fakes = {1: Fake(0, 3.0), 4: Fake(1, 1.0)}
    made = threads_against_one(fakes, TEXTS, texts=4, repeats=3, clock=lambda: now[0])  # type: ignore[arg-type]
    assert made.several == 4
    assert made.gain.median == pytest.approx(3)
    assert made.median_seconds("one") == pytest.approx(3)
    assert len(read[0] | read[1]) == 8 * 4  # both, three turns after one that warms up


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["endless", *map(str, arguments)])
        seen = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, seen.out, seen.err

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "texts.jsonl"
    made.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return made


def test_the_command(run: Command, model: Path, file: Path, tmp_path: Path) -> None:
    written = tmp_path / "made.json"
    options = ["--texts", 5000, "--first", 300, "--every", 1000, "--short", 300, "--repeats", 1, "--threads", 2]
    status, out, err = run(model, "--data", file, *options, "--json", written)
    assert status == 0, err
    assert out.startswith("5,000 texts through stream: 3 of the file over and over, each with a number at its end.")
    assert "slower by" in out
    assert "300 such texts, 2 threads against one: " in out
    read = json.loads(written.read_text())
    assert read["marks"][-1]["texts"] == 5000
    names = [entry["fullname"] for entry in read["benchmarks"]]
    assert names == ["endless/seconds per text", "threads/one", "threads/several"]
    assert len(read["benchmarks"][0]["stats"]["data"]) == len(read["marks"]) - 1


def test_one_thread_is_compared_with_nothing(run: Command, model: Path, file: Path) -> None:
    status, out, err = run(model, "--data", file, "--texts", 3000, "--first", 10, "--every", 500, "--threads", 1)
    assert status == 0, err
    assert "against one" not in out


def test_interrupted(run: Command, model: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(measuring, "endless", stop)
    status, out, err = run(model, "--data", file, "--threads", 1)
    assert (status, out) == (130, "")
    assert err.strip() == "Interrupted."


def test_without_psutil_the_extra_is_named() -> None:
    code = "import sys\nsys.modules['psutil'] = None\nfrom cascade_bench.cli import main\n"
    code += "main(['endless', 'x', '--data', 'y'])\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        'Error: watching memory needs the bench extra, but psutil is missing; pip install "cascade-encoder[bench]"\n'
    )

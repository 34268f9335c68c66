from __future__ import annotations

import io
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cascade.cli.predict import command
from cascade.cli.predict import lines as writing
from cascade.cli.predict.lines import Lines, labels, write
from cascade.core.results import Counts, Predictions
from cascade.engine.streaming import StreamOptions
from cascade.pipelines.loading import load
from cascade.policies.exits import MaxProbability
from cascade.policies.routing import Budget, Threshold
from cascade.text.reading import Example
from tests.models.cli import Command, FakeClassifier, lines


class Loaded:
    """Stands for `load`; remembers what was asked of it."""

    def __init__(self) -> None:
        self.classifier = FakeClassifier()
        self.asked: list[tuple[str, int | None]] = []

    def __call__(self, model: str, *, threads: int | None, truncation: bool | None) -> FakeClassifier:
        self.asked.append((model, threads))
        return self.classifier


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> Loaded:
    loaded = Loaded()
    monkeypatch.setattr(command, "load", loaded)
    return loaded


TEXTS = "good\nnot so very good\nbad\n"


@pytest.mark.parametrize("arguments", [("m",), ("m", "-")])
def test_standard_input(run: Command, arguments: tuple[str, ...]) -> None:
    done = run.well("predict", *arguments, stdin=TEXTS)
    assert lines(done.out) == [
        {"line": 1, "label": "positive", "score": 0.75},
        {"line": 2, "label": "positive", "score": 0.75},
        {"line": 3, "label": "negative", "score": 0.75},
    ]
    assert done.err.startswith("3 rows in ")
    assert done.err.endswith(", 33.3% deferred to tier 2\n")


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("texts.txt", "good\nbad\n", ()),
        ("reviews.csv", 'id,review\n1,"good, or nearly"\n2,bad\n', ("--text-column", "review")),
        ("a.jsonl", '{"text": "bad", "also": "good"}\n{"text": "bad", "also": "bad"}\n', ("--pair-column", "also")),
        ("texts.csv", "good\nbad, really\n", ("--format", "txt")),
        ("texts.tsv", "id\ttext\n1\tgood\n2\tbad\n", ()),
    ],
)
def test_files(run: Command, tmp_path: Path, name: str, content: str, options: tuple[str, ...]) -> None:
    (tmp_path / name).write_text(content)
    done = run("predict", "m", str(tmp_path / name), *options)
    assert [line["label"] for line in lines(done.out)] == ["positive", "negative"]


def test_what_lines_hold(run: Command, loaded: Loaded) -> None:
    out = lines(run("predict", "m", "--routes", stdin=TEXTS).out)
    routes = [(line["tier"], line["exit"], line["confidence"]) for line in out]
    assert routes == [(1, 0, 0.75), (2, 2, 0.75), (1, 0, 0.75)]
    both = [{"label": "positive", "score": 0.75}, {"label": "negative", "score": 0.25}]
    for count, top in (("5", both), ("1", both[:1])):
        assert lines(run("predict", "m", "--top-k", count, stdin="good\n").out)[0]["top"] == top
    loaded.classifier = FakeClassifier(multi_label=True)
    assert lines(run("predict", "m", stdin="good\n").out) == [{"line": 1, "label": ["positive"], "score": [0.75]}]


@pytest.mark.parametrize(
    ("arguments", "router", "exit_policy"),
    [
        ((), None, None),
        (("--threshold", "0.8"), Threshold(0.8), None),
        (("--budget", "0.2"), Budget(0.2), None),
        (("--threshold", "0.8", "--exit-threshold", "0.9"), Threshold(0.8), MaxProbability(0.9)),
    ],
)
def test_policies(
    run: Command,
    loaded: Loaded,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    router: Any,
    exit_policy: Any,
) -> None:
    seen: list[tuple[Any, Any]] = []
    predict = FakeClassifier.predict

    def noted(self: FakeClassifier, texts: list[str]) -> Predictions:
        seen.append((self.router, self.exit_policy))
        return predict(self, texts)

    monkeypatch.setattr(FakeClassifier, "predict", noted)
    run.well("predict", "m", *arguments, stdin="good\n")
    assert seen == [(router, exit_policy)]


BROKEN = '{"text": "good"}\n{"text": \n{"text": 7}\n{"text": "bad"}\nnull\n'


def test_bad_lines_become_null(run: Command) -> None:
    done = run.well("predict", "m", "--format", "jsonl", "--on-error", "null", "--routes", stdin=BROKEN)
    out = lines(done.out)
    assert [line["line"] for line in out] == [1, 2, 3, 4, 5]
    assert [line["label"] for line in out] == ["positive", None, None, "negative", None]
    assert out[1] == {"line": 2, "label": None, "score": None, "tier": None, "exit": None, "confidence": None}
    assert "5 rows, 3 of them unreadable in " in done.err


class Out(io.StringIO):
    """Remembers what was written up to the last flush."""

    flushed = ""

    def flush(self) -> None:
        self.flushed = self.getvalue()


def test_what_is_answered_together_is_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "BUFFERS", StreamOptions(2))
    out, seen = Out(), list[int]()

    def answer(texts: list[str]) -> list[str]:
        seen.append(out.flushed.count("\n"))
        return texts

    made = Lines(keys=("label",), answer=answer, values=lambda _, label: {"label": label})
    texts = ["a", "b", None, None, "c", None, " "]
    counts = write((Example(n, text, None, {}) for n, text in enumerate(texts, 1)), out, made, on_empty="null")
    assert seen == [0, 4]  # rows that cannot be read take the places of others
    wanted = [{"line": n, "label": text if text != " " else None} for n, text in enumerate(texts, 1)]
    assert lines(out.flushed) == [*wanted[:-1], wanted[-1] | {"empty": True}]
    assert counts == Counts(rows=7, empty=1)


def test_answers_before_a_bad_line_are_written(run: Command) -> None:
    done = run("predict", "m", "--on-empty", "error", stdin="good\nbad\n \n")
    assert [line["label"] for line in lines(done.out)] == ["positive", "negative"]
    assert (done.status, "got ' ' in line 3; correct it" in done.err) == (2, True)


def test_live_input_is_answered_at_a_pause() -> None:
    out = Out()
    waited = threading.Event()

    def examples() -> Iterator[Example]:
        yield Example(1, "good", None, {})
        while not out.flushed:
            waited.wait(0.01)
        yield Example(2, "bad", None, {})

    assert write(examples(), out, labels(FakeClassifier())).rows == 2  # type: ignore[arg-type]  # a fake


def test_a_line_that_is_too_long(run: Command) -> None:
    done = run.well(
        "predict", "m", "--max-line", "0.001", "--on-error", "null", stdin="good\n" + "x" * 1001 + "\nbad\n"
    )
    assert [line["label"] for line in lines(done.out)] == ["positive", None, "negative"]
    assert "Warning: standard input, line 2: a line must have at most 1,000 bytes (max_line), got more" in done.err


def test_the_empty_name_is_a_folder_without_a_bundle(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "load", load)
    monkeypatch.chdir(tmp_path)
    assert run.refused("predict", "").startswith("Error: a bundle must hold cascade.json, but . does not; make one")


def test_output_is_no_part_of_the_bundle(run: Command, tmp_path: Path) -> None:
    (tmp_path / "tier2").mkdir()
    (tmp_path / "tier2" / "embed.onnx").touch()
    told = run.refused("predict", tmp_path, "--output", tmp_path / "tier2" / "embed.onnx")
    assert told.startswith("Error: an output must be another file than the input, got ")


def test_output_is_a_file(run: Command, tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    done = run("predict", "m", "--output", str(file), stdin=TEXTS)
    assert (done.status, done.out) == (0, "")
    assert len(lines(file.read_text())) == 3
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, 130), (OSError(28, "No space left on device"), 2)])
def test_output_is_written_whole_or_not_at_all(
    run: Command, loaded: Loaded, tmp_path: Path, error: Any, status: int
) -> None:
    def fail(text: Any) -> None:
        if text == "bad":
            raise error

    loaded.classifier = FakeClassifier(before=fail)
    file = tmp_path / "labels.jsonl"
    file.write_text("what was there\n")
    done = run("predict", "m", "--output", str(file), stdin=TEXTS)
    assert done.status == status
    assert done.err.strip() == ("Interrupted." if status == 130 else "Error: No space left on device")
    assert file.read_text() == "what was there\n"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("redirected", [False, True])
def test_output_is_not_the_input(run: Command, loaded: Loaded, tmp_path: Path, redirected: bool) -> None:
    file = tmp_path / "in.txt"
    file.write_text(TEXTS)
    if redirected:
        program = [sys.executable, "-c", "from cascade.cli import main; main()", "predict", "m", "--output", str(file)]
        with file.open() as stdin:
            ended = subprocess.run(program, stdin=stdin, capture_output=True, text=True, check=False)
        status, err = ended.returncode, ended.stderr
    else:
        done = run("predict", "m", str(file), "--output", f"{tmp_path}/../{tmp_path.name}/in.txt")
        status, err = done.status, done.err
    assert status == 2
    assert err.startswith("Error: an output must be another file than the input, got ")
    assert err.count("\n") == 1
    assert loaded.asked == []
    assert file.read_text() == TEXTS


def test_a_bar_when_asked(run: Command) -> None:
    assert " rows" in run("predict", "m", "--progress", stdin=TEXTS).err.replace("3 rows in", "")
    assert run("predict", "m", "--no-progress", stdin=TEXTS).err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("m", "missing.txt"), "missing.txt"),
        (("m", "--threshold", "1.5"), r"threshold must be in \[0, 1\], got 1.5"),
        (("m", "--threshold", "0.5", "--budget", "0.5"), "exclude each other"),
        (("m", "--budget", "-1"), r"max_deferred must be in \[0, 1\]"),
        (("m", "--exit-threshold", "7"), r"threshold must be in \[0, 1\]"),
        (("m", "--top-k", "0"), "--top-k.*see cascade predict --help"),
        (("m", "--on-error", "explode"), "--on-error"),
        (("m", "--output", "."), "an output must be a file, got a folder: .;"),
        (("m", "--output", "missing/folder/x"), "missing/folder.*No such file or directory"),
        ((), "Missing argument 'MODEL'.*see cascade predict --help"),
        (("m", "--bogus"), "No such option.*--bogus"),
    ],
)
def test_bad_use_is_one_line(run: Command, arguments: tuple[str, ...], message: str) -> None:
    assert re.search(message, run.refused("predict", *arguments))


def test_what_is_read(run: Command, loaded: Loaded) -> None:
    assert run.refused("predict", "m", stdin="").startswith("Error: standard input must hold at least one example")
    done = run("predict", "m", "--format", "jsonl", stdin=BROKEN)
    assert (done.status, "line 2" in done.err, len(lines(done.out))) == (2, True, 1)
    done = run("predict", "some/model", "--threads", "2", stdin="\n")  # an empty line is a text
    assert len(lines(done.out)) == 1
    assert done.err.startswith("1 row, 1 of them empty in ")
    assert loaded.asked[-1] == ("some/model", 2)

"""The commands on a real, tiny bundle: graphs, tokenizer, files and all."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cascade.cli.demo.command import sentences
from cascade.pipelines.classifier import Classifier
from tests.models.cli import Command, lines
from tests.models.toy import toy_bundle

# fmt: off
TEXTS = [
    "good film", "", "not very good , it is a dull plot and we cry", "x" * 100_000, "good " * 200, "привет, 世界 🎬",
    "a\x00b\x07c\u200b", "\u2028", "good \ud800", "bad",
]
# fmt: on


@pytest.fixture(scope="module")
def bundle(clf: Classifier) -> Path:
    return clf.bundle.folder


def jsonl(texts: list[str]) -> str:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


def test_predict_says_what_the_classifier_says(run: Command, bundle: Path) -> None:
    done = run.well("predict", str(bundle), "--format", "jsonl", "--routes", "--threads", "1", stdin=jsonl(TEXTS))
    expected = Classifier.from_pretrained(bundle, threads=1).predict(TEXTS)
    out = lines(done.out)
    assert [line["line"] for line in out] == list(range(1, len(TEXTS) + 1))
    assert [line["label"] for line in out] == expected.labels
    assert [line["score"] for line in out] == pytest.approx(expected.probabilities.max(axis=1).tolist(), abs=2e-6)
    assert [line["tier"] for line in out] == expected.routes.tier.tolist()
    assert [line["exit"] for line in out] == expected.routes.exit_layer.tolist()


def test_rows_that_lose_tokens_are_counted(run: Command, bundle: Path) -> None:
    long = "good film " * 200
    rows = [{"text": "good"}, {"text": long, "text_pair": long}, {"text": "bad", "text_pair": "bad"}] * 400
    given = "".join(json.dumps(row) + "\n" for row in rows)
    done = run("predict", str(bundle), "--format", "jsonl", "--threads", "1", stdin=given)
    warning, summary = done.err.splitlines()
    assert warning == "Warning: 400 of 1200 rows were longer than a tier reads and lost tokens; shorten or split them"
    assert summary.startswith("1200 rows in ")
    assert "Warning" not in run("predict", str(bundle), "--threads", "1", stdin="good\nbad\n").err


def with_closed(closed: str, *arguments: Path | str) -> subprocess.CompletedProcess[str]:
    """`cascade predict` as a shell runs it, with some of its streams closed."""
    command = [sys.executable, "-c", "from cascade.cli import main; main()", "predict", *map(str, arguments)]
    shell = ["bash", "-c", f'exec "$@" {closed}', "bash", *command]
    return subprocess.run(shell, input="good\nbad\n", capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("closed", "from_file", "status", "rows", "said"),
    [
        ("<&-", False, 2, 0, "Error: standard input must be open, but it is closed; give a file"),
        ("<&-", True, 0, 2, "2 rows in "),
        (">&-", True, 2, 0, "Error: standard output must be open, but it is closed; send it to a file or to /dev/null"),
        ("2>&-", False, 2, 0, ""),
        ("2>&- <&-", True, 2, 0, ""),
        ("2>&- <&- >&-", True, 2, 0, ""),
    ],
)
def test_closed_streams(
    bundle: Path, tmp_path: Path, closed: str, from_file: bool, status: int, rows: int, said: str
) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("good\nbad\n")
    done = with_closed(closed, bundle, *([file] if from_file else []))
    assert (done.returncode, len(done.stdout.splitlines())) == (status, rows), done.stderr
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == bool(said)


def test_files_get_no_number_of_a_closed_stream(bundle: Path, tmp_path: Path) -> None:
    file, texts = tmp_path / "labels.jsonl", tmp_path / "texts.txt"
    texts.write_text("good\nbad\n")
    assert with_closed("<&-", bundle, texts, "--output", file).returncode == 0
    assert [line["line"] for line in lines(file.read_text())] == [1, 2]


@pytest.mark.parametrize("to", [">/dev/full", "--output /dev/full"])
def test_a_full_disk_is_one_line(bundle: Path, to: str) -> None:
    done = with_closed(to, bundle) if to[0] == ">" else with_closed("", bundle, *to.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("Error: ")
    assert done.stderr.endswith("No space left on device\n")


@pytest.mark.parametrize(
    ("ended", "status", "said"), [("SIGTERM", 143, b"Terminated."), ("SIGINT", 130, b"Interrupted.")]
)
@pytest.mark.parametrize("options", [(), ("--on-error", "null", "--format", "jsonl")])
def test_a_pause_in_the_input_is_answered(
    bundle: Path, ended: str, status: int, said: bytes, options: tuple[str, ...]
) -> None:
    """As of `tail -f log | cascade predict`, which a signal ends while it waits for more."""
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # also where tests ignore it
    command = [sys.executable, "-c", f"{heard}; from cascade.cli import main; main()", "predict", str(bundle), *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        for number in (1, 2):
            process.stdin.write(b'{"text": "good"}\nx\n')
            process.stdin.flush()
            found = b""
            while found.count(b"\n") < 2 and select.select([process.stdout], [], [], 60)[0]:
                found += os.read(process.stdout.fileno(), 1 << 16)
            assert [line["line"] for line in lines(found.decode())] == [2 * number - 1, 2 * number]
        process.send_signal(getattr(signal, ended))
        assert process.wait(60) == status
        assert process.stderr.read().strip().splitlines()[-1] == said


def test_a_missing_stage(run: Command, tmp_path: Path) -> None:
    folder = toy_bundle(tmp_path / "bundle").folder
    (folder / "tier2/stage_01.onnx").unlink()
    assert "tier2/stage_01.onnx is missing" in run.refused("predict", folder)


def test_the_demo(run: Command, tmp_path: Path) -> None:
    toy_bundle(tmp_path / "sentiment", labels=("negative", "positive"), max_length=64)
    toy_bundle(tmp_path / "intents", labels=sorted(set(sentences("intents")[1])), max_length=64)
    done = run.well("demo", "--models", str(tmp_path), "--threads", "1")
    assert "sentiment: 130 sentences, 2 labels" in done.out
    assert "tier 2, layer " in done.out

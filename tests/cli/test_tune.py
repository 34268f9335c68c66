from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cascade.core.statistics import Interval
from cascade.pipelines import tuning
from cascade.pipelines.tuning import Timing, Tuned
from tests.models.cli import Command
from tests.models.toy import toy_bundle
from tests.models.toy_tags import tag_bundle

TEXTS = "good film\nbad\nvery dull\n"


def timing(name: str, low: float) -> Timing:
    return Timing(name, 0.5, Interval(low + 0.1, low, low + 0.2, 0.9375, 5))


FOUND = Tuned(
    (256, 1024),
    (timing("256, 1024", 1.2),),
    texts=2,
)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "texts.txt").write_text(TEXTS)
    monkeypatch.chdir(tmp_path)
    toy_bundle(tmp_path / "toy")
    return Command(capsys, monkeypatch)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `tune` was given; it finds `FOUND`."""
    seen: dict[str, Any] = {}

    def tune(pipeline: Any, texts: list[Any], **options: Any) -> Tuned:
        seen.update(options, pipeline=pipeline, texts=texts)
        return FOUND

    monkeypatch.setattr(tuning, "tune", tune)
    return seen


def files(folder: Path) -> list[Path]:
    return [path for path in (folder / "cache").rglob("*") if path.is_file()]


def test_says_what_it_found(run: Command, fake: dict[str, Any], tmp_path: Path) -> None:
    done = run.well("tune", "toy", "--texts", "texts.txt", "--threads", "2", "--repeats", "7", "--limit", "2")
    assert done.out.startswith("toy, 2 texts, 7 turns, 2 threads\n")
    assert "256, 1024       500 ms  1.30 [1.20, 1.40] (94%)\n" in done.out
    assert "Kept: 256 in tier 1, not 1024; 1024 in tier 2, as before.\n" in done.out
    assert (fake["texts"], fake["repeats"], fake["minutes"]) == (["good film", "bad"], 7, 2)
    cut = run("tune", "toy", "--texts", "texts.txt", "--threads", "2", "--minutes", "0.5")
    assert cut.out.startswith("toy, 2 of 3 texts (as many as 0.5 minutes allow), 5 turns, 2 threads\n")
    assert fake["minutes"] == 0.5
    assert files(tmp_path) == []


def test_what_is_written_is_used_and_told(run: Command, fake: dict[str, Any], tmp_path: Path) -> None:
    done = run("tune", "toy", "--texts", "-", "--write", stdin=TEXTS)
    (file,) = files(tmp_path)
    assert f"Written to {file}" in done.out
    assert "of 256 and 1024 tokens, tuned on this host" in run("inspect", "toy").out
    run("tune", "toy", "--texts", "texts.txt")
    assert fake["pipeline"].max_tokens == (1024, 1024)  # it starts from the defaults again


def test_really_runs(run: Command, tmp_path: Path) -> None:
    tag_bundle(tmp_path / "tags")
    (tmp_path / "words.jsonl").write_text('{"tokens": ["a", "film"]}\n{"tokens": ["good"]}\n')
    for arguments in (
        ["toy", "--texts", "texts.txt", "--progress"],
        ["tags", "--texts", "texts.txt"],
        ["tags", "--texts", "words.jsonl", "--tokens-column", "tokens"],
    ):
        done = run.well("tune", *arguments, "--write")
        assert "Kept: " in done.out
        assert ("tune: " in done.err) == ("--progress" in arguments)
    assert len(files(tmp_path)) == 2


def test_a_cache_that_cannot_be_written_is_a_warning(run: Command, fake: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    done = run.well("tune", "toy", "--texts", "texts.txt", "--write")
    assert done.err.startswith("Warning: nothing is kept: the cache must be a folder")


def test_interrupted_it_leaves_nothing(run: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_arguments: Any, **_options: Any) -> Tuned:
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "tune", interrupted)
    done = run("tune", "toy", "--texts", "texts.txt", "--write")
    assert (done.status, done.out, files(tmp_path)) == (130, "", [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--texts", "nowhere.txt"], "nowhere.txt must be a file of examples, but it is missing"),
        (["--texts", "empty.txt"], "empty.txt must hold at least one example"),
        (["--texts", "texts.txt", "--repeats", "4"], "4 is not in the range x>=5"),
        (["--texts", "texts.txt", "--minutes", "0"], "0.0 is not in the range x>0"),
        (["--texts", "texts.txt", "--minutes", "1e-9"], "minutes must be at least"),
        ([], "Missing option '--texts'"),
    ],
)
def test_errors_are_one_line(run: Command, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "empty.txt").write_text("")
    assert message in run.refused("tune", "toy", *arguments)

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
import pytest

from cascade import Classifier
from cascade.core.files import lock
from cascade.core.results import Counts
from cascade.exceptions import DataError, OptionError
from cascade.jobs import job, leases, rows, running
from cascade.jobs.answers import answered
from cascade.jobs.leases import Lease
from cascade.jobs.parts import read_block
from cascade.jobs.running import predict_tables
from cascade.jobs.settings import Settings
from cascade.policies.routing import Threshold
from tests.jobs.making import seen, texts, write
from tests.models.toy import toy_bundle

SETTINGS = Settings(keep=("id",), part_rows=250)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "BLOCK_ROWS", 40)


@pytest.fixture
def inputs(tmp_path: Path) -> list[Path]:
    given = texts(900)
    return [
        write(tmp_path / "a.parquet", {"id": range(600), "text": given[:600]}, 77),
        write(tmp_path / "c.ipc", {"id": range(600, 900), "text": given[600:]}, 50),
    ]


@pytest.fixture
def whole(clf: Classifier, inputs: list[Path], tmp_path: Path) -> dict[str, bytes]:
    """The output of a job that nothing disturbed."""
    predict_tables(clf, inputs, tmp_path / "whole", SETTINGS)
    return seen(tmp_path / "whole")


class Stopping:
    """Stands for `answered`; raises after so many blocks."""

    def __init__(self, blocks: int, error: BaseException) -> None:
        self.left, self.error, self.answered = blocks, error, answered

    def __call__(self, *given: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return self.answered(*given)


@pytest.mark.parametrize("name", ["out", "out.parquet", "out.jsonl", "out.csv"])
def test_a_job_goes_on_block_by_block(
    clf: Classifier, inputs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    predict_tables(clf, inputs, tmp_path / f"whole {name}", SETTINGS)
    done = 0
    for blocks in (1, 3, 0, 8, 5, 2, 4):
        stopping = Stopping(blocks, KeyboardInterrupt())
        monkeypatch.setattr(running, "answered", stopping)
        with pytest.raises(KeyboardInterrupt):
            predict_tables(clf, inputs, tmp_path / name, SETTINGS)
        monkeypatch.setattr(running, "answered", stopping.answered)
        done += blocks
        assert not any(path.suffix == ".lease" for path in tmp_path.rglob("*"))
    counting = Stopping(100, KeyboardInterrupt())
    monkeypatch.setattr(running, "answered", counting)
    counts = predict_tables(clf, inputs, tmp_path / name, SETTINGS)
    assert 100 - counting.left == 25 - done  # 7 blocks in each part but the last
    assert counts.rows == 900
    assert list(seen(tmp_path / name).values()) == list(seen(tmp_path / f"whole {name}").values())
    state = tmp_path / (name if name == "out" else f"{name}.parts") / "_cascade"
    assert {path.suffix for path in state.iterdir()} <= {".json", ""}
    predict_tables(clf, inputs, tmp_path / name, SETTINGS)  # nothing is left to do
    assert 100 - counting.left == 25 - done


def test_a_block_that_is_not_whole(
    clf: Classifier, inputs: list[Path], tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "answered", Stopping(4, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        predict_tables(clf, inputs, tmp_path / "out", SETTINGS)
    *_, block, last = sorted((tmp_path / "out" / "_cascade").glob("part-00000.*.block"))
    content, (table, counts) = block.read_bytes(), read_block(block)
    assert (len(table), counts.rows) == (40, 40)
    for size in range(0, len(content), 11):
        block.write_bytes(content[:size])
        with pytest.raises(OSError, match="is not whole"):
            read_block(block)
        block.write_bytes(content[:size] + bytes([content[size] ^ 64]) + content[size + 1 :])
        with pytest.raises(OSError, match="is not whole"):
            read_block(block)
    last.with_name(f".{last.name}.0123abcd.partial").touch()  # of one that was killed as it wrote
    monkeypatch.setattr(running, "answered", answered)
    assert predict_tables(clf, inputs, tmp_path / "out", SETTINGS).rows == 900
    assert seen(tmp_path / "out") == whole
    assert {path.suffix for path in (tmp_path / "out" / "_cascade").iterdir()} == {".json"}


def test_a_part_that_is_lost_is_made_again(
    clf: Classifier, inputs: list[Path], tmp_path: Path, whole: dict[str, bytes]
) -> None:
    (tmp_path / "whole" / "part-00001.parquet").unlink()
    (tmp_path / "whole" / "part-00002.parquet").write_bytes(b"cut")
    predict_tables(clf, inputs, tmp_path / "whole", SETTINGS)
    assert seen(tmp_path / "whole") == whole


def test_a_file_that_is_lost_is_made_again(clf: Classifier, inputs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "o.csv"
    predict_tables(clf, inputs, out)
    content = out.read_bytes()
    out.unlink()
    predict_tables(clf, inputs, out)
    assert out.read_bytes() == content


def test_another_job_is_refused_or_begun_anew(
    clf: Classifier, inputs: list[Path], tmp_path: Path, whole: dict[str, bytes]
) -> None:
    out = tmp_path / "whole"
    (out / "mine.txt").touch()
    other = Classifier.from_pretrained(toy_bundle(tmp_path / "m", labels=("a", "b", "c")).folder, threads=1)
    sure = clf.with_router(Threshold(0.123))
    cases: list[tuple[Classifier, list[Path], Settings, str]] = [
        (
            clf,
            inputs,
            Settings(part_rows=250),
            r"keep of the job in .*whole must stay \['id'\], got \[\]; give .*--fresh",
        ),
        (
            clf,
            inputs,
            Settings(keep=("id",), part_rows=250, routes=True),
            "routes of the job .* must stay False, got True",
        ),
        (other, inputs, SETTINGS, "bundle of the job"),
        (sure, inputs, SETTINGS, "policies of the job .*0.123"),
        (clf, inputs[:1], SETTINGS, "inputs of the job"),
    ]
    for pipeline, given, settings, message in cases:
        with pytest.raises(OptionError, match=message):
            predict_tables(pipeline, given, out, settings)
    assert seen(out) == whole | {"mine.txt": b""}
    predict_tables(clf, inputs[:1], out, Settings(form="csv"), fresh=True)
    assert sorted(seen(out)) == ["mine.txt", "part-00000.csv"]
    assert (out / "part-00000.csv").read_text().startswith("label,score\n")


def test_inputs_that_changed_are_refused(
    clf: Classifier, inputs: list[Path], tmp_path: Path, whole: dict[str, bytes]
) -> None:
    os.utime(inputs[0], (1, 1))  # another time alone is none
    predict_tables(clf, inputs, tmp_path / "whole", SETTINGS)
    content = bytearray(inputs[1].read_bytes())
    content[-1] ^= 1
    inputs[1].write_bytes(content)
    with pytest.raises(OptionError, match=r"c.ipc must stay as it was .* other bytes of the same number"):
        predict_tables(clf, inputs, tmp_path / "whole", SETTINGS)
    inputs[1].write_bytes(content[:-1])
    with pytest.raises(OptionError, match=r"c.ipc must stay as it was .* bytes became"):
        predict_tables(clf, inputs, tmp_path / "whole", SETTINGS)


def test_no_space(clf: Classifier, inputs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "answered", Stopping(9, OSError(28, "No space left on device")))
    with pytest.raises(OptionError, match=r"out \(No space left on device\); the same command goes on from there"):
        predict_tables(clf, inputs, tmp_path / "out", SETTINGS)
    assert list(seen(tmp_path / "out")) == ["part-00000.parquet"]


def test_an_input_that_cannot_be_read_any_more(
    clf: Classifier, inputs: list[Path], tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> str:
        raise PermissionError(13, "Permission denied", path)

    os.utime(inputs[0], (1, 1))
    monkeypatch.setattr("cascade.jobs.inputs.sha256_of", refuse)
    with pytest.raises(OptionError, match=r"a.parquet must stay as it was when its job began, but: Permission denied"):
        predict_tables(clf, inputs, tmp_path / "whole", SETTINGS)


@pytest.mark.parametrize("name", ["out", "out.csv"])
def test_a_folder_that_cannot_be_written(
    clf: Classifier, inputs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    told = f"an output must have room and be writable, got {tmp_path / name} (Permission denied)"
    with pytest.raises(OptionError, match=re.escape(told)):
        predict_tables(clf, inputs, tmp_path / name, SETTINGS)


def test_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lease"
    first = Lease.take(path)
    assert first is not None
    assert Lease.take(path) is None
    with first:
        assert first.held()
    assert not path.exists()
    path.write_text("another 1 x")
    assert Lease.take(path) is None  # it may live
    old = time.time() - 2 * leases.STALE
    os.utime(path, (old, old))
    second = Lease.take(path)
    assert second is not None
    path.unlink()
    third = Lease.take(path)  # as if it had been taken for dead
    assert third is not None
    assert not second.held()
    with second:
        pass
    assert third.held()
    with third:
        pass
    path.write_text(f"{leases._machine()} 1 x")  # whose process died
    handle = lock(path)
    assert Lease.take(path) is None  # or did not
    assert handle is not None
    os.close(handle)
    fourth = Lease.take(path)
    assert fourth is not None
    with fourth:
        pass


def test_a_worker_that_slept_gives_no_name(
    clf: Classifier, inputs: list[Path], tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = Stopping(3, KeyboardInterrupt())
    state = tmp_path / "out" / "_cascade"

    def slow(*given: Any) -> Any:
        stopping.left -= 1
        if stopping.left == 0:  # another worker takes it for dead, and makes everything
            (state / "part-00000.lease").unlink()
            monkeypatch.setattr(running, "answered", stopping.answered)
            predict_tables(clf, inputs, tmp_path / "out", SETTINGS)
            assert seen(tmp_path / "out") == whole
            (tmp_path / "out" / "part-00000.parquet").write_bytes(b"as the other left it")
        return stopping.answered(*given)

    monkeypatch.setattr(running, "answered", slow)
    record = state / "part-00000.json"
    monkeypatch.setattr(job.Job, "counts", _counted(job.Job.counts, record))
    predict_tables(clf, inputs, tmp_path / "out", SETTINGS)
    assert (tmp_path / "out" / "part-00000.parquet").read_bytes() == b"as the other left it"


def _counted(counts: Any, record: Path) -> Any:
    return lambda self, number: Counts() if record.exists() and number == 0 else counts(self, number)


def test_two_calls_share_the_parts(
    clf: Classifier, inputs: list[Path], tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "LOOK", 0.01)
    found: list[Counts] = []
    calls = [
        threading.Thread(target=lambda: found.append(predict_tables(clf, inputs, tmp_path / "out", SETTINGS)))
        for _ in range(2)
    ]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert [counts.rows for counts in found] == [900, 900]
    assert seen(tmp_path / "out") == whole


def test_workers(clf: Classifier, inputs: list[Path], tmp_path: Path) -> None:
    settings = Settings(keep=("id",), part_rows=100)
    predict_tables(clf, inputs, tmp_path / "one", settings)
    counts = predict_tables(clf, inputs, tmp_path / "two", settings, workers=2)
    assert counts.rows == 900
    for name in seen(tmp_path / "one"):
        assert pq.read_table(tmp_path / "two" / name).equals(pq.read_table(tmp_path / "one" / name))
    bad = write(tmp_path / "bad.parquet", {"text": ["a", None]})
    with pytest.raises(DataError, match="row 2: column 'text' must be a string, got NoneType"):
        predict_tables(clf, [bad], tmp_path / "bad", workers=2)


def begin(bundle: Path, inputs: list[Path], out: Path, *more: str) -> subprocess.Popen[str]:
    program = [sys.executable, "-c", "from cascade.cli import main; main()", "predict", str(bundle), *map(str, inputs)]
    options = ["--keep", "id", "--part-rows", "5000", "--output", str(out), "--threads", "1", *more]
    return subprocess.Popen([*program, *options], stderr=subprocess.PIPE, text=True)


def test_kill_at_any_moment(clf: Classifier, tmp_path: Path) -> None:
    given, rng = texts(20_000), Random(3)
    file = write(tmp_path / "a.parquet", {"id": range(20_000), "text": given}, 3000)
    _, said = begin(clf.bundle.folder, [file], tmp_path / "whole").communicate()
    assert said.startswith("20000 rows in ")
    out, killed = tmp_path / "out", 0
    for number in range(4):
        process = begin(clf.bundle.folder, [file], out, *(["--workers", "2"] if number == 1 else []))
        names = len(list(out.rglob("*"))) + rng.randrange(1, 4)
        while process.poll() is None and len(list(out.rglob("*"))) < names:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.05)
        process.send_signal(signal.SIGKILL if number % 2 else signal.SIGTERM)
        killed += process.wait() != 0
        assert process.stderr is not None
        process.stderr.close()
    assert killed
    process = begin(clf.bundle.folder, [file], out)
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert seen(out) == seen(tmp_path / "whole")


def test_a_worker_that_is_killed_is_done_without(clf: Classifier, tmp_path: Path) -> None:
    given = texts(30_000)
    file = write(tmp_path / "a.parquet", {"id": range(30_000), "text": given})
    process, state = begin(clf.bundle.folder, [file], tmp_path / "out", "--workers", "2"), tmp_path / "out" / "_cascade"
    pids: set[int] = set()
    while process.poll() is None and len(pids) < 2:
        for path in state.glob("*.lease"):
            with suppress(OSError):
                pids.add(int(path.read_text().split()[1]))
    assert process.pid not in pids
    with suppress(ProcessLookupError):  # on a machine that was through before the second began
        os.kill(min(pids), signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert pq.read_table(tmp_path / "out")["label"].to_pylist() == clf.predict(given).labels

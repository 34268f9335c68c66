"""The command itself, with real sockets, signals and workers."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.models.toy import toy_bundle

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="signals of POSIX")
PATIENCE = 60.0


@contextmanager
def server(bundle: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server that answers, and its port."""
    arguments = ["serve", str(bundle), "--hostname", "127.0.0.1", "--port", "0", "--threads", "1", *options]
    process = subprocess.Popen(
        [sys.executable, "-c", "from cascade.cli.main import main; main()", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.fullmatch(r"Serving toy \(.*toy\) on http://127\.0\.0\.1:(\d+), process (\d+).*\n", line)
        assert found, line + process.stderr.read()
        assert int(found[2]) == process.pid
        yield process, int(found[1])
    finally:
        process.kill()
        process.communicate()


def ask(port: int, text: str = "good", path: str = "/predict", model: str | None = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    body = json.dumps({"inputs": text} | ({"model": model} if model else {}))
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    found = answer.read()
    connection.close()
    return answer.status, json.loads(found)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_bundle(tmp_path_factory.mktemp("served") / "toy").folder


def test_on_sigterm_what_was_accepted_is_answered(bundle: Path) -> None:
    with server(bundle, "--max-queue-ms", "60000", "--max-concurrent-requests", "5000") as (process, port):
        waiting = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        body = json.dumps({"inputs": [["good bad film"]] * 32}).encode()
        head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        for one in waiting:
            one.sendall(head % len(body) + body)
        idle = socket.create_connection(("127.0.0.1", port))
        assert ask(port)[0] == 200
        process.send_signal(signal.SIGTERM)
        answers = []
        for one in waiting:
            one.settimeout(PATIENCE)
            answers.append(b"".join(iter(lambda one=one: one.recv(65536), b"")))  # type: ignore[misc]
            one.close()
        assert [answer.split(b" ")[1] for answer in answers] == [b"200"] * 20
        assert process.wait(PATIENCE) == 0
        idle.close()
        with pytest.raises(ConnectionError):
            ask(port)


def test_ctrl_c_ends_it_too_and_a_taken_port_is_one_line(bundle: Path) -> None:
    with server(bundle) as (process, port):
        arguments = ["serve", str(bundle), "--hostname", "127.0.0.1", "--port", str(port)]
        command = [sys.executable, "-c", "from cascade.cli.main import main; main()", *arguments]
        other = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert other.returncode == 2
        assert other.stderr.startswith(f"Error: --port must be free on --hostname, got 127.0.0.1:{port}")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0


def test_connections_are_taken_several_at_a_time(bundle: Path) -> None:
    """Libuv takes one from a socket in a turn, so that under load others waited for seconds."""
    with server(bundle) as (process, _):
        files = Path(f"/proc/{process.pid}/fd")
        if not files.exists():
            pytest.skip("needs /proc")
        opened = Counter(str(file.readlink()) for file in files.iterdir())
        assert any(count > 8 for name, count in opened.items() if name.startswith("socket:"))


def test_on_sighup_bundles_are_read_again_all_or_none(bundle: Path, tmp_path: Path) -> None:
    own = tmp_path / "toy"
    shutil.copytree(bundle, own)
    with server(own) as (process, port):
        assert process.stderr is not None
        assert {one["label"] for one in ask(port)[1]} == {"negative", "neutral", "positive"}
        shutil.rmtree(own)
        toy_bundle(own, labels=("no", "maybe", "yes"))
        assert "neutral" in json.dumps(ask(port)[1])
        process.send_signal(signal.SIGHUP)
        assert process.stderr.readline() == "Reloaded toy\n"
        assert {one["label"] for one in ask(port)[1]} == {"no", "maybe", "yes"}
        (own / "cascade.json").write_text("{}", encoding="utf-8")
        process.send_signal(signal.SIGHUP)
        assert process.stderr.readline().startswith("Nothing was reloaded: ")
        assert {one["label"] for one in ask(port)[1]} == {"no", "maybe", "yes"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def test_a_worker_that_is_killed_comes_back_and_the_others_answer_on(bundle: Path, tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    own = tmp_path / "toy"
    shutil.copytree(bundle, own)

    def workers() -> set[int]:
        found = set()
        for one in psutil.Process(process.pid).children():
            with suppress(psutil.Error):  # it has just ended
                found |= {one.pid} if "spawn_main" in " ".join(one.cmdline()) else set()
        return found

    with server(own, "--workers", "2") as (process, port):
        before = workers()
        assert len(before) == 2
        wanted = ask(port)
        os.kill(min(before), signal.SIGKILL)
        done = threading.Event()
        statuses: list[int] = []

        def keep_asking() -> None:
            while not done.is_set():
                try:
                    statuses.append(ask(port)[0])
                except (ConnectionError, http.client.HTTPException):
                    statuses.append(0)  # what the killed one had accepted is lost
                time.sleep(0.01)

        asker = threading.Thread(target=keep_asking)
        asker.start()
        try:
            until(lambda: len(workers() - {min(before)}) == 2)
        finally:
            done.set()
            asker.join()
        assert statuses.count(200) > 0.8 * len(statuses)
        assert ask(port) == wanted
        (second,) = workers() - before
        os.kill(max(before), signal.SIGKILL)
        assert ask(port) == wanted  # by the second one, which is ready then
        until(lambda: len(workers() - before) == 2)
        (third,) = workers() - before - {second}
        own.rename(tmp_path / "away")  # a worker that cannot start does not end those that answer
        with suppress(ProcessLookupError):
            os.kill(third, signal.SIGKILL)
        assert process.stderr is not None
        assert process.stderr.readline().startswith("Error: ")
        assert ask(port) == wanted
        (tmp_path / "away").rename(own)
        until(lambda: len(workers() - before - {third}) == 2)
        halted = min(workers() - {second})
        os.kill(halted, signal.SIGSTOP)  # it gets a ping of the supervisor, and dies before it answers
        time.sleep(1.5)
        os.kill(halted, signal.SIGKILL)
        died = time.monotonic()
        until(lambda: len(workers() - {halted}) == 2)
        assert time.monotonic() - died < 30  # and not only when nobody answers the ping for a minute
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        until(lambda: not any(map(psutil.pid_exists, before)))


def test_a_client_that_sends_no_http_gets_400_and_one_that_leaves_harms_nobody(bundle: Path) -> None:
    with server(bundle) as (process, port):
        for data in (
            b"\x00\xff\r\n\r\n",
            b"GET / HTTP/9\r\n\r\n",
            b"POST /\xff HTTP/1.1\r\n\r\n",
            b"POST / HTTP/1.1\r\n",
        ):
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as own:
                own.sendall(data)
                if data.endswith(b"\r\n\r\n"):
                    assert own.recv(100).startswith(b"HTTP/1.1 400")
        assert ask(port)[0] == 200
        assert process.poll() is None

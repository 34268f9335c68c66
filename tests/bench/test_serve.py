"""Requests a second: what the client counts, the search, servers to compare with, and the whole command."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from cascade_bench.serve import cli
from cascade_bench.serve.baselines import MOST, application
from cascade_bench.serve.client import Job as Load
from cascade_bench.serve.searching import NEAR, Loaded, highest_rate, load
from cascade_bench.serve.servers import Server
from cascade_bench.systems.conversion import MAKERS
from cascade_bench.systems.process import Job, WorkerError
from tests.bench.conftest import Run
from tests.models import tiny

STUB = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.answer()

    def answer(self):
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[-1])), Handler).serve_forever()
"""

Answer = Callable[[str], "tuple[int, dict[str, str], str] | None"]
JOB = Load(port=0, bodies=['{"inputs": "a"}', '{"inputs": "é"}'], rate=200.0, seconds=0.3)


@contextmanager
def answering(answer: Answer) -> Iterator[int]:
    """The port of a server. `answer`: from a body to status, headers and body; `None` closes the connection."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            made = answer(self.rfile.read(int(self.headers["content-length"])).decode())
            if made is None:
                self.close_connection = True
                return
            status, headers, body = made
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "transfer-encoding" not in headers:
                self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_all_that_was_asked_is_counted_by_code() -> None:
    asked: list[str] = []

    def answer(body: str) -> tuple[int, dict[str, str], str] | None:
        asked.append(body)
        made = [(200, {"X-Degraded": "1"}, "{}"), (429, {}, ""), (200, {"transfer-encoding": "chunked"}, "0\r\n\r\n")]
        return [*made, (200, {"connection": "close"}, "{}"), None][len(asked) % 5]

    with answering(answer) as port:
        found = load(replace(JOB, port=port, marker="x-degraded: 1", connections=1))
    assert set(asked) == set(JOB.bodies)
    assert found.codes.keys() <= {0, 200, 429}
    assert sum(found.codes.values()) + found.retried == len(asked) > 20
    assert found.unanswered == 0
    assert found.marked.sum() == sum(number % 5 == 0 for number in range(1, len(asked) + 1))
    assert (found.due < JOB.seconds).all()
    assert found.cpu > 0


def test_the_same_seed_asks_the_same_at_the_same_moments() -> None:
    with answering(lambda _: (200, {}, "{}")) as port:
        runs = [load(replace(JOB, port=port, seed=seed)) for seed in (1, 1, 2)]
    first, again, other = (sorted(run.due.tolist()) for run in runs)
    assert first == again != other
    assert all(run.latency.min() > 0 for run in runs)


def test_latency_counts_from_the_moment_that_was_drawn() -> None:
    def slow(_body: str) -> tuple[int, dict[str, str], str]:
        time.sleep(0.02)
        return 200, {}, "{}"

    with answering(slow) as port:
        found = load(replace(JOB, port=port, connections=1))
    count = len(found.due)
    # One after the other, whatever the machine does meanwhile: the n-th is answered after n times 20 ms at least.
    assert all(found.due[n] + found.latency[n] >= 0.02 * (n + 1) for n in range(count))
    assert found.latency[-1] > 0.02 * count - JOB.seconds > 0.2


def test_patience_ends() -> None:
    free = threading.Event()
    with answering(lambda _: (200, {}, "{}") if free.wait(20) else None) as port:
        found = load(replace(JOB, port=port, patience=0.5, connections=2))
        free.set()
    assert found.unanswered > 10
    assert found.codes == {}
    assert not found.holds(10.0)
    assert found.quantile(0.5) == math.inf


def test_a_server_that_accepts_nobody_does_not_hold_the_client() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        found = load(replace(JOB, port=deaf.getsockname()[1], patience=0.3))
    assert found.codes.keys() <= {0}
    assert not found.holds(10.0)


def test_nobody_there_and_no_answer() -> None:
    with answering(lambda _: None) as port:
        assert set(load(replace(JOB, port=port)).codes) == {0}
    assert set(load(replace(JOB, port=port)).codes) == {0}
    with pytest.raises(WorkerError, match=r"the client failed: .*ZeroDivisionError"):
        load(replace(JOB, port=port, rate=0.0))


def seen(latency: float, status: int = 200) -> Loaded:
    rows = [0.0] * 100, [latency] * 100, [status] * 100, [0] * 100
    names = ("due", "latency", "status", "marked")
    return Loaded.of({**dict(zip(names, rows, strict=True)), "unanswered": 0, "retried": 0, "cpu": 0.1})


@pytest.mark.parametrize("capacity", [1.3, 19.0, 137.0, 2000.0])
@pytest.mark.parametrize("refuses", [False, True])
def test_the_search_finds_what_a_server_can_do(capacity: float, refuses: bool) -> None:
    runs: list[float] = []

    def run(rate: float) -> Loaded:
        runs.append(rate)
        good = rate <= capacity and len(runs) % 4 != 2  # one run in four is disturbed by something else
        return seen(0.01) if good else seen(0.01, 429) if refuses else seen(0.2)

    found = highest_rate(run, 0.05)
    assert found is not None
    rate, last = found
    assert capacity / NEAR / 1.06 <= rate <= capacity
    assert last.holds(0.05)
    assert len(runs) < 40
    assert highest_rate(lambda _: seen(0.2), 0.05) is None


def ask(app: Any, count: int) -> list[dict[str, str]]:
    """So many requests at once."""
    client = pytest.importorskip("starlette.testclient").TestClient(app)
    with client, ThreadPoolExecutor(count) as pool:
        assert client.get("/health").status_code == 200
        bodies = [{"inputs": f"text {number}"} for number in range(count)]
        return [done.json() for done in pool.map(lambda body: client.post("/predict", json=body), bodies)]


@pytest.mark.parametrize("most", [1, MOST])
def test_servers_to_compare_with(most: int) -> None:
    pytest.importorskip("fastapi")
    sizes: list[int] = []

    def model(texts: Sequence[Any], _size: int) -> list[str]:
        sizes.append(len(texts))
        time.sleep(0.05)  # in which the others come
        return [str(text).upper() for text in texts]

    assert ask(application(model, most), 80) == [{"label": f"TEXT {number}"} for number in range(80)]
    assert sum(sizes) == 80
    assert min(most, 2) <= max(sizes) <= most


def test_a_batch_goes_on_without_a_client_that_has_gone() -> None:
    pytest.importorskip("fastapi")
    app = application(lambda texts, _size: list(texts), MOST)

    async def run() -> Any:
        (predict,) = [route.endpoint for route in app.routes if route.path == "/predict"]
        async with app.router.lifespan_context(app):
            gone, stays = (asyncio.create_task(predict({"inputs": name})) for name in ("gone", "stays"))
            await asyncio.sleep(0)
            gone.cancel()
            return await stays

    assert asyncio.run(run()) == {"label": "stays"}


def test_a_server_as_a_process() -> None:
    with Server(["-c", STUB], threads=1) as server:
        assert server.healthy()
        assert server.memory() > 1
        assert load(replace(JOB, port=server.port)).codes.keys() == {200}
        assert server.cpu() > 0
        (process,) = server.family()
    assert not process.is_running()
    assert server.family() == []
    assert not server.healthy()
    with pytest.raises(WorkerError, match="the server was not ready: out of luck"):
        Server(["-c", "import sys; sys.exit('out of luck')"], threads=1)


def test_the_command(run: Run, bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def command(key: str, *_: object) -> list[str]:
        return ["-c", "import sys; sys.exit('no luck')"] if key == "pipeline" else ["-c", STUB]

    monkeypatch.setattr(cli, "_command", command)
    rates = [100.0, 150.0, 50.0]
    monkeypatch.setattr(cli, "highest_rate", lambda run, _: (rates.pop(0), run(50.0)))
    file = tmp_path / "served.json"
    given = ("serve", bundle, "--data", data, "--seconds", 0.2, "--limit", 1000, "--threads", 1)
    done = run(*given, "--checkpoint", "x", "--json", file)
    assert done.status == 0, done.err
    names = [line.split("  ")[0] for line in done.out.splitlines()]
    assert names[1:4] == ["cascade serve", "FastAPI, ONNX Runtime int8, batches", ""]
    assert "FastAPI, transformers pipeline, fp32: the server was not ready: no luck." in done.out
    assert "cascade serve answers 0.7 times as many as FastAPI, ONNX Runtime int8, batches." in done.out
    kept = json.loads(file.read_text())
    assert [(one["name"], one["extra_info"]["rate"]) for one in kept["benchmarks"]] == [
        ("cascade", 100.0),
        ("onnxruntime", 150.0),
    ]
    assert kept["details"]["limit_ms"] == 1000
    assert "times as many" not in run(*given, "--only", "cascade").out
    monkeypatch.setattr(cli, "highest_rate", lambda *_: None)
    assert "cascade serve: no rate was found at which p99 stays under 1000 ms." in run(*given).out


def test_bad_use(run: Run, bundle: Path, tags_bundle: Path, data: Path) -> None:
    assert "the bundle must be a classifier's, got a tagger's" in run("serve", tags_bundle, "--data", data).err
    done = run("serve", bundle, "--data", data, "--only", "pipeline")
    assert "--checkpoint must be given for pipeline, got none" in done.err


def test_a_checkpoint_behind_fastapi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, bundle: Path, data: Path
) -> None:
    real = cli._command

    def command(key: str, job: Job, flags: list[str]) -> list[str]:
        for name in ("plain.json", "model.onnx", "model_quantized.onnx"):  # a process would import torch for each
            MAKERS[name](job)
        return real(key, job, flags)

    pytest.importorskip("fastapi")
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    tiny.tier2(checkpoint)
    monkeypatch.setattr(cli, "_command", command)
    monkeypatch.setattr(cli, "highest_rate", lambda run, _: (20.0, run(20.0)))
    given = ("--data", data, "--checkpoint", checkpoint, "--seconds", 0.5, "--threads", torch.get_num_threads())
    done = run("serve", bundle, *given, "--only", "onnxruntime")
    assert done.status == 0, done.err
    assert "batches   " in done.out, done.out

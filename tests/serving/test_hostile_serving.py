"""The command that ill-treats a server, at a small scale; seconds are not looked at."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cascade_bench.serve.servers import Server
from tests.hostile import serving
from tests.models.toy import random_texts, toy_bundle

FAILING = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = b'{"paths": {"/predict": {}}}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_error(500)

    def log_message(self, *_):
        pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[-1])), Handler).serve_forever()
"""


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in random_texts(20, 4)))
    bundle = toy_bundle(tmp_path / "toy").folder
    return [str(bundle), "--data", str(data), "--seconds", "1", "--count", "100", "--connections", "20"]


def test_a_server_stands_it(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status = serving.main([*given, "--only", "idle", "loris", "bytes"])
    said = capsys.readouterr().out
    assert status == 0, said
    assert said.count("ok    ") == 4


def test_what_http_costs_is_measured_without_a_model(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    serving.main([*given, "--only", "http"])  # how much it is depends on the CPU
    said = capsys.readouterr().out
    assert len(re.findall(r"^\w+ +http: \d\.\d+ ms of CPU of a request", said, re.MULTILINE)) == 2


def test_faults_are_found(
    given: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "served", lambda *_: Server(["-c", FAILING], threads=1))
    assert serving.main([*given, "--only", "bytes"]) == 1
    said = capsys.readouterr().out
    assert said.count("FAULT ") == 2
    assert "'500': " in said
    assert "b'POST /predict " in said

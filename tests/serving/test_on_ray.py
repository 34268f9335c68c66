"""`cascade serve --ray` on a cluster of this machine alone."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cascade import Classifier

pytest.importorskip("ray.serve")

MODEL = Path(__file__).parents[2] / "models" / "intents"


def asked(port: int, texts: list[str]) -> Any:
    body = json.dumps({"inputs": [[text] for text in texts], "routes": True}).encode()
    request = urllib.request.Request(  # of this machine
        f"http://127.0.0.1:{port}/predict", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def test_answers_are_those_of_one_process_and_sigterm_ends_it() -> None:
    texts = [f"move {number} dollars to my savings and wake me up at six" for number in range(30)] + ["what?", "hi"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = ["serve", str(MODEL), "--ray", "--hostname", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-c", "from cascade.cli.main import main; main()", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            said = ""
            while "Serving" not in said:
                said = server.stderr.readline()
                assert server.poll() is None, said
            found = asked(port, texts)
        finally:
            server.send_signal(signal.SIGTERM)
            server.stderr.read()
    assert server.returncode == 0
    with Classifier.from_pretrained(MODEL, threads=1) as own:
        wanted = own.predict(texts)
    labels = [one[0]["label"] for one in found["predictions"]]
    assert labels == list(wanted.labels)
    np.testing.assert_allclose(
        [one[0]["score"] for one in found["predictions"]], wanted.probabilities.max(axis=1), atol=1e-4
    )
    assert {route["tier"] for route in found["routes"]} == set(wanted.routes.tier.tolist()) == {1, 2}


@pytest.mark.parametrize(("tokens", "replicas"), [([], 1), ([10.0, 20.0], 1), ([4096.0, 1.0], 2), ([20_481.0], 6)])
def test_replicas_follow_the_tokens_that_wait(tokens: list[float], replicas: int) -> None:
    from cascade.serving.on_ray import by_tokens

    context: Any = SimpleNamespace(aggregated_metrics={"tokens": dict(enumerate(tokens))})
    assert by_tokens(context)[0] == replicas

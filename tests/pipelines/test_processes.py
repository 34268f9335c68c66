"""Pipelines in other processes: forked amid work, spawned, through other libraries' pickles, on bare hosts."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import cascade
from tests.models.toy import toy_bundle

TEXTS = ["good film", "bad", "é 電影", "a very dull plot it was", "not good not bad"]

PRELOADED = """
import os, signal, socket, sys, threading
from dataclasses import replace
from cascade import Classifier

classifier = Classifier.from_pretrained(sys.argv[1], threads=2)
texts = ["good film \\u96fb", "bad", "a very dull plot it was"] * 200
if sys.argv[2] == "pooled":  # one batch, on a pool of threads
    classifier = replace(classifier, tiers=tuple(replace(tier, pool_from=1) for tier in classifier.tiers))
    texts = texts[:3]
labels = classifier.predict(texts).labels
stop = threading.Event()
work = threading.Thread(target=lambda: [classifier.predict(texts) for _ in iter(stop.is_set, True)], daemon=True)
if sys.argv[2] == "busy":
    work.start()
workers = []
for _ in range(2):
    ours, theirs = socket.socketpair()
    if not (worker := os.fork()):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        while theirs.recv(1):
            theirs.send(b"+" if classifier.predict(texts).labels == labels else b"-")
    workers.append((worker, ours))
for _ in range(3):
    for _, ours in workers:
        ours.send(b"?")
    for _, ours in workers:
        assert ours.recv(1) == b"+"
for worker, _ in workers:
    os.kill(worker, signal.SIGTERM)
for worker, _ in workers:
    assert os.waitpid(worker, 0)[1] == 0
stop.set()
if sys.argv[2] == "busy":
    work.join()  # a thread that is inside a library while Python ends may abort the process
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("parent", ["idle", "pooled", "busy"])
def test_preloaded_workers_start_answer_and_stop(tmp_path: Path, parent: str) -> None:
    """As of `gunicorn --preload -w 2`; TOKENIZERS_PARALLELISM makes the tokenizer use threads that no child has."""
    folder = toy_bundle(tmp_path / "bundle").folder
    env = {**os.environ, "TOKENIZERS_PARALLELISM": "true"}
    code = [sys.executable, "-c", PRELOADED, str(folder), parent]
    started = subprocess.Popen(code, env=env, start_new_session=True)
    try:
        assert started.wait(timeout=120) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()


def answered(pipeline: Any) -> list[Any]:
    return list(pipeline.predict(TEXTS).labels)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return cascade.load(toy_bundle(tmp_path_factory.mktemp("processes") / "toy").folder, threads=2)


@pytest.mark.parametrize("method", sorted({"fork", "forkserver"} & set(multiprocessing.get_all_start_methods())))
def test_pools_of_processes(classifier: Any, method: str) -> None:
    expected = answered(classifier)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
        assert list(pool.map(answered, [classifier] * 4, timeout=120)) == [expected] * 4


def test_joblib(classifier: Any) -> None:
    joblib = pytest.importorskip("joblib")
    found = joblib.Parallel(n_jobs=2)(joblib.delayed(answered)(classifier) for _ in range(3))
    assert found == [answered(classifier)] * 3


@pytest.mark.parametrize("library", ["pickle", "cloudpickle", "dill"])
def test_pickles_are_equal_and_answer_the_same(classifier: Any, library: str) -> None:
    """With cloudpickle as Ray and Spark serialise it."""
    dumps = (pytest.importorskip(library) if library != "pickle" else pickle).dumps
    content = dumps(classifier)
    assert content == dumps(classifier) == dumps(pickle.loads(content))
    assert answered(pickle.loads(content)) == answered(classifier)


HASHED = """
import sys, cascade
from datasets.fingerprint import Hasher
print(Hasher.hash(cascade.load(sys.argv[1], threads=2).predict))
"""


def test_datasets_find_what_they_mapped(classifier: Any) -> None:
    """Also from a process that orders its sets otherwise."""
    fingerprint = pytest.importorskip("datasets.fingerprint")
    done = subprocess.run(
        [sys.executable, "-c", HASHED, str(classifier.bundle.folder)],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert done.stdout.split() == [fingerprint.Hasher.hash(classifier.predict)]
    assert "hash" not in done.stderr
    twice = [cascade.load(classifier.bundle.folder, threads=2) for _ in range(2)]
    one, two = (fingerprint.Hasher.hash(lambda batch, own=own: {"label": own(batch["text"])}) for own in twice)
    assert one == two


@pytest.mark.parametrize("home", [None, "/nonexistent", "/proc/nope"])
def test_without_a_home_or_caches(classifier: Any, home: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from cascade.cli import main; main()"
    command = [sys.executable, "-c", code, "predict", str(classifier.bundle.folder)]
    env = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME", "HF_HOME")}
    env |= {} if home is None else {"HOME": home, "XDG_CACHE_HOME": f"{home}/cache"}
    done = subprocess.run(
        command, input="good film\n", env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0
    assert done.stdout.startswith('{"line": 1, "label": ')
    assert done.stderr.startswith("1 row in ")

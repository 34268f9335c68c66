from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from cascade.engine.packing import FEEDS, Packing
from cascade.exceptions import BundleError, OptionError
from cascade.runtime import backend
from cascade.runtime.backend import Array, FunctionBackend, OnnxBackend, lacks_vnni
from cascade.runtime.host import cpu_info, multiplies_bf16
from cascade.runtime.threads import available_cpus
from tests.models.toy import HEADS, STAGE_INPUTS, toy_bundle

ROWS: dict[str, Array] = {
    "hidden": np.ones((3, 6), np.float32),
    **Packing.of(np.array([2, 1]), heads=HEADS).feeds(FEEDS),
}


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    bundle = toy_bundle(tmp_path / "bundle")
    return bundle.path(bundle.manifest.tier2.stages[0].file)


def test_names_and_run(stage: Path) -> None:
    assert OnnxBackend(stage).threads == available_cpus()
    graph = OnnxBackend(stage, 1)
    assert (graph.inputs, graph.outputs) == (STAGE_INPUTS, ("hidden_out", "logits"))
    made = graph.run({**ROWS, "unknown": np.zeros(1)})
    assert {name: array.shape for name, array in made.items()} == {"hidden_out": (3, 6), "logits": (2, 3)}
    np.testing.assert_allclose(made["logits"][0], made["logits"][1], rtol=1e-6)
    with pytest.raises(OptionError, match="threads must be"):
        OnnxBackend(stage, 0)


def test_a_session_keeps_no_copy_of_its_file(stage: Path) -> None:
    graph = OnnxBackend(stage, 1, sha256=hashlib.sha256(stage.read_bytes()).hexdigest())
    graph.run(ROWS)
    (session,) = graph._sessions.values()
    assert not any(isinstance(kept, bytes) for kept in vars(session).values())


def test_a_broken_file_is_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nothing of the kind")
    with pytest.raises(BundleError, match=r"broken.onnx must be an ONNX graph that ONNX Runtime .*") as caught:
        OnnxBackend(broken, 1)
    assert "\n" not in str(caught.value)


def test_what_a_graph_cannot_take_is_one_line(stage: Path) -> None:
    graph = OnnxBackend(stage, 1)
    for wrong in ({"hidden": np.ones((3, 6))}, {"hidden": np.ones((3, 5), np.float32)}, {"gather": np.array([[9, 9]])}):
        with pytest.raises(
            BundleError, match=r"stage_00.onnx must take what its bundle feeds it, but: .*; export the"
        ) as caught:
            graph.run({**ROWS, **wrong})
        assert "\n" not in str(caught.value)


def test_sessions_are_of_the_file_that_was_verified(stage: Path) -> None:
    content = stage.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    graph, second = (OnnxBackend(stage, 2, digest) for _ in range(2))
    twin = graph.serial
    assert (twin.threads, twin.serial) == (1, twin)
    expected = graph.run(ROWS)["logits"]
    stage.write_bytes(content + b"\0")
    for read in (lambda: second.run(ROWS), lambda: OnnxBackend(stage, 1, digest)):
        with pytest.raises(BundleError, match=r"must stay as it was .*, but it was altered; load the bundle again"):
            read()
    stage.unlink()
    with pytest.raises(BundleError, match="load the bundle again"):
        second.run(ROWS)
    for known in (graph, twin, second.serial):
        np.testing.assert_array_equal(known.run(ROWS)["logits"], expected)


def test_a_session_with_a_pool_is_made_once_and_when_it_is_needed(stage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    inner = onnxruntime.InferenceSession

    def counted(content: object, options: onnxruntime.SessionOptions, **others: object) -> object:
        made.append(options.intra_op_num_threads)
        time.sleep(0.01)
        return inner(content, options, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", counted)
    graph = OnnxBackend(stage, 2)
    graph.serial.run(ROWS)
    assert made == [1]
    with ThreadPoolExecutor(4) as callers:
        list(callers.map(graph.run, [ROWS] * 8))
    assert made == [1, 2]


def test_sessions_share_an_arena_and_do_not_spin(stage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = backend.session_options(3)
    assert (made.intra_op_num_threads, made.inter_op_num_threads) == (3, 1)
    assert not made.enable_mem_pattern
    entry = made.get_session_config_entry
    assert entry("session.intra_op.allow_spinning") == entry("session.inter_op.allow_spinning") == "0"
    assert entry("session.use_env_allocators") == "1"


@pytest.mark.parametrize("module", ["cascade.runtime.backend", "cascade_bench.compare", "cascade_export.packed.chain"])
def test_nothing_reports_home(stage: Path, tmp_path: Path, module: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    unset = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    env = {name: value for name, value in os.environ.items() if name not in unset}
    code = (
        "import sys, unittest.mock as mock\n"
        "sys.modules['cascade_export.packed.stages'] = mock.MagicMock()  # which takes torch, and torch takes long\n"
        f"import {module}\nfrom cascade.runtime.backend import OnnxBackend\nOnnxBackend({str(stage)!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**env, "HOME": str(home)}, timeout=120)
    assert list(home.rglob("*")) == []


FORKING = """
import os, sys
from cascade import Classifier

classifier = Classifier.from_pretrained(sys.argv[1], threads=2)
classifier.predict(["good film", "bad", "a very dull plot it was"] * 200)
child = os.fork()
if not child:
    del classifier
    sys.exit(0)
_, status = os.waitpid(child, 0)
sys.exit(status != 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_ends(tmp_path: Path) -> None:
    """That it answers is in pipelines/test_processes.py."""
    folder = toy_bundle(tmp_path / "bundle").folder
    started = subprocess.Popen([sys.executable, "-c", FORKING, str(folder)], start_new_session=True)
    try:
        assert started.wait(timeout=60) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)  # the child with it, where it hangs
        started.wait()


def test_idle_sessions_cost_no_time(stage: Path) -> None:
    graph = OnnxBackend(stage, 2)
    packing = Packing.of(np.ones(2000, dtype=np.int64), heads=HEADS)
    graph.run({"hidden": np.ones((2000, 6), dtype=np.float32), **packing.feeds(FEEDS)})
    before = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before < 0.1


@pytest.mark.parametrize(
    ("flags", "machine", "lacks"),
    [
        ("avx2", "x86_64", True),
        ("", "AMD64", True),
        ("avx2 avx512_vnni", "x86_64", False),
        ("avx_vnni", "x86_64", False),
        ("", "aarch64", False),
        ("", "arm64", False),
    ],
)
def test_lacks_vnni(flags: str, machine: str, lacks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(backend, "cpu_info", lambda _: flags)
    assert lacks_vnni() is lacks


@pytest.mark.parametrize(
    ("flags", "fast"), [("fpu amx_bf16", True), ("avx512_bf16 avx2", True), ("avx2 avx512f", False), ("", False)]
)
def test_multiplies_bf16(flags: str, fast: bool) -> None:
    assert multiplies_bf16(flags) is fast


def test_exact_int8_without_vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(backend, "cpu_info", lambda _: "fpu avx2")
    assert backend.session_options(1).get_session_config_entry("session.x64quantprecision") == "1"
    monkeypatch.setattr(backend, "cpu_info", lambda _: "fpu avx512_vnni")
    with pytest.raises(RuntimeError, match=r"session.x64quantprecision"):
        backend.session_options(1).get_session_config_entry("session.x64quantprecision")


def test_flags_of_a_cpu(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    file = tmp_path / "proc" / "cpuinfo"
    file.write_text("processor : 0\nflags\t\t: fpu avx2\n\nprocessor : 1\nflags\t\t: fpu\n")
    assert cpu_info("flags", root=tmp_path) == "fpu avx2"
    file.write_text("Features : neon\n")
    assert cpu_info("flags", root=tmp_path) == cpu_info("flags", root=tmp_path / "none") == ""


def test_another_librarys_arena_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("already registered")

    monkeypatch.setattr(onnxruntime, "create_and_register_allocator", refuse)
    backend._share_arena.__wrapped__()


def test_function_backend() -> None:
    twin = FunctionBackend(lambda feeds: {"y": feeds["x"] + 1, "z": np.array([len(feeds)])}, ("x",), ("y", "z"))
    made = twin.run({"x": np.zeros(2), "unused": np.zeros(1)})
    np.testing.assert_array_equal(made["y"], [1, 1])
    np.testing.assert_array_equal(made["z"], [1])

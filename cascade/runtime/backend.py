"""The only room that touches ONNX Runtime: one file becomes one callable, with a function-backed twin for tests.

Threads decide more than kernels do. A graph runs either alone, on a pool of as many threads as there are to use, or
beside others on the calling thread (`serial`); `executor` counts them. No pool spins. (ONNX Runtime's global pool would
be the other way; it can be set only once in a process, for everybody in it, and not be changed afterwards.) All
sessions share one memory arena: with one each, eight small stages held 202 MiB
after batches of changing size, with one for all 34.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import functools
import hashlib
import os
import platform
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

# From 1.29 on ONNX Runtime reports on its host and writes files under HOME, from its import on, unless told before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

from cascade.core.checks import names_another_file
from cascade.exceptions import BundleError
from cascade.runtime.host import cpu_info
from cascade.runtime.threads import available_cpus, check_threads

Array = npt.NDArray[Any]

if os.environ["ORT_DISABLE_TELEMETRY"] != "0":  # for when somebody else imported ONNX Runtime first
    onnxruntime.disable_telemetry_events()

_FATAL_ONLY = 4  # errors are raised
_SESSIONS: weakref.WeakSet[onnxruntime.InferenceSession] = weakref.WeakSet()
_BACKENDS: weakref.WeakSet[OnnxBackend] = weakref.WeakSet()
_MAKING = threading.Lock()


def _after_fork() -> None:
    """Never free, in a forked child, the sessions of its parent: it would wait for threads that it does not have.

    Nor use those with threads: the child makes its own when it needs them.
    """
    _MAKING._at_fork_reinit()  # type: ignore[attr-defined]  # as the standard library's own locks are
    for session in _SESSIONS:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))
    for backend in _BACKENDS:
        for threads in [count for count in backend._sessions if count != 1]:
            del backend._sessions[threads]


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)


PASSING = ("hidden_out",)
"""What is read of a stage at whose exit nothing leaves."""


class Backend(Protocol):
    """A graph that can be run."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""

    @property
    def serial(self) -> Backend:
        """The same graph for runs beside others, each on the thread that calls it."""

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Outputs by name: all, or at least these."""


@dataclass(frozen=True, eq=False)
class OnnxBackend:
    """One ONNX file in ONNX Runtime.

    Most batches run beside others, on the calling thread alone. So the session that is made at once has no threads of
    its own; the one with a pool of them is made when a batch is first run alone.

    Attributes:
        path: the file.
        threads: size of the pool; what this process may use (`threads.available_cpus`) if left out.
        sha256: of the file, in hexadecimal; another file is refused.

    Raises:
        BundleError: the file cannot be read, or is not the one that was verified.
    """

    path: Path
    threads: int = field(default_factory=available_cpus)
    sha256: str | None = None
    inputs: tuple[str, ...] = field(init=False)
    outputs: tuple[str, ...] = field(init=False)
    serial: OnnxBackend = field(init=False, repr=False)
    """The same graph on the thread that calls it."""
    _sessions: dict[int, onnxruntime.InferenceSession] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        check_threads(self.threads)
        session = self._made(1)
        object.__setattr__(self, "inputs", tuple(value.name for value in session.get_inputs()))
        object.__setattr__(self, "outputs", tuple(value.name for value in session.get_outputs()))
        twin = self
        if self.threads != 1:
            twin = copy.copy(self)  # with the same sessions
            object.__setattr__(twin, "threads", 1)
            object.__setattr__(twin, "serial", twin)
        object.__setattr__(self, "serial", twin)
        _BACKENDS.add(self)

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """All outputs by name.

        Args:
            feeds: arrays by name; names that the graph does not have are left out.
            outputs: those that are read; ONNX Runtime takes longer to make these alone than to make all.

        Raises:
            BundleError: the file is not the one that was verified any more, where it is read only now, or the graph
                cannot take these arrays.
        """
        session = self._sessions.get(self.threads) or self._session(self.threads)
        return self._made_of(session, {name: feeds[name] for name in self.inputs}, self.outputs)

    def _session(self, threads: int) -> onnxruntime.InferenceSession:
        session = self._sessions.get(threads)
        if session is None:
            with _MAKING:
                session = self._sessions.get(threads) or self._made(threads)
        return session

    def _made_of(
        self, session: onnxruntime.InferenceSession, feeds: dict[str, Array], outputs: Sequence[str]
    ) -> dict[str, Array]:
        try:
            made = session.run(list(outputs), feeds)
        except Exception as error:  # ONNX Runtime's errors have no common base class below this one
            raise self.refused(error) from error
        return dict(zip(outputs, made, strict=True))

    def refused(self, error: Exception) -> BundleError:
        """What is told where the graph cannot take its feeds."""
        return BundleError(
            f"{self.path} must take what its bundle feeds it, but: {' '.join(str(error).split())}; export the "
            "bundle again, or give fewer and shorter texts at once where memory is short"
        )

    def close(self) -> None:
        """Free the sessions, of `serial` too. The next run makes them again, of the file that was verified."""
        with _MAKING:
            self._sessions.clear()

    def _made(self, threads: int) -> onnxruntime.InferenceSession:
        """A session with so many threads, of the very bytes that were verified."""
        _share_arena()
        content = self._content()
        try:
            session = onnxruntime.InferenceSession(
                content,
                session_options(threads),
                providers=["CPUExecutionProvider"],
                enable_fallback=0,  # it would try the same again, and print to standard output
            )
        except Exception as error:  # ONNX Runtime's errors have no common base class below this one
            reason = " ".join(str(error).split())
            raise BundleError(
                f"{self.path} must be an ONNX graph that ONNX Runtime {onnxruntime.__version__} can read, "
                f"but: {reason}; export the bundle again or upgrade onnxruntime"
            ) from error
        session._model_bytes = None  # kept for a session that makes itself again: every weight a second time
        _SESSIONS.add(session)
        self._sessions[threads] = session
        return session

    def _content(self) -> bytes | str:
        """The file's bytes; its name where nothing is known of them, so that ONNX Runtime says what is wrong."""
        if self.sha256 is None:
            return str(self.path)
        content = self.path.read_bytes() if self.path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise BundleError(
                f"{self.path} must stay as it was while its bundle is in use, but it was altered; load the bundle again"
            )
        if names_another_file(content):
            raise BundleError(f"{self.path} must hold its weights itself, got external data; export the bundle again")
        return content


@dataclass(frozen=True, eq=False)
class FunctionBackend:
    """A Python function in the place of a graph: for tests, and to run any model as a tier.

    Attributes:
        function: from arrays by name to arrays by name.
        inputs, outputs: their names; the function is given only `inputs`.
    """

    function: Callable[[dict[str, Array]], Mapping[str, Array]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def serial(self) -> FunctionBackend:
        """The same function: it has to bear calls from several threads."""
        return self

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """All outputs by name."""
        made = self.function({name: feeds[name] for name in self.inputs})
        return {name: np.asarray(made[name]) for name in self.outputs}


@dataclass(frozen=True, eq=False)
class Timed:
    """A backend that notes its runs.

    Attributes:
        backend: what runs: `embed` or a stage.
        runs: wall-clock seconds of each run so far; shared with `serial`.
    """

    backend: Backend
    runs: list[float] = field(default_factory=list)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return self.backend.inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return self.backend.outputs

    @property
    def serial(self) -> Timed:
        """The same graph for runs beside others, noted in the same place."""
        return Timed(self.backend.serial, self.runs)

    @property
    def seconds(self) -> float:
        """Of all runs; of runs side by side the sum."""
        return sum(self.runs)

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Outputs by name: all, or at least these."""
        begin = time.perf_counter()
        made = self.backend.run(feeds, outputs)
        self.runs.append(time.perf_counter() - begin)
        return made


def lacks_vnni() -> bool:
    """Whether this is an x86 CPU without int8 dot products, as far as Linux says; elsewhere it may well have them.

    There ONNX Runtime's fast unsigned-by-signed products saturate and make int8 answers wrong, but for weights of 7
    bits (microsoft/onnxruntime issues 6004 and 5849).
    """
    x86 = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")
    return x86 and not {"avx512_vnni", "avx_vnni"} & set(cpu_info("flags").split())


@functools.cache
def _share_arena() -> None:
    """Register the arena of all sessions, once in a process and before the first of them.

    It grows by what is asked for. By default it doubles, so that hours later a moment of many callers may take 64 MiB.
    """
    kind, memory = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, onnxruntime.OrtMemType.DEFAULT
    info, growth = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, memory), onnxruntime.OrtArenaCfg(0, 1, -1, -1)
    # Some releases refuse where another library was first; then our sessions use that one's.
    with contextlib.suppress(RuntimeError):
        onnxruntime.create_and_register_allocator(info, growth)


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Those of every session of a bundle: so many threads, which do not spin, one arena for all."""
    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads = threads
    made.inter_op_num_threads = 1
    made.log_severity_level = _FATAL_ONLY
    # A memory pattern is kept per set of shapes, and ours change with every batch.
    made.enable_mem_pattern = False
    made.add_session_config_entry("session.use_env_allocators", "1")
    made.add_session_config_entry("session.intra_op.allow_spinning", "0")
    made.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if lacks_vnni():  # weights of 7 bits are left to the fast products
        made.add_session_config_entry("session.x64quantprecision", "1")
    return made

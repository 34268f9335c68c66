"""Servers as processes: started on a free port, awaited, asked what they cost, ended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from typing import IO
from urllib.request import urlopen

from cascade.exceptions import need
from cascade_bench.systems.process import WorkerError, limits

need("measuring servers", "bench", "psutil")

import psutil  # noqa: E402

READY, END = 180.0, 15.0  # seconds until it is ready, torch may take its time; and from SIGTERM to SIGKILL
RESTS, SETTLE = 0.3, 100  # CPUs that a server at rest takes at most; tenths of a second until then


class Server(AbstractContextManager["Server"]):
    """A server and its workers, ready from the beginning, ended with the block.

    `command`: what starts it, after this interpreter and before the port. It answers `GET /health` with 200 when ready;
    one that ends before that, or is not ready in three minutes, is a `WorkerError` with its last words.
    """

    def __init__(self, command: Sequence[str], *, threads: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed at the end
        output = {"stdin": subprocess.DEVNULL, "stdout": self._errors, "stderr": self._errors}
        environment = {**os.environ, **limits(threads)}
        self.process = psutil.Popen([sys.executable, *command, str(self.port)], env=environment, **output)
        begin = time.monotonic()
        while not self.healthy():
            if self.process.poll() is not None or time.monotonic() - begin > READY:
                self._errors.seek(0)
                said = self._errors.read().decode(errors="replace").strip().splitlines()[-1:]
                self.__exit__()
                raise WorkerError(f"the server was not ready: {' '.join(said) or 'no reason given'}")
            time.sleep(0.1)

    def __exit__(self, *_failure: object) -> None:
        family = self.family()
        with suppress(psutil.Error):
            self.process.terminate()
        psutil.wait_procs([self.process], END)
        for one in family:  # workers that outlived it, too
            with suppress(psutil.Error):
                one.kill()
        self.process.wait()
        self._errors.close()

    def healthy(self) -> bool:
        """Whether it says so, within a second."""
        with suppress(OSError), urlopen(f"http://127.0.0.1:{self.port}/health", timeout=1) as answer:
            return bool(answer.status == 200)
        return False

    def family(self) -> list[psutil.Process]:
        """The process and its workers."""
        with suppress(psutil.NoSuchProcess):
            return [self.process, *self.process.children(recursive=True)]
        return []

    def cpu(self) -> float:
        """Seconds that all of them have taken so far."""
        return float(sum(sum(one.cpu_times()[:2]) for one in self.family()))

    def settle(self) -> None:
        """Wait until it rests, ten seconds at most."""
        for _ in range(SETTLE):
            before = self.cpu()
            time.sleep(0.1)
            if self.cpu() - before < RESTS * 0.1:
                return

    def memory(self) -> float:
        """Resident, of all of them, in MiB."""
        return float(sum(one.memory_info().rss for one in self.family()) / 2**20)

"""An open-loop client: requests leave when a Poisson process says so, whether or not those before were answered.

Latency counts from the scheduled moment, so a queue anywhere is part of it. As a script it reads a `Job` from standard
input and writes what came back to standard output, both JSON; it needs the standard library alone, in one thread.
"""

from __future__ import annotations

import gc
import json
import re
import selectors
import socket
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)")
NAP = 0.05  # seconds after which it looks at the oldest request, whatever happens


@dataclass(frozen=True)
class Job:
    """What to ask and how often.

    Attributes:
        bodies: of requests, as JSON; each request draws one.
        rate: requests a second, for `seconds`; `seed` decides when and which.
        patience: seconds; the run ends when a request has waited so long, or when all are answered.
        connections: at most; requests wait for one, which counts as latency.
        marker: what to look for in the head of an answer, in lower case.
    """

    port: int
    bodies: list[str]
    rate: float
    seconds: float
    path: str = "/predict"
    seed: int = 0
    patience: float = 10.0
    connections: int = 1000
    marker: str = ""

    def requests(self) -> list[bytes]:
        """As they are sent."""
        head = f"POST {self.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
        return [f"{head}{len(body.encode())}\r\n\r\n{body}".encode() for body in self.bodies]


class _Connection(socket.socket):
    """To the server, which answers one request at a time on it."""

    due, request, received, used = 0.0, b"", b"", False


class Client:
    """The requests of one job, on keep-alive connections, the last one used first."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.seen: list[tuple[float, float, int, bool]] = []
        self.retried = self._open = 0
        self._selector = selectors.DefaultSelector()
        self._idle: list[_Connection] = []
        self._busy: dict[_Connection, None] = {}  # the longest busy first
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._begin = time.perf_counter()

    def run(self) -> dict[str, Any]:
        """What came back: by request `due`, `latency` in seconds, `status` (0: lost or refused), `marked`.

        And how many are `unanswered` after patience ended, or were `retried` on another connection; seconds of `cpu`.
        """
        job, requests, cpu = self.job, self.job.requests(), time.process_time()
        rng = Random(job.seed)  # noqa: S311  # arrivals, not keys
        due = rng.expovariate(job.rate)
        while True:
            now = self._now()
            while due <= now and due < job.seconds:
                self._waiting.append((due, rng.choice(requests)))
                due += rng.expovariate(job.rate)
            while self._waiting and (self._idle or self._open < job.connections):
                self._send()
            oldest = next(iter(self._busy)).due if self._busy else self._waiting[0][0] if self._waiting else now
            if now - oldest > job.patience or (due >= job.seconds and not self._waiting and not self._busy):
                break
            pause = due - self._now() if due < job.seconds else NAP
            for key, _ in self._selector.select(min(max(pause, 0.0), NAP)):
                self._receive(key.fileobj)
        names = ("due", "latency", "status", "marked")
        left, used = len(self._waiting) + len(self._busy), time.process_time() - cpu
        counts = {"unanswered": left, "retried": self.retried, "cpu": used}
        return {**dict(zip(names, zip(*self.seen, strict=True), strict=False)), **counts}

    def _now(self) -> float:
        return time.perf_counter() - self._begin

    def _send(self) -> None:
        """A request is small beside the system's buffer: it goes out whole or not at all."""
        due, request = self._waiting.popleft()
        own = self._idle.pop() if self._idle else None
        try:
            if own is None:
                own = _Connection(socket.AF_INET)
                own.settimeout(self.job.patience)
                own.connect(("127.0.0.1", self.job.port))
                own.setblocking(False)
                own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._selector.register(own, selectors.EVENT_READ)
                self._open += 1
        except OSError:
            self._seen(due, 0)
            return
        own.due, own.request, own.received = due, request, b""
        self._busy[own] = None
        with suppress(OSError):  # of a connection that is lost it is read next
            own.send(request)

    def _receive(self, own: Any) -> None:
        data = b""
        with suppress(OSError):
            data = own.recv(1 << 16)
        own.received += data
        at = own.received.find(b"\r\n\r\n")
        head = own.received[: max(at, 0)].lower()
        length = LENGTH.search(head)
        whole = len(own.received) - at - 4 >= int(length[1]) if length else own.received.endswith(b"\r\n0\r\n\r\n")
        if not data:
            self._lost(own)
        elif at >= 0 and whole:
            del self._busy[own]
            self._seen(own.due, int(head[9:12]), marked=bool(self.job.marker) and self.job.marker.encode() in head)
            own.used = True
            self._idle.append(own)
            if b"\r\nconnection: close" in head:
                self._lost(own)

    def _lost(self, own: _Connection) -> None:
        """A request that a server did not begin to answer on a connection that it had kept goes out again."""
        self._selector.unregister(own)
        own.close()
        self._open -= 1
        if own not in self._busy:
            self._idle.remove(own)
            return
        del self._busy[own]
        if own.used and not own.received:
            self._waiting.appendleft((own.due, own.request))
            self.retried += 1
        else:
            self._seen(own.due, 0)

    def _seen(self, due: float, status: int, *, marked: bool = False) -> None:
        self.seen.append((round(due, 6), round(self._now() - due, 6), status, marked))


if __name__ == "__main__":
    gc.disable()  # nothing here is a circle
    json.dump(Client(Job(**json.load(sys.stdin))).run(), sys.stdout)

"""What the ways to ill-treat a server share: the server, requests, a line of figures."""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cascade_bench.serve.client import Job
from cascade_bench.serve.searching import Loaded, load
from cascade_bench.serve.servers import Server
from cascade_bench.table.data import read_items

DEGRADED = "x-cascade-degraded: true"
START = ("-c", "from cascade.cli import main; main()")
HANG = 10.0  # seconds after which a request hangs


def said(name: str, good: bool, text: str) -> bool:
    print(f"{'ok   ' if good else 'FAULT'} {name}: {text}", flush=True)
    return good


def served(given: argparse.Namespace, *flags: str, start: Sequence[str] = START) -> Server:
    """`start`: what the interpreter is to run."""
    own = ["--hostname", "127.0.0.1", "--threads", "1", *flags, *given.flags.split(), "--port"]
    return Server([*start, "serve", given.bundle, *own], threads=1)


def bodies(given: argparse.Namespace, texts: int = 1) -> list[str]:
    """Requests of one text, or of so many."""
    items = read_items(given.data)
    if texts == 1:
        return [json.dumps({"inputs": text}) for text in items]
    return [json.dumps({"inputs": [[one] for one in items[at : at + texts]]}) for at in range(0, len(items), texts)]


def quantiles(found: Loaded) -> str:
    return f"p50 {1000 * found.quantile(0.5):.1f} ms, p99 {1000 * found.quantile(0.99):.1f} ms"


def resting(given: argparse.Namespace, server: Server, seconds: float = 0.0, rate: float = 20.0) -> Loaded:
    """What a few requests see."""
    seconds = seconds or min(given.seconds, 5.0)
    return load(Job(server.port, bodies(given), rate, seconds, seed=given.seed, patience=HANG, marker=DEGRADED))


@contextmanager
def watched(server: Server) -> Iterator[list[float]]:
    """MiB of the server, twice a second."""
    seen, end = [server.memory()], threading.Event()

    def watch() -> None:
        while not end.wait(0.5):
            seen.append(server.memory())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        end.set()
        thread.join()

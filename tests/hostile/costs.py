"""What HTTP costs: throughput beside calls in the same process, and CPU without a model."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import cascade
from cascade_bench.serve.client import Job
from cascade_bench.serve.searching import load
from cascade_bench.table.data import read_items
from tests.hostile.served import bodies, resting, said, served

RATES = (100.0, 400.0)  # requests a second, of which none waits for long


def batches(given: argparse.Namespace) -> Iterator[bool]:
    items, model = read_items(given.data), cascade.load(given.bundle, threads=1)
    groups = [items[at : at + 32] for at in range(0, len(items) - 31, 32)]

    def in_process(seconds: float) -> float:
        """Texts in a second."""
        begin, number = time.perf_counter(), 0
        while time.perf_counter() - begin < seconds:
            model.predict(groups[number % len(groups)])
            number += 1
        return 32 * number / (time.perf_counter() - begin)

    def over_http(port: int, seconds: float, most: float) -> float:
        """Texts in a second, of 4 connections that ask again when they are answered; `most`: that could be at most."""
        ask = Job(port, bodies(given, 32)[:-1], 2 * most / 32, seconds, connections=4, patience=seconds)
        found = load(ask)
        begin, end = float(found.due.min()), float((found.due + found.latency).max())
        return 32 * len(found.status) / (end - begin)

    first = in_process(1.0)
    with served(given, "--degrade-at", "1", "--max-queue-ms", "100000") as server:
        over_http(server.port, 2.0, first)
        ratios = []
        for _ in range(3):
            one = in_process(3.0)
            other = over_http(server.port, 3.0, one)
            ratios.append((other / one, one, other))
        ratio, one, other = sorted(ratios)[1]
        yield said("batches", ratio >= 0.85, f"{one:.0f} texts/s in process, {other:.0f} over HTTP in 32s: {ratio:.1%}")


def http(given: argparse.Namespace) -> Iterator[bool]:
    """Reading, checking, queueing, to the engine's thread and back, counting, writing; no tokenizer and no tier."""
    with served(given, start=("-m", "tests.hostile.instant")) as server:
        resting(given, server, 2.0, RATES[-1])
        for rate in RATES:
            server.settle()
            before, found = server.cpu(), resting(given, server, given.seconds, rate)
            each = 1000 * (server.cpu() - before) / len(found.status)
            own = 1000 * found.cpu / len(found.status)
            text = f"{each:.3f} ms of CPU of a request of one text, {rate:.0f}/s, client {own:.3f}"
            yield said("http", each < 0.4 and set(found.codes) == {200}, text)

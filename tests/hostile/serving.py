"""What a server stands: each way of ill-treating it is a line of figures; status 1 if one of them finds a fault.

overload   ten times the highest rate for --seconds: only 200 and 429, latency of the accepted, degraded, back at rest
idle       so many connections that ask once and stay; others are answered meanwhile
loris      connections that send a byte at a time
bytes      broken HTTP and broken JSON on all routes: nothing but codes below 500, and no hang
killed     a worker of two is killed while requests come
batches    texts in requests of 32, against `predict` in this process
http       CPU of a request of one text, of a server whose model answers at once

python -m tests.hostile.serving models/sentiment --data dev.jsonl --seconds 60 --count 100000 --connections 10000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from random import Random
from typing import Any
from urllib.request import urlopen

import psutil

from cascade_bench.serve.client import Job
from cascade_bench.serve.searching import Loaded, highest_rate, load
from tests.hostile.costs import batches, http
from tests.hostile.served import DEGRADED, HANG, bodies, quantiles, resting, said, served, watched


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked for; 0 if nothing went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--data", required=True)
    parser.add_argument("--only", nargs="*", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--count", type=int, default=2000, help="of broken requests of each kind")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=0.0, help="the highest rate in time, if it is known")
    parser.add_argument("--texts", type=int, default=1, help="of a request of an overload")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--flags", default="", help="of cascade serve")
    given = parser.parse_args(arguments)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    bad = [name for name in given.only if not all([*WAYS[name](given)])]
    return 1 if bad else 0


def overload(given: argparse.Namespace) -> Iterator[bool]:
    ask = bodies(given, given.texts)
    rate = given.rate
    if not rate:
        with served(given, "--degrade-at", "1") as server:
            found = highest_rate(lambda rate: load(Job(server.port, ask, rate, 3.0, patience=1.0)), 0.05)
        assert found is not None, "no rate was found at which p99 stays under 50 ms"
        rate = found[0]
    with served(given) as server:
        load(Job(server.port, ask, rate / 4, 2.0))  # the first of all pay for arenas
        calm = load(Job(server.port, ask, rate / 4, 5.0, marker=DEGRADED))
        limit = 3 * calm.quantile(0.99)
        said("overload", True, f"highest rate {rate:.0f}/s; at a quarter of it {quantiles(calm)}")
        with watched(server) as memory:
            full = load(Job(server.port, ask, 10 * rate, given.seconds, patience=60.0, marker=DEGRADED))
            after = load(Job(server.port, ask, rate / 4, 5.0, marker=DEGRADED))
        accepted = full.status == 200
        shares = f"{accepted.mean():.1%} accepted, of those {full.marked[accepted].mean():.1%} degraded"
        text = f"{10 * rate:.0f}/s for {given.seconds:g} s, codes {full.codes}, unanswered {full.unanswered}, {shares}"
        per_second = accepted.sum() / given.seconds
        good = set(full.codes) <= {200, 429} and not full.unanswered
        yield said("overload", good, f"{text}, {per_second:.0f}/s; client {1e6 * full.cpu / len(full.due):.0f} us each")
        yield said(
            "overload",
            full.quantile(0.99) < limit,
            f"accepted {quantiles(full)}, three times unloaded {1000 * limit:.1f} ms",
        )
        late = (after.status != 200) | (after.marked > 0) | (after.latency > limit)
        back = float(after.due[late].max()) if late.any() else 0.0
        yield said("overload", back < 2, f"as before {back:.2f} s after the end; {late.sum()} requests until then")
        first, half = memory[: len(memory) // 2 + 1], memory[len(memory) // 2 :]
        text = f"{memory[0]:.0f} MiB before, in the second half {min(half):.0f}-{max(half):.0f}, {memory[-1]:.0f} after"
        yield said("memory", max(half) < 1.1 * max(first), text)


async def _open(port: int, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    return reader, writer


def idle(given: argparse.Namespace) -> Iterator[bool]:
    (request,) = Job(0, bodies(given)[:1], 1, 1).requests()

    async def hold(port: int, seconds: float) -> tuple[int, int, Loaded]:
        streams = []
        for begin in range(0, given.connections, 100):
            some = [_open(port, request) for _ in range(min(100, given.connections - begin))]
            streams += await asyncio.gather(*some)
            await asyncio.gather(*(reader.readuntil(b"\r\n\r\n") for reader, _ in streams[begin:]))
        found = await asyncio.to_thread(resting, given, server, seconds)
        still = sum(not reader.at_eof() for reader, _ in streams)
        for _, writer in streams:
            writer.close()
        return len(streams), still, found

    with served(given) as server:
        before, base = resting(given, server), server.memory()
        opened, still, found = asyncio.run(hold(server.port, given.seconds))
        text = f"{opened}, of which {still} stay for {given.seconds:g} s; {quantiles(before)}, then {quantiles(found)}"
        yield said("idle", set(found.codes) == {200}, f"{text}; {base:.0f} MiB, then {server.memory():.0f}")


def loris(given: argparse.Namespace) -> Iterator[bool]:
    (request,) = Job(0, bodies(given)[:1], 1, 1).requests()

    async def drip(port: int) -> bool:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            with closing(writer):
                for number in range(int(given.seconds)):
                    writer.write(request[number : number + 1])
                    await writer.drain()
                    await asyncio.sleep(1)
            return True
        return False

    async def all_drip(port: int) -> tuple[int, Loaded]:
        drips = [asyncio.create_task(drip(port)) for _ in range(given.connections)]
        found = await asyncio.to_thread(resting, given, server, given.seconds)
        return sum(await asyncio.gather(*drips)), found

    with served(given) as server:
        before = resting(given, server)
        stayed, found = asyncio.run(all_drip(server.port))
        text = (
            f"{given.connections} for {given.seconds:g} s, {stayed} let; {quantiles(before)}, then {quantiles(found)}"
        )
        yield said("loris", set(found.codes) == {200}, text)


ODD: Sequence[Any] = (
    None, True, -1, 0, 3.5, 1e308, 10**400, "", " ", "a", "é\u0000", "\U0001f600" * 40, "x" * 30000, [], [[]], {},
    ["a"], ["a", "b"], ["a", "b", "c"], [["a"], ["a", "b"]], [["a"] * 40], ["a", ["b"]], [None], [[1]], {"inputs": "a"},
    "Left", "no-such", [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}],
)  # fmt: skip
FIELDS = (
    "inputs", "input", "instances", "text", "model", "truncate", "raw_scores", "truncation_direction", "routes", "id",
    "windows", "aggregation_strategy", "add_special_tokens", "parameters", "words", "activation", "outputs",
)  # fmt: skip
BROKEN = (
    b"", b"{", b"nan", b"[" * 50000, b'{"inputs": NaN}', b'"\\ud800"', b"\xff\xfe{\x00}\x00", b'{"inputs":"\xe9"}',
    b'{"inputs": "\\ud800"}', b'{"inputs":' * 5000, b"\x00" * 100, b"1" * 5000, b'{"inputs": "a", "inputs": [1]}',
)  # fmt: skip
KINDS = (
    "application/json",
    "application/json; charset=utf-16",
    "text/plain",
    "",
    "multipart/form-data; boundary=x",
    "x" * 500,
)


def broken_json(rng: Random, paths: Sequence[str]) -> bytes:
    """A request whose head is whole and whose body may be anything."""
    names = rng.sample(FIELDS, rng.randint(0, 4)) + ["inputs"] * rng.randrange(2)
    body = json.dumps({name: rng.choice(ODD) for name in names}).encode()
    if not rng.randrange(4):
        body = rng.choice([*BROKEN, *(json.dumps(odd).encode() for odd in ODD)])
    method, path = rng.choice(["POST"] * 8 + ["GET", "PUT"]), rng.choice(paths)
    kind = KINDS[0] if rng.randrange(5) else rng.choice(KINDS)
    head = f"{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def broken_bytes(rng: Random, paths: Sequence[str]) -> bytes:
    """A request that was whole once."""
    data = bytearray(broken_json(rng, paths)[:4000])
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data) + 1)
        until = at + rng.randint(0, 20)
        data[at:until] = rng.choice(
            [b"", rng.randbytes(rng.randint(0, 20)), data[at:until] * 2, b"\r\n", b"\r\nTransfer-Encoding: chunked"]
        )
    return bytes(data)


async def _thrown(port: int, request: bytes) -> str:
    """The code of the answer; `none` where the connection was closed without one."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with closing(writer):
            writer.write(request)
            writer.write_eof()
            line = await asyncio.wait_for(reader.readline(), HANG)
            await asyncio.wait_for(reader.read(), HANG)
    except asyncio.TimeoutError:
        return "hang"
    except OSError:
        return "none"
    return line.split()[1].decode() if line.startswith(b"HTTP/1.1 ") else "none"


async def _throw(port: int, requests: Iterator[bytes], bad: list[bytes]) -> Counter[str]:
    codes: Counter[str] = Counter()

    async def work() -> None:
        for request in requests:
            code = await _thrown(port, request)
            codes[code] += 1
            if code == "hang" or code.startswith("5"):
                bad.append(request)

    await asyncio.gather(*(work() for _ in range(16)))
    return codes


def raw(given: argparse.Namespace) -> Iterator[bool]:
    with served(given) as server:
        with urlopen(f"http://127.0.0.1:{server.port}/api-doc/openapi.json") as answer:
            paths = [path.replace("{model}", "x").replace("{name}", "x") for path in json.load(answer)["paths"]]
        for name, make in {"JSON": broken_json, "bytes": broken_bytes}.items():
            rng, bad = Random(f"{name} {given.seed}"), list[bytes]()
            with watched(server) as memory:
                begin = time.monotonic()
                codes = asyncio.run(_throw(server.port, (make(rng, paths) for _ in range(given.count)), bad))
                seconds = time.monotonic() - begin
            found = resting(given, server)
            text = f"{given.count} on {len(paths)} paths in {seconds:.0f} s: {dict(sorted(codes.items()))}; then"
            text += f" {quantiles(found)}; {memory[0]:.0f} MiB, half way {memory[len(memory) // 2]:.0f}"
            good = not bad and set(found.codes) == {200} and server.healthy()
            yield said(name, good, f"{text}, in the end {memory[-1]:.0f}")
            for request in bad[:5]:
                print(f"      {request[:600]!r}")


def killed(given: argparse.Namespace) -> Iterator[bool]:
    def workers() -> list[int]:
        found = []
        for one in server.family()[1:]:
            with suppress(psutil.Error):  # one that has just ended
                found += [one.pid] * ("spawn_main" in " ".join(one.cmdline()))
        return found

    with served(given, "--workers", "2") as server:
        while len(workers()) < 2:
            time.sleep(0.1)
        resting(given, server, 2.0)
        found: list[Loaded] = []
        thread = threading.Thread(target=lambda: found.append(resting(given, server, 10.0, 50.0)))
        thread.start()
        time.sleep(2.0)
        old = workers()
        os.kill(old[0], signal.SIGKILL)
        begin = time.monotonic()
        while (len(workers()) < 2 or old[0] in workers()) and time.monotonic() - begin < 30:
            time.sleep(0.05)
        seconds = time.monotonic() - begin
        thread.join()
        again = resting(given, server)
        (seen,) = found
        text = f"codes {seen.codes}, retried {seen.retried}, {quantiles(seen)}; a new one after {seconds:.1f} s"
        good = set(seen.codes) <= {0, 200} and seen.codes.get(0, 0) <= 3 and set(again.codes) == {200} and seconds < 30
        yield said("killed", good, f"{text}; then {again.codes}")


WAYS: dict[str, Callable[[argparse.Namespace], Iterator[bool]]] = {
    "overload": overload,
    "idle": idle,
    "loris": loris,
    "bytes": raw,
    "killed": killed,
    "batches": batches,
    "http": http,
}

if __name__ == "__main__":
    sys.exit(main())

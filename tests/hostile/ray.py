"""What Ray costs, and how tiers scale apart, on a cluster of this machine; status 1 where an aim is missed.

dataset    a Dataset through `CascadeLabels`, one actor of two threads, against a loop over `predict` with two threads,
           in turns: seconds with starting the actor, and from the first answers on
serve      replicas of each tier while 24 clients send requests of 32 texts for --seconds, with a first tier that defers
           all and with one that defers nothing

python -m tests.hostile.ray models/sentiment --data dev.jsonl --rows 200000
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
import pyarrow as pa
import ray
from ray import serve

from cascade import Classifier
from cascade.core.limits import Limits
from cascade.jobs.ray import BATCH_SIZE, CascadeLabels
from cascade.policies import defer_all, defer_none
from cascade.serving.on_ray import application
from cascade.serving.workers import Setup

PORT: Final = 8124
CLIENTS: Final = 24


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked for; 0 if every aim is reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--data", type=Path, required=True, help="jsonl with text")
    parser.add_argument("--rows", type=int, default=100_000, help="of dataset: the texts again and again")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=45, help="of serve, for each load")
    parser.add_argument("--only", nargs="*", choices=list(WAYS), default=list(WAYS))
    given = parser.parse_args(arguments)
    texts = [json.loads(line)["text"] for line in given.data.read_text("utf-8").splitlines()]
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        reached = [good for name in given.only for good in WAYS[name](given, texts)]
    finally:
        ray.shutdown()
    return 0 if all(reached) else 1


def said(name: str, good: bool, text: str) -> bool:
    print(f"{'ok   ' if good else 'SHORT'} {name}: {text}", flush=True)
    return good


def dataset(given: argparse.Namespace, texts: list[str]) -> Iterator[bool]:
    """Seconds of the same rows with Ray and without."""
    ray.data.DataContext.get_current().enable_progress_bars = False
    rng = np.random.default_rng(0)
    rows = [texts[number] for number in rng.integers(0, len(texts), given.rows)]
    parts = [rows[begin : begin + BATCH_SIZE] for begin in range(0, len(rows), BATCH_SIZE)]
    blocks = [pa.table({"text": part}) for part in parts]
    own = Classifier.from_pretrained(given.bundle, threads=2)
    own.predict(parts[0])
    whole, after = [], []
    for _ in range(given.turns):
        begin = time.monotonic()
        for part in parts:
            own.predict(part)
        alone = time.monotonic() - begin
        begin, first, count = time.monotonic(), 0.0, 0
        labelled = ray.data.from_arrow(blocks).map_batches(
            CascadeLabels,
            fn_constructor_kwargs={"model": str(Path(given.bundle).resolve())},
            batch_format="pyarrow",
            batch_size=BATCH_SIZE,
            num_cpus=2,
            compute=ray.data.ActorPoolStrategy(size=1),
        )
        for batch in labelled.iter_batches(batch_size=None, batch_format="pyarrow"):
            count += batch.num_rows
            first = first or time.monotonic()
        assert count == len(rows)
        ended = time.monotonic()
        whole.append(alone / (ended - begin))
        after.append(alone * (len(rows) - BATCH_SIZE) / len(rows) / (ended - first))
    own.close()
    text = (
        f"{given.rows:,} rows: {median(whole):.2f} of the work without Ray, {median(after):.2f} from the first batch on"
    )
    yield said("dataset", median(after) >= 0.85, text)


def serving(given: argparse.Namespace, texts: list[str]) -> Iterator[bool]:
    """How many replicas each tier comes to have."""
    limits = Limits(max_queue_ms=1e6, max_concurrent_requests=4096, degrade_at=1.0)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    most: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as made:
        for name, router in (("much", defer_all), ("little", defer_none)):
            with Classifier.from_pretrained(given.bundle, threads=1) as pipeline:
                pipeline.with_router(router).save_pretrained(Path(made) / name)
            setup = Setup(models=(("m", str(Path(made) / name)),), limits=limits, threads=1)
            serve.run(application(setup, replicas=(1, 3), later_replicas=(1, 3)), name="cascade", route_prefix="/")
            codes, ended = Counter[int](), time.monotonic() + given.seconds
            clients = [threading.Thread(target=_load, args=(texts, own, ended, codes)) for own in range(CLIENTS)]
            for one in clients:
                one.start()
            most[name] = {}
            while time.monotonic() < ended:
                time.sleep(1)
                for tier, told in serve.status().applications["cascade"].deployments.items():
                    running = sum(told.replica_states.values())
                    most[name][tier] = max(most[name].get(tier, 0), running)
            for one in clients:
                one.join()
            serve.delete("cascade")
            yield said("serve", set(codes) == {200}, f"where {name} is deferred: {dict(codes)}, replicas {most[name]}")
    serve.shutdown()
    later = [max(count for tier, count in found.items() if tier != "first-tier") for found in most.values()]
    yield said("serve", later[0] > later[1] == 1, f"replicas of later tiers: {later[0]} and {later[1]}")


def _load(texts: list[str], own: int, ended: float, codes: Counter[int]) -> None:
    while time.monotonic() < ended:
        begin = own * 32 % max(len(texts) - 32, 1)
        body = json.dumps({"inputs": [[text] for text in texts[begin : begin + 32]]}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{PORT}/predict", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                codes[answer.status] += 1
        except urllib.error.HTTPError as error:
            codes[error.code] += 1
        own += CLIENTS + 1


WAYS: Final[dict[str, Callable[[argparse.Namespace, list[str]], Iterator[bool]]]] = {
    "dataset": dataset,
    "serve": serving,
}

if __name__ == "__main__":
    sys.exit(main())

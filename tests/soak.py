"""Threads that ask one shipped bundle for minutes: answers stay equal to the bit, memory stays flat.

python -m tests.soak --minutes 10 --threads 16 models/sentiment
"""

from __future__ import annotations

import argparse
import itertools
import sys
import threading
import time
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np

import cascade
from cascade import Tagger
from tests.fuzz.texts import text

GROWTH = 32  # MiB that may come after the first tenth of the time


def resident() -> float:
    """Memory of this process, MiB."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * 4096 / 2**20


def run(arguments: Sequence[str] | None = None) -> int:
    """0 if all answers were equal and memory was flat."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("model", nargs="?", default="models/sentiment")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--threads", type=int, default=16)
    given = parser.parse_args(arguments)
    pipeline: Any = cascade.load(given.model)
    predict = pipeline.predict_texts if isinstance(pipeline, Tagger) else pipeline.predict
    rng = Random(0)
    batches = [[text(rng) for _ in range(1 + 8 * number)] for number in range(9)]
    expected = [predict(batch).probabilities.tobytes() for batch in batches]
    end, calls, faults = time.monotonic() + 60 * given.minutes, itertools.count(), list[str]()

    def ask(seed: int) -> None:
        draw = Random(seed)
        while time.monotonic() < end and not faults:
            number = draw.randrange(len(batches))
            next(calls)
            try:
                if predict(batches[number]).probabilities.tobytes() != expected[number]:
                    faults.append(f"batch {number} was answered differently")
            except Exception as error:  # noqa: BLE001  # whatever it is, it is a fault
                faults.append(repr(error))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(given.threads)]
    for thread in threads:
        thread.start()
    sizes: list[float] = []
    while any(thread.is_alive() for thread in threads):
        time.sleep(min(1, 6 * given.minutes))
        sizes.append(resident())
    first, rest = np.split(np.array(sizes), [len(sizes) // 10 + 1])
    growth = float(rest.max(initial=0) - first.max())
    print(f"{next(calls):,} calls of {given.threads} threads in {given.minutes:g} minutes, {len(faults)} faults")
    print(f"memory {first.max():.0f} MiB in the first tenth, {rest.max(initial=0):.0f} MiB after it")
    print(*faults, sep="\n", end="")
    return 1 if faults or growth > GROWTH else 0


if __name__ == "__main__":
    sys.exit(run())

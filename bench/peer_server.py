"""The far end of a peer's process: obeys lines of JSON (`peer_process`) until it is told to quit.

Seconds are taken here, around the work alone. Libraries that print cannot disturb the protocol: it has the first output
to itself, they get standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from cascade.exceptions import CascadeError
from cascade_bench.peer_process import Input, Job, Model, PeerError, Routed

__all__ = ["answer", "main", "one_by_one", "serve"]


def serve(
    lines: IO[str],
    out: IO[str],
    *,
    loaders: Mapping[str, Callable[[Job], Model]],
    steps: Mapping[str, Callable[[Job], None]],
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """The far end: obey until told to quit or the lines end.

    Args:
        lines: requests.
        out: answers.
        loaders: make a kind's model, by its key.
        steps: make files, by name.
        clock: gives seconds.
    """
    held: tuple[Model, list[Input]] | None = None
    for line in lines:
        request = json.loads(line)
        made: dict[str, Any] = {"ok": True}
        begin = clock()
        try:
            if request["do"] == "prepare":
                steps[request["kind"]](Job(**request["job"]))
            elif request["do"] == "load":
                job = Job(**request["job"])
                held = (loaders[request["kind"]](job), job.texts())
            elif request["do"] == "run" and held is not None:
                model, texts = held[0], _some(held[1], request["some"])
                begin = clock()
                made["labels"] = answer(model, texts, request["batch_size"], by_length=request["by_length"])
            elif request["do"] == "single" and held is not None:
                made["latencies"] = one_by_one(held[0], [held[1][row] for row in request["rows"]], clock=clock)
            elif request["do"] == "routes" and held is not None:
                model, texts = held[0], [held[1][row] for row in request["rows"]]
                made["by_tier1"] = [model.by_tier1(text) for text in texts] if isinstance(model, Routed) else None
            elif request["do"] == "quit":
                made["peak_mib"] = _peak()
            made["seconds"] = clock() - begin
        except BaseException as error:  # noqa: BLE001  # libraries raise anything, and the report goes on without them
            made = {"ok": False, "error": _in_one_line(error)}
        out.write(json.dumps(made) + "\n")
        out.flush()
        if request["do"] == "quit":
            return


def answer(model: Model, texts: Sequence[Input], batch_size: int, *, by_length: bool) -> list[Any]:
    """Labels in the order of the texts, whichever order they were answered in."""
    if not by_length:
        return list(model(texts, batch_size))
    order = sorted(range(len(texts)), key=lambda row: -_characters(texts[row]))
    labels: list[Any] = [None] * len(texts)
    for row, label in zip(order, model([texts[row] for row in order], batch_size), strict=True):
        labels[row] = label
    return labels


def one_by_one(model: Model, texts: Sequence[Input], *, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Seconds of each text, the next one given when the last is answered."""
    taken = []
    for text in texts:
        begin = clock()
        list(model([text], 1))  # as in `answer`: a label that is still to be looked up is no label
        taken.append(clock() - begin)
    return taken


def _some(texts: list[Input], count: int | None) -> list[Input]:
    if count is None or count >= len(texts):
        return texts
    return [texts[row] for row in np.linspace(0, len(texts) - 1, count).astype(int)]


def _characters(text: Input) -> int:
    return len(text) if isinstance(text, str) else sum(map(len, text))


def _in_one_line(error: BaseException) -> str:
    said = " ".join(str(error).split())
    if isinstance(error, CascadeError | PeerError):
        return said
    return f"{type(error).__name__}: {said}"[:400] if said else type(error).__name__


def _peak() -> float | None:
    """The most resident memory that this process has held, in MiB."""
    try:  # of this program alone: what getrusage says begins with the process that started it
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # only Unix has it
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    """The far end, as a process."""
    # The protocol keeps the real output; whatever a library prints, from C++ too, goes to standard error.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        from cascade_bench.peer_files import STEPS
        from cascade_bench.peer_kinds import KINDS

        serve(sys.stdin, out, loaders={key: kind.load for key, kind in KINDS.items()}, steps=STEPS)

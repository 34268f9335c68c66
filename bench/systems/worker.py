"""The far end of a system's process: obeys lines of JSON (`process`) until it is told to quit.

Seconds are taken here, around the work alone. Libraries that print cannot disturb the protocol: it has the first output
to itself, they get standard error. Its text also runs by itself in other installs (`compare`), so it imports the
standard library alone, and `cascade` by names that every version has.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

Clock = Callable[[], float]
OWN = ("CascadeError", "WorkerError")  # whose messages say all in one line


def obey(loaders: Mapping[str, Callable[[Any], Any]]) -> None:
    """Serve this process's own pipes. See `serve`."""
    # The protocol keeps the real output; whatever a library prints, from C++ too, goes to standard error.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        serve(sys.stdin, out, loaders=loaders)


def serve(
    lines: Iterable[str], out: IO[str], *, loaders: Mapping[str, Callable[[Any], Any]], clock: Clock = time.perf_counter
) -> None:
    """Obey until told to quit or the lines end. Loaders make a model from the fields of a job."""
    model: Any = None
    items: list[Any] = []
    for line in lines:
        request = json.loads(line)
        made: dict[str, Any] = {"ok": True}
        begin = clock()
        try:
            if request["do"] == "load":
                model, items = loaders[request["kind"]](request["job"]), items_of(request["job"])
                made["said"] = getattr(model, "said", "")
            elif request["do"] == "run":
                some, count = items, request["some"]
                if count is not None and count < len(items):  # spread evenly
                    some = [items[row * (len(items) - 1) // max(count - 1, 1)] for row in range(count)]
                begin = clock()
                made["labels"] = answer(model, some, request["batch_size"], by_length=request["by_length"])
            elif request["do"] == "single":
                made["latencies"] = one_by_one(model, [items[row] for row in request["rows"]], clock=clock)
            elif request["do"] == "quit":
                made["peak_mib"] = _peak()
            made["seconds"] = clock() - begin
        except BaseException as error:  # noqa: BLE001  # libraries raise anything, and the report goes on without them
            made = {"ok": False, "error": _in_one_line(error)}
        out.write(json.dumps(made) + "\n")
        out.flush()
        if request["do"] == "quit":
            return


def answer(model: Any, items: Sequence[Any], batch_size: int, *, by_length: bool) -> list[Any]:
    """Labels in the order of the items, whichever order they were answered in."""
    if not by_length:
        return list(model(items, batch_size))
    order = sorted(range(len(items)), key=lambda row: -len("".join(items[row])))
    labels: list[Any] = [None] * len(items)
    for row, label in zip(order, model([items[row] for row in order], batch_size), strict=True):
        labels[row] = label
    return labels


def one_by_one(model: Any, items: Sequence[Any], *, clock: Clock = time.perf_counter) -> list[float]:
    """Seconds of each item, the next one given when the last is answered."""
    taken = []
    for item in items:
        begin = clock()
        list(model([item], 1))  # as in `answer`: a label that is still to be looked up is no label
        taken.append(clock() - begin)
    return taken


def items_of(job: Mapping[str, Any]) -> list[Any]:
    """The texts, pairs or sentences of a job, from the fields of `process.Job`."""
    read: list[Any] = json.loads((Path(job["folder"]) / "texts.json").read_text(encoding="utf-8"))
    return read if job["tagging"] else [tuple(text) if isinstance(text, list) else text for text in read]


def _in_one_line(error: BaseException) -> str:
    said = " ".join(str(error).split())
    if {kind.__name__ for kind in type(error).__mro__} & set(OWN):
        return said
    return f"{type(error).__name__}: {said}"[:400] if said else type(error).__name__


def _peak() -> float | None:
    """The most resident memory that this process has held, in MiB; `None` where that cannot be known."""
    try:  # of this program alone: what getrusage says begins with the process that started it
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):  # only Linux says so
        return None


class _Install:
    """A bundle as configured, or at full depth, with whichever `cascade` is on the path."""

    def __init__(self, job: dict[str, Any], *, full: bool) -> None:
        cascade: Any = importlib.import_module("cascade")
        self.said = f"cascade {cascade.__version__} in {Path(cascade.__file__).parent}"
        pipeline = cascade.Tagger if job["tagging"] else cascade.Classifier
        self.model = pipeline.from_pretrained(job["model"], threads=job["threads"])
        if full:
            policies: Any = importlib.import_module("cascade.policies")
            self.model = self.model.with_router(policies.defer_all).with_exit_policy(policies.never)

    def __call__(self, items: Sequence[Any], _batch_size: int) -> Sequence[Any]:
        made = self.model.predict(items)
        return list(made.tags if hasattr(made, "tags") else made.labels)


INSTALLED = {"full": lambda job: _Install(job, full=True), "cascade": lambda job: _Install(job, full=False)}
"""Loaders of an install by kind, from the fields of a job."""

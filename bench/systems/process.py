"""A system in a process of its own: loaded, run and measured there, told what to do in lines of JSON over pipes.

    {"do": "load", "kind": ..., "job": {...}}                           -> {"ok": true, "seconds": ...}
    {"do": "run", "batch_size": 32, "by_length": false, "some": null}   -> and "labels"
    {"do": "single", "rows": [0, 7]}   answer these one at a time       -> and "latencies", a second each
    {"do": "quit"}                                                      -> and "peak_mib"

A fault is answered with `{"ok": false, "error": "one line"}`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import IO, Any, TypeAlias

from cascade_bench.systems.worker import items_of

Item: TypeAlias = "str | tuple[str, str] | list[str]"
"""A text, a pair, or a sentence of words."""

Answerer: TypeAlias = Callable[[Sequence[Item], int], Sequence[Any]]
"""From items and a batch size to labels, or to a list of tags each."""

LIMIT = 900.0  # seconds for one command: torch.compile may take minutes for its first batches
QUIT_LIMIT = 20.0
START = "from cascade_bench.systems.baselines import main; main()"


class WorkerError(Exception):
    """A system that could not do what it was told; the message is one line."""


@dataclass(frozen=True)
class Job:
    """What every system is given: the bundle, tier 2 as transformers reads it, tokens of a row at most.

    `folder`: where converted files are kept, and `texts.json` with the items. `tagging`: items are sentences of words.
    """

    model: str
    checkpoint: str
    folder: str
    threads: int
    max_length: int
    multi_label: bool = False
    tagging: bool = False

    def items(self) -> list[Item]:
        """The texts, or sentences, to answer."""
        return items_of(asdict(self))


def limits(threads: int) -> dict[str, str]:
    """What keeps libraries to a number of threads; they read these when they are imported."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
    return dict.fromkeys(names, str(threads)) | {"TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false"}


class WorkerProcess(AbstractContextManager["WorkerProcess"]):
    """The near end. Use it as a context manager: the process ends with the block, whatever happens.

    `command`: what to start; `systems.baselines` if left out. `limit`: seconds that one command may take.
    """

    def __init__(
        self,
        *,
        threads: int,
        command: Sequence[str] | None = None,
        limit: float = LIMIT,
        environment: Mapping[str, str] | None = None,
        folder: str | None = None,
    ) -> None:
        self._limit = limit
        self._late = False
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        self._process = subprocess.Popen(  # noqa: S603  # this package in this interpreter
            command or [sys.executable, "-c", START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            env={**os.environ, **limits(threads), **(environment or {})},
            cwd=folder,
        )

    def __exit__(self, *_failure: object) -> None:
        self.kill()

    def load(self, kind: str, job: Job) -> dict[str, Any]:
        """Load a kind; its `seconds`, and what the model `said` about itself."""
        return self._ask({"do": "load", "kind": kind, "job": asdict(job)})

    def run(self, *, batch_size: int = 0, by_length: bool = False, some: int | None = None) -> tuple[float, list[Any]]:
        """Answer `some` of the items, spread evenly (`None`: all); seconds inside the process, and labels in order.

        `by_length`: longest first, sorted as part of it.
        """
        made = self._ask({"do": "run", "batch_size": batch_size, "by_length": by_length, "some": some})
        labels = [tuple(label) if isinstance(label, list) else label for label in made["labels"]]
        return float(made["seconds"]), labels

    def single(self, rows: Sequence[int]) -> list[float]:
        """Answer these items one at a time; seconds of each. `rows`: their numbers, from 0."""
        return [float(taken) for taken in self._ask({"do": "single", "rows": list(rows)})["latencies"]]

    def quit(self) -> float | None:
        """End the process; the most memory that it held, in MiB, where that can be known."""
        self._limit = min(self._limit, QUIT_LIMIT)
        peak = self._ask({"do": "quit"})["peak_mib"]
        self.kill()
        return None if peak is None else float(peak)

    def kill(self) -> None:
        """End the process now, if it has not ended yet."""
        if self._errors.closed:
            return
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if self._process.stdin is None or self._process.stdout is None or self._errors.closed:
            raise WorkerError("its process has ended")
        timer = threading.Timer(self._limit, self._give_up)
        timer.start()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:  # it ended before it read the line
            line = ""
        finally:
            timer.cancel()
        if not line.endswith("\n"):
            raise WorkerError(self._end())
        made: dict[str, Any] = json.loads(line)
        if not made.pop("ok"):
            raise WorkerError(made["error"])
        return made

    def _give_up(self) -> None:
        self._late = True
        self._process.kill()

    def _end(self) -> str:
        if self._late:
            return f"it took longer than {self._limit:g} s"
        try:
            status = self._process.wait(QUIT_LIMIT)
        except subprocess.TimeoutExpired:
            status = None
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"its process ended with status {status}{f': {said[-1].strip()}' if said else ''}"

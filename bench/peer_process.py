"""A peer in a process of its own: loaded, run and measured there, told what to do in lines of JSON over pipes.

    {"do": "prepare", "kind": ..., "job": {...}}   make files that kinds need         -> {"ok": true, "seconds": ...}
    {"do": "load", "kind": ..., "job": {...}}                                         -> the same
    {"do": "run", "batch_size": 32, "by_length": false, "some": null}                 -> and "labels"
    {"do": "quit"}                                                                    -> and "peak_mib"

A fault is answered with `{"ok": false, "error": "one line"}`. Seconds are taken inside the process, around the work
alone. Libraries that print cannot disturb the protocol: it has the first output to itself, they get standard error.
It leaves to others: what the kinds are (`peer_kinds`), who runs when (`peers_table`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeAlias

import numpy as np

from cascade.exceptions import CascadeError
from cascade.tokenizer import Text

__all__ = ["Job", "Model", "PeerError", "PeerProcess", "Ran", "answer", "limits", "main", "serve"]

Model: TypeAlias = Callable[[Sequence[Text], int], Sequence[Any]]
"""From texts and a batch size to labels."""

LIMIT = 900.0  # seconds for one command: torch.compile may take minutes for its first batches
QUIT_LIMIT = 20.0


class PeerError(Exception):
    """A peer that could not do what it was told; the message is one line."""


@dataclass(frozen=True)
class Job:
    """What every peer is given.

    Attributes:
        model: the bundle, for this engine's own contestants.
        checkpoint: tier 2 as transformers reads it.
        folder: where converted files are kept, and `texts.json` with the texts.
        threads: how many.
        max_length: tokens of a row at most.
        multi_label: the labels are independent yes/no decisions.
    """

    model: str
    checkpoint: str
    folder: str
    threads: int
    max_length: int
    multi_label: bool = False

    def texts(self) -> list[Text]:
        """The texts to answer."""
        read = json.loads((Path(self.folder) / "texts.json").read_text(encoding="utf-8"))
        return [tuple(text) if isinstance(text, list) else text for text in read]


@dataclass(frozen=True)
class Ran:
    """One pass over the texts.

    Attributes:
        seconds: inside the process.
        labels: in the order of the texts.
    """

    seconds: float
    labels: list[Any]


def limits(threads: int) -> dict[str, str]:
    """What keeps libraries to a number of threads; they read these when they are imported."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
    return dict.fromkeys(names, str(threads)) | {"TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false"}


class PeerProcess:
    """The near end. Use it as a context manager: the process ends with the block, whatever happens.

    Args:
        threads: see `limits`.
        command: what to start; this module's far end if left out.
        limit: seconds that one command may take.
    """

    def __init__(self, *, threads: int, command: Sequence[str] | None = None, limit: float = LIMIT) -> None:
        self._limit = limit
        self._late = False
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        self._process = subprocess.Popen(  # noqa: S603  # this module in this interpreter
            command or [sys.executable, "-c", "from cascade_bench.peer_process import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            env={**os.environ, **limits(threads)},
        )

    def __enter__(self) -> PeerProcess:  # noqa: PYI034  # typing has Self from 3.11 on
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def prepare(self, step: str, job: Job) -> float:
        """Take a step of `peer_files`; seconds."""
        return float(self._ask({"do": "prepare", "kind": step, "job": asdict(job)})["seconds"])

    def load(self, kind: str, job: Job) -> float:
        """Load a kind; seconds."""
        return float(self._ask({"do": "load", "kind": kind, "job": asdict(job)})["seconds"])

    def run(self, *, batch_size: int, by_length: bool = False, some: int | None = None) -> Ran:
        """Answer the texts.

        Args:
            batch_size: texts in a batch.
            by_length: longest first, as far as characters tell; sorting is part of the work.
            some: so many of them, spread evenly; `None`: all.
        """
        made = self._ask({"do": "run", "batch_size": batch_size, "by_length": by_length, "some": some})
        labels = [tuple(label) if isinstance(label, list) else label for label in made["labels"]]
        return Ran(float(made["seconds"]), labels)

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
            raise PeerError("its process has ended")
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
            raise PeerError(self._end())
        made: dict[str, Any] = json.loads(line)
        if not made.pop("ok"):
            raise PeerError(made["error"])
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


def serve(
    lines: IO[str],
    out: IO[str],
    *,
    loaders: Mapping[str, Callable[[Job], Model]],
    steps: Mapping[str, Callable[[Job], None]],
) -> None:
    """The far end: obey until told to quit or the lines end.

    Args:
        lines: requests.
        out: answers.
        loaders: make a kind's model, by its key.
        steps: make files, by name.
    """
    held: tuple[Model, list[Text]] | None = None
    for line in lines:
        request = json.loads(line)
        made: dict[str, Any] = {"ok": True}
        begin = time.perf_counter()
        try:
            if request["do"] == "prepare":
                steps[request["kind"]](Job(**request["job"]))
            elif request["do"] == "load":
                job = Job(**request["job"])
                held = (loaders[request["kind"]](job), job.texts())
            elif request["do"] == "run" and held is not None:
                model, texts = held[0], _some(held[1], request["some"])
                begin = time.perf_counter()
                made["labels"] = answer(model, texts, request["batch_size"], by_length=request["by_length"])
            elif request["do"] == "quit":
                made["peak_mib"] = _peak()
            made["seconds"] = time.perf_counter() - begin
        except BaseException as error:  # noqa: BLE001  # libraries raise anything, and the report goes on without them
            made = {"ok": False, "error": _in_one_line(error)}
        out.write(json.dumps(made) + "\n")
        out.flush()
        if request["do"] == "quit":
            return


def answer(model: Model, texts: Sequence[Text], batch_size: int, *, by_length: bool) -> list[Any]:
    """Labels in the order of the texts, whichever order they were answered in."""
    if not by_length:
        return list(model(texts, batch_size))
    order = sorted(range(len(texts)), key=lambda row: -_characters(texts[row]))
    labels: list[Any] = [None] * len(texts)
    for row, label in zip(order, model([texts[row] for row in order], batch_size), strict=True):
        labels[row] = label
    return labels


def _some(texts: list[Text], count: int | None) -> list[Text]:
    if count is None or count >= len(texts):
        return texts
    return [texts[row] for row in np.linspace(0, len(texts) - 1, count).astype(int)]


def _characters(text: Text) -> int:
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

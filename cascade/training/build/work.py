"""The steps of a build: each one's folder is whole or absent, so that the same command goes on where it ended."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cascade.core.files import write

SHARES = {"original": 6, "frozen": 16, "static": 18, "transformer": 14, "tuned": 22, "export": 10, "choose": 14}
"""Parts of the time of each step, in their order."""
DONE, BEGUN = "done.json", "begun"
NO_ROOM, LEAST = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG), 1 << 20  # bytes


@dataclass(frozen=True)
class Step:
    """What a step left: its folder, the hash of all that went into it, and facts about it."""

    folder: Path
    digest: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Making:
    """What a step is made with.

    `folder`: to write into; `resume`: whether it holds what a step with the same inputs left when it was interrupted;
    `minutes`: that it may take; `progress`: to be called with the share that is done.
    """

    folder: Path
    resume: bool
    minutes: float
    progress: Callable[[float], object]


@dataclass(eq=False)
class Work:
    """A folder of steps, a clock and a bar.

    `folder`: beside the output; `minutes`: for all steps; `tell`: called with one line per finished step;
    `show_progress`: draw a bar on standard error.
    """

    folder: Path
    minutes: float
    tell: Callable[[str], object]
    show_progress: bool = False
    _end: float = field(init=False)
    _bar: Any = field(init=False)
    _left_out: set[str] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self._end = time.monotonic() + 60 * self.minutes
        self._bar = tqdm(
            total=100,
            desc="build",
            disable=not self.show_progress,
            leave=False,
            bar_format="{desc} {percentage:3.0f}% |{bar}| {elapsed}",
        )

    def minutes_of(self, name: str) -> float:
        """What the time that is left gives this step, those after it having their parts; half a minute at least."""
        names = [*SHARES]
        after = [SHARES[other] for other in names[names.index(name) :] if other not in self._left_out]
        return max((self._end - time.monotonic()) / 60 * after[0] / sum(after), min(0.5, self.minutes / 20))

    def step(
        self, name: str, inputs: Mapping[str, Any], make: Callable[[Making], Mapping[str, Any]], *, told: str
    ) -> Step:
        """The result of a step, made unless it is there for the same inputs.

        `inputs` are what decides the result; `make` returns facts, with which `told` becomes a line.
        """
        digest = hashlib.sha256(json.dumps([name, inputs], sort_keys=True, default=str).encode()).hexdigest()
        target, part = self.folder / name, self.folder / f"{name}.part"
        facts = _facts(target, digest)
        before = list(SHARES)[: list(SHARES).index(name)]
        start = sum(SHARES[other] for other in before)
        if facts is None:
            resume = part.is_dir() and (part / BEGUN).is_file() and (part / BEGUN).read_text() == digest
            if not resume:
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir(parents=True)
                write(part / BEGUN, digest)
            begin = time.monotonic()
            self._bar.set_description(name)
            made = Making(part, resume, self.minutes_of(name), lambda share: self._show(start + share * SHARES[name]))
            facts = {**make(made), "seconds": round(time.monotonic() - begin, 1)}
            write(part / DONE, json.dumps({"digest": digest, "facts": facts}))
            shutil.rmtree(target, ignore_errors=True)
            part.rename(target)
            self._tell(name, told.format(**facts), f"{facts['seconds']:.0f} s")
        else:
            self._tell(name, told.format(**facts), "there already")
        self._show(start + SHARES[name])
        return Step(target, digest, facts)

    def skip(self, name: str, why: str) -> None:
        """Say that a step is left out; its time is that of the others."""
        self._left_out.add(name)
        self._tell(name, f"left out: {why}", "")

    def is_full(self, error: BaseException) -> bool:
        """Whether an error, which may be torch's or safetensors' own, says that the disk is full."""
        told = any(isinstance(one, OSError) and one.errno in NO_ROOM for one in (error, error.__cause__))
        told = told or any(f"(os error {number})" in str(error) for number in NO_ROOM)
        return told or shutil.disk_usage(self.folder).free < LEAST

    def close(self) -> None:
        """End the bar."""
        self._bar.close()

    def _show(self, percent: float) -> None:
        self._bar.update(max(percent - self._bar.n, 0))

    def _tell(self, name: str, line: str, how_long: str) -> None:
        with tqdm.external_write_mode() if self.show_progress else nullcontext():
            self.tell(f"{name:<12} {line}{f', {how_long}' if how_long else ''}")


def _facts(folder: Path, digest: str) -> dict[str, Any] | None:
    """The facts of a finished step with this digest."""
    try:
        found = json.loads((folder / DONE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    facts: dict[str, Any] = found["facts"]
    return facts if found["digest"] == digest else None

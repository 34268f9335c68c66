"""Who works on a part: a file that its worker holds locked and touches, so that a dead worker's part is taken over.

On one machine the lock goes with the process. Of another machine's worker it is known only when it last touched its
file, so what a worker writes has its lease in its name, and a worker that has lost its lease gives no name to a part.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Final

from cascade.core.files import lock, locked

BEAT: Final = 10.0  # seconds
STALE: Final = 90.0  # seconds without a touch, after which a worker on another machine counts as dead


class Lease:
    """The right to work on a part, until the block ends or the process dies. Make one with `take`."""

    def __init__(self, path: Path) -> None:
        self.token = uuid.uuid4().hex[:12]
        self._path = path
        made = path.with_name(f"{path.stem}.{self.token}")
        made.write_text(f"{_machine()} {os.getpid()} {self.token}", encoding="utf-8")
        self._lock = lock(made)
        made.rename(path)  # whole from its first moment
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="cascade-lease", daemon=True)
        self._thread.start()

    @classmethod
    def take(cls, path: Path) -> Lease | None:
        """A lease of this file; `None` while another worker has it."""
        with locked(path.parent):
            if is_held(path):
                return None
            path.unlink(missing_ok=True)
            return cls(path)

    def held(self) -> bool:
        """Whether nobody has taken it over."""
        return _told(self._path).endswith(self.token)

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        if self.held():
            self._path.unlink()
        if self._lock is not None:
            os.close(self._lock)

    def _beat(self) -> None:
        while not self._end.wait(BEAT):
            with suppress(OSError):
                os.utime(self._path)


def _machine() -> str:
    """This machine since it was started."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return socket.gethostname()


def _told(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8")
    return ""


def is_held(path: Path) -> bool:
    """Whether a worker has this lease, and lives."""
    if not path.exists():
        return False
    try:
        handle = lock(path)
    except BlockingIOError:
        return True
    if handle is not None:
        os.close(handle)
        if _told(path).startswith(_machine()):
            return False
    clock = path.with_name("clock")  # the time of the machine that holds the files
    clock.touch()
    return clock.stat().st_mtime - path.stat().st_mtime < STALE

"""What is made beside its place, `.NAME.XXXXXXXX.partial`: locked while its maker lives, cleared if that was killed."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import shutil
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cascade.exceptions import CascadeWarning

# Windows has none: nothing is locked there, so nothing is known to be left over.
fcntl: Any = import_module("fcntl") if find_spec("fcntl") else None
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
NOT_ALL_OF_THE_NAME = 40


@contextmanager
def partial(target: Path, *, mode: int | None) -> Iterator[Path]:
    """A new file beside `target`, or without a `mode` a new folder; gone afterwards, unless it was renamed.

    What killed runs left of the same target is cleared first. An `OSError` of the making names the target.
    """
    clear(target)
    while True:
        made = target.with_name(f".{_stem(target)}.{uuid.uuid4().hex[:8]}.partial")
        try:
            if mode is None:
                made.mkdir()
            else:
                os.close(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
        except OSError as error:
            error.filename = str(target)
            raise
        with suppress(BlockingIOError):
            handle = _lock(made)
            if made.exists():
                break
            if handle is not None:  # another run took it for a leftover before it was locked
                os.close(handle)
    try:
        yield made
    finally:
        _remove(made)
        if handle is not None:
            os.close(handle)


def clear(target: Path) -> None:
    """Remove what killed runs left beside `target`; a folder that one had moved out of the way comes back."""
    left = re.compile(re.escape(f".{_stem(target)}.") + r"[0-9a-f]{8}\.(partial|old)")
    with suppress(OSError):  # a folder that cannot be listed
        for found in [one for one in os.listdir(target.parent) if left.fullmatch(one)]:  # noqa: PTH208  # names do
            path = target.with_name(found)
            if found.endswith(".old") and not target.exists():
                path.rename(target)
            elif found.endswith(".old"):
                _remove(path)
            else:
                with suppress(BlockingIOError):  # its maker lives
                    handle = _lock(path)
                    if handle is not None:
                        _remove(path)
                        os.close(handle)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder alone among runs that do so too, waiting for them; nothing is held where there are no locks."""
    handle = _lock(folder, wait=True)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def give_name(made: Path, target: Path) -> None:
    """Rename a finished folder. What has the name is exchanged with it in one step, where the system can do so."""
    if not target.exists():
        made.rename(target)
    elif not _exchanged(made, target):
        old = made.with_suffix(".old")
        warnings.warn(
            f"folders cannot be exchanged in one step here, so for a moment there is no {target}; if this run is "
            f"killed in that moment, {old} is what was there",
            CascadeWarning,
            stacklevel=2,
        )
        target.rename(old)
        try:
            made.rename(target)
        except BaseException:
            old.rename(target)
            raise
        _remove(old)


def _exchanged(one: Path, other: Path) -> bool:
    """Whether two names of one file system changed places in one step."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # another C library than glibc, another system than Linux
        return False
    if rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    error = ctypes.get_errno()
    if error in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):  # the kernel, or the file system
        return False
    raise OSError(error, os.strerror(error), str(other))


def _stem(target: Path) -> str:
    """The target's name; of a long one a beginning and a hash, so that there is room for more."""
    name = target.name
    if len(name) <= NOT_ALL_OF_THE_NAME:
        return name
    return f"{name[:NOT_ALL_OF_THE_NAME]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"


def _lock(path: Path, *, wait: bool = False) -> int | None:
    """What holds a lock until it is closed, `None` without locks; a `BlockingIOError` if another run has it.

    With `wait` its end is waited for.
    """
    if fcntl is None:
        return None
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise
    except OSError:  # a file system without locks
        os.close(handle)
        return None
    return handle


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()

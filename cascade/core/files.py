"""Writing files: a regular file appears whole or the old one stays; a device or a FIFO is written to.

What is made beside its place, `.NAME.XXXXXXXX.partial`, is locked while its maker lives, cleared if that was killed.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import shutil
import stat
import uuid
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

from cascade.exceptions import CascadeWarning, OptionError

# Windows has none: nothing is locked there, so nothing is known to be left over.
fcntl: Any = import_module("fcntl") if find_spec("fcntl") else None
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
NOT_ALL_OF_THE_NAME = 40
STREAMS = (1, 2)  # numbers of standard output and standard error


@contextmanager
def staged(file: str | Path) -> Iterator[Path]:
    """A path to write to in place of `file`; the file gets its name when the block ends without an exception.

    A link is followed; mode and owner of a file that is there are kept. Where `file` is a device or a FIFO, the path is
    `file` itself: renaming would destroy it. What standard output or standard error goes to (`/dev/stdout`) is written
    on, not replaced. What a killed run left is cleared. A folder or a socket is an `OptionError`; an `OSError` names
    `file`.
    """
    file = Path(file)
    there = _status(file)
    if there is not None and not stat.S_ISREG(there.st_mode):
        for is_wrong, what in ((stat.S_ISDIR, "a folder"), (stat.S_ISSOCK, "a socket")):
            if is_wrong(there.st_mode):
                raise OptionError(f"an output must be a file, got {what}: {file}; name a file")
        yield file
        return
    made = target = Path(os.path.realpath(file))
    try:
        with partial(target, mode=0o666 if there is None else 0o600) as made:
            mode = made.stat().st_mode
            yield made
            stream = next((one for one in STREAMS if there is not None and _is_same(there, one)), None)
            if stream is not None:
                with made.open("rb") as whole, os.fdopen(os.dup(stream), "wb") as out:
                    shutil.copyfileobj(whole, out)
                return
            if there is not None:
                mode = there.st_mode
                with suppress(OSError, AttributeError):  # only root may give files away; Windows has no owners
                    os.chown(made, there.st_uid, there.st_gid)
            made.chmod(stat.S_IMODE(mode))  # at the end: a mode without the right to write is kept too
            try:
                made.replace(target)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                shutil.copyfile(made, target)  # a mount of its own, as containers have single files
    except OSError as error:
        if error.filename in (str(made), str(target)):
            error.filename, error.filename2 = str(file), None
        raise


@contextmanager
def staged_folder(folder: str | Path) -> Iterator[Path]:
    """A folder to fill in place of `folder`, which gets its name when the block ends without an exception.

    A link is followed, a mode kept, what a killed run left cleared. What is there already is exchanged with the new one
    in one step and then removed; where the system cannot do so, a `CascadeWarning` says it.
    """
    target = Path(os.path.realpath(folder))
    with partial(target, mode=None) as made:
        yield made
        if target.exists():
            made.chmod(stat.S_IMODE(target.stat().st_mode))
        give_name(made, target)


@contextmanager
def text_stream(file: str | Path) -> Iterator[TextIO]:
    """A stream of UTF-8 to `file`, see `staged`. A lone surrogate, which has no UTF-8, is written as in `\\ud800`."""
    with staged(file) as path, path.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as stream:
        yield stream


def check_output(option: str, file: Path | None, *inputs: str | Path) -> None:
    """Before minutes of work: whether the file of an option can be written. `inputs`: files that it must not replace.

    A folder, a file in a folder that is missing and one of the inputs are an `OptionError`; `None` is no file.
    """
    if file is None:
        return
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise OptionError(f"{option} must be a file in a folder that is there, got {file}; make the folder first")
    refuse_same_file(file, inputs)


def check_new_folder(output: Path, *, overwrite: bool) -> None:
    """Before minutes of work: an `OptionError` where the output is a file, or a folder that holds something."""
    if output.is_file() or (output.is_dir() and any(output.iterdir()) and not overwrite):
        raise OptionError(f"the output must be a new or empty folder, got {output}; choose another or overwrite")


def write(file: str | Path, content: str | bytes) -> None:
    """Write all of a file, see `staged` and `text_stream`; an `OptionError` if it cannot be written."""
    if isinstance(content, str):
        content = content.encode("utf-8", "backslashreplace")
    try:
        with staged(file) as path:
            path.write_bytes(content)
    except OSError as error:
        raise OptionError(f"an output must be writable, got {file} ({error.strerror}); name another one") from error


def sha256_of(file: str | Path) -> str:
    """The hash of a file's bytes, in hexadecimal; an `OSError` if it cannot be read."""
    digest = hashlib.sha256()
    with Path(file).open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def refuse_same_file(output: str | Path, inputs: Iterable[str | Path | int]) -> None:
    """An `OptionError` if `output` is one of `inputs`, under whatever name: paths, or numbers of open files.

    It need not be there. A device or a FIFO is never refused: both ends may have the same name.
    """
    there = _status(output)
    if there is None or not stat.S_ISREG(there.st_mode):
        return
    for one in inputs:
        if _is_same(there, one):
            raise OptionError(f"an output must be another file than the input, got {output} for both; name another one")


def _status(file: str | Path) -> os.stat_result | None:
    try:
        return Path(file).stat()
    except FileNotFoundError:
        return None


def _is_same(there: os.stat_result, other: str | Path | int) -> bool:
    try:
        return os.path.samestat(there, os.stat(other))  # noqa: PTH116  # of a number too
    except OSError:  # the reader's fault to tell
        return False


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
            handle = lock(made)
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
                    handle = lock(path)
                    if handle is not None:
                        _remove(path)
                        os.close(handle)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder alone among runs that do so too, waiting for them; nothing is held where there are no locks."""
    handle = lock(folder, wait=True)
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


def lock(path: Path, *, wait: bool = False) -> int | None:
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

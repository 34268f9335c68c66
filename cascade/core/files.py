"""Writing files: a regular file appears whole or the old one stays; a device or a FIFO is written to."""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from cascade.exceptions import OptionError


@contextmanager
def staged(file: str | Path) -> Iterator[Path]:
    """A path to write to in place of `file`; the file gets its name when the block ends without an exception.

    A link is followed, and the mode of a file that is there is kept. Where `file` is a device or a FIFO, the path is
    `file` itself: renaming would destroy it. A folder or a socket is an `OptionError`; an `OSError` names `file`.
    """
    file = Path(file)
    there = _status(file)
    if there is not None and not stat.S_ISREG(there.st_mode):
        for is_wrong, what in ((stat.S_ISDIR, "a folder"), (stat.S_ISSOCK, "a socket")):
            if is_wrong(there.st_mode):
                raise OptionError(f"an output must be a file, got {what}: {file}; name a file")
        yield file
        return
    target = Path(os.path.realpath(file))
    partial = target.with_name(f".{target.name[:50]}.{uuid.uuid4().hex[:8]}.partial")
    try:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if there is None else 0o600)
        mode = stat.S_IMODE((there or os.fstat(handle)).st_mode)
        os.close(handle)
        yield partial
        partial.chmod(mode)  # at the end: a mode without the right to write is kept too
        partial.replace(target)
    except OSError as error:
        if error.filename == str(partial):
            error.filename, error.filename2 = str(file), None
        raise
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


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


def write(file: str | Path, content: str | bytes) -> None:
    """Write all of a file, see `staged` and `text_stream`; an `OptionError` if it cannot be written."""
    if isinstance(content, str):
        content = content.encode("utf-8", "backslashreplace")
    try:
        with staged(file) as path:
            path.write_bytes(content)
    except OSError as error:
        raise OptionError(
            f"an output must be a file that can be written, got {file} ({error.strerror}); name another one"
        ) from error


def refuse_same_file(output: str | Path, inputs: Iterable[str | Path | int]) -> None:
    """An `OptionError` if `output` is one of `inputs`, under whatever name: paths, or numbers of open files.

    It need not be there. A device or a FIFO is never refused: both ends may have the same name.
    """
    there = _status(output)
    if there is None or not stat.S_ISREG(there.st_mode):
        return
    for one in inputs:
        with suppress(OSError):  # the reader's fault to tell
            if os.path.samestat(there, os.stat(one)):  # noqa: PTH116  # of a number too
                raise OptionError(
                    f"an output must be another file than the input, got {output} for both; name another one"
                )


def _status(file: str | Path) -> os.stat_result | None:
    try:
        return Path(file).stat()
    except FileNotFoundError:
        return None

"""Writing files: a regular file appears whole or the old one stays; a device or a FIFO is written to."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from cascade.core.partial import give_name, partial
from cascade.exceptions import OptionError

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
        raise OptionError(
            f"an output must be a file that can be written, got {file} ({error.strerror}); name another one"
        ) from error


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

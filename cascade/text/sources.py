"""Where examples come from: files, pipes and standard input, packed by gzip or zstd or not, opened as bytes."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, TypeAlias, cast

from cascade.core.tables import require
from cascade.exceptions import DataError
from cascade.text.records import FileFormat

Source: TypeAlias = "str | Path | IO[bytes] | IO[str]"

SUFFIXES = {
    ".txt": FileFormat.TEXT,
    ".jsonl": FileFormat.JSONL,
    ".ndjson": FileFormat.JSONL,
    ".csv": FileFormat.CSV,
    ".tsv": FileFormat.TSV,
    ".parquet": FileFormat.PARQUET,
}
PACKED = (".gz", ".zst")
ARROW_SUFFIXES = (".arrow", ".feather", ".ipc")  # which jobs alone read
TABLE_FORMS = ("parquet", "jsonl", "csv")  # which jobs write


def format_of(path: Path) -> FileFormat | None:
    """What the suffix says, that in front of `.gz` or `.zst`; `None` where it is another one."""
    whole = Path(path.stem) if path.suffix.lower() in PACKED else path
    return SUFFIXES.get(whole.suffix.lower())


def name_of(source: Source) -> str:
    """What messages call it."""
    if isinstance(source, Path):
        return str(source)
    if source == "-" or source is sys.stdin:
        return "standard input"
    return str(getattr(source, "name", "the stream"))


def opened(source: Source) -> AbstractContextManager[IO[bytes] | IO[str]]:
    """Bytes where they can be had: a line that is not UTF-8 is then a fault of that line."""
    if isinstance(source, Path):
        pa = require("pyarrow", "reading .zst") if source.suffix.lower() == ".zst" else None
        try:
            if source.suffix.lower() == ".gz":
                return cast("IO[bytes]", gzip.open(source))
            file = source.open("rb")
        except OSError as error:
            raise DataError(f"{source} must be readable, but: {error.strerror}; check its permissions") from None
        return file if pa is None else io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd"))
    stream = sys.stdin if isinstance(source, str) else source
    if stream is None:
        raise DataError("standard input must be open, but it is closed; give a file")
    if isinstance(source, str):
        with suppress(OSError, ValueError):  # a stream that has no number, or is closed
            # With a buffer of its own: a thread that waits for sys.stdin's would abort the process at its end.
            return os.fdopen(stream.fileno(), "rb", closefd=False)
    return nullcontext(getattr(stream, "buffer", stream))


def check_there(files: Iterable[str | Path]) -> None:
    """Refuse paths of texts that are no files; a pipe is one. The first of them is a `DataError`."""
    for file in map(Path, files):
        if file.is_dir() or not file.exists():
            raise DataError(f"texts must be files, but there is no file {str(file)!r}; check the path")


@contextmanager
def regular(file: str | Path) -> Iterator[Path]:
    """The file itself; of a pipe a copy of all that it gives, of the format of its name: for who reads it twice."""
    file = Path(file)
    if file.is_file() or file.is_dir() or not file.exists():
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="cascade-") as folder:
        copy = Path(folder, file.name if format_of(file) else f"{file.name}.txt")
        with file.open("rb") as whole, copy.open("wb") as out:
            shutil.copyfileobj(whole, out)
        yield copy

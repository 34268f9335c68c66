"""Records in streams: text lines, JSON lines, csv and parquet, each with the number of its line.

A line that cannot be read becomes a fault in its place and the reading goes on; a fault of the stream as a whole is
raised. Memory does not grow with the stream.
"""

from __future__ import annotations

import csv
import enum
import io
import json
import reprlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, TypeAlias

from cascade.exceptions import MissingExtraError

__all__ = ["READERS", "Columns", "FileFormat", "LineError", "Lines", "Row", "StreamError", "require_pyarrow"]

LONGEST_RECORD = 1 << 22  # characters that one csv row may take; a quote that is never closed would swallow the file


class FileFormat(enum.Enum):
    """How a file holds examples.

    `TEXT` is one text per line, an empty line being an empty text. `JSONL` is one object per line; blank lines do not
    count. `CSV` has a header, commas, and quotes as in RFC 4180; blank lines do not count. All three are UTF-8.
    `PARQUET` needs pyarrow; its lines are rows, counted from 1.
    """

    TEXT = "txt"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


class LineError(Exception):
    """What is wrong with one line: rule and value. Never leaves `reading`."""


class StreamError(Exception):
    """What is wrong with a stream as a whole: rule, value and remedy. Never leaves `reading`."""


Row: TypeAlias = "tuple[int, dict[str, Any] | LineError]"


@dataclass(frozen=True)
class Columns:
    """Names of columns, and which have to be there beside the text. `words`: the text column holds lists of words."""

    text: str
    pair: str
    pair_required: bool
    label: str | None
    label_required: bool
    words: bool = False

    def missing(self, there: Mapping[str, Any] | list[str]) -> str | None:
        """The first column that has to be there and is not, said in words."""
        needed = [self.text, *([self.pair] * self.pair_required)]
        if self.label is not None and self.label_required:
            needed.append(self.label)
        for column in needed:
            if column not in there:
                columns = ", ".join(map(repr, there)) or "none"
                return f"there must be a column {column!r}, columns were: {columns}"
        return None


@dataclass
class Lines:
    """Numbered, decoded lines that can be given back."""

    stream: IO[bytes] | IO[str]
    number: int = 0
    waiting: deque[str | LineError] = field(default_factory=deque)

    def __iter__(self) -> Iterator[tuple[int, str | LineError]]:
        while True:
            line = self.next()
            if line is None:
                return
            yield self.number, line

    def next(self) -> str | LineError | None:
        if self.waiting:
            line: str | LineError | None = self.waiting.popleft()
        else:
            raw = self.stream.readline()
            line = self._decode(raw) if raw else None
        self.number += line is not None
        return line

    def give_back(self, lines: list[str | LineError]) -> None:
        self.waiting.extendleft(reversed(lines))
        self.number -= len(lines)

    def _decode(self, raw: bytes | str) -> str | LineError:
        if isinstance(raw, bytes):
            try:
                raw = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                return LineError(f"a line must be UTF-8, but byte {error.start + 1} was 0x{raw[error.start]:02x}")
        return raw.removeprefix("\ufeff") if self.number == 0 else raw


def _read_text_lines(stream: IO[bytes] | IO[str], columns: Columns) -> Iterator[Row]:
    for number, line in Lines(stream):
        if isinstance(line, LineError):
            yield number, line
        else:
            yield number, {columns.text: line.removesuffix("\n").removesuffix("\r")}


def _read_json_lines(stream: IO[bytes] | IO[str], _columns: Columns) -> Iterator[Row]:
    for number, line in Lines(stream):
        if isinstance(line, LineError):
            yield number, line
        elif line.strip():
            yield number, _parse_json(line.rstrip())


def _parse_json(line: str) -> dict[str, Any] | LineError:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        return LineError(
            f"a line must be JSON, but at character {error.pos + 1}: {error.msg}, was: {reprlib.repr(line)}"
        )
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        return LineError(f"a line must be JSON, but: {error}")
    if not isinstance(record, dict):
        return LineError(f"a line must be a JSON object, was: {type(record).__name__} ({reprlib.repr(record)})")
    return record


def _read_csv(stream: IO[bytes] | IO[str], columns: Columns) -> Iterator[Row]:
    lines = Lines(stream)
    header: list[str] | None = None
    while (row := _csv_row(lines, None if header is None else len(header))) is not None:
        number, fields = row
        if header is None:
            if isinstance(fields, LineError):
                raise StreamError(f"line {number}: {fields}; correct the header")
            missing = columns.missing(fields)
            if missing:
                raise StreamError(f"line {number}: {missing}; name one of them or add a header")
            twice = [column for column, count in Counter(fields).items() if count > 1]
            if twice:
                raise StreamError(f"line {number}: columns must be distinct, twice: {twice}; correct the header")
            header = fields
        elif isinstance(fields, LineError):
            yield number, fields
        else:
            yield number, dict(zip(header, fields, strict=True))


def _csv_row(lines: Lines, width: int | None) -> tuple[int, list[str] | LineError] | None:
    """The next row that is not blank, and the line on which it begins; None at the end.

    Where a row is broken the fault is its first line's, and reading goes on with the second: only the parser knows how
    many lines a row takes, and a quote that is never closed makes it take them all.
    """
    taken: list[str | LineError] = []

    def take() -> Iterator[str]:
        size = 0
        while (line := lines.next()) is not None:
            taken.append(line)
            if isinstance(line, LineError):
                raise line
            size += len(line)
            if size > LONGEST_RECORD:
                raise LineError(f"a row must have at most {LONGEST_RECORD} characters (or a quote is not closed)")
            yield line

    fields: list[str] | LineError
    while True:
        taken.clear()
        try:
            fields = next(csv.reader(take(), strict=True), [])
        except csv.Error as error:
            fields = LineError(f"a row must be csv with quotes closed and doubled, but: {error}")
        except LineError as fault:
            fields = fault
        if not taken:
            return None
        if fields and not isinstance(fields, LineError) and len(fields) != (width or len(fields)):
            fields = LineError(f"a row must have {width} fields as the header has, had: {len(fields)}")
        if isinstance(fields, LineError):
            lines.give_back(taken[1:])
            return lines.number, fields
        if fields:
            return lines.number - len(taken) + 1, fields


def _read_parquet(stream: IO[bytes] | IO[str], columns: Columns) -> Iterator[Row]:
    parquet = require_pyarrow()
    import pyarrow as pa

    try:
        file = parquet.ParquetFile(stream if stream.seekable() else io.BytesIO(stream.read()))  # type: ignore[arg-type]  # bytes
        missing = columns.missing(file.schema_arrow.names)
        if missing:
            raise StreamError(f"{missing}; name one of them")
        number = 0
        for batch in file.iter_batches(batch_size=1024):
            for record in batch.to_pylist():
                number += 1
                yield number, record
    except (pa.ArrowException, OSError) as error:
        raise StreamError(f"it must be a parquet file, but: {' '.join(str(error).split())}; write it again") from None


def require_pyarrow() -> Any:
    """The module `pyarrow.parquet`.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError(
            "reading parquet needs pyarrow, which is not installed; pip install 'cascade-encoder[train]', "
            "or give jsonl or csv"
        ) from None
    return pyarrow.parquet


READERS: Mapping[FileFormat, Callable[[IO[bytes] | IO[str], Columns], Iterator[Row]]] = {
    FileFormat.TEXT: _read_text_lines,
    FileFormat.JSONL: _read_json_lines,
    FileFormat.CSV: _read_csv,
    FileFormat.PARQUET: _read_parquet,
}

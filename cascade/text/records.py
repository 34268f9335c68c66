"""Records in streams: text lines, JSON lines, csv, tsv and parquet, each with the number of its line.

A line that cannot be read becomes a fault in its place and the reading goes on; a fault of the stream as a whole is
raised. Memory does not grow with the stream, and a line that is too long is a fault of that line.
"""

from __future__ import annotations

import csv
import enum
import io
import json
import reprlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import IO, Any, TypeAlias, TypeVar

from cascade.core.tables import require


class FileFormat(enum.Enum):
    """How a file holds examples.

    `TEXT` is one text per line, an empty line being an empty text. `JSONL` is one object per line; blank lines do not
    count. `CSV` has a header, commas, and quotes as in RFC 4180; blank lines do not count. All three are UTF-8.
    `PARQUET` needs pyarrow; its lines are rows, counted from 1.
    """

    TEXT = "txt"
    JSONL = "jsonl"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"


ENDS = (b"\n", "\n")
READING = "reading parquet"
MORE = 1 << 16  # bytes of a line that is too long, at a time


class LineError(Exception):
    """What is wrong with one line: rule and value. Never leaves `reading`."""


class StreamError(Exception):
    """What is wrong with a stream as a whole: rule, value and remedy. Never leaves `reading`."""


MAX_LINE = 64_000_000
"""Bytes that a line may have, and characters of a text in parquet."""
Row: TypeAlias = "tuple[int, dict[str, Any] | LineError]"


@dataclass(frozen=True)
class Columns:
    """Names of columns, and which have to be there beside the text. `words`: the text column holds lists of words.

    `separator`: of several labels in one string; `limit`: see `MAX_LINE`; `all`: records hold what else there is, too.
    """

    text: str
    pair: str
    pair_required: bool
    label: str | None
    label_required: bool
    words: bool = False
    separator: str | None = None
    limit: int = MAX_LINE
    all: bool = False

    def missing(self, there: Mapping[str, Any] | list[str]) -> str | None:
        """The first column that has to be there and is not, said in words."""
        needed = [*([self.text] if self.text else []), *([self.pair] * self.pair_required)]
        if self.label is not None and self.label_required:
            needed.append(self.label)
        for column in needed:
            if column not in there:
                columns = ", ".join(map(repr, there)) or "none"
                return f"there must be a column {column!r}, got {columns}"
        return None


class _Lines:
    """The decoded lines of a stream; `number` is that of the last one, `end` its last byte's. Not UTF-8: a `LineError`.

    So is a line of more bytes than the limit. A row of csv that has more over several lines is a `csv.Error`.
    """

    def __init__(self, stream: IO[bytes] | IO[str], limit: int) -> None:
        self.number = self.end = 0
        self.row = 0  # bytes since its beginning
        self._stream, self._limit = stream, limit

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        raw = self._stream.readline(self._limit + 1)
        if not raw:
            raise StopIteration
        self.number += 1
        self.end += len(raw)
        if len(raw) > self._limit and raw[-1:] not in ENDS:
            while more := self._stream.readline(MORE):
                self.end += len(more)
                if more[-1:] in ENDS:
                    break
            raise LineError(f"a line must have at most {self._limit:,} bytes (max_line), got more")
        self.row += len(raw)
        if self.row > self._limit + 1:
            raise csv.Error(f"more than {self._limit:,} bytes (max_line)")
        if isinstance(raw, bytes):
            try:
                raw = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                at = error.start
                raise LineError(f"a line must be UTF-8, got 0x{raw[at]:02x} as byte {at + 1}") from None
        return raw.removeprefix("\ufeff") if self.number == 1 else raw


Parsed = TypeVar("Parsed")


def _numbered(lines: _Lines, rows: Iterator[Parsed]) -> Iterator[tuple[int, Parsed | LineError]]:
    """What is made of the lines, each with the number of its first one; a fault takes the place of what it broke."""
    while True:
        first, lines.row = lines.number + 1, 0
        try:
            yield first, next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            to = f" up to line {lines.number}" if lines.number > first else ""
            yield first, LineError(f"a row must be csv with quotes closed and doubled, but{to}: {error}")
        except LineError as fault:
            yield lines.number, fault


def _read_lines(
    stream: IO[bytes] | IO[str], columns: Columns, *, parse: Callable[[str, Columns], dict[str, Any] | LineError | None]
) -> Iterator[Row]:
    """What each line is parsed as; those that are `None` do not count."""
    lines = _Lines(stream, columns.limit)
    for number, line in _numbered(lines, lines):
        record = line if isinstance(line, LineError) else parse(line, columns)
        if record is not None:
            yield number, record


def _parse_text(line: str, columns: Columns) -> dict[str, Any]:
    return {columns.text: line.removesuffix("\n").removesuffix("\r")}


def _parse_json(line: str, _columns: Columns) -> dict[str, Any] | LineError | None:
    line = line.rstrip()
    if not line:
        return None
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        return LineError(
            f"a line must be JSON, but at character {error.pos + 1}: {error.msg}, got {reprlib.repr(line)}"
        )
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        return LineError(f"a line must be JSON, but: {error}")
    if not isinstance(record, dict):
        return LineError(f"a line must be a JSON object, got {type(record).__name__} ({reprlib.repr(record)})")
    return record


def _read_csv(stream: IO[bytes] | IO[str], columns: Columns, *, delimiter: str = ",") -> Iterator[Row]:
    """Rows of csv. After a broken quote it goes on with the line behind the one on which the parser noticed it."""
    header: list[str] | None = None
    for number, fields, *_ in csv_rows(stream, columns.limit, delimiter):
        if header is None:
            if isinstance(fields, LineError):
                raise StreamError(f"line {number}: {fields}; correct the header")
            if fields:
                header = fields
                if missing := columns.missing(fields):
                    raise StreamError(f"line {number}: {missing}; name one of them or add a header")
                _check_distinct(fields, f"line {number}: ", "correct the header")
        elif isinstance(fields, LineError):
            yield number, fields
        elif fields and len(fields) != len(header):
            yield number, LineError(f"a row must have {len(header)} fields as the header has, got {len(fields)}")
        elif fields:
            yield number, dict(zip(header, fields, strict=True))


def csv_rows(
    stream: IO[bytes] | IO[str], limit: int, delimiter: str
) -> Iterator[tuple[int, list[str] | LineError, int, int]]:
    """Rows of csv, blank ones too: its first line, its fields, and the bytes and lines up to its end."""
    lines = _Lines(stream, limit)
    csv.field_size_limit(max(csv.field_size_limit(), limit))  # the process has one; `lines` keeps ours
    for number, fields in _numbered(lines, csv.reader(lines, strict=True, delimiter=delimiter)):
        yield number, fields, lines.end, lines.number


def _check_distinct(names: list[str], where: str, remedy: str) -> None:
    twice = [column for column, count in Counter(names).items() if count > 1]
    if twice:
        raise StreamError(f"{where}columns must be distinct, twice: {twice}; {remedy}")


def _read_parquet(stream: IO[bytes] | IO[str], columns: Columns) -> Iterator[Row]:
    """Rows of parquet. Columns that nobody asked for are not read, whatever they hold."""
    pa, parquet = require("pyarrow", READING), require("pyarrow.parquet", READING)

    try:
        file = parquet.ParquetFile(stream if stream.seekable() else io.BytesIO(stream.read()))  # type: ignore[arg-type]  # bytes
        there = file.schema_arrow.names
        missing = columns.missing(there)
        if missing:
            raise StreamError(f"{missing}; name one of them")
        _check_distinct(there, "", "write it again")
        asked = (columns.text, None if columns.words else columns.pair, columns.label)
        names = [name for name in there if columns.all or name in asked]
        rows = chain.from_iterable(
            zip(*(cells(batch.column(name), name, columns.limit) for name in names), strict=True)
            for batch in file.iter_batches(batch_size=1024, columns=names)
        )
        for number, row in enumerate(rows, start=1):
            fault = next((cell for cell in row if isinstance(cell, LineError)), None)
            yield number, fault or dict(zip(names, row, strict=True))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # names of columns may be no text
        raise StreamError(f"it must be a parquet file, but: {' '.join(str(error).split())}; write it again") from None


def cells(column: Any, name: str, limit: int) -> Iterator[Any]:
    """The values of a column; a `LineError` in the place of one that is no value or too long."""
    for cell in column:
        try:
            value = cell.as_py()
            if isinstance(value, str) and len(value) > limit:
                raise ValueError(f"it has more than {limit:,} characters (max_line)")
        except (ValueError, OverflowError, LookupError) as error:  # bytes that are no text, times out of range
            told = f"{error}" if not isinstance(error, UnicodeDecodeError) else f"it is not UTF-8: {error.reason}"
            value = LineError(f"column {name!r} must hold values that can be read, but {told}")
        yield value


READERS: Mapping[FileFormat, Callable[[IO[bytes] | IO[str], Columns], Iterator[Row]]] = {
    FileFormat.TEXT: partial(_read_lines, parse=_parse_text),
    FileFormat.JSONL: partial(_read_lines, parse=_parse_json),
    FileFormat.CSV: _read_csv,
    FileFormat.TSV: partial(_read_csv, delimiter="\t"),
    FileFormat.PARQUET: _read_parquet,
}

"""Examples from files: text lines, JSON lines, csv, tsv and parquet, one at a time.

Every line becomes an example or a fault with its number; a fault stops the reading, is skipped, or takes the place of
the example, as the caller chooses. Memory does not grow with the file.
"""

from __future__ import annotations

import enum
import reprlib
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascade.core.checks import check_whole
from cascade.core.labels import spelled
from cascade.core.tables import is_null, require
from cascade.exceptions import DataError, OptionError
from cascade.text.records import MAX_LINE, READERS, READING, Columns, FileFormat, LineError, StreamError
from cascade.text.sources import PACKED, SUFFIXES, Source, format_of, name_of, opened

REMEDY = "correct the line, or leave it out (as cascade predict --on-error skip does)"


ON_EMPTY = ("answer", "null", "error")
"""What an empty or blank text gets."""


class OnError(enum.Enum):
    """What a line that cannot be used does.

    `STOP` raises its error; `SKIP` reports it and goes on; `NULL` reports it and gives an example without a text, so
    that results keep the file's order and number.
    """

    STOP = "stop"
    SKIP = "skip"
    NULL = "null"


@dataclass(frozen=True)
class Example:
    """One line of a file, with its number from 1 (of a csv row, of the line on which it begins) and all columns.

    `text`: a text, a pair, or None where `error` or `tokens` is set; `label`: several for multi-label data, None
    without any; `error`: why the line cannot be used, only with `OnError.NULL`; `tokens`: words, only with
    `tokens_column`.
    """

    line: int
    text: str | tuple[str, str] | None
    label: str | tuple[str, ...] | None
    record: Mapping[str, Any]
    error: DataError | None = None
    tokens: list[str] | None = None

    @property
    def item(self) -> Any:
        """What a model reads: the words if there are any, else the text; `None` where neither can be read."""
        return self.text if self.tokens is None else self.tokens


def read_examples(
    source: Source,
    *,
    format: FileFormat | None = None,  # noqa: A002  # the word that everybody uses for it
    text_column: str = "text",
    pair_column: str = "text_pair",
    tokens_column: str | None = None,
    label_column: str | None = "label",
    label_separator: str | None = None,
    require_label: bool = False,
    all_columns: bool = False,
    max_line: int = MAX_LINE,
    lines_before: int | None = None,
    on_error: OnError = OnError.STOP,
    report: Callable[[DataError], object] | None = None,
) -> Iterator[Example]:
    """Read examples one by one.

    Labels may be strings, numbers (read as strings, 1.0 as 1) or, in JSON lines and parquet, lists of these.

    Args:
        source: a path (of a pipe too), `-` for standard input, or an open stream (bytes or text). A stream is not
            closed. Files whose suffix is `.gz` or, with pyarrow installed, `.zst` are unpacked.
        format: by the path's suffix if not given; text lines for streams and pipes.
        text_column: must be there (in text files: what the line is called in `record`); empty: of records alone.
        pair_column: the second text of a pair. May be missing or null under its default name.
        tokens_column: lists of words, read instead of texts and pairs.
        label_column: may be missing unless `require_label`. None: labels are not read, whatever the file has.
        label_separator: where labels are strings, what stands between several; an empty string then names none.
        require_label: a line without a label is an error.
        all_columns: of parquet, records hold all columns, not only those that are named here.
        max_line: bytes that a line, or a row of csv over several lines, may have, and characters of a cell of parquet;
            with more it is a bad line.
        lines_before: of a stream that is a part of a file, and may be empty: how many lines of the file come before.
        on_error: what a bad line does. A fault of the file as a whole always raises a `DataError`.
        report: called with every error that does not raise.
    """
    if label_column is None and require_label:
        raise OptionError("require_label must come with a label_column, got None; name the column")
    if label_separator == "":
        raise OptionError("label_separator must be one or more characters, got none; such as |")
    columns = Columns(
        text=text_column if tokens_column is None else tokens_column,
        pair=pair_column,
        pair_required=tokens_column is None and pair_column != "text_pair",
        label=label_column,
        label_required=require_label,
        words=tokens_column is not None,
        separator=label_separator,
        limit=check_whole("max_line", max_line, "leave it out for 64 MB"),
        all=all_columns,
    )
    path = None if source == "-" or not isinstance(source, (str, Path)) else Path(source)
    file_format = format or FileFormat.TEXT if path is None else _checked(path, format or format_of(path))
    if file_format is FileFormat.PARQUET:
        require("pyarrow.parquet", READING)  # a missing extra is said before anything is read
    return _examples(source if path is None else path, file_format, columns, lines_before, on_error, report)


def _checked(path: Path, file_format: FileFormat | None) -> FileFormat:
    try:
        there = path.stat()
    except OSError as error:
        what = "it is missing" if isinstance(error, FileNotFoundError) else error.strerror
        raise DataError(f"{path} must be a file of examples, but {what}; check the path") from None
    if stat.S_ISDIR(there.st_mode):
        raise DataError(f"{path} must be a file of examples, but it is a folder; check the path")
    if file_format is None and stat.S_ISREG(there.st_mode):  # a pipe has no name to speak of
        raise OptionError(
            f"the suffix of a file must be one of {', '.join(SUFFIXES)} (or one of these and {' or '.join(PACKED)}), "
            f"got {path.name}; rename it or give its format"
        )
    return file_format or FileFormat.TEXT


def _examples(
    source: Source,
    file_format: FileFormat,
    columns: Columns,
    lines_before: int | None,
    on_error: OnError,
    report: Callable[[DataError], object] | None,
) -> Iterator[Example]:
    name = name_of(source)
    empty = lines_before is None
    try:
        with opened(source) as stream:
            for number, record in READERS[file_format](stream, columns):
                empty, line = False, number + (lines_before or 0)
                try:
                    if isinstance(record, LineError):
                        raise record
                    example = _example(line, record, columns)
                except LineError as fault:
                    error = DataError(f"{name}, line {line}: {fault}; {REMEDY}")
                    if on_error is OnError.STOP:
                        raise error from None
                    if report is not None:
                        report(error)
                    if on_error is OnError.SKIP:
                        continue
                    known = {} if isinstance(record, LineError) else record
                    example = Example(line=line, text=None, label=None, record=known, error=error)
                yield example
    except StreamError as fault:
        raise DataError(f"{name}: {fault}") from None
    except (OSError, EOFError, zlib.error) as error:
        told = getattr(error, "strerror", None) or error
        raise DataError(f"{name} must be readable to its end, but: {told}; check the file") from None
    if empty:
        raise DataError(f"{name} must hold at least one example, but it is empty; check the file")


def _example(line: int, record: dict[str, Any], columns: Columns) -> Example:
    missing = columns.missing(record)
    if missing:
        raise LineError(missing)
    text: str | tuple[str, str] | None = None
    tokens = None
    if not columns.text:
        return Example(line=line, text=None, label=_label(record, columns), record=record)
    if columns.words:
        tokens = words_of(record[columns.text], columns.text)
    else:
        text, second = text_of(record[columns.text], columns.text), record.get(columns.pair)
        if second is not None or columns.pair_required:
            text = (text, text_of(second, columns.pair))
    return Example(line=line, text=text, label=_label(record, columns), record=record, tokens=tokens)


def text_of(value: object, column: str) -> str:
    """A value of a column of texts; a `LineError` if it is none."""
    if not isinstance(value, str):
        raise LineError(f"column {column!r} must be a string, got {type(value).__name__} ({reprlib.repr(value)})")
    return value


def words_of(value: object, column: str) -> list[str]:
    """A value of a column of lists of words; a `LineError` if it is none."""
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise LineError(
            f"column {column!r} must be a list of words, got {type(value).__name__} ({reprlib.repr(value)})"
        )
    return value


def _label(record: Mapping[str, Any], columns: Columns) -> str | tuple[str, ...] | None:
    if columns.label is None:
        return None
    value = record.get(columns.label)
    if columns.separator is not None and isinstance(value, str):
        return tuple(part.strip() for part in value.split(columns.separator) if part.strip())
    if value == "" or is_null(value):
        if columns.label_required:
            raise LineError(f"column {columns.label!r} must be a label, got {value!r}")
        return None
    values = value if isinstance(value, list) else [value]
    for one in values:
        if isinstance(one, bool) or not isinstance(one, (str, int, float)) or is_null(one):
            raise LineError(
                f"column {columns.label!r} must be a string, a number or a list of them, "
                f"got {type(one).__name__} ({reprlib.repr(value)})"
            )
    return tuple(map(spelled, values)) if isinstance(value, list) else spelled(value)

"""The files of a job: files, folders and patterns, and the columns of each, checked before anything runs."""

from __future__ import annotations

import glob
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeAlias

import pyarrow as pa

from cascade.core.files import sha256_of
from cascade.exceptions import DataError, OptionError
from cascade.jobs.settings import ALL, Settings
from cascade.jobs.tables import ARROW, TABLES, Table
from cascade.text.reading import OnError, read_examples
from cascade.text.records import FileFormat, csv_rows
from cascade.text.sources import ARROW_SUFFIXES, PACKED, SUFFIXES, format_of, opened

Types: TypeAlias = "dict[str, pa.DataType]"
DELIMITERS: Final = {FileFormat.CSV.value: ",", FileFormat.TSV.value: "\t"}
SAMPLE, SAMPLE_SIZE = 1000, 4 << 20
"""Rows of each jsonl file that say which columns there are, and of which types; fewer where they are long."""


@dataclass(frozen=True)
class Input:
    """A file of a job: its absolute path and the hash of its bytes.

    `form`: `arrow`, or the value of a `FileFormat`; `size`, `modified`: bytes, and nanoseconds since 1970; `head`: a
    csv up to the end of its header.
    """

    path: str
    form: str
    size: int
    modified: int
    sha256: str
    head: str = ""

    @classmethod
    def of(cls, path: Path, form: str, settings: Settings) -> Input:
        """A file, hashed."""
        there = path.stat()
        head = _header(path, form, settings)[1] if form in DELIMITERS else ""
        return cls(str(path), form, there.st_size, there.st_mtime_ns, sha256_of(path), head)

    def changed(self) -> str | None:
        """How the file differs from what it was, in words; its bytes are read only where its time alone is another."""
        try:
            there = Path(self.path).stat()
            if there.st_size != self.size:
                return f"{self.size:,} bytes became {there.st_size:,}"
            other = there.st_mtime_ns != self.modified and sha256_of(self.path) != self.sha256
        except OSError as error:
            return str(error.strerror)
        return "other bytes of the same number" if other else None


def find(given: Iterable[str | Path], form: FileFormat | None = None) -> list[tuple[Path, str]]:
    """The files that are meant, absolute and each with its format, in the order given.

    Those of a folder or a pattern (`data/**/*.parquet`) come by their names. In a folder a file counts if it has the
    suffix of a format, and no name on the way to it begins with `.` or `_`. `form`: of all files; by their suffixes if
    left out. No such file, or none in a folder, is a `DataError`; one that is named twice, or has an unknown suffix, an
    `OptionError`.
    """
    found: dict[Path, str] = {}
    for one in map(str, given):
        path = Path(one)
        some = [path] if path.exists() else sorted(map(Path, glob.glob(one, recursive=True)))  # noqa: PTH207  # absolute too
        if path.is_dir():
            below = ((file, file.relative_to(path).parts) for file in sorted(path.rglob("*")))
            some = [file for file, parts in below if not any(part[0] in "._" for part in parts) and _form(file, form)]
        files = [file for file in some if file.is_file()]
        if not files:
            what = "it can be read only once" if path.exists() and not path.is_dir() else "there is none"
            raise DataError(f"inputs must be files, folders or patterns, got {one}, but {what}; check the path")
        for file in files:
            kind, real = _form(file, form), file.resolve()
            if kind is None:
                known = ", ".join((*SUFFIXES, *ARROW_SUFFIXES))
                raise OptionError(
                    f"the suffix of an input must be one of {known} (of texts also with {' or '.join(PACKED)}), "
                    f"got {file.name}; rename it or give its format"
                )
            if real in found:
                raise OptionError(f"inputs must be distinct files, got {file} twice; leave one out")
            found[real] = kind
    return list(found.items())


def _form(file: Path, form: FileFormat | None) -> str | None:
    if form is None and file.suffix.lower() in ARROW_SUFFIXES:
        return ARROW
    found = form or format_of(file)
    return None if found is None else found.value


@contextmanager
def readable(path: str | Path, form: str) -> Iterator[None]:
    """What reading a file raises becomes a `DataError` that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
        told = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise DataError(f"{path} must be a whole {form} file, but: {told}; write it again") from None


def kept_columns(files: Sequence[tuple[Path, str]], settings: Settings) -> Types:
    """The columns that are kept, with their types; and whether every file has the columns that are read.

    Columns of text lines and csv are strings; those of jsonl have the types of the first rows, and may be missing. A
    file that lacks a column, or has it with another type than a file before, is a `DataError`.
    """
    found: Types = {}
    for number, (path, form) in enumerate(files):
        with readable(path, form):
            own = _columns(path, form, settings)
        names, loose = list(own) if settings.keep == ALL else settings.keep, form == FileFormat.JSONL.value
        odd = () if loose else ({*names} - {*own}) | ({*found} ^ {*names} if number else set())
        if odd:
            raise DataError(
                f"a column that is kept must be in all files, but {min(odd)!r} is not; {path} has {listed(own)}; "
                "name the columns to keep"
            )
        for name in names:
            kind, before = own.get(name, pa.null()), found.get(name, pa.null())
            if pa.null() not in (kind, before) and kind != before:
                raise DataError(
                    f"a column that is kept must have one type in all files, got {name!r} as {before} and as {kind} in "
                    f"{path}; leave it out of what is kept, or write the file again"
                )
            found[name] = before if kind == pa.null() else kind
    return {name: pa.string() if kind == pa.null() else kind for name, kind in found.items()}


def _columns(path: Path, form: str, settings: Settings) -> Types:
    """All columns of a file; a `DataError` unless those that are read are there, and hold texts or lists of words."""
    if form == FileFormat.JSONL.value:
        return _sampled(path, settings) if settings.keep else {}
    if form not in TABLES:
        names = _header(path, form, settings)[0] if form in DELIMITERS else [settings.text]
        return dict.fromkeys(names, pa.string())
    schema = Table(str(path), form).schema
    own = {field.name: plain(field.type) for field in schema}
    if len(own) < len(schema):
        raise DataError(f"columns must be distinct, got {listed(schema.names)} in {path}; write it again")
    for name in settings.needed:
        if name not in own:
            raise DataError(f"there must be a column {name!r}, got {listed(own)} in {path}; name one of them")
    for name in settings.read & {*own}:
        wanted = (pa.list_(pa.string()), "lists of words") if name == settings.tokens else (pa.string(), "strings")
        if own[name] != wanted[0]:
            raise DataError(f"column {name!r} must hold {wanted[1]}, got {own[name]} in {path}; name another one")
    return own


def _sampled(path: Path, settings: Settings) -> Types:
    """The columns in the first rows of a jsonl file."""
    values: dict[str, list[Any]] = {}
    left = SAMPLE_SIZE
    reading = settings.reading | {"on_error": OnError.NULL, "lines_before": 0}
    for example in islice(read_examples(path, format=FileFormat.JSONL, **reading), SAMPLE):
        for name, value in example.record.items():
            values.setdefault(name, []).append(value)
            left -= len(value) if isinstance(value, str) else 0
        if left < 0:
            break
    kinds: Types = {}
    for name in values if settings.keep == ALL else {*settings.keep} & {*values}:
        try:
            kinds[name] = pa.array(values[name]).type
        except (pa.ArrowException, ValueError, TypeError) as error:  # noqa: PERF203  # one column is enough
            raise DataError(
                f"a kept column must have one type, but {name!r} of {path}: {error}; leave it out"
            ) from None
    return kinds


def listed(names: Iterable[str]) -> str:
    """Names of columns in a message."""
    return ", ".join(map(repr, names)) or "none"


def plain(kind: pa.DataType) -> pa.DataType:
    """A type without the ways in which strings and lists may be held."""
    if pa.types.is_dictionary(kind):
        return plain(kind.value_type)
    if pa.types.is_large_string(kind) or str(kind) == "string_view":
        return pa.string()
    return pa.list_(plain(kind.value_type)) if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind


def _header(path: Path, form: str, settings: Settings) -> tuple[list[str], str]:
    """The names of a csv's columns, and the csv up to their end; a `DataError` without those that are read."""
    with opened(path) as stream:
        rows = csv_rows(stream, settings.max_line, DELIMITERS[form])
        fields, end = next((row[1:3] for row in rows if row[1]), ([], 0))
    with opened(path) as stream:
        head: Any = io.BytesIO(stream.read(end))  # type: ignore[arg-type]  # of bytes
    head.name = str(path)  # what messages call it
    list(read_examples(head, format=FileFormat(form), lines_before=0, **settings.reading))
    return fields if isinstance(fields, list) else [], head.getvalue().decode()

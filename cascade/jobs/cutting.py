"""Which rows of which files make a part: spans of rows, cut by rows and bytes, neighbouring files together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np

from cascade.core.rows import IntArray
from cascade.jobs.inputs import DELIMITERS, Input, readable
from cascade.jobs.settings import Settings
from cascade.jobs.tables import TABLES, Table
from cascade.text.records import csv_rows
from cascade.text.sources import opened

PART_BYTES = 64_000_000  # of texts and columns, unpacked
BLOCK = 1 << 20


@dataclass(frozen=True)
class Span:
    """Rows of a file that stand together.

    Attributes:
        file: number of the file.
        begin, end: of a table the first row and that behind the last, of others bytes of the unpacked file.
        rows: how many; of lines some of which may be blank, at most so many.
        line: lines of the file before them.
    """

    file: int
    begin: int
    end: int
    rows: int
    line: int = 0


Part: TypeAlias = tuple[Span, ...]


def cut(inputs: Sequence[Input], settings: Settings) -> list[Part]:
    """The parts of a job, in order; each has `part_rows` rows, or fewer where these have many bytes."""
    parts: list[list[Span]] = [[]]
    rows, size = settings.part_rows, PART_BYTES

    def add(span: Span, bytes_of: int) -> None:
        nonlocal rows, size
        parts[-1].append(span)
        rows, size = rows - span.rows, size - bytes_of
        if rows <= 0 or size <= 0:
            parts.append([])
            rows, size = settings.part_rows, PART_BYTES

    for number, one in enumerate(inputs):
        with readable(one.path, one.form):
            if one.form in TABLES:
                table = Table.of(one.path, one.form, [*settings.read, *settings.keep])
                at, last = 0, int(table.starts[-1])
                while at < last:
                    fit = max(min(rows, last - at, int(size / max(table.size, 1))), 1)
                    add(Span(number, at, at + fit, fit), int(fit * table.size))
                    at += fit
                continue
            at, line = one.head, one.head_lines
            for ends, lines in _ends(one, settings):
                done = 0
                while done < len(ends):  # those up to which the part takes them
                    fit = min(int(np.searchsorted(ends[done:], at + size, "right")), rows, len(ends) - done)
                    fit = max(fit, 1)
                    end = int(ends[done + fit - 1])
                    add(Span(number, at, end, fit, line), end - at)
                    at, line, done = end, int(lines[done + fit - 1]), done + fit
    return [part for part in map(_merged, parts) if part]


def _merged(spans: list[Span]) -> Part:
    made: list[Span] = []
    for span in spans:
        last = made[-1] if made else None
        if last is not None and (last.file, last.end) == (span.file, span.begin):
            made[-1] = Span(last.file, last.begin, span.end, last.rows + span.rows, last.line)
        else:
            made.append(span)
    return tuple(made)


def _ends(one: Input, settings: Settings) -> Iterator[tuple[IntArray, IntArray]]:
    """Where rows of lines end, in bytes of the unpacked file and in lines."""
    with opened(Path(one.path)) as stream:
        quoted = one.form in DELIMITERS and any(b'"' in block for block in iter(lambda: stream.read(BLOCK), b""))
    with opened(Path(one.path)) as stream:
        if quoted:  # a row may have several lines
            found = ((end, line) for *_, end, line in csv_rows(stream, settings.max_line, DELIMITERS[one.form]))
            rows = (row for row in found if row[0] > one.head)
            while some := list(islice(rows, 4096)):
                ends, lines = np.array(some, dtype=np.int64).T
                yield ends, lines
            return
        at = line = last = 0
        while block := cast(bytes, stream.read(BLOCK)):
            ends = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n")) + at + 1
            lines = line + np.arange(1, len(ends) + 1)
            at, line = at + len(block), line + len(ends)
            last = int(ends[-1]) if len(ends) else last
            yield ends[ends > one.head], lines[ends > one.head]
        if at > max(last, one.head):  # a last line without an end
            yield np.array([at]), np.array([line + 1])

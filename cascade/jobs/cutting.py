"""Which rows of which files make a part: spans of rows, cut by rows and bytes, neighbouring files together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, TypeAlias, cast

import numpy as np

from cascade.core.rows import IntArray
from cascade.jobs.inputs import DELIMITERS, Input, readable
from cascade.jobs.settings import Settings
from cascade.jobs.tables import TABLES, Table
from cascade.text.records import csv_rows
from cascade.text.sources import opened

PART_BYTES = 32_000_000  # of the columns that are read, unpacked; of lines all of a part is held
BLOCK = 1 << 20


@dataclass(frozen=True)
class Span:
    """Rows of a file that stand together: its number, and how many rows, of lines some of which may be blank, at most.

    `begin`, `end`: of a table the first row and that behind the last, of others bytes of the unpacked file; `line`:
    lines of the file before them.
    """

    file: int
    begin: int
    end: int
    rows: int
    line: int = 0


Part: TypeAlias = tuple[Span, ...]


def cut(inputs: Sequence[Input], settings: Settings, columns: Sequence[str]) -> Iterator[Part]:
    """The parts of a job, in order; each has `part_rows` rows, or fewer where their columns have many bytes."""
    part, rows, size = list[Span](), settings.part_rows, float(PART_BYTES)
    for number, one in enumerate(inputs):
        with readable(one.path, one.form):
            begin, line = len(one.head.encode()), one.head.count("\n")
            for ends, lines, weight in _ends(one, settings, columns):
                done = 0
                while done < len(ends):
                    fit = int(np.searchsorted(ends[done:], begin + size / weight, "right"))
                    fit = max(min(fit, rows, len(ends) - done), 1)
                    end = int(ends[done + fit - 1])
                    if part and part[-1].file == number:
                        part[-1] = replace(part[-1], end=end, rows=part[-1].rows + fit)
                    else:
                        part.append(Span(number, begin, end, fit, line))
                    rows, size = rows - fit, size - (end - begin) * weight
                    begin, line, done = end, int(lines[done + fit - 1]), done + fit
                    if rows <= 0 or size <= 0:
                        yield tuple(part)
                        part, rows, size = [], settings.part_rows, float(PART_BYTES)
    if part:
        yield tuple(part)


def _ends(one: Input, settings: Settings, columns: Sequence[str]) -> Iterator[tuple[IntArray, IntArray, float]]:
    """Where rows end, some thousands at a time, as in a `Span`: their ends, lines up to there, and bytes of a step."""
    if one.form in TABLES:
        table = Table(one.path, one.form, columns)
        for at in range(0, int(table.starts[-1]), BLOCK):
            ends = np.arange(at, min(at + BLOCK, int(table.starts[-1]))) + 1
            yield ends, ends, max(table.size, 1.0)
        return
    head, path = len(one.head.encode()), Path(one.path)
    with opened(path) as stream:
        quoted = one.form in DELIMITERS and any(b'"' in block for block in iter(lambda: stream.read(BLOCK), b""))
    with opened(path) as stream:
        rows: Iterator[tuple[int, int]] = _lines(cast("IO[bytes]", stream))
        if quoted:  # a row may have several lines
            rows = ((end, line) for *_, end, line in csv_rows(stream, settings.max_line, DELIMITERS[one.form]))
        while some := list(islice((row for row in rows if row[0] > head), 4096)):
            ends, lines = np.array(some, dtype=np.int64).T
            yield ends, lines, 1.0


def _lines(stream: IO[bytes]) -> Iterator[tuple[int, int]]:
    """Bytes and lines up to the end of each line."""
    end = line = last = 0
    while some := stream.readline(BLOCK):
        end += len(some)
        if some.endswith(b"\n"):
            line, last = line + 1, end
            yield end, line
    if end > last:
        yield end, line + 1

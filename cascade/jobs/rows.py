"""The rows of a part in blocks: what the model reads of each row, what is kept of it, and what is wrong with it.

Where blocks end depends on the rows from the part's first on, and on nothing else, so answers that depend on a block's
other rows are the same however often a job was stopped.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cascade.core.rows import IntArray
from cascade.jobs.cutting import BLOCK, Part, Span
from cascade.jobs.inputs import Input, Types, readable
from cascade.jobs.settings import ALL, Settings
from cascade.jobs.tables import ROWS, TABLES, Table
from cascade.text.reading import REMEDY, Example, OnError, read_examples, text_of, words_of
from cascade.text.records import FileFormat, LineError, cells
from cascade.text.sources import opened

BLOCK_ROWS, BLOCK_SIZE = 2048, 80_000
"""Of short texts enough that the few that are deferred fill batches, of long ones not much more: a kill costs half."""
LONG = 312  # characters, of which what is more counts a twelfth
FAULTS = (pa.ArrowException, ValueError, TypeError, OverflowError)  # of values that do not fit a column


@dataclass(frozen=True)
class Block:
    """Some rows. `items`: what the model reads, `None` of a row with a fault; `faults`: what is wrong, or `None`."""

    items: list[Any]
    faults: list[str | None]
    kept: pa.Table

    def __len__(self) -> int:
        return len(self.items)

    def slice(self, begin: int, end: int) -> Block:
        """Rows from `begin` to before `end`."""
        return Block(self.items[begin:end], self.faults[begin:end], self.kept.slice(begin, end - begin))

    @property
    def sizes(self) -> IntArray:
        """What each row counts: characters that are read, and a sixteenth of those that are kept. Shape `(rows,)`."""
        found = np.array([len(one) if isinstance(one, str) else sum(map(len, one or ())) for one in self.items])
        for column in self.kept.columns:
            if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
                import pyarrow.compute as pc  # a tenth of the time that a command needs to start

                found += pc.fill_null(pc.binary_length(column), 0).to_numpy() // 16
        return np.asarray(np.minimum(found, LONG) + found // 12)


def blocks(pieces: Iterable[Block]) -> Iterator[Block]:
    """The same rows in blocks of bounded size; a row alone may be larger."""
    held: list[Block] = []
    rows, size = BLOCK_ROWS, BLOCK_SIZE
    for piece in pieces:
        begin, ends = 0, np.concatenate(([0], np.cumsum(piece.sizes)))
        while begin < len(piece):
            end = int(np.searchsorted(ends, ends[begin] + size, "right")) - 1
            end = max(min(end, begin + rows), begin if held else begin + 1)
            held.append(piece.slice(begin, end))
            rows, size = rows - (end - begin), size - int(ends[end] - ends[begin])
            if end < len(piece):
                yield _joined(held)
                held, rows, size = [], BLOCK_ROWS, BLOCK_SIZE
            begin = end
    if held:
        yield _joined(held)


def _joined(held: Sequence[Block]) -> Block:
    items, faults = chain.from_iterable(one.items for one in held), chain.from_iterable(one.faults for one in held)
    return Block(list(items), list(faults), pa.concat_tables([one.kept for one in held]))


class Rows:
    """Reads parts one after the other; what stays open between them lets the next one go on in the same file."""

    def __init__(self, inputs: Sequence[Input], settings: Settings, kept: Types) -> None:
        self._inputs, self._settings = inputs, settings
        self._schema = pa.schema(list(kept.items()))
        self._open: Any = None
        self._file, self._at = -1, 0  # what is open, and up to where it is read
        self._left: Any = None  # rows of a table that are read and belong to the next part

    def close(self) -> None:
        """Close what is open."""
        if hasattr(self._open, "close"):
            self._open.close()
        self._open, self._left, self._file = None, None, -1

    def read(self, part: Part, skip: int = 0) -> Iterator[Block]:
        """The rows of a part but for the first few, some at a time."""
        for span in part:
            one = self._inputs[span.file]
            with readable(one.path, one.form):
                if one.form in TABLES:
                    yield from self._table(span, one, min(skip, span.rows))
                    skip = max(skip - span.rows, 0)
                    continue
                for piece in self._lines(span, one):
                    yield piece.slice(skip, len(piece))
                    skip = max(skip - len(piece), 0)

    def _table(self, span: Span, one: Input, skip: int) -> Iterator[Block]:
        at = span.begin + skip
        if (self._file, self._at) != (span.file, at):
            self.close()
            self._open = Table(one.path, one.form, [*self._settings.read, *self._schema.names]).batches(at)
            self._file, self._at = span.file, at
        while self._at < span.end:
            batch = self._left or next(self._open)
            fit = min(batch.num_rows, span.end - self._at)
            self._left = batch.slice(fit) if fit < batch.num_rows else None
            piece = self._piece(batch.slice(0, fit), f"{one.path}, row", self._at)
            self._at += fit
            yield piece

    def _piece(self, batch: pa.RecordBatch, where: str, before: int) -> Block:
        settings = self._settings
        faults: list[str | None] = [None] * batch.num_rows
        items = self._values(batch, settings.tokens or settings.text, faults)
        if settings.tokens is None and settings.pair in batch.schema.names:
            second = self._values(batch, settings.pair, faults)
            items = [one if two is None else (one, two) for one, two in zip(items, second, strict=True)]
        faults = [fault and f"{where} {before + n}: {fault}" for n, fault in enumerate(faults, start=1)]
        kept = pa.Table.from_batches([batch]).select(self._schema.names)
        return _block(items, faults, kept if kept.schema == self._schema else kept.cast(self._schema))

    def _values(self, batch: pa.RecordBatch, name: str, faults: list[Any]) -> list[Any]:
        """The values of a column; what is wrong with some goes to `faults`."""
        column, limit, optional = batch.column(name), self._settings.max_line, name not in self._settings.needed
        with suppress(*FAULTS):  # bytes that are no text; found below
            values: list[Any] = column.to_pylist()
            if set(map(type, values)) == {str} and max(map(len, values)) <= limit:
                return values
        values = list(cells(column, name, limit))
        for row, value in enumerate(values):
            try:
                if isinstance(value, LineError):
                    raise value
                if not (optional and value is None):
                    (words_of if name == self._settings.tokens else text_of)(value, name)
            except LineError as fault:  # noqa: PERF203  # few rows come here
                faults[row] = faults[row] or str(fault)
        return values

    def _lines(self, span: Span, one: Input) -> Iterator[Block]:
        if self._file != span.file or self._at > span.begin:
            self.close()
            self._open, self._file, self._at = opened(Path(one.path)), span.file, 0
        if self._open.seekable():
            self._at = self._open.seek(span.begin)
        while self._at < span.begin:
            self._at += len(self._open.read(min(span.begin - self._at, BLOCK)))
        content = self._open.read(span.end - span.begin)
        self._at += len(content)
        part: Any = io.BytesIO(one.head.encode() + content)
        part.name = one.path  # what messages call it
        before = span.line - one.head.count("\n")
        reading: dict[str, Any] = {"format": FileFormat(one.form), "lines_before": before, "on_error": OnError.NULL}
        examples = read_examples(part, **reading, **self._settings.reading)
        while some := list(islice(examples, ROWS)):
            faults = [None if one.error is None else str(one.error).removesuffix(f"; {REMEDY}") for one in some]
            yield _block([example.item for example in some], faults, self._kept(some, faults, one.path))

    def _kept(self, examples: list[Example], faults: list[str | None], path: str) -> pa.Table:
        def fault(row: int, told: str) -> None:
            faults[row] = faults[row] or f"{path}, line {examples[row].line}: {told}"

        columns, names = [], {*self._schema.names}
        for row, example in enumerate(examples) if self._settings.keep == ALL else ():
            if more := example.record.keys() - names:
                fault(row, f"columns must be those of the first rows of jsonl to be kept, got {min(more)!r} too")
        for field in self._schema:
            values = [example.record.get(field.name) for example in examples]
            if not _fits(values, field.type):
                for row in [row for row, value in enumerate(values) if not _fits([value], field.type)]:
                    told = f"must be {field.type} as in the first rows, got {values[row]!r:.80}"
                    fault(row, f"column {field.name!r} {told}")
                    values[row] = None
            columns.append(pa.array(values, field.type))
        return pa.table(columns, schema=self._schema)


def _block(items: list[Any], faults: list[str | None], kept: pa.Table) -> Block:
    if any(faults):
        items = [None if fault else item for item, fault in zip(items, faults, strict=True)]
    return Block(items, faults, kept)


def _fits(values: list[Any], kind: pa.DataType) -> bool:
    with suppress(*FAULTS):
        pa.array(values, kind)
        return True
    return False

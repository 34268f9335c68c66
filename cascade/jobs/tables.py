"""Parquet and Arrow files, a few hundred rows at a time from any row on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from cascade.core.rows import IntArray

ARROW: Final = "arrow"
TABLES: Final = (ARROW, "parquet")
ROWS, BYTES = 256, 4 << 20  # of what is read together


@dataclass(frozen=True)
class Table:
    """A file of a table.

    Attributes:
        schema: all of its columns.
        starts: the first row of each of its groups of rows, and at the end how many rows there are.
        size: bytes of a row of the columns that were asked for.
    """

    schema: pa.Schema
    starts: IntArray
    size: float
    _read: Any

    @classmethod
    def of(cls, path: str, form: str, columns: Sequence[str] = ()) -> Table:
        """Open a file. Arrow's two formats are both read, that of streams from its beginning."""
        if form != ARROW:
            parquet = pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)
            groups = [parquet.metadata.row_group(number) for number in range(parquet.num_row_groups)]
            sizes = [
                sum(one.total_uncompressed_size for one in map(group.column, range(group.num_columns))
                    if one.path_in_schema.split(".")[0] in columns)
                for group in groups
            ]  # fmt: skip
            return cls._of(parquet.schema_arrow, [group.num_rows for group in groups], sum(sizes), parquet)
        try:
            file = pa.ipc.open_file(pa.memory_map(path))
        except pa.ArrowInvalid:
            file = partial(_stream, path)
            schema, found = file().schema, iter(file())
        else:
            schema, found = file.schema, map(file.get_batch, range(file.num_record_batches))
        counts, size = [], 0
        for batch in found:
            counts.append(batch.num_rows)
            size += sum(batch.column(name).nbytes for name in columns if name in schema.names)
        return cls._of(schema, counts, size, file)

    @classmethod
    def _of(cls, schema: pa.Schema, counts: list[int], size: int, read: Any) -> Table:
        starts = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
        return cls(schema, starts, size / max(int(starts[-1]), 1), read)

    def batches(self, first: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """These columns, from this row on."""
        group = int(np.searchsorted(self.starts, first, "right")) - 1
        rows = int(min(max(BYTES / max(self.size, 1), 1), ROWS))
        rest, skip = range(group, len(self.starts) - 1), first - int(self.starts[group])
        if isinstance(self._read, pq.ParquetFile):
            found = self._read.iter_batches(
                batch_size=rows, row_groups=list(rest), columns=list(columns), use_threads=False
            )
        elif isinstance(self._read, partial):
            found = islice(self._read(), group, None)
        else:
            found = map(self._read.get_batch, rest)
        for batch in found:
            for at in range(min(skip, batch.num_rows), batch.num_rows, rows):
                yield batch.slice(at, rows).select(columns)
            skip = max(skip - batch.num_rows, 0)


def _stream(path: str) -> Any:
    return pa.ipc.open_stream(pa.memory_map(path))

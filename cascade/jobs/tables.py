"""Parquet and Arrow files, a few hundred rows at a time from any row on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

ARROW: Final = "arrow"
TABLES: Final = (ARROW, "parquet")
ROWS, BYTES = 256, 4 << 20  # of what is read together


class Table:
    """A file of a table. `columns`: those that will be read.

    `schema`: all columns; `starts`: the first row of each of its groups of rows, and at the end how many rows there
    are; `size`: bytes of a row in the columns that will be read.
    """

    def __init__(self, path: str, form: str, columns: Sequence[str] = ()) -> None:
        self._path, self._form, self._columns = path, form, columns
        if form == ARROW:
            self.schema = _arrow(path).schema
            groups = [(one.num_rows, one.select(self.names).nbytes) for one in _batches(path)]
        else:
            file = pq.ParquetFile(path)
            self.schema = file.schema_arrow
            found = map(file.metadata.row_group, range(file.num_row_groups))
            paths = [column.path.split(".")[0] for column in map(file.schema.column, range(len(file.schema)))]
            kept = [at for at, name in enumerate(paths) if name in self.names]
            groups = [(one.num_rows, sum(one.column(at).total_uncompressed_size for at in kept)) for one in found]
        counts, sizes = zip(*groups, strict=True) if groups else ((), ())
        self.starts = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
        self.size = sum(sizes) / max(int(self.starts[-1]), 1)

    @property
    def names(self) -> list[str]:
        """Those of the columns to be read that are there."""
        return [name for name in self.schema.names if name in self._columns]

    def batches(self, first: int) -> Iterator[pa.RecordBatch]:
        """The columns from this row on."""
        group = int(np.searchsorted(self.starts, first, "right")) - 1
        rows, skip = int(min(max(BYTES / max(self.size, 1), 1), ROWS)), first - int(self.starts[group])
        if self._form == ARROW:
            found = islice(_batches(self._path), group, None)
        else:
            file = pq.ParquetFile(self._path, buffer_size=1 << 20, pre_buffer=False)
            rest = list(range(group, file.num_row_groups))
            found = file.iter_batches(rows, row_groups=rest, columns=self.names, use_threads=False)
        for batch in found:
            for at in range(min(skip, batch.num_rows), batch.num_rows, rows):
                yield batch.slice(at, rows).select(self.names)
            skip = max(skip - batch.num_rows, 0)


def _arrow(path: str) -> Any:
    """A reader of either of Arrow's two formats; one of them has no index."""
    try:
        return pa.ipc.open_file(pa.memory_map(path))
    except pa.ArrowInvalid:
        return pa.ipc.open_stream(pa.memory_map(path))


def _batches(path: str) -> Iterator[pa.RecordBatch]:
    reader = _arrow(path)
    count = getattr(reader, "num_record_batches", None)
    yield from reader if count is None else map(reader.get_batch, range(count))

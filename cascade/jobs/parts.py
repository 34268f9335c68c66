"""What a job writes: blocks as they are answered, whole parts, and one file of all parts."""

from __future__ import annotations

import csv
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from cascade.core.files import staged
from cascade.core.results import Counts

COUNTS: Final = b"counts"
CHECKSUM: Final = 8  # bytes before a block
GROUP_ROWS, GROUP_BYTES = 65_536, 16 << 20  # of a group of rows in parquet


def write_block(path: Path, table: pa.Table, counts: Counts) -> None:
    """Write a block of answers and what was counted in it. Who writes it again while it is read writes the same."""
    sink = pa.BufferOutputStream()
    table = table.replace_schema_metadata({COUNTS: json.dumps(asdict(counts))})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content = sink.getvalue()
    with staged(path) as made:
        made.write_bytes(zlib.crc32(content).to_bytes(CHECKSUM, "big") + content.to_pybytes())


def read_block(path: Path) -> tuple[pa.Table, Counts]:
    """A block and what was counted; an `OSError` where there is none, or one that is not whole as the power failed."""
    content = path.read_bytes()
    if len(content) < CHECKSUM or zlib.crc32(content[CHECKSUM:]) != int.from_bytes(content[:CHECKSUM], "big"):
        raise OSError(f"{path} is not whole")
    table = pa.ipc.open_stream(pa.py_buffer(content)[CHECKSUM:]).read_all()
    return table.replace_schema_metadata(), Counts(**json.loads(table.schema.metadata[COUNTS]))


@contextmanager
def durable(path: Path) -> Iterator[Path]:
    """A path to write to in place of `path`, as `staged`; when the block ends all is on the disk, the name too."""
    with staged(path) as made:
        yield made
        _sync(made)
    _sync(path.parent)


def _sync(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # a folder on Windows
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write(path: Path, tables: Iterable[pa.Table], schema: pa.Schema, form: str, kept: int) -> None:
    """Write a part. `kept`: how many of the columns are the input's own, and are written as they are."""
    if form == "parquet":
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for group in _grouped(tables):
                writer.write_table(group if group.schema == schema else group.cast(schema))
        return
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as out:
        rows = csv.writer(out, lineterminator="\n")
        if form == "csv":
            rows.writerow(schema.names)
        for row in (row for table in tables for row in table.to_pylist()):
            shown = [value if at < kept else _shown(value) for at, value in enumerate(row.values())]
            if form == "csv":
                rows.writerow(_json(value) if isinstance(value, list | dict) else value for value in shown)
            else:
                out.write(_json(dict(zip(row, shown, strict=True))) + "\n")


def join(path: Path, parts: Sequence[Path], schema: pa.Schema, form: str) -> None:
    """Write all parts as one file."""
    if form == "parquet":
        files = map(pq.ParquetFile, parts)
        groups = (file.read_row_group(group) for file in files for group in range(file.num_row_groups))
        write(path, groups, schema, form, 0)
        return
    with path.open("wb") as out:
        for number, part in enumerate(parts):
            with part.open("rb") as stream:
                if form == "csv" and number:
                    stream.readline()
                shutil.copyfileobj(stream, out)


def _grouped(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(map(len, held)) >= GROUP_ROWS or sum(one.nbytes for one in held) >= GROUP_BYTES:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)  # dates, and numbers that JSON has not


def _shown(value: Any) -> Any:
    """A value with six digits behind the point, as in lines of `cascade predict`."""
    if isinstance(value, dict):
        return {name: _shown(one) for name, one in value.items()}
    if isinstance(value, list):
        return list(map(_shown, value))
    return round(value, 6) if isinstance(value, float) else value

"""Tables for the tests of jobs, in every format."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq

from tests.models.toy import WORDS


def texts(count: int, seed: int = 0) -> list[str]:
    """Texts of one to nine words that the toy bundle knows."""
    rng = Random(seed)
    return [" ".join(rng.choices(WORDS[4:], k=rng.randint(1, 9))) for _ in range(count)]


def write(path: Path, columns: Mapping[str, Any], rows: int = 100) -> Path:
    """A file of these columns in the format of its suffix; tables in groups of so many rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table, name = pa.table(dict(columns)), path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        pq.write_table(table, path, row_group_size=rows)
        return path
    if name.endswith(".feather"):
        pyarrow.feather.write_feather(table, path, chunksize=rows)
        return path
    if name.endswith((".arrow", ".ipc")):
        make = pa.ipc.new_file if name.endswith(".ipc") else pa.ipc.new_stream
        with path.open("wb") as sink, make(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=rows)
        return path
    out = io.StringIO()
    if name.endswith(".jsonl"):
        out.writelines(json.dumps(row) + "\n" for row in table.to_pylist())
    elif name.endswith(".txt"):
        out.writelines(f"{text}\n" for text in columns["text"])
    else:
        writing = csv.writer(out, delimiter="\t" if name.endswith(".tsv") else ",", lineterminator="\n")
        writing.writerow(table.column_names)
        writing.writerows(row.values() for row in table.to_pylist())
    content = out.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def seen(folder: Path) -> dict[str, bytes]:
    """What a user sees of an output: files and their bytes, without what the job keeps for itself."""
    found = [folder] if folder.is_file() else [path for path in folder.iterdir() if path.is_file()]
    return {path.name: path.read_bytes() for path in found}

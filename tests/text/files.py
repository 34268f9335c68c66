"""Files as the readers' tests write them."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def jsonl(*values: Any) -> str:
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def as_csv(rows: list[dict[str, Any]], delimiter: str = ",") -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def zstd(content: bytes) -> bytes:
    pa = pytest.importorskip("pyarrow")
    with pa.BufferOutputStream() as out:
        with pa.CompressedOutputStream(out, "zstd") as packing:
            packing.write(content)
        packed: bytes = out.getvalue().to_pybytes()
    return packed


PACK: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".zst": zstd}


class Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False

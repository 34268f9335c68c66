"""Any number of texts like those of a file: each is one of them, in which at most one word in ten is another text's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tests.test_floors import ROOT

DEMO = ROOT / "cascade" / "cli" / "demo"
GROUP = 100_000  # rows that are made and written together
RUN = 10  # words of which one at most is replaced


class Mix:
    """Words of texts, from which others are made, whole columns at once."""

    def __init__(self, *files: Path) -> None:
        records = [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]
        texts = pa.array([one["text"] if "text" in one else " ".join(one["tokens"]) for one in records])
        words = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(texts))
        self._words = words.flatten()
        self._first = words.offsets.to_numpy()[:-1].astype(np.int64)
        self._lengths = np.diff(words.offsets.to_numpy())

    @classmethod
    def of(cls, bundle: str, like: Path | None = None) -> Mix:
        """Like a file of JSON lines with `text` or `tokens`; like the demo's of this bundle, or else all of these."""
        own = DEMO / f"{Path(bundle).name}.jsonl"
        return cls(*([like] if like else [own] if own.exists() else sorted(DEMO.glob("*.jsonl"))))

    def texts(self, rows: int, *seed: int) -> pa.Array:
        """So many texts; the same for the same seed."""
        rng = np.random.default_rng(seed)
        chosen = rng.integers(len(self._first), size=rows)
        lengths = self._lengths[chosen]
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        numbers = np.repeat(self._first[chosen] - offsets[:-1], lengths) + np.arange(offsets[-1])
        runs = -(-lengths // RUN)
        in_row = np.arange(runs.sum()) - np.repeat(np.cumsum(runs) - runs, runs)
        place = in_row * RUN + rng.integers(RUN, size=len(in_row))  # the last run may be shorter, and keep its words
        there = place < np.repeat(lengths, runs)
        place = (place + np.repeat(offsets[:-1], runs))[there]
        numbers[place] = rng.integers(len(self._words), size=len(place))
        taken = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), self._words.take(pa.array(numbers)))
        return pc.binary_join(taken, " ")

    def write(self, path: Path, rows: int, seed: int) -> None:
        """A parquet file with the columns `id` and `text`; memory does not grow with the rows."""
        with pq.ParquetWriter(path, pa.schema([("id", pa.int64()), ("text", pa.string())])) as writer:
            for begin, count in groups(rows):
                ids = pa.array(np.arange(begin, begin + count))
                writer.write_table(pa.table({"id": ids, "text": self.texts(count, seed, begin)}))


def groups(rows: int) -> Iterator[tuple[int, int]]:
    """Where each group of rows begins, and how many it has."""
    yield from ((begin, min(GROUP, rows - begin)) for begin in range(0, rows, GROUP))

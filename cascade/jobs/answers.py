"""What a block is answered with, as columns beside those that are kept of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from cascade.core.results import Counts, Stats
from cascade.core.tables import predictions_table, tags_table
from cascade.exceptions import DataError
from cascade.jobs.rows import Block
from cascade.jobs.settings import Settings
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.text.texts import is_empty

AnyPipeline: TypeAlias = "Classifier | Tagger"


def answered(pipeline: AnyPipeline, block: Block, settings: Settings) -> tuple[pa.Table, Counts]:
    """The columns of the output for a block, and what was counted.

    A row that cannot be read, or is empty, and must stop the job is a `DataError`.
    """
    if settings.on_error == "stop" and any(block.faults):
        fault = next(filter(None, block.faults))
        raise DataError(f"{fault}; correct it, or go on with --on-error skip")
    empty = [row for row, item in enumerate(block.items) if item is not None and is_empty(item)]
    if settings.on_empty == "error" and empty:
        raise DataError(
            f"a text must have a character that is no blank, got {block.items[empty[0]]!r:.80}; correct it, or give "
            "--on-empty null"
        )
    there = np.fromiter((item is not None for item in block.items), dtype=bool, count=len(block))
    read = there.copy()
    read[empty if settings.on_empty == "null" else []] = False
    asked = [item for item, given in zip(block.items, read.tolist(), strict=True) if given]
    table, stats = ask(pipeline, asked, settings)
    counts = Counts(len(block), int((~there).sum()), len(empty), stats.truncated, stats.units, stats.deferred)
    if not read.all():
        table = table.take(pa.array(np.cumsum(read) - 1, mask=~read))
    columns = {name: block.kept.column(name) for name in block.kept.column_names}
    columns |= {settings.prefix + name: table.column(name) for name in table.column_names}
    if settings.on_error == "null":
        columns[settings.prefix + "error"] = pa.array(block.faults, pa.string())
    made = pa.table(columns)
    return (made.filter(pa.array(there)) if settings.on_error == "skip" and not there.all() else made), counts


def ask(pipeline: AnyPipeline, items: list[Any], settings: Settings) -> tuple[pa.Table, Stats]:
    """The answers for items, without those that could not be read: columns, and statistics."""
    if isinstance(pipeline, Classifier):
        answers = pipeline.predict(items)
        table = predictions_table(answers, routes=settings.routes)
        if settings.top_k is not None:
            table = table.append_column("top", _top(answers.probabilities, pipeline.labels, settings.top_k))
        return table, answers.stats
    if settings.strategy is not None:
        found = pipeline(items, aggregation_strategy=settings.strategy) if items else []
        return pa.table({"entities": pa.array(found, _entities(settings.strategy))}), Stats(len(items))
    tags = pipeline.predict(items) if settings.tokens is not None else pipeline.predict_texts(items)
    words = items if tags.spans is None else _words(items, tags)
    table = tags_table(tags, routes=settings.routes)
    return table.add_column(0, "tokens", pa.array(words, pa.list_(pa.string()))), tags.stats


def _words(texts: Sequence[str], tags: Any) -> list[list[str]]:
    spans, offsets = tags.spans.tolist(), tags.offsets.tolist()
    return [
        [text[begin:end] for begin, end in spans[first:last]]
        for text, first, last in zip(texts, offsets[:-1], offsets[1:], strict=True)
    ]


def _top(chances: Any, labels: Sequence[str], count: int) -> pa.Array:
    """The likeliest labels of each row, a list of `{label, score}`."""
    order = np.argsort(-chances, axis=1, kind="stable")[:, :count]
    scores = np.take_along_axis(chances, order, axis=1).astype(np.float32)
    names = pa.array(labels).take(pa.array(order.ravel()))
    both = pa.StructArray.from_arrays([names, pa.array(scores.ravel())], ["label", "score"])
    return pa.ListArray.from_arrays(pa.array(np.arange(len(order) + 1, dtype=np.int32) * order.shape[1]), both)


def _entities(strategy: str) -> pa.DataType:
    whole = strategy != "none"
    fields = [("entity_group" if whole else "entity", pa.string()), ("score", pa.float32())]
    fields += [] if whole else [("index", pa.int32())]
    return pa.list_(pa.struct([*fields, ("word", pa.string()), ("start", pa.int32()), ("end", pa.int32())]))

"""A curve as text for terminals, and as JSON with every candidate and every raw sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cascade_bench.curve.measuring import Curve
from cascade_bench.table.rendering import as_entry, columns
from cascade_bench.timing.console import grid
from cascade_bench.timing.machine import in_words
from cascade_bench.timing.report_json import document


def as_text(curve: Curve, machine: Mapping[str, Any]) -> str:
    """For terminals."""
    cells = columns(curve.table)
    rows = [["*" if one.ahead else "", *(cell(one.row) for cell in cells.values())] for one in curve.timed]
    shown = grid(["front", *cells], rows, left=2)
    return "\n".join([shown, "", *curve.table.data.notes, *_method(curve), in_words(machine)])


def as_json(curve: Curve, machine: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, Any]:
    """Everything. `details`: what was run, such as model, data and command."""
    data = curve.table.data
    entries = []
    for one in curve.timed:
        more = {"letter": one.letter, "setting": one.setting.to_json()} if one.setting is not None else {}
        entries.append(as_entry(one.row, curve.table, "curve", front=one.ahead, **more))
    return document(
        machine,
        entries,
        details=dict(details),
        metric=data.metric,
        notes=list(data.notes),
        data_sha256=data.sha256,
        tried=[
            {"setting": point.setting.to_json(), data.metric: point.accuracy, "seconds_of_one_pass": point.seconds}
            for point in curve.tried
        ],
        orders=curve.table.turns.orders,
    )


def _method(curve: Curve) -> list[str]:
    table = curve.table
    timed = (
        f"{len(table.data)} {table.data.unit}, end to end with tokenisation, {len(table.turns.orders)} interleaved "
        "repeats; a speed-up is the median of ratios of seconds within a repeat, over tier 2 at full depth, in "
        "brackets its 95 % interval (another coverage is named). *: nothing else is both faster and as good."
    )
    tried = f"Lettered settings: of the front of {len(curve.tried)} that ran once, chosen on these rows."
    return [timed, tried] if curve.tried else [timed]

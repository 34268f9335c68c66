"""A curve as text for terminals, as rows for a page, and as JSON with every placed point and every raw sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from cascade.core.console import table as aligned
from cascade.exceptions import OptionError
from cascade.policies import exits, routing, windows
from cascade_bench.contenders import FULL
from cascade_bench.curve import Curve, Timed
from cascade_bench.machine import in_words
from cascade_bench.plane import Estimate, Setting, front
from cascade_bench.render import ratio
from cascade_bench.report_json import document, of_row

__all__ = ["as_json", "as_text", "cells", "method", "settings"]


def as_text(curve: Curve, machine: Mapping[str, Any]) -> str:
    """For terminals."""
    head, rows = cells(curve)
    lines = [aligned(head, rows, right=tuple(range(2, len(head)))), ""]
    lines += [f"{letter}: {setting}" for letter, setting in settings(curve)]
    lines += ["", *curve.given.notes, *method(curve), in_words(dict(machine))]
    return "\n".join(lines)


def cells(curve: Curve) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of what was timed."""
    unit, count = curve.table.unit, curve.table.count
    entities = any(one.row.f1 is not None for one in curve.timed)
    head = ["front", "setting", curve.given.metric, "points", *(["entity F1"] if entities else []), "deferred"]
    head += ["mean exit", "seconds", f"{unit}/s", "tokens/s", "speed-up, timed", "estimated", "error"]
    rows = []
    for one in curve.timed:
        row, seconds = one.row, one.row.median_seconds
        base = row.key == FULL
        rows.append(
            [
                "*" if one.ahead else "",
                row.name,
                f"{row.accuracy:.2%}",
                f"{row.against_full * 100:+.2f}",
                *(["" if row.f1 is None else f"{row.f1:.2%}"] if entities else []),
                "" if row.deferred is None else f"{row.deferred:.1%}",
                "" if row.mean_layer is None else f"{row.mean_layer:.2f}",
                f"{seconds:.3g}",
                f"{count / seconds:,.0f}",
                f"{curve.sweep.tokens / seconds:,.0f}",
                ratio(row.over_full),
                "" if base else f"{one.estimate.speed_up:.2f}",
                "" if base else f"{one.error:+.0%}",
            ]
        )
    return head, rows


def settings(curve: Curve) -> list[tuple[str, str]]:
    """What the letters of the figure stand for."""
    return [(one.letter, str(one.estimate.setting)) for one in curve.timed if one.letter]


def method(curve: Curve) -> list[str]:
    """Sentences that say which figure is measured and which estimated."""
    sweep, table = curve.sweep, curve.table
    middle, most = curve.errors
    repeats = len(table.turns.orders)
    half = sweep.random[len(sweep.random) // 2]
    units = "sentences" if table.unit == "words" else "texts"
    slow, fast = sweep.random[-1], sweep.random[0]
    timed = (
        "Timed: seconds, rates and speed-ups in this table, end to end with tokenisation, in "
        f"{repeats} interleaved repeats over {table.count} {table.unit}; a speed-up is the median of ratios of seconds "
        "within a repeat, over tier 2 at full depth, in brackets its 95 % interval (another coverage is named). "
        f"{curve.given.metric.capitalize()}, deferred and mean exit are of a run too. "
        "*: nothing else timed is both faster and at least as good."
    )
    estimated = (
        f"Estimated: {len(sweep.points)} settings were placed by replaying the scores of one run, with costs per token "
        f"that were measured and tied to a few settings run end to end; {len(front(sweep.points))} of them are on the "
        f"estimated front. Against the timed speed-ups the replay is off by {middle:.0%} in the median and by "
        f"{most:.0%} at the most."
    )
    oracle = sweep.oracle
    bounds = (
        f"Bounds, estimated: an oracle router is right on {oracle.accuracy:.2%} at {oracle.speed_up:.2f} times the "
        f"speed (deferring {oracle.deferred:.1%}); deferring random {units} goes from {fast.accuracy:.2%} at "
        f"{fast.speed_up:.2f} over {half.accuracy:.2%} at {half.speed_up:.2f} to {slow.accuracy:.2%} at "
        f"{slow.speed_up:.2f} times the speed."
    )
    if table.unit == "texts" and sweep.rows != table.count:
        estimated += f" In the replay each of {sweep.rows} windows of the texts counts by itself."
    return [timed, estimated, bounds]


def as_json(curve: Curve, machine: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, Any]:
    """Everything. `details`: what was run, such as model, data and command."""
    sweep = curve.sweep
    middle, most = curve.errors
    ahead = {id(point) for point in front(sweep.points)}
    return document(
        machine,
        [_benchmark(one, curve) for one in curve.timed],
        extra={
            "details": dict(details),
            "metric": curve.given.metric,
            "notes": list(curve.given.notes),
            "method": method(curve),
            "data_sha256": curve.given.sha256,
            "rows": sweep.rows,
            "tokens": sweep.tokens,
            "costs_seconds_per_token": [asdict(costs) for costs in sweep.costs],
            "curve": [{**_estimated(point), "front": id(point) in ahead} for point in sweep.points],
            "bounds": {"oracle": _estimated(sweep.oracle), "random": [_estimated(point) for point in sweep.random]},
            "replay_error": {"median": middle, "largest": most},
            "orders": curve.table.turns.orders,
        },
    )


def _benchmark(one: Timed, curve: Curve) -> dict[str, Any]:
    seconds = one.row.median_seconds
    return of_row(
        one.row,
        curve.table,
        "curve",
        letter=one.letter or None,
        front=one.ahead,
        tokens_per_second=curve.sweep.tokens / seconds,
        per_second=curve.table.count / seconds,
        estimate=_estimated(one.estimate),
        error_of_estimate=None if one.row.key == FULL else one.error,
    )


def _estimated(point: Estimate) -> dict[str, Any]:
    return {
        "kind": point.kind,
        "setting": None if point.setting is None else _setting(point.setting),
        "accuracy": point.accuracy,
        "deferred": point.deferred,
        "mean_layer": point.mean_layer,
        "estimated_seconds": point.seconds,
        "estimated_speed_up": point.speed_up,
    }


def _setting(setting: Setting) -> dict[str, Any]:
    made: dict[str, Any] = {
        "router": routing.to_json(setting.router),
        "exit_policy": exits.to_json(setting.exit_policy),
    }
    if setting.windows is not None:
        try:
            made["windows"] = windows.to_json(setting.windows)
        except OptionError:  # a function of somebody's own, which has no written form
            made["windows"] = repr(setting.windows)
    if setting.batching is not None:
        made["batching"] = repr(setting.batching)
    return made

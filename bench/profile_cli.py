"""`cascade-bench profile`: its options, its tables, its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from cascade.bundle.manifest import TAGGING
from cascade.bundle.opening import open_bundle
from cascade.core.console import table as aligned
from cascade.exceptions import OptionError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.runtime.threads import check_threads
from cascade_bench import machine
from cascade_bench.console import bar, check_json
from cascade_bench.options import json_option, model_argument, threads_option
from cascade_bench.parts import LENGTHS, ROWS, parts, points
from cascade_bench.report_json import benchmark, document, write_json
from cascade_bench.statistics import Interval

if TYPE_CHECKING:
    from cascade_bench.profile import Profile

__all__ = ["as_json", "as_text", "profile", "whole_numbers"]

MOST_OPERATORS = 12


def whole_numbers(_context: click.Context, option: click.Parameter, value: str) -> tuple[int, ...]:
    """The numbers of an option, with commas between."""
    found = value.replace(" ", "").split(",")
    if not all(number.isdecimal() and int(number) for number in found):
        raise OptionError(f"--{option.name} must be whole numbers with commas between, was: {value}; write 1,16,64")
    return tuple(map(int, found))


@click.command(short_help="Milliseconds per tier and stage, by operator, and as a share of the host's ceiling.")
@model_argument
@click.option("--rows", default=",".join(map(str, ROWS)), show_default=True, callback=whole_numbers, metavar="N,N,...",
              help="Rows of a batch.")  # fmt: skip
@click.option("--lengths", default=",".join(map(str, LENGTHS)), show_default=True, callback=whole_numbers,
              metavar="N,N,...", help="Tokens of its longest row.")  # fmt: skip
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True, metavar="N", help="Turns of each.")
@threads_option
@json_option
def profile(
    model: str,
    rows: tuple[int, ...],
    lengths: tuple[int, ...],
    repeats: int,
    threads: int | None,
    json_file: Path | None,
) -> None:
    """Where the time goes: what each tier and stage costs by tokens and rows, by operator, and what the host could do.

    MODEL is a folder or a Hub id, of a classifier or a tagger. Every graph runs by itself over a grid of batches,
    beside bare matrix products in fp32 and int8, all in turns. About two minutes with the default grid.

    \b
    Example:
      cascade-bench profile models/sentiment
      cascade-bench profile models/sentiment --rows 1,32 --lengths 16,64,256 --threads 2 --json profile.json
    """
    from cascade_bench.profile import measure  # onnx is an extra's, and not every command needs it

    check_json(json_file)
    count = check_threads(threads)
    manifest = open_bundle(model).manifest
    face = (Tagger if manifest.task == TAGGING else Classifier).from_pretrained(model, threads=count)
    grid = points(rows, lengths, max_length=min(manifest.tier1.max_length, manifest.tier2.max_length))
    before = machine.facts(threads=count)
    with bar() as step:
        made = measure(parts(face), grid, threads=count, repeats=repeats, progress=step)
    click.echo(as_text(made, before))
    if json_file is not None:
        write_json(json_file, as_json(made, before, {"model": model, "repeats": repeats}))


def as_text(made: Profile, facts: Mapping[str, Any]) -> str:
    """For terminals."""
    blocks = [
        "Milliseconds of one batch (medians):",
        _grid(made),
        "Cost model: fixed + per token + per row + per token x longest row; errors at points left out of the fit.",
        _models(made),
        f"Share of the time by operator, {made.reference.name} tokens:",
        _operators(made),
        f"Against the host's own ceiling, {made.reference.name} tokens:",
        _shares(made),
        _method(made),
        machine.in_words(dict(facts)),
    ]
    return "\n\n".join(blocks)


def as_json(made: Profile, facts: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, in pytest-benchmark's shape: an entry per part and point, and one per matrix product."""
    benchmarks = [
        benchmark(
            "profile",
            f"{key} {point.name}",
            seconds,
            iterations=made.turns.plans[f"{key} {point.name}"].passes,
            info={"part": key, **asdict(point.size), "mixed": point.mixed},
        )
        for (key, point), seconds in made.seconds.items()
    ]
    for product in made.rates:
        data = [value for value in made.turns.seconds[product.name] if value is not None]
        passes = made.turns.plans[product.name].passes
        info = {**asdict(product), "operations": product.operations}
        benchmarks.append(benchmark("ceiling", product.name, data, iterations=passes, info=info))
    return document(
        facts,
        benchmarks,
        details=dict(details),
        orders=made.turns.orders,
        cost_models={key: asdict(found) for key, found in made.models.items()},
        reference=made.reference.name,
        operators={key: dict(seen.seconds) for key, seen in made.operators.items()},
        shares={key: asdict(share) for key, share in made.shares.items()},
    )


def _grid(made: Profile) -> str:
    head = ["rows x longest", "tokens", *made.keys.values()]
    rows = [
        [point.name, str(point.size.tokens), *(f"{_ms(made.seconds[key, point]):.2f}" for key in made.keys)]
        for point in made.points
    ]
    return aligned(head, rows, right=range(1, len(head)))


def _models(made: Profile) -> str:
    head = ["", "fixed µs", "token µs", "row µs", "token x longest ns", "median error", "largest"]
    rows = [
        [
            made.keys[key],
            f"{found.fixed * 1e6:.0f}",
            f"{found.per_token * 1e6:.2f}",
            f"{found.per_row * 1e6:.2f}",
            f"{found.per_token_and_longest * 1e9:.2f}",
            f"{found.median_error:.0%}",
            f"{found.largest_error:.0%}",
        ]
        for key, found in made.models.items()
    ]
    return aligned(head, rows, right=range(1, len(head)))


def _operators(made: Profile) -> str:
    """A column per part, the stages together."""
    stages = [key for key in made.keys if key.startswith("stage-")]
    columns = {**{made.keys[key]: [key] for key in made.keys if key not in stages}, "all stages": stages}
    summed: dict[str, dict[str, float]] = {}
    for name, keys in columns.items():
        for key in keys:
            for operator, seconds in made.operators[key].seconds.items():
                own = summed.setdefault(operator, {})
                own[name] = own.get(name, 0.0) + seconds
    totals = {name: sum(own.get(name, 0.0) for own in summed.values()) for name in columns}
    order = sorted(summed, key=lambda operator: -sum(summed[operator].values()))[:MOST_OPERATORS]
    rows = [
        [operator, *(f"{summed[operator].get(name, 0.0) / (totals[name] or 1.0):.1%}" for name in columns)]
        for operator in order
    ]
    return aligned(["operator", *columns], rows, right=range(1, len(columns) + 1))


def _shares(made: Profile) -> str:
    head = ["", "ms", "int8 Gop", "fp32 Gop", "products alone", "share of the ceiling"]
    rows = [
        [
            made.keys[key],
            f"{_ms(made.seconds[key, made.reference]):.2f}",
            f"{share.operations.get('int8', 0) / 1e9:.2f}",
            f"{share.operations.get('fp32', 0) / 1e9:.2f}",
            _percent(share.products),
            _percent(share.ceiling),
        ]
        for key, share in made.shares.items()
    ]
    shown = aligned(head, rows, right=range(1, len(head)))
    rates = [[product.name, f"{rate.median / 1e9:,.0f}", f"{rate.low / 1e9:,.0f} to {rate.high / 1e9:,.0f}"]
             for product, rate in made.rates.items()]  # fmt: skip
    return f"{shown}\n\n{aligned(['product', 'Gop/s', 'interval'], rates, right=(1, 2))}"


def _method(made: Profile) -> str:
    return (
        f"{len(made.turns.orders)} interleaved repeats on all threads. Products alone: how much of a part's time its "
        "matrix products take when nothing but they run, in their own shapes. Share of the ceiling: how much of it its "
        "operations would take at the rate of the 2048x1024x1024 products. Both are medians of ratios within a repeat, "
        "in brackets their intervals (95 %, or the coverage named)."
    )


def _percent(share: Interval) -> str:
    covered = "" if share.coverage >= 0.95 else f" ({share.coverage:.0%})"
    return f"{share.median:.0%} [{share.low:.0%}, {share.high:.0%}]{covered}"


def _ms(seconds: Sequence[float]) -> float:
    return median(seconds) * 1e3

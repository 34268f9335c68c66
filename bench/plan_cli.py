"""`cascade-bench plan`: its options, its table, its file. It leaves to others: measuring (`planning`)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cascade.classifier import Classifier
from cascade.cli.show import table as aligned
from cascade.plan import Plan
from cascade.planner import NOISY, Planner
from cascade.reading import read_examples
from cascade.threads import check_threads
from cascade_bench import machine
from cascade_bench.console import bar, check_json
from cascade_bench.options import json_option, model_argument, threads_option
from cascade_bench.planning import Planned, measure
from cascade_bench.profile_cli import whole_numbers
from cascade_bench.report_json import benchmark, document, write_json

__all__ = ["as_json", "as_text", "plan"]

SIZES = (1, 8, 32, 128)


@click.command(short_help="How a workload is best run here: predicted seconds beside measured ones.")
@model_argument
@click.option("--data", "file", required=True, metavar="FILE", help="Texts, labelled or not: txt, jsonl, csv, parquet.")
@click.option("--text-column", default="text", show_default=True, metavar="NAME", help="The texts.")
@click.option("--pair-column", default="text_pair", show_default=True, metavar="NAME", help="The second texts.")
@click.option("--calls", default=",".join(map(str, SIZES)), show_default=True, callback=whole_numbers,
              metavar="N,N,...", help="Texts of a call; all at once come besides.")  # fmt: skip
@click.option("--again", is_flag=True, help="Measure this host again instead of reading what was kept.")
@click.option("--repeats", type=click.IntRange(min=1), default=7, show_default=True, metavar="N", help="Turns of each.")
@threads_option
@json_option
def plan(
    model: str,
    file: str,
    text_column: str,
    pair_column: str,
    calls: tuple[int, ...],
    again: bool,
    repeats: int,
    threads: int | None,
    json_file: Path | None,
) -> None:
    """How a workload is best cut into batches on this host, what that should take, and what it really takes.

    MODEL is a folder or a Hub id, of a classifier. What its parts cost is measured once, in a few seconds, and kept in
    the user's cache folder. Every second text is looked at, to see who is deferred and where rows leave tier 2; the
    others run, with the default batching and by the plan, in turns. A plan changes no answer.

    \b
    Example:
      cascade-bench plan models/sentiment --data dev.jsonl
      cascade-bench plan models/sentiment --data dev.jsonl --calls 1,64 --threads 2 --again --json plan.json
    """
    check_json(json_file)
    count = check_threads(threads)
    classifier = Classifier.from_pretrained(model, threads=count)
    examples = read_examples(file, text_column=text_column, pair_column=pair_column)
    texts = [example.text for example in examples if example.text is not None]
    before = machine.facts(threads=count)
    planner = Planner.measure(classifier, again=again, show_progress=sys.stderr.isatty())
    with bar() as step:
        made = measure(classifier, planner, texts, calls, repeats=repeats, progress=step)
    click.echo(as_text(made, before))
    if json_file is not None:
        details = {"model": model, "data": Path(file).name, "repeats": repeats, "costs": planner.costs.to_json()}
        write_json(json_file, as_json(made, before, details))


def as_text(made: Planned, facts: Mapping[str, Any]) -> str:
    """For terminals."""
    head = ["", "texts of a call", "predicted s", "measured s", "error", "times as fast as the default"]
    rows = []
    for line in made.lines:
        gain = made.gains.get(line.call) if line.key.startswith("plan ") else None
        shown = "" if gain is None else f"{gain.median:.3f} [{gain.low:.3f}, {gain.high:.3f}]"
        size = "all" if line.call is None else str(line.call)
        rows.append([line.name, size, f"{line.predicted:.4g}", f"{line.measured:.4g}", f"{line.error:+.0%}", shown])
    whole = made.plans[None]
    blocks = [
        f"{made.texts} texts; every way ran in {len(made.turns.orders)} interleaved repeats.",
        aligned(head, rows, right=(1, 2, 3, 4, 5)),
        "\n".join(f"{_calls(call)}: {_in_words(one)}" for call, one in made.plans.items()),
        f"{whole.reason[0].upper()}{whole.reason[1:]}.",
        f"Merging what remains of batches spares {whole.merging_saves:.3g} s of {whole.predicted.tier2:.3g} in tier 2.",
        _stops(whole),
        _error(whole),
        machine.in_words(dict(facts)),
    ]
    return "\n\n".join(block for block in blocks if block)


def as_json(made: Planned, facts: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, in pytest-benchmark's shape: an entry per way that ran."""
    benchmarks = [
        benchmark(
            "plan",
            line.key,
            [value for value in line.seconds if value is not None],
            iterations=made.turns.plans[line.key].passes,
            info={"texts_of_a_call": line.call, "predicted": line.predicted, "seconds_by_repeat": list(line.seconds)},
        )
        for line in made.lines
    ]
    plans = [
        {
            "texts_of_a_call": call,
            "tier1": repr(one.tier1),
            "tier2": repr(one.tier2),
            "together": one.together,
            "pool_from": one.pool_from,
            "stream": asdict(one.stream),
            "predicted": asdict(one.predicted),
            "default": asdict(one.default),
            "exits": asdict(one.exits),
            "full": asdict(one.full),
            "merging_saves": one.merging_saves,
            "stops": [asdict(stop) for stop in one.stops],
            "verdict": one.verdict.value,
            "reason": one.reason,
            "error": one.error,
        }
        for call, one in made.plans.items()
    ]
    return document(facts, benchmarks, details=dict(details), orders=made.turns.orders, plans=plans)


def _calls(call: int | None) -> str:
    return "All at once" if call is None else f"{call} a call"


def _in_words(one: Plan) -> str:
    if one.is_default:
        return "the default; nothing else is predicted to be clearly faster"
    first, second = one.pool_from
    return (
        f"tier 1 {one.tier1!r}, tier 2 {one.tier2!r}, {one.together} batches together, "
        f"all threads for one batch from {first} and {second} tokens"
    )


def _stops(one: Plan) -> str:
    told = [
        f"layer {stop.layer} {stop.leaving:.0%} leave, {stop.saves * 1e3:.2f} ms saved for {stop.costs * 1e3:.2f}"
        for stop in one.stops
    ]
    return f"Stops of a full batch: {'; '.join(told)}." if told else ""


def _error(one: Plan) -> str:
    told = f"The fit is {one.error:.0%} off at batches that it had not seen (the worst graph's median)."
    return told if one.error <= NOISY else f"{told} Too much to plan by: use --again on a quiet machine."

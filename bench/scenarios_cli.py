"""`cascade-bench scenarios`: its options, its tables, its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click

from cascade.bundle.manifest import TAGGING
from cascade.bundle.opening import open_bundle
from cascade.cli.show import duration
from cascade.core.console import table as aligned
from cascade.exceptions import DataError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.runtime.threads import check_threads
from cascade.text.reading import read_examples
from cascade_bench import machine
from cascade_bench.console import bar, check_json
from cascade_bench.contenders import CASCADE, FULL, Contender, contenders
from cascade_bench.interleaving import Turns
from cascade_bench.options import data_options, json_option, model_argument, threads_option
from cascade_bench.render import ratio
from cascade_bench.report_json import benchmark, document, write_json
from cascade_bench.scenarios import (
    PERCENTILES,
    Floats,
    Limits,
    Server,
    offline,
    percentile,
    server,
    single_stream,
)
from cascade_bench.statistics import speed_up
from cascade_bench.taggers import tag_contenders

__all__ = ["Measured", "as_json", "as_text", "scenarios"]

FEW = 1000  # texts below which a thousandth is the slowest one


@dataclass(frozen=True)
class Measured:
    """What came out, by contestant.

    Attributes:
        names: of the contestants, for readers.
        count: texts of an offline pass.
        single: seconds of each text.
        offline: turns.
        server: searches.
        bound: seconds that the server's latencies may take.
        share: percentile that the bound is for.
    """

    names: Mapping[str, str]
    count: int
    single: Mapping[str, Floats]
    offline: Turns
    server: Mapping[str, Server]
    bound: float
    share: float


@click.command(short_help="Latency one by one, throughput all at once, arrivals at random within a latency.")
@model_argument
@data_options
@click.option("--latency", type=click.FloatRange(min=0, min_open=True), default=50.0, show_default=True, metavar="MS",
              help="Server: the bound, in milliseconds.")  # fmt: skip
@click.option("--percentile", "share", type=click.FloatRange(50, 99.9), default=99.0, show_default=True, metavar="P",
              help="Server: of the latencies within the bound.")  # fmt: skip
@click.option("--queries", type=click.IntRange(min=1), default=2000, show_default=True, metavar="N",
              help="Texts of a single stream, and of each rate tried.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), default=20.0, show_default=True, metavar="S",
              help="The same, in time.")  # fmt: skip
@click.option("--repeats", type=click.IntRange(min=1), default=7, show_default=True, metavar="N", help="Offline turns.")
@threads_option
@json_option
def scenarios(
    model: str,
    file: str,
    text_column: str,
    pair_column: str,
    label_column: str,
    tokens_column: str,
    tags_column: str,
    latency: float,
    share: float,
    queries: int,
    seconds: float,
    repeats: int,
    threads: int | None,
    json_file: Path | None,
) -> None:
    """Tier 2 at full depth and the cascade as it is configured: one by one, all at once, and as a server.

    MODEL is a folder or a Hub id; labels in the file are not read. The scenarios are named after MLPerf's; the figures
    are not MLPerf results. Up to six minutes with the default limits.

    \b
    Example:
      cascade-bench scenarios models/sentiment --data dev.jsonl --threads 2
      cascade-bench scenarios models/sentiment --data dev.jsonl --latency 20 --percentile 95 --json scenarios.json
    """
    del label_column, tags_column  # options that all commands share
    check_json(json_file)
    count, limits = check_threads(threads), Limits(queries, seconds)
    texts: list[Any] = []
    found: list[Contender]
    if open_bundle(model).manifest.task == TAGGING:
        for example in read_examples(file, tokens_column=tokens_column, label_column=None):
            texts.append(list(example.tokens or ()))
        found = tag_contenders(Tagger.from_pretrained(model, threads=count))
    else:
        for example in read_examples(file, text_column=text_column, pair_column=pair_column, label_column=None):
            texts.append(example.text)
        found = contenders(Classifier.from_pretrained(model, threads=count))
    if not texts:
        raise DataError(f"{file} must have at least one text, had none; give another file")
    who = [contender for contender in found if contender.key in (FULL, CASCADE)]
    before = machine.facts(threads=count)
    with bar() as step:
        turns = offline(who, texts, repeats=repeats, progress=step)
        highest = {key: len(texts) / _median(turns, key) for key in turns.seconds}
        one_by_one = single_stream(who, texts, limits=limits, progress=step)
        bound = latency / 1000
        served = server(who, texts, highest=highest, bound=bound, share=share, limits=limits, progress=step)
    names = {contender.key: contender.name for contender in who}
    made = Measured(names, len(texts), one_by_one, turns, served, bound, share)
    click.echo(as_text(made, before))
    if json_file is not None:
        details = {"model": model, "data": Path(file).name, "limits": asdict(limits), "repeats": repeats}
        write_json(json_file, as_json(made, before, details))


def as_text(made: Measured, facts: Mapping[str, Any]) -> str:
    """For terminals."""
    blocks = [
        "Single stream: latency of one text at a time.",
        _single(made),
        f"Offline: all {made.count} texts in one call.",
        _offline(made),
        f"Server: random arrivals, p{made.share:g} of the latencies within {duration(made.bound)}, waiting included.",
        _served(made),
        _method(made),
        machine.in_words(dict(facts)),
    ]
    return "\n\n".join(blocks)


def as_json(made: Measured, facts: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, in pytest-benchmark's shape: an entry per scenario and contestant, with raw seconds."""
    benchmarks = []
    for key, name in made.names.items():
        shares = {f"p{share:g}": percentile(made.single[key], share) for share in PERCENTILES}
        benchmarks.append(
            benchmark("single stream", f"single stream {key}", made.single[key].tolist(), info={"name": name, **shares})
        )
        data = [value for value in made.offline.seconds[key] if value is not None]
        info = {"name": name, "texts": made.count, "seconds_by_repeat": made.offline.seconds[key]}
        passes = made.offline.plans[key].passes
        benchmarks.append(benchmark("offline", f"offline {key}", data, iterations=passes, info=info))
        found = made.server[key]
        if found.best is not None:
            tried = [{"rate": probe.rate, "within": probe.within, "batch": probe.batch} for probe in found.probes]
            info = {"name": name, "rate": found.best.rate, "throughput": found.best.throughput, "tried": tried}
            benchmarks.append(benchmark("server", f"server {key}", found.best.latencies.tolist(), info=info))
    more = {"latency_bound_seconds": made.bound, "percentile": made.share}
    return document(facts, benchmarks, details={**details, **more}, orders=made.offline.orders)


def _single(made: Measured) -> str:
    rows = [
        [name, *(f"{percentile(made.single[key], share) * 1e3:.2f}" for share in PERCENTILES)]
        for key, name in made.names.items()
    ]
    return aligned(["contestant", *(f"p{share:g} ms" for share in PERCENTILES)], rows, right=range(1, 6))


def _offline(made: Measured) -> str:
    full = made.offline.seconds[FULL]
    rows = [
        [name, f"{made.count / _median(made.offline, key):,.0f}", ratio(speed_up(full, made.offline.seconds[key]))]
        for key, name in made.names.items()
    ]
    return aligned(["contestant", "texts/s", "over full tier 2"], rows, right=(1, 2))


def _served(made: Measured) -> str:
    rows = []
    for key, name in made.names.items():
        best = made.server[key].best
        if best is None:
            lowest = min(probe.rate for probe in made.server[key].probes)
            rows.append([name, f"below {lowest:,.0f}", "", ""])
        else:
            slow = percentile(best.latencies, made.share) * 1e3
            rows.append([name, f"{best.rate:,.0f}", f"{slow:.1f}", f"{best.batch:.1f}"])
    return aligned(["contestant", "texts/s", f"p{made.share:g} ms", "texts in a call"], rows, right=(1, 2, 3))


def _method(made: Measured) -> str:
    few = min(map(len, made.single.values()))
    short = f" Of {few} texts p99.9 is the slowest." if few < FEW else ""
    return (
        f"{few} texts in the single stream, {len(made.offline.orders)} offline repeats; contestants take turns.{short} "
        "The server's rate is the highest that was tried and kept the bound. The scenarios are named after MLPerf's; "
        "these are not MLPerf results."
    )


def _median(turns: Turns, key: str) -> float:
    return median(value for value in turns.seconds[key] if value is not None)

"""`cascade-bench endless`: its options, its tables, its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

import click

from cascade.core.console import table as aligned
from cascade.pipelines.classifier import Classifier
from cascade.runtime.threads import check_threads
from cascade.text.reading import read_examples
from cascade_bench import machine
from cascade_bench.console import bar, check_json
from cascade_bench.options import json_option, model_argument, text_options, threads_option
from cascade_bench.render import ratio
from cascade_bench.report_json import benchmark, document, write_json

if TYPE_CHECKING:
    from cascade_bench.endless import Endless, Threads

__all__ = ["as_json", "as_text", "endless"]

SHOWN = 20  # marks in the table


@click.command(short_help="A million texts through `stream`: seconds per text and memory as it goes on.")
@model_argument
@text_options
@click.option("--texts", type=click.IntRange(min=2), default=1_000_000, show_default=True, metavar="N",
              help="Texts of the stream.")  # fmt: skip
@click.option("--first", type=click.IntRange(min=1), default=10_000, show_default=True, metavar="N",
              help="Its beginning, which the rest is compared with.")  # fmt: skip
@click.option("--every", type=click.IntRange(min=1), default=10_000, show_default=True, metavar="N",
              help="Texts between looks at clock and memory.")  # fmt: skip
@click.option("--short", type=click.IntRange(min=1), default=5_000, show_default=True, metavar="N",
              help="Texts of the streams in which all threads run against one.")  # fmt: skip
@click.option("--repeats", type=click.IntRange(min=1), default=7, show_default=True, metavar="N",
              help="Turns of these.")  # fmt: skip
@threads_option
@json_option
def endless(
    model: str,
    file: str,
    text_column: str,
    pair_column: str,
    texts: int,
    first: int,
    every: int,
    short: int,
    repeats: int,
    threads: int | None,
    json_file: Path | None,
) -> None:
    """Whether a stream stays as fast and as small as it began, and what more threads bring.

    MODEL is a folder or a Hub id, of a classifier as it is configured. The file's texts come over and over, each with
    a number of its own at its end, so that no two are alike. First the long stream, with memory and seconds at every
    mark; then short streams with all threads and with one, in turns. Where a text takes a millisecond, a million of
    them take 17 minutes.

    \b
    Example:
      cascade-bench endless models/sentiment --data dev.jsonl --threads 2
      cascade-bench endless models/sentiment --data dev.jsonl --texts 100000 --every 5000 --json endless.json
    """
    from cascade_bench.endless import endless as run  # psutil is an extra's, and not every command needs it
    from cascade_bench.endless import threads_against_one

    check_json(json_file)
    count = check_threads(threads)
    examples = read_examples(file, text_column=text_column, pair_column=pair_column)
    given = [example.text for example in examples if example.text is not None]
    before = machine.facts(threads=count)
    classifier = Classifier.from_pretrained(model, threads=count)
    with bar(-(-texts // every)) as step:
        made = run(classifier, given, texts=texts, every=every, first=first, progress=step)
    against: Threads | None = None
    if count > 1:
        classifiers = {1: Classifier.from_pretrained(model, threads=1), count: classifier}
        with bar(2 * repeats + 2) as step:
            against = threads_against_one(classifiers, given, texts=short, repeats=repeats, progress=step)
    click.echo(as_text(made, against, before))
    if json_file is not None:
        details = {"model": model, "data": Path(file).name, "repeats": repeats}
        write_json(json_file, as_json(made, against, before, details))


def as_text(made: Endless, against: Threads | None, facts: Mapping[str, Any]) -> str:
    """For terminals. `against`: `None` with one thread."""
    head = ["", "clock ms", "processors ms"]
    rest = f"the other {made.texts - made.begun.texts:,}"
    rows = [
        [name, *(f"{made.per_text(beginning=beginning, processors=busy) * 1e3:.4f}" for busy in (False, True))]
        for name, beginning in ((f"first {made.begun.texts:,} texts", True), (rest, False))
    ]
    rows.append(["slower by", *(f"{made.slower(processors=busy):+.1%}" for busy in (False, True))])
    begun, end = made.begun, made.marks[-1]
    held = (
        f"Memory after {begun.texts:,} texts: {begun.resident:.0f} MiB; the most at any later mark is "
        f"{made.growth:.1f} MiB above it, at the end it is {end.resident - begun.resident:+.1f} MiB."
    )
    source = f"{made.texts:,} texts through stream: {made.distinct:,} of the file over and over, each with a number"
    blocks = [
        f"{source} at its end. Milliseconds per text:",
        aligned(head, rows, right=(1, 2)),
        _stretches(made),
        held,
        _marks(made),
    ]
    if against is not None:
        taken = {name: against.median_seconds(name) for name in ("one", "several")}
        rates = " and ".join(f"{against.texts / taken[name]:,.0f}" for name in ("several", "one"))
        blocks.append(
            f"{against.texts:,} such texts, {against.several} threads against one: {ratio(against.gain)} times as fast "
            f"({rates} texts/s). Median ratio of {len(against.turns.orders)} turns, in brackets its interval (95 %, or "
            "the coverage named)."
        )
    return "\n\n".join([*blocks, machine.in_words(dict(facts))])


def as_json(
    made: Endless, against: Threads | None, facts: Mapping[str, Any], details: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything, in pytest-benchmark's shape: seconds per text between marks, and of the short streams."""
    info = {
        "texts": made.texts,
        "distinct_texts": made.distinct,
        "first": made.first,
        "slower": made.slower(),
        "slower_processors": made.slower(processors=True),
        "growth_mib": made.growth,
    }
    benchmarks = [benchmark("endless", "seconds per text", made.stretches, info=info)]
    more: dict[str, Any] = {"marks": [asdict(mark) for mark in made.marks]}
    if against is not None:
        for name, seconds in against.turns.seconds.items():
            data = [value for value in seconds if value is not None]
            own = {"texts": against.texts, "threads": against.several if name == "several" else 1}
            benchmarks.append(benchmark("threads", name, data, iterations=against.turns.plans[name].passes, info=own))
        more |= {"gain_of_threads": asdict(against.gain), "orders": against.turns.orders}
    return document(facts, benchmarks, details=dict(details), **more)


def _stretches(made: Endless) -> str:
    """How stretches between marks differ: a machine that other programs use shows here."""
    taken = [seconds * 1e3 for seconds in made.stretches]
    low, _, high = quantiles(taken, n=4) if len(taken) > 1 else taken * 3
    return (
        f"Between marks, by the clock: median {median(taken):.4f} ms, middle half {low:.4f} to {high:.4f}, "
        f"from {min(taken):.4f} to {max(taken):.4f}."
    )


def _marks(made: Endless) -> str:
    step = max(-(-(len(made.marks) - 1) // SHOWN), 1)
    chosen = [*made.marks[:-1:step], made.marks[-1]]
    if made.begun not in chosen:
        chosen = sorted([*chosen, made.begun], key=lambda mark: mark.texts)
    rows = [[f"{m.texts:,}", f"{m.seconds:.1f}", f"{m.processors:.1f}", f"{m.resident:.1f}"] for m in chosen]
    return aligned(["texts", "seconds", "of processors", "MiB"], rows, right=range(4))

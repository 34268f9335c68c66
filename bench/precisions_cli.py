"""`cascade-bench precisions`: its options, its table, its file."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cascade.bundle.manifest import TAGGING
from cascade.bundle.opening import open_bundle
from cascade.core.console import table as aligned
from cascade.exceptions import OptionError
from cascade.runtime.threads import check_threads
from cascade_bench import machine
from cascade_bench.console import bar, check_json
from cascade_bench.data import Columns, Labelled, read_labelled
from cascade_bench.options import data_options, json_option, model_argument, threads_option
from cascade_bench.precisions import BATCHINGS, SHIPPED, Examples, Precisions, compare, load
from cascade_bench.precisions_export import write
from cascade_bench.render import ratio
from cascade_bench.report_json import benchmark, document, write_json
from cascade_bench.tag_data import TagColumns, Tagged, read_tagged

__all__ = ["as_json", "as_markdown", "as_text", "precisions"]


@click.command(short_help="Tier 2 in fp32 and every int8 form: seconds, accuracy, agreement, invariance.")
@model_argument
@click.option("--checkpoint", required=True, metavar="FOLDER", help="That the bundle's second tier was made from.")
@click.option("--calibration", required=True, metavar="FILE",
              help="Texts that int8 ranges come from, not those of --data. Of a tagger: sentences.")  # fmt: skip
@data_options
@click.option("--texts", type=click.IntRange(min=1), metavar="N", help="The first of the file.  [default: all]")
@click.option("--percentile", type=float, default=99.99, show_default=True, metavar="P",
              help="Share of an activation's values inside a percentile range, in %.")  # fmt: skip
@click.option("--repeats", type=click.IntRange(min=1), default=7, show_default=True, metavar="N", help="Turns of each.")
@threads_option
@json_option
@click.option("--markdown", is_flag=True, help="Print the table for a README.")
def precisions(
    model: str,
    checkpoint: str,
    calibration: str,
    file: str,
    text_column: str,
    pair_column: str,
    label_column: str,
    tokens_column: str,
    tags_column: str,
    texts: int | None,
    percentile: float,
    repeats: int,
    threads: int | None,
    json_file: Path | None,
    markdown: bool,
) -> None:
    """Tier 2 at full depth in every numeric form, beside the bundle as it is shipped.

    MODEL is a folder or a Hub id and gives all but tier 2's graphs, which are made anew of --checkpoint: fp32; int8
    with a scale per tensor measured while running (dynamic), with scales from calibration (static: minimum and
    maximum, smoothed, percentile), with a scale per row. All linear layers of a form are in it, however it answers. The
    same texts also run in batches of 8 and of 64 and sorted by length: what changes depends on batch mates. Needs
    the export and train extras; all forms are in memory together.

    \b
    Example:
      cascade-bench precisions models/sentiment --checkpoint runs/sentiment-tier2 \\
          --calibration calibration.jsonl --data dev.jsonl --threads 2
      cascade-bench precisions models/pos --checkpoint runs/pos-tier2 --calibration train.jsonl \\
          --data dev.jsonl --texts 500 --repeats 3 --markdown --json precisions.json
    """
    check_json(json_file)
    if not 50 < percentile <= 100:  # here too: the exporter would find it after a minute
        raise OptionError(f"--percentile must be above 50 and at most 100, was: {percentile}; 99.99 is usual")
    count, bundle = check_threads(threads), open_bundle(model)
    tagging, labels = bundle.manifest.task == TAGGING, bundle.manifest.labels
    data: Examples
    columns = {"--text-column": text_column, "--pair-column": pair_column}
    if tagging:
        tagged = read_tagged(file, labels, columns=TagColumns(tokens_column, tags_column))
        data = tagged if texts is None else Tagged.of(tagged.sentences[:texts], tagged.tags[:texts], labels)
        columns = {"--tokens-column": tokens_column, "--tags-column": tags_column}
    else:
        multi_label = bundle.manifest.problem_type == "multi_label_classification"
        named = Columns(text_column, pair_column, label_column)
        read = read_labelled(file, labels, multi_label=multi_label, columns=named)
        data = Labelled(read.texts[:texts], read.labels[:texts], read.targets[:texts])
    before = machine.facts(threads=count)
    with tempfile.TemporaryDirectory(prefix="cascade-bench-") as folder, bar() as step:
        folders = write(
            bundle.folder,
            checkpoint,
            calibration,
            Path(folder),
            percentile=percentile,
            columns=columns,
            progress=step,
        )
        faces = {
            form: load(path, tagging=tagging, threads=count)
            for form, path in {**folders, SHIPPED: bundle.folder}.items()
        }
        made = compare(faces, data, repeats=repeats, progress=step)
    click.echo((as_markdown if markdown else as_text)(made, before, percentile=percentile))
    if json_file is not None:
        details = {"model": model, "checkpoint": checkpoint, "calibration": Path(calibration).name,
                   "data": Path(file).name, "percentile": percentile, "repeats": repeats}  # fmt: skip
        write_json(json_file, as_json(made, before, details))


def as_text(made: Precisions, facts: Mapping[str, Any], *, percentile: float) -> str:
    """For terminals."""
    head, rows = _cells(made)
    blocks = [
        aligned(head, rows, right=tuple(range(1, len(head)))),
        _said(made),
        _method(made, percentile),
        machine.in_words(dict(facts)),
    ]
    return "\n\n".join(blocks)


def as_markdown(made: Precisions, facts: Mapping[str, Any], *, percentile: float) -> str:
    """For README."""
    head, rows = _cells(made)
    lines = [f"| {' | '.join(head)} |", f"|---{'|--:' * (len(head) - 1)}|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", _said(made), "", f"{_method(made, percentile)} {machine.in_words(dict(facts))}"])


def as_json(made: Precisions, facts: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, in pytest-benchmark's shape: an entry per form, with the seconds of its passes."""
    benchmarks = [
        benchmark(
            "precisions",
            line.form,
            [value for value in line.row.seconds if value is not None],
            iterations=made.table.turns.plans[line.row.key].passes,
            info={
                "name": line.row.name,
                "model": details.get("model"),
                made.table.unit: made.table.count,
                "accuracy": line.row.accuracy,
                "points_against_fp32": line.row.against_full * 100,
                "entity_f1": line.row.f1,
                "agreement_with_fp32": line.agreement,
                "largest_difference": line.stability.difference,
                "answers_changed": line.stability.changed,
                "accuracy_by_batches": dict(line.stability.accuracy),
                "speed_up_over_fp32": asdict(line.row.over_full),
                "seconds_by_repeat": list(line.row.seconds),
                "stages": list(line.stages),
                "tier2_mib": line.mebibytes,
            },
        )
        for line in made.lines
    ]
    return document(facts, benchmarks, details=dict(details), batches=list(BATCHINGS), orders=made.table.turns.orders)


def _cells(made: Precisions) -> tuple[list[str], list[list[str]]]:
    entities = any(line.row.f1 is not None for line in made.lines)
    unit = made.table.unit
    head = ["tier 2", "accuracy", "points", *(["entity F1"] * entities), "as fp32", "seconds", f"{unit}/s", "over fp32"]
    head += ["largest difference", "answers changed", "MiB"]
    rows = [
        [
            line.row.name,
            f"{line.row.accuracy:.2%}",
            f"{line.row.against_full * 100:+.2f}",
            *([f"{line.row.f1 or 0:.2%}"] * entities),
            f"{line.agreement:.2%}",
            f"{line.row.median_seconds:.3g}",
            f"{made.table.count / line.row.median_seconds:,.0f}",
            ratio(line.row.over_full),
            f"{line.stability.difference:.1e}",
            f"{line.stability.changed:.2%}",
            f"{line.mebibytes:.1f}",
        ]
        for line in made.lines
    ]
    return head, rows


def _said(made: Precisions) -> str:
    """What the bundle has, and whose answers do not depend on batch mates."""
    shipped = next(line for line in made.lines if line.form == SHIPPED)
    steady = "; ".join(line.row.name for line in made.lines if not line.stability.changed) or "none"
    return (
        f"As shipped: {shipped.stages.count('int8')} of {len(shipped.stages)} stages int8. "
        f"No answer changed with its batch in: {steady}."
    )


def _method(made: Precisions, percentile: float) -> str:
    table = made.table
    return (
        f"{table.count} {table.unit}, tokenisation included, full depth, {len(table.turns.orders)} interleaved "
        "repeats; over fp32: medians of the ratios within a repeat, in brackets their intervals (95 %, or the coverage "
        f"named). Points: accuracy against fp32. As fp32: {table.unit} with the answer of fp32. Largest difference of "
        f"a probability, and answers changed, when the same {table.unit} run in batches of {', '.join(BATCHINGS)}. "
        "In a form with int8 all linear layers are int8, and attention's products are fp32. Percentile ranges hold "
        f"{percentile:g} % of an activation's values."
    )

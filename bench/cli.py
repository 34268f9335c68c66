"""`cascade-bench`: the group, `table`, `startup` and `thresholds`. Wrong use is told in one line, with status 2."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from cascade import __version__
from cascade.bundle.manifest import TAGGING
from cascade.bundle.opening import open_bundle
from cascade.calibration import Grid, OperatingPoint, choose
from cascade.core.checks import check_share
from cascade.core.console import finish
from cascade.core.console import table as aligned
from cascade.exceptions import OptionError
from cascade.pipelines.classifier import Classifier
from cascade.runtime.threads import check_threads
from cascade_bench import machine, operating, render
from cascade_bench.base_cli import base
from cascade_bench.compare import compare
from cascade_bench.console import bar, check_json
from cascade_bench.contenders import contenders
from cascade_bench.curve_cli import curve
from cascade_bench.data import Columns, Labelled, read_labelled
from cascade_bench.endless_cli import endless
from cascade_bench.options import data_options, json_option, model_argument, threads_option
from cascade_bench.overhead_cli import overhead
from cascade_bench.peers_cli import peers
from cascade_bench.precisions_cli import precisions
from cascade_bench.profile_cli import profile
from cascade_bench.scenarios_cli import scenarios
from cascade_bench.startup import startup as measure_startup
from cascade_bench.table import measure
from cascade_bench.tag_cli import TagTable, TagThresholds
from cascade_bench.tag_data import TagColumns

__all__ = ["main"]

SUBSET = 256  # texts on which the pipeline's batch sizes are tried
DROPS = (0.0, 0.0025, 0.005, 0.01, 0.02)
BLENDS = (0.0, 0.3, 0.5, 0.7)


@click.group(name="cascade-bench", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="cascade-bench", message="%(prog)s %(version)s")
def bench() -> None:
    """Measure a bundle in seconds on this machine, and choose its thresholds.

    \b
    Example:
      cascade-bench thresholds models/sentiment --data calibration.jsonl --max-drop 0.005 --write
      cascade-bench table models/sentiment --data dev.jsonl --checkpoint runs/tier2 --threads 2
      cascade-bench curve models/sentiment --data dev.jsonl --html curve.html
      cascade-bench startup models/sentiment
    """


@bench.command(short_help="Accuracy and seconds: tier 2 whole, cut, with exits; the cascade; a pipeline.")
@model_argument
@data_options
@click.option("--checkpoint", metavar="FOLDER", help="Also transformers.pipeline on this checkpoint (extra: bench).")
@click.option(
    "--exit-table-data", "exit_table_file", metavar="FILE", help="Taggers: learn exits per token id here, as a rival."
)
@click.option(
    "--token-exit", type=float, metavar="T", help="Taggers: threshold of TokenExit in tier 2 alone; else the bundle's."
)
@click.option("--depth-cap", type=int, metavar="LAYER", help="Taggers: deepest layer of tier 2 alone.")
@click.option("--repeats", type=click.IntRange(min=1), default=7, show_default=True, metavar="N", help="Turns of each.")
@threads_option
@json_option
@click.option("--markdown", is_flag=True, help="Print the table for a README.")
def table(
    model: str,
    file: str,
    text_column: str,
    pair_column: str,
    label_column: str,
    tokens_column: str,
    tags_column: str,
    checkpoint: str | None,
    exit_table_file: str | None,
    token_exit: float | None,
    depth_cap: int | None,
    repeats: int,
    threads: int | None,
    json_file: Path | None,
    markdown: bool,
) -> None:
    """Accuracy and seconds of every way to run a bundle, measured in one run in which all take turns.

    MODEL is a folder or a Hub id. Each pass labels all texts of the file, tokenisation included. With --checkpoint,
    transformers.pipeline runs the same second tier in fp32 at its best batch size. A tagger's file has lists of words
    and tags; its token exit also runs beside sentence exit, and beside exits fixed per token id, at equal accuracy.

    \b
    Example:
      cascade-bench table models/sentiment --data dev.jsonl --threads 2
      cascade-bench table models/sentiment --data dev.jsonl --checkpoint runs/tier2 --markdown --json table.json
      cascade-bench table models/pos --data dev.jsonl --exit-table-data train.jsonl --token-exit 0.07 --depth-cap 3
    """
    check_json(json_file)
    if _tags(model):
        TagTable(
            model=model,
            file=file,
            columns=TagColumns(tokens_column, tags_column),
            exit_table_file=exit_table_file,
            token_exit=token_exit,
            depth_cap=depth_cap,
            checkpoint=checkpoint,
            repeats=repeats,
            threads=threads,
            json_file=json_file,
            markdown=markdown,
        )()
        return
    for option, given in (
        ("--exit-table-data", exit_table_file),
        ("--token-exit", token_exit),
        ("--depth-cap", depth_cap),
    ):
        if given is not None:
            raise OptionError(f"{option} is for taggers, {model} is none; leave it out")
    count = check_threads(threads)
    classifier = Classifier.from_pretrained(model, threads=count)
    data = _read(classifier, file, Columns(text_column, pair_column, label_column))
    who = contenders(classifier)
    details: dict[str, Any] = {
        "model": model,
        "data": Path(file).name,
        "router": repr(classifier.router),
        "blend": classifier.blend,
    }
    details |= {"exit_policy": repr(classifier.exit_policy), "repeats": repeats, "checkpoint": checkpoint}
    before = machine.facts(threads=count)
    with bar() as step:
        if checkpoint is not None:
            from cascade_bench import peers

            pipeline = peers.Pipeline.load(
                checkpoint,
                threads=count,
                max_length=classifier.bundle.manifest.tier2.max_length,
                multi_label=classifier.multi_label,
            )
            size, rates = peers.best_batch_size(pipeline, data.texts[:SUBSET], progress=step)
            details["pipeline_texts_per_second_by_batch_size"] = rates
            who.append(peers.contender(pipeline, size))
        made = measure(who, data, repeats=repeats, progress=step)
    if hasattr(os, "getloadavg"):
        details["load_average_after"] = list(os.getloadavg())
    click.echo((render.as_markdown if markdown else render.as_text)(made, before))
    if checkpoint is not None:
        tried = ", ".join(f"{size}: {rate:.0f}" for size, rate in rates.items())
        click.echo(f"{chr(10) * markdown}Pipeline, texts/s by batch size on {min(SUBSET, len(data))} texts: {tried}.")
    if json_file is not None:
        render.write_json(json_file, render.as_json(made, before, details))


@bench.command(short_help="Seconds of import and first answer, memory; in fresh processes.")
@model_argument
@click.option("--samples", type=click.IntRange(min=1), default=5, show_default=True, metavar="N", help="Of each.")
@threads_option
@json_option
@click.option("--markdown", is_flag=True, help="Print the table for a README.")
def startup(model: str, samples: int, threads: int | None, json_file: Path | None, markdown: bool) -> None:
    """What a first call costs: `import cascade`, an answer from a cold process, memory after 100 texts.

    MODEL is a folder or a Hub id. Every sample is a process of its own; medians are shown.

    \b
    Example:
      cascade-bench startup models/sentiment
      cascade-bench startup models/sentiment --threads 2 --json startup.json
    """
    check_json(json_file)
    count = check_threads(threads)
    tagging = _tags(model)  # what is wrong with it is said once, here
    with bar(3 * (samples + 1)) as step:
        found = measure_startup(model, threads=count, tagging=tagging, samples=samples, progress=step)
    middle = found.medians()
    rows = [
        ["`import cascade`" if markdown else "import cascade", f"{middle['import_seconds']:.2f} s"],
        [f"with all that a {'Tagger' if tagging else 'Classifier'} needs", f"{middle['classifier_seconds']:.2f} s"],
        ["first answer of a cold process", f"{middle['answer_seconds']:.2f} s"],
        ["resident memory after 100 texts", f"{middle['resident_mib']:.0f} MiB"],
        ["peak until then", f"{middle['peak_mib']:.0f} MiB"],
    ]
    head = ["", f"median of {samples}"]
    if markdown:
        click.echo("\n".join([f"| {' | '.join(head)} |", "|---|--:|", *(f"| {a} | {b} |" for a, b in rows)]))
    else:
        click.echo(aligned(head, rows, right=(1,)))
    if json_file is not None:
        facts = machine.facts(threads=count)
        render.write_json(json_file, {"machine_info": facts, "model": model, "median": middle, "data": vars(found)})


@bench.command(short_help="Choose a bundle's thresholds on labelled examples.")
@model_argument
@data_options
@click.option(
    "--max-drop", type=float, default=0.005, show_default=True, metavar="X", help="Accuracy given up at most."
)
@click.option("--caps/--no-caps", default=True, help="Try caps on depth too.  [default: caps]")
@click.option("--f1", is_flag=True, help="Taggers: bound the loss of entity F1, not of word accuracy.")
@click.option("--per-exit", is_flag=True, help="A threshold per exit instead of one for all.")
@click.option("--tier1-share", type=float, metavar="X", help="Count layers, tier 1 costing X of tier 2; time nothing.")
@click.option("--write", is_flag=True, help="Make the choice the bundle's default.")
@threads_option
def thresholds(
    model: str,
    file: str,
    text_column: str,
    pair_column: str,
    label_column: str,
    tokens_column: str,
    tags_column: str,
    max_drop: float,
    caps: bool,
    f1: bool,
    per_exit: bool,
    tier1_share: float | None,
    write: bool,
    threads: int | None,
) -> None:
    """Choose the cheapest thresholds that lose at most --max-drop of full-depth tier 2's accuracy on these examples.

    Use examples that neither trained the model nor will measure it: the choice fits them a little. It is empirical,
    no certificate. Of a tagger windows are chosen too, and the points that look best are really run.

    \b
    Example:
      cascade-bench thresholds models/sentiment --data calibration.jsonl --max-drop 0.005
      cascade-bench thresholds models/sentiment --data calibration.jsonl --max-drop 0.005 --write
      cascade-bench thresholds models/slots --data calibration.jsonl --max-drop 0.005 --f1 --write
    """
    check_share("--max-drop", max_drop, "0.005 is half a point")
    if tier1_share is not None:
        check_share("--tier1-share", tier1_share, "0.01 is a hundredth of tier 2's cost")
    if write and not Path(model).expanduser().is_dir():
        raise OptionError(f"--write needs a bundle in a folder, was: {model}; download it first")
    tagging = _tags(model)
    if tagging and per_exit:
        raise OptionError("--per-exit is for classifiers, and this is a tagger; leave it out")
    if tagging:
        TagThresholds(
            model=model,
            file=file,
            columns=TagColumns(tokens_column, tags_column),
            max_drop=max_drop,
            drops=DROPS,
            f1=f1,
            caps=caps,
            tier1_share=tier1_share,
            save=write,
            threads=threads,
        )()
        return
    if f1:
        raise OptionError(f"--f1 is for taggers, {model} is none; leave it out")
    classifier = Classifier.from_pretrained(model, threads=threads)
    data = _read(classifier, file, Columns(text_column, pair_column, label_column))
    with tqdm(total=2 * len(data), desc="both tiers", unit="row", disable=not sys.stderr.isatty(), leave=False) as bar:
        seen = operating.look(classifier, data, tier1_share=tier1_share, progress=bar.update)
    grid = Grid(caps=caps)
    drops = sorted({*DROPS, max_drop})
    points = [
        choose(seen.examples, seen.costs, max_drop=drop, grid=grid, per_exit=per_exit, blends=BLENDS) for drop in drops
    ]
    chosen = points[drops.index(max_drop)]
    rows = [_point(drop, point, "->" if drop == max_drop else "") for drop, point in zip(drops, points, strict=True)]
    head = ["", "allowed", "accuracy", "drop", "deferred", "mean layer", "predicted", "blend", "router", "exit policy"]
    click.echo(aligned(head, rows, right=(1, 2, 3, 4, 5, 6, 7)))
    full = chosen.accuracy + chosen.drop
    click.echo(f"\nFull-depth tier 2: {full:.2%} of {len(seen.examples)} examples. Predicted: times faster than it.")
    options = operating.export_options(chosen)
    if write:
        operating.write(classifier, chosen, model=model, data=file, max_drop=max_drop)
        click.echo(f"Written to {model}: {chosen.router!r}, {chosen.exit_policy!r}, blend {chosen.blend:g}")
    elif options is not None:
        click.echo(f"For cascade-export: {options}")
    else:
        click.echo("The options of cascade-export cannot say this point; use --write.")


bench.add_command(base)
bench.add_command(endless)
bench.add_command(overhead)
bench.add_command(peers)
bench.add_command(precisions)
bench.add_command(profile)
bench.add_command(scenarios)
bench.add_command(curve)
bench.add_command(compare)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `cascade-bench` and leave the process with its status. `arguments`: those of the process if left out."""
    finish(bench, arguments)


def _point(drop: float, point: OperatingPoint, mark: str) -> list[str]:
    return [
        mark,
        f"{drop * 100:.2f}",
        f"{point.accuracy:.2%}",
        f"{point.drop * 100:.2f} ± {point.drop_error * 100:.2f}",
        f"{point.deferred:.1%}",
        f"{point.mean_layer:.2f}" if point.deferred else "",
        f"{point.predicted_speed_up:.2f}",
        f"{point.blend:g}",
        repr(point.router),
        repr(point.exit_policy),
    ]


def _read(classifier: Classifier, file: str, columns: Columns) -> Labelled:
    return read_labelled(file, classifier.labels, multi_label=classifier.multi_label, columns=columns)


def _tags(model: str) -> bool:
    """Whether a bundle is a tagger's."""
    return open_bundle(model).manifest.task == TAGGING

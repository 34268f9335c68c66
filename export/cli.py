"""`cascade-export`: checkpoints to a bundle, from the command line. The work is done in `export`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from cascade.cli.show import size
from cascade.core.console import finish
from cascade.core.files import sha256_of
from cascade.core.options import options_of, value_of
from cascade.text.labelled import Columns
from cascade_export import ExportOptions, require_extra

WEIGHT_BITS = {"any": 8, "avx2": 7}
OWN = "agreement max_length truncation encode_special_tokens temper_full_depth fp32 name license data"
EPILOG = """\b
Example:
  cascade-export --tier2 runs/sentiment-exits --tier1 runs/sentiment-first \\
      --calibration calibration.jsonl --output models/sentiment --license apache-2.0
  cascade predict models/sentiment reviews.jsonl
  cascade-export --tier2 runs/pos-exits --tier1 runs/pos-first --calibration dev.jsonl --output models/pos
"""


@click.command(
    "cascade-export", epilog=EPILOG, context_settings={"show_default": True, "help_option_names": ["-h", "--help"]}
)
@click.option("--tier2", required=True, metavar="FOLDER", help="Decides last: of `cascade-train exits`, or fine-tuned.")
@click.option("--tier1", metavar="FOLDER", help="First tier, of `cascade-train first-tier`; without it one tier.")
@click.option("--before", metavar="BUNDLE", help="Its tiers go in front: cascades of three. Not with --tier1.")
@click.option("--output", required=True, metavar="FOLDER", help="The bundle to write.")
@click.option("--calibration", metavar="FILE",
              help="Texts of the kind to be classified, in jsonl, csv or parquet, for taggers words: int8 ranges come "
              "from them, and with labels temperatures of all but full depth. Do not use the test set. Without it: "
              "sentences of the demo, temperatures 1.")  # fmt: skip
@options_of(Columns)
@click.option("--int8", type=click.Choice(["static", "none"]), default="static",
              help="static: scales from --calibration, the same answers in any batch; none: fp32.")  # fmt: skip
@click.option("--for", "cpus", type=click.Choice([*WEIGHT_BITS]), default="any",
              help="Where it will run. avx2: x86 without VNNI, faster with int8 weights of 7 bits.")  # fmt: skip
@click.option("--exporter", type=click.Choice(["torch", "optimum"]), default="torch", help="Of tiers without exits.")
@click.option("--threshold", type=click.FloatRange(0, 1),
              help="Tier 1 defers below this confidence.  [default: 0.9; of a regression all]")  # fmt: skip
@click.option("--exit-threshold", type=click.FloatRange(0, 1),
              help="Rows leave tier 2 from it on, words below it.  [default: 0.9; of a tagger 0.05]")  # fmt: skip
@options_of(ExportOptions, OWN)
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is already there.")
def export(
    tier2: str,
    tier1: str | None,
    before: str | None,
    output: str,
    calibration: str | None,
    overwrite: bool,
    **given: Any,
) -> None:
    """Turn one or two checkpoints into a bundle: verified against torch, written whole or not at all."""
    require_extra()
    # Here, not above: `--help` must not wait for torch.
    from cascade.policies.routing import Threshold
    from cascade.training.data import read_file
    from cascade_export.checkpoints import task_of
    from cascade_export.export import export_bundle, parts_of
    from cascade_export.texts import Calibration

    task, found = task_of(tier2), None
    if calibration is not None:
        read = read_file(calibration, words=task.tags, columns=value_of(Columns, given), require_labels=False)
        sha256 = sha256_of(calibration) if Path(calibration).is_file() else None  # a pipe is read once
        found = Calibration(read.items, read.labels, Path(calibration).name, sha256)
    threshold, exits = given["threshold"], given["exit_threshold"]
    options = replace(
        value_of(ExportOptions, given | {"int8": given["int8"] == "static"}),
        weight_bits=WEIGHT_BITS[given["cpus"]],
        optimum=given["exporter"] == "optimum",
        router=None if threshold is None else Threshold(threshold),
        exit_policy=None if exits is None else replace(task.exit_policy, threshold=exits),
    )
    bundle = export_bundle(
        tier2,
        tier1,
        output,
        calibration=found,
        options=options,
        before=before,
        overwrite=overwrite,
        progress=partial(click.echo, err=True) if sys.stderr.isatty() else lambda _step: None,
    )
    figures = bundle.manifest.figures
    total = size(sum(record.bytes for record in bundle.manifest.files.values()))
    click.echo(f"{bundle.folder}: {total}, labels: {len(bundle.manifest.labels)}")
    titles = (("accuracy", "accuracy"), ("f1", "F1"), ("r2", "R squared"))
    for part, row in parts_of(figures):
        scores = [f", {title} {row[key]:.2%} (fp32 {row[f'{key}_fp32']:.2%})" for key, title in titles if key in row]
        click.echo(f"  {part}: {row['precision']}, agrees with fp32 on {row['agreement']:.2%}{''.join(scores)}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `cascade-export` and leave the process with its status. `arguments`: those of the process by default."""
    finish(export, arguments)

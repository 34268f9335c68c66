"""What `cascade-bench precisions` runs in a process of its own, so that the one that measures has no torch.

It leaves the work to `forms`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cascade.bundle.manifest import TAGGING
from cascade.bundle.opening import open_bundle
from cascade.core.console import finish
from cascade_export import require_extra

if TYPE_CHECKING:
    from cascade_export.tag_texts import TagCalibration
    from cascade_export.texts import Calibration

__all__ = ["main"]


@click.command("forms")
@click.argument("model")
@click.argument("checkpoint")
@click.argument("calibration")
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--percentile", type=float, default=99.99)
@click.option("--text-column", default="text")
@click.option("--pair-column", default="text_pair")
@click.option("--tokens-column", default="tokens")
@click.option("--tags-column", default="tags")
def forms(
    model: str,
    checkpoint: str,
    calibration: str,
    output: Path,
    percentile: float,
    text_column: str,
    pair_column: str,
    tokens_column: str,
    tags_column: str,
) -> None:
    """Write MODEL with its second tier, made of CHECKPOINT, in every numeric form: a folder each in OUTPUT.

    A line on standard output says what begins.

    \b
    Example:
      python -c "from cascade_export.forms_cli import main; main()" models/sentiment runs/sentiment-tier2 \\
          calibration.jsonl forms
    """
    require_extra()
    from cascade.training import data, tag_data
    from cascade_export.forms import write_forms
    from cascade_export.tag_texts import TagCalibration
    from cascade_export.texts import Calibration

    bundle = open_bundle(model)
    found: Calibration | TagCalibration
    if bundle.manifest.task == TAGGING:
        columns = tag_data.TagColumns(tokens=tokens_column, tags=tags_column)
        found = TagCalibration(tag_data.read(calibration, columns=columns, require_tags=False).words)
    else:
        named = data.Columns(text=text_column, pair=pair_column)
        found = Calibration(data.read(calibration, columns=named, require_labels=False).texts)
    write_forms(bundle, checkpoint, output, found, percentile=percentile, progress=click.echo)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it and leave the process with its status. `arguments`: those of the process by default."""
    finish(forms, arguments)

"""`cascade build`: from a fine-tuned model and texts to a certified bundle. Needs three extras."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from cascade.bundle.hub import check_checkpoint
from cascade.core.options import options_of, value_of
from cascade.exceptions import need, printable
from cascade.text.labelled import Columns
from cascade.text.sources import check_there, regular


@click.command(short_help="Make a bundle of your fine-tuned model, certified against it (needs three extras).")
@click.argument("model")
@click.option("--texts", multiple=True, required=True, type=click.Path(path_type=Path), metavar="FILE",
              help="Texts like those to come, labelled or not, of files or pipes; repeatable.")  # fmt: skip
@click.option("--output", required=True, type=click.Path(path_type=Path), metavar="BUNDLE", help="The folder to make.")
@click.option("--minutes", type=float, default=20.0, show_default=True, metavar="TIME", help="Take about so long.")
@click.option("--max-disagreement", type=float, metavar="SHARE",
              help="Answer otherwise for at most this share of texts (or sentences).  [default: 0.02]")  # fmt: skip
@click.option("--max-drop", type=float, metavar="SHARE", help="Lose at most this accuracy instead; needs labels.")
@click.option("--confidence", type=float, default=0.95, show_default=True, metavar="P", help="Of the bound.")
@options_of(Columns)
@click.option("--truncation", is_flag=True, help="The bundle cuts long texts, as transformers does; no windows.")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="[default: the CPUs allowed]")
@click.option("--seed", type=int, default=1, show_default=True, metavar="N", help="Of training and of shares of texts.")
@click.option("--encode-special-tokens", is_flag=True, help="Special tokens typed by users are text, in MODEL too.")
@click.option("--keep", is_flag=True, help="Leave the work in BUNDLE.build when all is done.")
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is there.")
@click.option("--progress/--no-progress", default=None, help="A bar on standard error.  [default: on a terminal]")
def build(model: str, texts: Sequence[Path], output: Path, progress: bool | None, **given: Any) -> int:
    """Make a bundle of MODEL, your fine-tuned classifier or tagger: a folder or a Hub id.

    Its answers on your texts teach everything, so no labels are needed. A share of the texts is held out to certify how
    often the bundle answers differently from MODEL. Where nothing is cheaper than MODEL packed in int8, the bundle is
    that. BUNDLE/report.html tells all; interrupted, the same command goes on. Status 1: nothing could be certified.

    \b
    Example:
      cascade build my-finetuned-model --texts texts.txt --output bundle
      cascade build my-finetuned-model --texts texts.txt --max-disagreement 0.01 --minutes 60 --output bundle
      cascade predict bundle texts.txt
    """
    need("cascade build", "train,export,calibrate", "torch", "transformers", "onnx", "scipy")
    check_checkpoint(model)  # before torch, which takes seconds, is imported
    check_there(texts)
    from cascade.training.build import BuildOptions
    from cascade.training.build import build as made_by

    with ExitStack() as stack:
        built = made_by(
            model,
            [stack.enter_context(regular(file)) for file in texts],
            output,
            options=value_of(BuildOptions, given | {"columns": value_of(Columns, given)}),
            tell=lambda line: click.echo(printable(line), err=True),
            show_progress=sys.stderr.isatty() if progress is None else progress,
        )
    click.echo(printable(built.line))
    click.echo(f"{output / 'report.html'} tells more; use it: cascade predict {output} texts.txt", err=True)
    return 0 if built.certified else 1

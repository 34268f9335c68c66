"""The command `cascade demo`: finds the bundles and shows one after the other."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from cascade.cli.demo.showing import texts_shown, words_shown
from cascade.exceptions import BundleNotFoundError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger

CLASSIFIERS = ("sentiment", "intents")
TAGGER = "pos"
PACKAGE = Path(__file__).parents[2]
SHIPPED = (PACKAGE / "models", PACKAGE.parent / "models")  # of an installation, of a clone


@click.command(short_help="Show what a cascade does, on sentences of the project's own.")
@click.option(
    "--models",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A folder with bundles sentiment, intents or pos. [default: models, or what came with the installation]",
)
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Threads of both tiers. [default: all cores]")
def demo(models: Path | None, threads: int | None) -> None:
    """Show what a cascade does, on sentences of the project's own.

    For each classifier found: some sentences with label, probability and route; then how long the full second tier
    alone and the cascade took on all the same sentences, how often they agree and how often they are right. For the
    tagger: sentences word by word, each with its tag and the depth at which it was decided; then the times of both.

    \b
    Example:
      cascade demo
      cascade demo --models models --threads 2
    """
    folders = (Path("models"), *SHIPPED) if models is None else (models,)
    found = next((bundles for folder in folders if (bundles := _bundles(folder))), [])
    if not found:
        every = ", ".join(str(folders[0] / name) for name in CLASSIFIERS)
        raise BundleNotFoundError(
            f"the demo needs {every} or {folders[0] / TAGGER}, found none; give the folder that they are in with "
            "--models DIR"
        )
    for number, folder in enumerate(found):
        if folder.name == TAGGER:
            parts = words_shown(folder.name, Tagger.from_pretrained(folder, threads=threads))
        else:
            parts = texts_shown(folder.name, Classifier.from_pretrained(folder, threads=threads))
        click.echo("\n" * bool(number) + "\n\n".join(parts))
    click.echo(f"\nYour own texts: cascade predict {shlex.quote(str(found[0]))} texts.txt")


def _bundles(folder: Path) -> list[Path]:
    return [folder / name for name in (*CLASSIFIERS, TAGGER) if (folder / name).is_dir()]

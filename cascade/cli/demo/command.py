"""The command `cascade demo`: finds the bundles and shows one after the other."""

from __future__ import annotations

from pathlib import Path

import click

from cascade.cli.demo import texts, words
from cascade.exceptions import BundleNotFoundError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger

CLASSIFIERS = ("sentiment", "intents")
TAGGER = "pos"


@click.command(short_help="Show what a cascade does, on sentences of the project's own.")
@click.option(
    "--models",
    type=click.Path(path_type=Path),
    default=Path("models"),
    show_default=True,
    metavar="DIR",
    help="The folder with the bundles sentiment, intents and pos.",
)
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Threads of both tiers. [default: all cores]")
def demo(models: Path, threads: int | None) -> None:
    """Show what a cascade does, on sentences of the project's own.

    For each classifier found: some sentences with label, probability and route; then how long the full second tier
    alone and the cascade took on all the same sentences, how often they agree and how often they are right. For the
    tagger: sentences word by word, each with its tag and the depth at which it was decided; then the times of both.

    \b
    Example:
      cascade demo
      cascade demo --models models --threads 2
    """
    found = [name for name in (*CLASSIFIERS, TAGGER) if (models / name).is_dir()]
    if not found:
        every = [str(models / name) for name in (*CLASSIFIERS, TAGGER)]
        raise BundleNotFoundError(
            f"the demo needs {', '.join(every[:-1])} or {every[-1]}, found none; "
            "run it from the root of the repository, or give the folder with --models DIR"
        )
    for number, name in enumerate(found):
        if name == TAGGER:
            parts = words.shown(name, Tagger.from_pretrained(models / name, threads=threads))
        else:
            parts = texts.shown(name, Classifier.from_pretrained(models / name, threads=threads))
        click.echo("\n" * bool(number) + "\n\n".join(parts))

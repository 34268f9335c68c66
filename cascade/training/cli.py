"""`cascade-train`: the command line of this room.

It leaves everything but options and messages to `exits`, `first_tier` and `split`, and taggers to `tag_cli`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from cascade._version import __version__
from cascade.core.console import finish
from cascade.training.augmentation import Augmentation
from cascade.training.models.students import Static, Student, Transformer
from cascade.training.options import columns, loop, numbers, say, shared, task
from cascade.training.recipes.exits import ExitsOptions, train_exits
from cascade.training.recipes.first_tier import FirstTierOptions, train_first_tier
from cascade.training.recipes.objectives import Detached, Distilled, EarlierExits, Joint, LastExit, Objective
from cascade.training.split import hold_out
from cascade.training.tag_cli import crf, self_sample, tag_exits, tag_first_tier

__all__ = ["main", "train"]


@click.group(name="cascade-train", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cascade-train")
def train() -> None:
    """Train the two tiers of a cascade.

    \b
    Example:
      cascade-train exits bert-base-uncased --train train.jsonl --eval dev.jsonl --output runs/tier2
      cascade-train first-tier runs/tier2 --kind static --train train.jsonl --eval dev.jsonl --output runs/tier1
    """
    # transformers' advice ("you should probably train this model") says nothing that this command does not do.
    logging.getLogger("transformers").setLevel(logging.ERROR)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `cascade-train` and leave the process with its status. `arguments`: those of the process by default."""
    finish(train, arguments)


@train.command()
@click.argument("checkpoint")
@shared
@task
@click.option("--epochs", default=3.0, show_default=True, help="Passes over the training rows.")
@click.option("--learning-rate", default=5e-5, show_default=True, help="Of the backbone.")
@click.option("--head-factor", default=10.0, show_default=True, help="Heads learn this many times faster.")
@click.option(
    "--objective",
    type=click.Choice(["joint", "two-stage", "detached", "distil"]),
    default="joint",
    show_default=True,
    help="joint: all exits at once. two-stage: the last, then the others on a frozen backbone (DeeBERT). "
    "detached: gradients stop between exits (SWEET). distil: exits imitate the last one, no labels (FastBERT); "
    "full depth stays as it is.",
)
@click.option("--layer-weights", metavar="W,W,...", help="Weight of each exit's loss; rising 1,2,3,... by default.")
@click.option("--self-distil", default=0.0, show_default=True, help="Share of an exit's joint loss from the last exit.")
@click.option("--label-smoothing", default=0.0, show_default=True, help="Of the joint loss; against overconfidence.")
@click.option("--exits", "layers", metavar="L,L,...", help="Layers after which rows may leave; all by default.")
@click.option("--pooling", type=click.Choice(["mean", "first"]), help="What a head reads; the checkpoint's, else mean.")
@click.option("--vocabulary", type=int, help="Keep so many pieces of a WordPiece vocabulary.")
@click.option(
    "--multi-label",
    is_flag=True,
    help='Several labels per row, a sigmoid each; jsonl or parquet, "label": ["a", "c"], [] for none. A checkpoint '
    "whose problem_type says so needs no flag.",
)
@click.option("--min-words", default=0, show_default=True, help="Leave out training rows of fewer words.")
@click.option("--dropout", type=float, help="In the backbone; the checkpoint's by default. 0 is faster on a CPU.")
def exits(checkpoint: str, **given: Any) -> None:
    """Turn CHECKPOINT (a folder or a Hub id) into a multi-exit model.

    BERT, RoBERTa, ELECTRA, DistilBERT and ALBERT; pre-trained, fine-tuned (its head becomes the last exit, its
    labels and their order stay) or multi-exit already. Data: jsonl, csv or parquet files, or a data set by name
    (name:split).

    With --task tagging each line holds a sentence as {"tokens": [...], "tags": [...]} (jsonl or parquet); a word's tag
    is read at its first piece. The best epoch is the one with the best accuracy of the last exit, for B- and I- tags
    with its best entity F1.

    \b
    Example:
      cascade-train exits microsoft/MiniLM-L12-H384-uncased --train train.jsonl --eval dev.jsonl \\
          --vocabulary 8000 --epochs 4 --output runs/tier2
      cascade-train exits microsoft/MiniLM-L12-H384-uncased --task tagging --train pos.jsonl --eval dev.jsonl \\
          --vocabulary 12000 --epochs 6 --output runs/tagger
    """
    weights = numbers(given["layer_weights"], float, "--layer-weights")
    joint = Joint(weights=weights, distil=given["self_distil"], smoothing=given["label_smoothing"])
    objectives: dict[str, tuple[Objective, ...]] = {
        "joint": (joint,),
        "two-stage": (LastExit(), EarlierExits()),
        "detached": (Detached(weights=joint.weights, distil=joint.distil, smoothing=joint.smoothing),),
        "distil": (Distilled(),),
    }
    if given["task"] == "tagging":
        say(tag_exits(checkpoint, objectives[given["objective"]], given), given["output"])
        return
    report = train_exits(
        checkpoint,
        train=given["train"],
        evaluation=given["evaluation"],
        output=given["output"],
        options=ExitsOptions(
            objectives=objectives[given["objective"]],
            layers=numbers(given["layers"], int, "--exits"),
            pooling=given["pooling"],
            max_length=given["max_length"],
            vocabulary=given["vocabulary"],
            multi_label=given["multi_label"],
            min_words=given["min_words"],
            dropout=given["dropout"],
            loop=loop(given, head_factor=given["head_factor"]),
        ),
        columns=columns(given),
        overwrite=given["overwrite"],
    )
    say(report, given["output"])


@train.command("first-tier")
@click.argument("teacher")
@shared
@task
@click.option("--epochs", default=8.0, show_default=True, help="Passes over the training rows and the new ones.")
@click.option("--learning-rate", default=5e-4, show_default=True)
@click.option("--kind", type=click.Choice(["static", "transformer"]), default="static", show_default=True)
@click.option("--layers", default=2, show_default=True, help="Of a transformer.")
@click.option("--width", type=int, help="Of an embedding; 192 for static, 128 for a transformer by default.")
@click.option("--hidden", default=256, show_default=True, help="Width of a static tier's inner layers.")
@click.option(
    "--reach", type=int, help="Neighbours that a static tier reads a token with; 0, for tagging 2 by default."
)
@click.option("--hidden-layers", default=1, show_default=True, help="Of a static tagger.")
@click.option("--sentence", is_flag=True, help="A static tagger also reads the mean over its sentence.")
@click.option("--dropout", default=0.1, show_default=True)
@click.option("--imitation", default=0.7, show_default=True, help="Share of the loss from the teacher's answers.")
@click.option("--temperature", default=2.0, show_default=True, help="Softens the teacher's answers.")
@click.option("--extra-text", multiple=True, metavar="FILE", help="Text without labels; may be repeated.")
@click.option("--freeze-embeddings", is_flag=True, help="Keep the teacher's; a small tier with many words overfits.")
@click.option("--copies", default=2, show_default=True, help="New rows made from each training row.")
def first_tier(teacher: str, **given: Any) -> None:
    """Distil a first tier from TEACHER, a folder that `cascade-train exits` wrote.

    With --task tagging the teacher's answers are imitated word by word; --extra-text takes sentences as {"tokens":
    [...]}, or text lines with spaces between words.

    \b
    Example:
      cascade-train first-tier runs/tier2 --kind transformer --layers 2 --width 128 \\
          --train train.jsonl --eval dev.jsonl --output runs/tier1
      cascade-train first-tier runs/tagger --task tagging --kind static --reach 2 \\
          --train pos.jsonl --eval dev.jsonl --output runs/tagger1
    """
    if given["task"] == "tagging":
        say(tag_first_tier(teacher, given), given["output"])
        return
    students: dict[str, Callable[[], Student]] = {
        "static": lambda: Static(
            width=given["width"] or 192, hidden=given["hidden"], dropout=given["dropout"], reach=given["reach"] or 0
        ),
        "transformer": lambda: Transformer(
            layers=given["layers"], width=given["width"] or 128, dropout=given["dropout"]
        ),
    }
    report = train_first_tier(
        teacher,
        train=given["train"],
        evaluation=given["evaluation"],
        output=given["output"],
        extra_text=given["extra_text"],
        options=FirstTierOptions(
            student=students[given["kind"]](),
            imitation=given["imitation"],
            temperature=given["temperature"],
            freeze_embeddings=given["freeze_embeddings"],
            augmentation=Augmentation(copies=given["copies"]),
            max_length=given["max_length"],
            loop=loop(given, head_factor=1.0),
        ),
        columns=columns(given),
        overwrite=given["overwrite"],
    )
    say(report, given["output"])


train.add_command(self_sample)
train.add_command(crf)


@train.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--share", default=0.1, show_default=True, help="Share of the rows to hold out, of every label alike.")
@click.option("--kept", required=True, type=click.Path(path_type=Path), help="jsonl file for the rows that stay.")
@click.option("--held-out", required=True, type=click.Path(path_type=Path), help="jsonl file for the others.")
@click.option("--seed", default=1, show_default=True)
@click.option("--task", type=click.Choice(["classification", "tagging"]), default="classification", show_default=True)
def split(file: Path, share: float, kept: Path, held_out: Path, seed: int, task: str) -> None:
    """Hold out a share of a labelled FILE, stratified by label: for thresholds and for choosing epochs.

    \b
    Example:
      cascade-train split train.jsonl --share 0.1 --kept runs/train.jsonl --held-out runs/calibration.jsonl
    """
    stayed, out = hold_out(file, share=share, kept=kept, held_out=held_out, seed=seed, tagging=task == "tagging")
    click.echo(f"{stayed} rows in {kept}, {out} in {held_out}")

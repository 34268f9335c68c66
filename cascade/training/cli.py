"""`cascade-train`: the command line of this room.

It leaves everything but options and messages to `exits`, `first_tier` and `split`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from cascade import __version__
from cascade.cli.main import finish
from cascade.exceptions import OptionError
from cascade.training.augmentation import Augmentation
from cascade.training.data import Columns
from cascade.training.exits import ExitsOptions, train_exits
from cascade.training.first_tier import FirstTierOptions, train_first_tier
from cascade.training.loop import LoopOptions
from cascade.training.objectives import Detached, Distilled, EarlierExits, Joint, LastExit, Objective
from cascade.training.split import hold_out
from cascade.training.students import Static, StaticTagger, Student, TagStudent, Transformer
from cascade.training.tag_data import TagColumns
from cascade.training.tag_exits import TagExitsOptions, train_tag_exits
from cascade.training.tag_first_tier import TagFirstTierOptions, train_tag_first_tier

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


def _shared(command: Callable[..., None]) -> Callable[..., None]:
    """Options of both kinds of training."""
    for option in reversed(
        [
            click.option(
                "--train", "train", multiple=True, required=True, metavar="FILE", help="Labelled rows; may be repeated."
            ),
            click.option("--eval", "evaluation", metavar="FILE", help="Labelled rows; choose the best epoch."),
            click.option(
                "--output", required=True, type=click.Path(path_type=Path), help="Folder for the trained model."
            ),
            click.option("--overwrite", is_flag=True, help="Write into a folder that is not empty."),
            click.option("--resume", is_flag=True, help="Go on from the last checkpoint in --output."),
            click.option("--batch-size", default=32, show_default=True, help="Rows per step."),
            click.option("--warmup", default=0.06, show_default=True, help="Share of the steps with a rising rate."),
            click.option("--weight-decay", default=0.01, show_default=True, help="AdamW's."),
            click.option(
                "--average", default=0.0, show_default=True, help="Decay per step of a moving average of the weights."
            ),
            click.option("--max-length", default=128, show_default=True, help="Tokens per row, in training."),
            click.option("--seed", default=1, show_default=True, help="Of weights, order and dropout."),
            click.option("--text-column", default="text", show_default=True),
            click.option("--pair-column", default="text_pair", show_default=True),
            click.option("--label-column", default="label", show_default=True),
            click.option("--tokens-column", default="tokens", show_default=True, help="Lists of words, for tagging."),
            click.option("--tags-column", default="tags", show_default=True, help="A tag per word, for tagging."),
            click.option(
                "--task",
                type=click.Choice(["classification", "tagging"]),
                default="classification",
                show_default=True,
                help="A label per text, or a tag per word.",
            ),
        ]
    ):
        command = option(command)
    return command


@train.command()
@click.argument("checkpoint")
@_shared
@click.option("--epochs", default=3.0, show_default=True, help="Passes over the training rows.")
@click.option("--learning-rate", default=5e-5, show_default=True, help="Of the backbone.")
@click.option("--head-factor", default=10.0, show_default=True, help="Heads learn this many times faster.")
@click.option(
    "--objective",
    type=click.Choice(["joint", "two-stage", "detached", "distil"]),
    default="joint",
    show_default=True,
    help="joint: all exits at once. two-stage: the last, then the others on a frozen backbone (DeeBERT). "
    "detached: gradients stop between exits (SWEET). distil: exits imitate the last one, no labels (FastBERT).",
)
@click.option("--layer-weights", metavar="W,W,...", help="Weight of each exit's loss; rising 1,2,3,... by default.")
@click.option("--self-distil", default=0.0, show_default=True, help="Share of an exit's joint loss from the last exit.")
@click.option("--label-smoothing", default=0.0, show_default=True, help="Of the joint loss; against overconfidence.")
@click.option("--exits", "layers", metavar="L,L,...", help="Layers after which rows may leave; all by default.")
@click.option("--pooling", type=click.Choice(["mean", "first"]), help="What a head reads; the checkpoint's, else mean.")
@click.option("--vocabulary", type=int, help="Keep so many pieces of a WordPiece vocabulary.")
@click.option("--multi-label", is_flag=True, help="Several labels per row, a sigmoid each.")
@click.option("--min-words", default=0, show_default=True, help="Leave out training rows of fewer words.")
@click.option("--dropout", type=float, help="In the backbone; the checkpoint's by default. 0 is faster on a CPU.")
def exits(checkpoint: str, **given: Any) -> None:
    """Turn CHECKPOINT (a folder or a Hub id) into a multi-exit model.

    BERT, RoBERTa, ELECTRA, DistilBERT and ALBERT; pre-trained, fine-tuned (its head becomes the last exit) or
    multi-exit already. Data: jsonl, csv or parquet files, or a data set by name (name:split).

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
    weights = _numbers(given["layer_weights"], float, "--layer-weights")
    joint = Joint(weights=weights, distil=given["self_distil"], smoothing=given["label_smoothing"])
    objectives: dict[str, tuple[Objective, ...]] = {
        "joint": (joint,),
        "two-stage": (LastExit(), EarlierExits()),
        "detached": (Detached(weights=joint.weights, distil=joint.distil, smoothing=joint.smoothing),),
        "distil": (Distilled(),),
    }
    if given["task"] == "tagging":
        _not_for_tagging(given, ("pooling", "multi_label"))
        report = train_tag_exits(
            checkpoint,
            train=given["train"],
            evaluation=given["evaluation"],
            output=given["output"],
            options=TagExitsOptions(
                objectives=objectives[given["objective"]],
                layers=_numbers(given["layers"], int, "--exits"),
                max_length=given["max_length"],
                vocabulary=given["vocabulary"],
                min_words=given["min_words"],
                dropout=given["dropout"],
                loop=_loop(given, head_factor=given["head_factor"]),
            ),
            columns=_tag_columns(given),
            overwrite=given["overwrite"],
        )
        _say(report, given["output"])
        return
    report = train_exits(
        checkpoint,
        train=given["train"],
        evaluation=given["evaluation"],
        output=given["output"],
        options=ExitsOptions(
            objectives=objectives[given["objective"]],
            layers=_numbers(given["layers"], int, "--exits"),
            pooling=given["pooling"],
            max_length=given["max_length"],
            vocabulary=given["vocabulary"],
            multi_label=given["multi_label"],
            min_words=given["min_words"],
            dropout=given["dropout"],
            loop=_loop(given, head_factor=given["head_factor"]),
        ),
        columns=_columns(given),
        overwrite=given["overwrite"],
    )
    _say(report, given["output"])


@train.command("first-tier")
@click.argument("teacher")
@_shared
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
        _say(_tag_first_tier(teacher, given), given["output"])
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
            loop=_loop(given, head_factor=1.0),
        ),
        columns=_columns(given),
        overwrite=given["overwrite"],
    )
    _say(report, given["output"])


def _tag_first_tier(teacher: str, given: dict[str, Any]) -> dict[str, Any]:
    students: dict[str, Callable[[], TagStudent]] = {
        "static": lambda: StaticTagger(
            width=given["width"] or 192,
            hidden=given["hidden"],
            reach=2 if given["reach"] is None else given["reach"],
            layers=given["hidden_layers"],
            dropout=given["dropout"],
        ),
        "transformer": lambda: Transformer(
            layers=given["layers"], width=given["width"] or 128, dropout=given["dropout"]
        ),
    }
    return train_tag_first_tier(
        teacher,
        train=given["train"],
        evaluation=given["evaluation"],
        output=given["output"],
        extra_text=given["extra_text"],
        options=TagFirstTierOptions(
            student=students[given["kind"]](),
            imitation=given["imitation"],
            temperature=given["temperature"],
            freeze_embeddings=given["freeze_embeddings"],
            augmentation=Augmentation(copies=given["copies"]),
            max_length=given["max_length"],
            loop=_loop(given, head_factor=1.0),
        ),
        columns=_tag_columns(given),
        overwrite=given["overwrite"],
    )


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


def _columns(given: dict[str, Any]) -> Columns:
    return Columns(text=given["text_column"], pair=given["pair_column"], label=given["label_column"])


def _tag_columns(given: dict[str, Any]) -> TagColumns:
    return TagColumns(tokens=given["tokens_column"], tags=given["tags_column"])


def _not_for_tagging(given: dict[str, Any], names: Sequence[str]) -> None:
    for name in names:
        if given[name]:
            raise OptionError(
                f"--{name.replace('_', '-')} must be left out of --task tagging, was: {given[name]}; a word has one "
                "tag, read at its first piece"
            )


def _loop(given: dict[str, Any], *, head_factor: float) -> LoopOptions:
    return LoopOptions(
        epochs=given["epochs"],
        batch_size=given["batch_size"],
        learning_rate=given["learning_rate"],
        head_factor=head_factor,
        weight_decay=given["weight_decay"],
        warmup=given["warmup"],
        average=given["average"],
        seed=given["seed"],
        resume=given["resume"],
    )


def _numbers(text: str | None, kind: Callable[[str], Any], option: str) -> tuple[Any, ...] | None:
    if text is None:
        return None
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{option} must be numbers separated by commas, was: {text}") from None


def _say(report: dict[str, Any], output: Path) -> None:
    scores = ", ".join(f"{name.replace('_', ' ')} {value * 100:.2f}" for name, value in report["scores"].items())
    click.echo(f"wrote {output} in {report['seconds']:.0f} s{': ' + scores if scores else ''}")

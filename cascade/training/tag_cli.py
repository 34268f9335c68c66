"""What `cascade-train` does for taggers: two commands of their own, and `--task tagging` of the others.

It leaves everything but options and messages to `tag_exits`, `tag_first_tier`, `self_sample` and `tag_crf`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from cascade.training.augmentation import Augmentation
from cascade.training.models.students import StaticTagger, TagStudent, Transformer
from cascade.training.options import loop, not_for_tagging, numbers, say, shared, tag_columns
from cascade.training.recipes.objectives import Objective
from cascade.training.recipes.sampling import ExitRanges
from cascade.training.recipes.self_sample import SelfSampleOptions, train_self_sample
from cascade.training.recipes.tag_crf import CrfOptions, train_crf
from cascade.training.recipes.tag_exits import TagExitsOptions, train_tag_exits
from cascade.training.recipes.tag_first_tier import TagFirstTierOptions, train_tag_first_tier

__all__ = ["crf", "self_sample", "tag_exits", "tag_first_tier"]


def tag_exits(checkpoint: str, objectives: tuple[Objective, ...], given: dict[str, Any]) -> dict[str, Any]:
    """`cascade-train exits --task tagging`: the report. `given`: the command's options."""
    not_for_tagging(given, ("pooling", "multi_label"))
    return train_tag_exits(
        checkpoint,
        train=given["train"],
        evaluation=given["evaluation"],
        output=given["output"],
        options=TagExitsOptions(
            objectives=objectives,
            layers=numbers(given["layers"], int, "--exits"),
            max_length=given["max_length"],
            vocabulary=given["vocabulary"],
            min_words=given["min_words"],
            dropout=given["dropout"],
            loop=loop(given, head_factor=given["head_factor"]),
        ),
        columns=tag_columns(given),
        overwrite=given["overwrite"],
    )


def tag_first_tier(teacher: str, given: dict[str, Any]) -> dict[str, Any]:
    """`cascade-train first-tier --task tagging`: the report. `given`: the command's options."""
    students: dict[str, Callable[[], TagStudent]] = {
        "static": lambda: StaticTagger(
            width=given["width"] or 192,
            hidden=given["hidden"],
            reach=2 if given["reach"] is None else given["reach"],
            layers=given["hidden_layers"],
            dropout=given["dropout"],
            sentence=given["sentence"],
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
            loop=loop(given, head_factor=1.0),
        ),
        columns=tag_columns(given),
        overwrite=given["overwrite"],
    )


@click.command("self-sample")
@click.argument("tagger")
@shared
@click.option("--epochs", default=3.0, show_default=True, help="Passes over the training sentences; the paper's: 30.")
@click.option("--learning-rate", default=1e-5, show_default=True, help="Of the backbone.")
@click.option("--head-factor", default=10.0, show_default=True, help="Heads learn this many times faster.")
@click.option("--layer-weights", metavar="W,W,...", help="Weight of each exit's loss; rising 1,2,3,... by default.")
@click.option("--windows", default="5,7,9,11,13,15", show_default=True, help="Words around a word that it waits for.")
@click.option("--thresholds", default="0.01,0.03,0.05,0.1,0.15,0.2,0.25", show_default=True, help="Of entropy, 0 to 1.")
@click.option("--upper-factor", default=2.0, show_default=True, help="Of thresholds in the upper half of the layers.")
@click.option("--cap", default=0.5, show_default=True, help="Which the upper half's thresholds do not pass.")
@click.option(
    "--fastest", default=0.2, show_default=True, help="Share of rows with the smallest window or largest threshold."
)
@click.option("--full-depth", default=0.4, show_default=True, help="Share of rows that go through all layers.")
@click.option("--crops", default=0, show_default=True, help="Random runs of words to train on too, of each sentence.")
@click.option("--flooding", is_flag=True, help="Learn the distance from the first stage's loss.")
def self_sample(tagger: str, **given: Any) -> None:
    """Teach TAGGER, a folder that `cascade-train exits --task tagging` wrote, to live with words that leave early.

    TOKEE's second stage: words leave in training as they would in use, at exits simulated from TAGGER's own
    uncertainty with windows and thresholds drawn per sentence, and keep their last state (after its LayerNorm).

    \b
    Example:
      cascade-train self-sample runs/tagger --train pos.jsonl --eval dev.jsonl \\
          --windows 1,3,5 --thresholds 0.02,0.05,0.1,0.2,0.4 --epochs 3 --output runs/tagger2
    """
    report = train_self_sample(
        tagger,
        train=given["train"],
        evaluation=given["evaluation"],
        output=given["output"],
        options=SelfSampleOptions(
            ranges=ExitRanges(
                windows=numbers(given["windows"], int, "--windows") or (),
                thresholds=numbers(given["thresholds"], float, "--thresholds") or (),
                upper_factor=given["upper_factor"],
                cap=given["cap"],
                fastest=given["fastest"],
                full_depth=given["full_depth"],
            ),
            weights=numbers(given["layer_weights"], float, "--layer-weights"),
            flooding=given["flooding"],
            crops=given["crops"],
            max_length=given["max_length"],
            loop=loop(given, head_factor=given["head_factor"]),
        ),
        columns=tag_columns(given),
        overwrite=given["overwrite"],
    )
    say(report, given["output"])


@click.command()
@click.argument("bundle")
@click.option("--train", "train", multiple=True, required=True, metavar="FILE", help="Tagged sentences; repeatable.")
@click.option("--eval", "evaluation", metavar="FILE", help="Tagged sentences; measure decoders on them.")
@click.option("--l2", default=0.1, show_default=True, help="Of the transitions; keeps those that never occur finite.")
@click.option("--iterations", default=3, show_default=True, help="Of mean-field inference.")
@click.option(
    "--write", type=click.Choice(["argmax", "viterbi", "crf", "mean-field"]), help="Make it the bundle's decoding."
)
@click.option("--threads", type=int, help="[default: the CPUs allowed]")
@click.option("--tokens-column", default="tokens", show_default=True, help="Lists of words.")
@click.option("--tags-column", default="tags", show_default=True, help="A tag per word.")
def crf(bundle: str, **given: Any) -> None:
    """Learn which tags follow which, over the answers of BUNDLE, a tagger's folder or Hub id: a linear-chain CRF.

    The models are not changed. Use sentences that did not train them: on those that did they are too sure to need their
    neighbours. Without --eval decoders are measured on the sentences that the transitions were learned from.

    \b
    Example:
      cascade-train crf models/slots --train calibration.jsonl --eval dev.jsonl
      cascade-train crf models/slots --train calibration.jsonl --eval dev.jsonl --write viterbi
    """
    report = train_crf(
        bundle,
        train=given["train"],
        evaluation=given["evaluation"],
        options=CrfOptions(
            l2=given["l2"], iterations=given["iterations"], write=given["write"], threads=given["threads"]
        ),
        columns=tag_columns(given),
    )
    for name, scores in report["decoders"].items():
        shown = ", ".join(f"{key.replace('_', ' ')} {value * 100:.2f}" for key, value in scores["scores"].items())
        click.echo(f"{name:10} {shown}, {scores['seconds'] * 1000:.0f} ms")
    click.echo(f"{report['words']} words, learned from {report['learned_from']} in {report['seconds']:.0f} s")
    if given["write"]:
        click.echo(f"wrote {bundle}: it decodes with {report['decoding']}")

"""`cascade-train`: the command line of this package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from cascade._version import __version__
from cascade.core.console import finish
from cascade.core.options import options_of, value_of
from cascade.exceptions import OptionError
from cascade.text.labelled import Columns
from cascade.training.loop import LoopOptions
from cascade.training.models.students import Ngrams, Static, StaticTagger, Student, Transformer
from cascade.training.recipes.crf import train_crf
from cascade.training.recipes.exits import ExitsOptions, train_exits
from cascade.training.recipes.first_tier import FirstTierOptions, train_first_tier
from cascade.training.recipes.objectives import OBJECTIVES, Objective
from cascade.training.recipes.pruning import PruneOptions
from cascade.training.recipes.pruning import prune as prune_model
from cascade.training.run import Run
from cascade.training.task import CLASSIFICATION, TASKS, Task

RUN = "train evaluation:eval output overwrite"
LOOP = "epochs learning_rate batch_size warmup weight_decay average bf16 seed resume"
ANSWERS = "extra_text answers shared"
task_option = click.option("--task", type=click.Choice(sorted(TASKS)), default="classification", show_default=True,
                           callback=lambda _context, _parameter, name: TASKS[name],
                           help="A label per text, or a tag per word.")  # fmt: skip


@click.group(name="cascade-train", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cascade-train")
def train() -> None:
    """Train the two tiers of a cascade.

    \b
    Example:
      cascade-train exits bert-base-uncased --train train.jsonl --eval dev.jsonl --output runs/tier2
      cascade-train first-tier runs/tier2 --kind static --train train.jsonl --eval dev.jsonl --output runs/tier1
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `cascade-train` and leave the process with its status. `arguments`: those of the process by default."""
    finish(train, arguments)


def run_of(source: str, given: dict[str, Any], task: Task) -> Run:
    """What every recipe takes beside its options."""
    return value_of(Run, given | {"source": source, "task": task, "columns": value_of(Columns, given)})


def report(trained: dict[str, Any], output: Path) -> None:
    """One line about what was trained."""
    scores = ", ".join(f"{name.replace('_', ' ')} {value * 100:.2f}" for name, value in trained["scores"].items())
    click.echo(f"wrote {output} in {trained['seconds']:.0f} s{': ' + scores if scores else ''}")


@train.command()
@click.argument("checkpoint")
@options_of(Run, f"{RUN} {ANSWERS}")
@options_of(LoopOptions, f"{LOOP} head_factor")
@options_of(Columns)
@task_option
@click.option("--objective", type=click.Choice([*OBJECTIVES]), default="joint", show_default=True,
              help="joint: all exits at once. two-stage: the last, then the others on a frozen backbone (DeeBERT). "
              "detached: gradients stop between exits (SWEET). distil: exits imitate the last one, no labels "
              "(FastBERT); full depth stays as it is.")  # fmt: skip
@options_of(Objective, "weights:layer-weights")
@options_of(
    ExitsOptions, "layers:exits pooling max_length vocabulary multi_label dropout adapter rank frozen_layers imitation"
)
def exits(checkpoint: str, task: Task, **given: Any) -> None:
    """Turn CHECKPOINT (a folder or a Hub id) into a multi-exit model.

    BERT, RoBERTa, XLM-R, CamemBERT, MPNet, ELECTRA, DistilBERT, ALBERT, DeBERTa-v2, -v3 and ModernBERT; pre-trained,
    fine-tuned (its head becomes the last exit, its labels and their order stay) or multi-exit already. Data: jsonl, csv
    or parquet files. Of a fine-tuned or multi-exit CHECKPOINT they need no labels, and may be text files: exits then
    learn its own answers. With --objective distil full depth stays as it is.

    With --task tagging each line holds a sentence as {"tokens": [...], "tags": [...]} (jsonl or parquet); a word's tag
    is read at its first token. The best epoch is the one with the best accuracy of the last exit, for B- and I- tags
    with its best entity F1.

    \b
    Example:
      cascade-train exits microsoft/MiniLM-L12-H384-uncased --train train.jsonl --eval dev.jsonl \\
          --vocabulary 8000 --epochs 4 --output runs/tier2
      cascade-train exits microsoft/MiniLM-L12-H384-uncased --task tagging --train pos.jsonl --eval dev.jsonl \\
          --vocabulary 12000 --epochs 6 --output runs/tagger
    """
    objectives, weights = OBJECTIVES[given["objective"]], given["weights"]
    given["objectives"] = tuple(replace(own, weights=weights) if own.exits == "all" else own for own in objectives)
    given["loop"] = value_of(LoopOptions, given)
    report(train_exits(run_of(checkpoint, given, task), value_of(ExitsOptions, given)), given["output"])


@train.command("first-tier")
@click.argument("teacher")
@options_of(Run, f"{RUN} {ANSWERS}")
@options_of(LoopOptions, LOOP, epochs=8.0, learning_rate=5e-4)
@options_of(Columns)
@task_option
@click.option("--kind", type=click.Choice(["static", "ngrams", "transformer"]), default="static", show_default=True)
@click.option("--layers", default=2, show_default=True, help="Of a transformer.")
@options_of(Static, "width hidden dropout reach vocabulary", width=None, reach=None)
@click.option("--hidden-layers", default=1, show_default=True, help="Of a static tagger.")
@options_of(StaticTagger, "sentence")
@options_of(FirstTierOptions, "imitation temperature copies max_length")
def first_tier(teacher: str, task: Task, **given: Any) -> None:
    """Distil a first tier from TEACHER, a folder that `cascade-train exits` wrote or any fine-tuned model.

    Rows without labels (text files too) teach by TEACHER's answers; with --task tagging word by word, and sentences
    are {"tokens": [...]}, or text lines with spaces between words.

    \b
    Example:
      cascade-train first-tier runs/tier2 --kind transformer --layers 2 --width 128 \\
          --train train.jsonl --eval dev.jsonl --output runs/tier1
      cascade-train first-tier runs/tagger --task tagging --kind static --reach 2 \\
          --train pos.jsonl --eval dev.jsonl --output runs/tagger1
    """
    student: Student
    if given["kind"] == "transformer":
        if given["vocabulary"] is not None:
            raise OptionError(f"--vocabulary must be left out of --kind transformer, got {given['vocabulary']}")
        student = Transformer(layers=given["layers"], width=given["width"] or 128, dropout=given["dropout"])
    else:
        sizes = {name: value for name, value in given.items() if value is not None} | {"layers": given["hidden_layers"]}
        kind: type[Static] = Static if task is CLASSIFICATION else StaticTagger
        if given["kind"] == "ngrams":
            if task is not CLASSIFICATION or "reach" in sizes:
                told = f"--reach {sizes['reach']}" if "reach" in sizes else f"--task {task.name}"
                raise OptionError(f"--kind ngrams must be for texts and without --reach, got {told}; use --kind static")
            kind = Ngrams
        student = value_of(kind, sizes)
    given["student"] = student
    given["loop"] = value_of(LoopOptions, given | {"head_factor": 1.0})
    report(train_first_tier(run_of(teacher, given, task), value_of(FirstTierOptions, given)), given["output"])


@train.command()
@click.argument("checkpoint")
@click.option("--texts", "train", multiple=True, required=True, metavar="FILE", help="Labels are not read; repeatable.")
@options_of(Run, "output overwrite")
@options_of(Columns)
@task_option
@options_of(PruneOptions, "ffn max_length")
def prune(checkpoint: str, task: Task, **given: Any) -> None:
    """Make the feed-forward parts of CHECKPOINT narrower, by texts without labels and without training.

    A folder that `cascade-train exits` or `first-tier --kind transformer` wrote, or a fine-tuned model; not ALBERT or
    ModernBERT. Half of the neurons are two thirds of a layer's products. The neurons that stay are fitted so that
    each layer answers as before, as far as it can; exits, labels and tokenizer stay, and every command goes on from
    OUTPUT.

    \b
    Example:
      cascade-train prune runs/tier2 --texts train.jsonl --ffn 0.5 --output runs/narrow
      cascade-export --tier2 runs/narrow --calibration calibration.jsonl --output runs/bundle
    """
    made = prune_model(run_of(checkpoint, given, task), value_of(PruneOptions, given))
    for row in made["layers"]:
        click.echo(f"layer {row['layer']}: {row['error']:.2%} lost, {row['unfitted']:.2%} without the fit")
    report(made, given["output"])


@train.command()
@click.argument("bundle")
@click.option("--train", "train", multiple=True, required=True, metavar="FILE", help="Tagged sentences; repeatable.")
@click.option("--eval", "evaluation", metavar="FILE", help="Tagged sentences; measure decoders on them.")
@click.option("--write", type=click.Choice(["argmax", "viterbi", "crf"]), help="Make it the bundle's decoding.")
@click.option("--threads", type=int, help="[default: the CPUs allowed]")
@options_of(Columns, "tokens_column label_column")
def crf(
    bundle: str, train: Sequence[str], evaluation: str | None, write: str | None, threads: int | None, **given: Any
) -> None:
    """Learn which tags follow which, over the answers of BUNDLE, a tagger's folder or Hub id: a linear-chain CRF.

    The models are not changed. Use sentences that did not train them: on those that did they are too sure to need their
    neighbours. Without --eval decoders are measured on the sentences that the transitions were learned from.

    \b
    Example:
      cascade-train crf models/slots --train calibration.jsonl --eval dev.jsonl
      cascade-train crf models/slots --train calibration.jsonl --eval dev.jsonl --write viterbi
    """
    columns = value_of(Columns, given)
    found = train_crf(bundle, train=train, evaluation=evaluation, columns=columns, write=write, threads=threads)
    for name, scores in found["decoders"].items():
        shown = ", ".join(f"{key.replace('_', ' ')} {value * 100:.2f}" for key, value in scores["scores"].items())
        click.echo(f"{name:7} {shown}, {scores['seconds'] * 1000:.0f} ms")
    click.echo(f"{found['words']} words, learned from {found['learned_from']} in {found['seconds']:.0f} s")
    if write:
        click.echo(f"wrote {bundle}: it decodes with {found['decoding']}")

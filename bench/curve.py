"""`cascade-bench curve`: settings of the front, as calibration finds them by replay, in turns with fixed depths.

What is shown is measured: accuracies of real runs, speed-ups of turns.
"""

from __future__ import annotations

import string
from functools import partial

import click
import numpy as np

from cascade.pipelines.tagger import Tagger
from cascade.policies.settings import Policies
from cascade_bench.options import Asked, labelled_file_options
from cascade_bench.systems.local import Model, System, answered, systems
from cascade_bench.table.cli import method
from cascade_bench.table.data import Data
from cascade_bench.table.measuring import Row, Table, as_text, entries, measure
from cascade_bench.timing import machine
from cascade_bench.timing.interleaving import Progress, quiet
from cascade_bench.timing.report import bar, write_json

WORST = 0.1  # accuracy that a setting may lose to be of interest


@click.command(short_help="Accuracy over speed: settings of the front, timed beside fixed depths.")
@labelled_file_options
@click.option("--points", type=click.IntRange(1, 26), default=6, show_default=True, metavar="N", help="Of the front.")
def curve(asked: Asked, *, points: int) -> None:
    """What settings are right about, and how fast they are: some of the best trade-offs, beside fixed depths.

    MODEL is a folder or a Hub id, of a classifier or a tagger. All tiers answer the file once, at every exit, and
    thresholds are replayed, as in `cascade calibrate --no-guarantee` (extra: calibrate). Some settings that no other
    beats, the last tier whole and cut after each exit, every tier alone, of more than two every pair, and the bundle
    as configured are timed in turns. Without labels, agreement with full depth takes the place of accuracy.

    \b
    Example:
      cascade-bench curve models/sentiment --data dev.jsonl --threads 2
      cascade-bench curve models/sentiment --data dev.jsonl --json curve.json
    """
    pipeline, data, before, _ = asked.open()
    with bar() as step:
        found = sweep(pipeline, data, points=points, repeats=asked.repeats, progress=step)
    best = "; ".join(row.name for row in ahead(found))
    said = ["Lettered settings were chosen on these rows.", f"Nothing else is both faster and as good as: {best}."]
    click.echo(as_text(found, said, [method(found, asked.repeats), machine.in_words(before)]))
    write_json(asked.json_file, before, entries(found), details=asked.details, notes=data.notes)


def best_policies(model: Model, data: Data, count: int) -> list[Policies]:
    """At most so many settings that no other beats in accuracy and cost, replayed on these rows, cheapest first."""
    from cascade.calibration.certify.outcomes import Step
    from cascade.calibration.certify.word_paths import front
    from cascade.calibration.choosing import text_points, word_points
    from cascade.calibration.examples import tag_numbers
    from cascade.calibration.observing import observe_sentences, observe_texts

    points = [Step(model.policies.full_depth(), risk=0.0, cost=1.0, deferred=1.0)]
    if isinstance(model, Tagger):
        words = observe_sentences(model, data.items, tag_numbers(data.items, data.right, model.labels)).fitting()
        points += word_points(words.read_whole(), max_drop=WORST, like=model.policies) if len(words) else []
    else:
        several = [own if isinstance(own, tuple) else (own,) for own in data.right]
        truth = np.array([[name in own for name in model.labels] for own in several], dtype=np.int64)
        answers = observe_texts(model, data.items, truth if model.multi_label else truth.argmax(axis=1))
        points += text_points(answers, blends=model.policies.blend, like=model.policies)
    best = [point for point in front(points) if point.risk <= WORST]
    places = np.log([max(point.cost, 1e-9) for point in best])
    wanted = np.linspace(places[0], places[-1], count)
    return [best[number].policies for number in np.unique(np.abs(places[:, None] - wanted).argmin(axis=0)).tolist()]


def sweep(model: Model, data: Data, *, points: int = 6, repeats: int = 7, progress: Progress = quiet) -> Table:
    """Replay thresholds, then time at most `points` settings of the front, with a letter each, beside fixed depths."""
    progress("all tiers, at every exit")
    tested = [system for system in systems(model) if system.key != "exits"]
    for letter, own in zip(string.ascii_uppercase, best_policies(model, data, points), strict=False):
        name = ", ".join(map(repr, (*own.routers, own.exits[-1])))
        tested.append(System(letter, f"{letter}: {name}", partial(answered, model.with_policies(own))))
    return measure(tested, data, repeats=repeats, progress=progress)


def ahead(table: Table) -> list[Row]:
    """The lines that no other beats: at least as fast and as accurate, and better in one of them."""
    found = [(row.speed, row.accuracy) for row in table.rows]
    beaten = [any(a >= b[0] and c >= b[1] and (a, c) != b for a, c in found) for b in found]
    return [row for row, other in zip(table.rows, beaten, strict=True) if not other]

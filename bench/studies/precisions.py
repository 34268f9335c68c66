"""One second tier in several numeric forms: seconds, accuracy, agreement, and whether answers depend on batch mates.

    cascade-export ... --output runs/fp32 --int8 none         and so on: a bundle per form, of the same checkpoint
    python bench/studies/precisions.py runs/fp32 runs/static runs/dynamic --data dev.jsonl --threads 2

The first bundle is what the others are compared with. Found on two AMX cores: static int8 answers 99.4 to 99.6 %
as fp32 does and is 3 times as fast; its answers do not depend on batch mates, those of dynamic int8 do (0.6 to 1 %).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any

import click
import numpy as np

from cascade.core.statistics import shown
from cascade.policies.batching import BatchingPolicy, FixedSize, TokenBudget
from cascade_bench.systems.local import FULL, Model, System, answered, load, whole
from cascade_bench.table.data import Data, read_data
from cascade_bench.table.measuring import measure
from cascade_bench.timing.report import grid

BATCHINGS: Sequence[BatchingPolicy] = (FixedSize(8), FixedSize(64), TokenBudget(2048))
"""In which a row has other mates each time, and other padding inside attention."""


def stability(model: Model, data: Data) -> tuple[float, float]:
    """How far a probability moves at most between batchings, and the share of units whose answer changes."""
    made: list[Any] = [model.with_batching(batching).predict(data.items) for batching in BATCHINGS]
    difference = np.ptp(np.stack([one.probabilities for one in made]), axis=0).max()
    answers = [list(chain.from_iterable(one.tags)) if data.words else list(one.labels) for one in made]
    same = [all(answer == first for answer in others) for first, *others in zip(*answers, strict=True)]
    return float(difference), 1 - sum(same) / len(same)


@click.command()
@click.argument("bundles", nargs=-1, required=True)
@click.option("--data", "file", required=True, help="A labelled file.")
@click.option("--threads", default=2, show_default=True)
@click.option("--repeats", default=5, show_default=True, help="Turns of each.")
def main(bundles: Sequence[str], file: str, threads: int, repeats: int) -> None:
    """Bundles of one checkpoint at full depth, in turns."""
    models = {name: whole(load(name, threads=threads)) for name in bundles}
    data = read_data(file, models[bundles[0]])
    systems = [
        System(FULL if number == 0 else name, name, partial(answered, model))
        for number, (name, model) in enumerate(models.items())
    ]
    table = measure(systems, data, repeats=repeats)
    base = answered(models[bundles[0]], data.items).labels
    rows = []
    for row, model in zip(table.rows, models.values(), strict=True):
        difference, changed = stability(model, data)
        agreement = data.agreement(answered(model, data.items).labels, base)
        shares = (f"{share:.2%}" for share in (row.accuracy, agreement))
        rows.append([row.name, *shares, shown(row.over_full), f"{difference:.1e}", f"{changed:.2%}"])
    head = ["bundle", data.metric, "as the first", "over the first", "largest difference", "answers changed"]
    click.echo(grid(head, rows))
    click.echo("Difference of a probability, and answers changed, when the same rows run in other batches.")


if __name__ == "__main__":
    main()

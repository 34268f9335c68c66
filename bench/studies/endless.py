"""A stream of a million texts: seconds per text and memory as it goes on.

    python bench/studies/endless.py models/sentiment --data dev.jsonl --threads 2

Found on two AMX cores: 1,000,000 texts take 0.57 ms each, 4.1 % longer than the first 10,000; resident memory is 229
MiB after those and between 238 and 260 MiB from then on. Two threads are 1.78 [1.73, 1.81] times as fast as one.

Texts are those of a file over and over, each with a number of its own, so that whatever remembers texts meets new ones.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial

import click
import psutil

from cascade.core.statistics import shown, speed_up
from cascade.engine.streaming import StreamOptions
from cascade_bench.systems.local import Model, load
from cascade_bench.table.data import read_items
from cascade_bench.timing.interleaving import interleave

NUMBERS, MIXED = 10_000_000, 7_368_787  # without a common divisor, so that every number comes once
WARM_UP = 1024
WHOLE = StreamOptions(max_age=None)


def numbered(given: Sequence[str], count: int, *, start: int = 0) -> Iterator[str]:
    """So many texts, those given over and over, each with seven digits that no other has."""
    for place, text in zip(range(start, start + count), itertools.cycle(given), strict=False):
        yield f"{text} {place * MIXED % NUMBERS:07}"


def marks(model: Model, given: Sequence[str], texts: int, every: int) -> Iterator[tuple[int, float, float]]:
    """Texts answered, seconds since the start and MiB of memory, about every so many texts."""
    deque(model.stream(numbered(given, WARM_UP, start=texts), options=WHOLE), maxlen=0)
    process, begin = psutil.Process(), time.perf_counter()
    answers = model.stream(numbered(given, texts), options=WHOLE)
    for number, _ in enumerate(answers, 1):
        if number % every == 0 or number == texts:
            yield number, time.perf_counter() - begin, process.memory_info().rss / 2**20


@click.command()
@click.argument("model")
@click.option("--data", required=True, help="Texts; they come again until there are enough.")
@click.option("--texts", default=1_000_000, show_default=True, help="Of the stream.")
@click.option("--every", default=10_000, show_default=True, help="Texts between marks.")
@click.option("--short", default=2000, show_default=True, help="Texts of the streams that compare threads.")
@click.option("--threads", default=2, show_default=True, help="Of the stream; compared with one.")
@click.option("--repeats", default=7, show_default=True, help="Turns of the short streams.")
def main(model: str, data: str, texts: int, every: int, short: int, threads: int, repeats: int) -> None:
    """Seconds per text and memory of a stream that does not end, and what more threads bring."""
    given = [text for text in read_items(data) if isinstance(text, str)]
    several = load(model, threads=threads)
    found = list(marks(several, given, texts, every))
    (first, begun, held), (last, ended, _) = found[0], found[-1]
    later = [mark[2] for mark in found]
    per_text = (ended - begun) / max(last - first, 1) * 1e3
    click.echo(
        f"{last} texts: the first {first} took {begun / first * 1e3:.3f} ms each, the rest {per_text:.3f} ms; memory "
        f"was {held:.0f} MiB after the first, then between {min(later):.0f} and {max(later):.0f} MiB"
    )
    if threads > 1:
        models, starts = {"one": load(model, threads=1), "several": several}, itertools.count(0, short)

        def run(own: Model) -> None:
            deque(own.stream(numbered(given, short, start=next(starts)), options=WHOLE), maxlen=0)

        turns = interleave({name: partial(run, own) for name, own in models.items()}, repeats=repeats)
        gain = speed_up(turns.seconds["one"], turns.seconds["several"])
        click.echo(f"{threads} threads are {shown(gain)} times as fast as one, on streams of {short} texts")


if __name__ == "__main__":
    main()

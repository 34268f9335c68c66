"""Seconds in turns: bundles beside each other, and beside the user's own pipeline of transformers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from cascade.training.build.looking import Checkpoint
from cascade.training.models.config import adapted
from cascade.training.models.loading import load_model

TURNS = (3, 9)  # at least, at most
BATCHES = (8, 32)


def in_turns(ways: Mapping[str, Callable[[], object]], *, seconds: float) -> dict[str, list[float]]:
    """Seconds of each way in turns, every other turn backwards, after a first run that does not count."""
    begin, taken = time.perf_counter(), dict[str, list[float]]((name, []) for name in ways)
    for way in ways.values():
        way()
    for turn in range(TURNS[1]):
        for name in list(ways)[:: -1 if turn % 2 else 1]:
            taken[name].append(_seconds(ways[name]))
        spent = time.perf_counter() - begin
        if turn + 1 >= TURNS[0] and spent * (1 + 1 / (turn + 2)) > seconds:
            break
    return taken


def own_pipeline(checkpoint: Checkpoint, items: Sequence[Any]) -> tuple[str, Callable[[], object]]:
    """The user's `transformers.pipeline` on the CPU at the best of its batch sizes, sorted by length or not.

    Returns:
        How it is used, in words, and a function that answers all items.
    """
    import transformers

    make: Any = transformers.pipeline  # overloaded by task
    model: Any = str(checkpoint.source)
    if adapted(model) is not None:
        model = load_model(checkpoint.task.model.whole, model)
    pipe: Any = make(checkpoint.task.model.task, model=model, tokenizer=str(checkpoint.source), device="cpu")
    options = {} if checkpoint.tags else {"truncation": True}
    given: list[Any] = [" ".join(item) if isinstance(item, list) else item for item in items]
    given = [{"text": item[0], "text_pair": item[1]} if isinstance(item, tuple) else item for item in given]

    @torch.inference_mode()
    def run(texts: Sequence[Any], batch: int) -> object:
        return list(pipe(texts, batch_size=batch, **options))

    run(given[:8], 8)
    orders = {"as given": given, "sorted by length": sorted(given, key=lambda item: len(str(item)))}
    ways = {
        f"batches of {batch}, {name}": partial(run, texts, batch) for batch in BATCHES for name, texts in orders.items()
    }
    best = min(ways, key=lambda name: _seconds(ways[name]))
    return best, ways[best]


def _seconds(way: Callable[[], object]) -> float:
    begin = time.perf_counter()
    way()
    return max(time.perf_counter() - begin, 1e-9)

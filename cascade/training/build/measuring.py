"""Seconds in turns: bundles beside each other, and beside the user's own pipeline of transformers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch

from cascade.training.build.looking import Checkpoint
from cascade.training.models.adapters import adapted
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
            start = time.perf_counter()
            ways[name]()
            taken[name].append(max(time.perf_counter() - start, 1e-9))
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
    given: list[Any] = [_given(item) for item in items]
    by_length = sorted(given, key=lambda item: len(str(item)))
    ways: dict[str, Callable[[], object]] = {}
    for batch in BATCHES:
        for name, texts in (("as given", given), ("sorted by length", by_length)):
            ways[f"batches of {batch}, {name}"] = partial(_run, pipe, texts, batch, options)
    seconds = {}
    _run(pipe, given[:8], 8, options)
    for name, way in ways.items():
        begin = time.perf_counter()
        way()
        seconds[name] = time.perf_counter() - begin
    best = min(seconds, key=seconds.__getitem__)
    return best, ways[best]


def seconds_of(taken: Mapping[str, Sequence[float]], count: int) -> dict[str, float]:
    """Median seconds per item, by way."""
    return {name: median(own) / count for name, own in taken.items()}


@torch.inference_mode()
def _run(pipe: Any, texts: list[Any], batch: int, options: Mapping[str, Any]) -> object:
    return list(pipe(texts, batch_size=batch, **options))


def _given(item: Any) -> Any:
    """An item as transformers' pipelines take it."""
    if isinstance(item, list):
        return " ".join(item)
    return {"text": item[0], "text_pair": item[1]} if isinstance(item, tuple) else item

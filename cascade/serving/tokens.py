"""Tagging over HTTP: `/predict_tokens` with transformers' dicts, and `/api/v1/text/contents` of FMS Guardrails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, cast

import numpy as np

from cascade.exceptions import OptionError
from cascade.pipelines.tagger import Tagger
from cascade.serving.asking import ask, replied, routes_of
from cascade.serving.errors import as_tei, misshapen
from cascade.serving.served import Form
from cascade.serving.wire import Call, Reply, Route, are_strings, field, kind_of, required, strings
from cascade.serving.work import Answers
from cascade.text.entities import AggregationStrategy, Entity, chosen, strategy_of

LARGE: Final = 1024
"""Units from which entities are put together on a thread of their own, while the event loop goes on."""


async def predict_tokens(call: Call) -> Reply:
    """`POST /predict_tokens`: the entities of a text or of several; of lists of words, the tag of each word."""
    body = call.json
    inputs = required(body, "inputs")
    one = isinstance(inputs, str)
    items = [inputs] if one else inputs
    if not isinstance(items, list):
        raise misshapen("inputs", f"expected a string or a list, got {kind_of(inputs)}")
    words = bool(items) and isinstance(items[0], list)
    if not all(are_strings(item) if words else isinstance(item, str) for item in items):
        raise misshapen("inputs", "expected a string, a list of strings, or a list of lists of words")
    try:
        strategy = strategy_of(field(body, "aggregation_strategy", str, "none")[:100])
    except OptionError as error:
        raise misshapen("aggregation_strategy", str(error)) from None
    routes = field(body, "routes", bool, False)
    answers, found = await entities(call, items, strategy, words=words)
    shown = json.dumps(found[0] if one else found, separators=(",", ":"))
    return replied(call, shown, answers, _routes(answers)[0 if one else slice(None)] if routes else None)


async def entities(
    call: Call, items: Sequence[Any], strategy: AggregationStrategy, *, words: bool = False
) -> tuple[Answers, list[list[Entity]]]:
    """Ask a tagger, and the dicts of each item. `words`: items are lists of words, and each word has its tag."""
    form = Form.WORDS if words else Form.GROUPED if strategy is AggregationStrategy.FIRST else Form.PIECES
    answers = await ask(call, items, form)

    def made() -> list[list[Entity]]:
        return _tags(answers, items) if words else answers.entities(strategy)

    return answers, made() if len(answers.tier) < LARGE else await asyncio.to_thread(made)


def _tags(answers: Answers, items: Sequence[Sequence[str]]) -> list[list[Entity]]:
    """The tag of each word, O included."""
    pipeline, offsets = cast(Tagger, answers.served.pipeline), answers.offsets
    numbers = chosen(pipeline.decoding, answers.probabilities, offsets)
    scores = answers.probabilities[np.arange(len(numbers)), numbers].tolist()
    units = list(zip([pipeline.labels[number] for number in numbers.tolist()], scores, strict=True))
    return [
        [
            {"entity": tag, "score": score, "index": index, "word": word}
            for index, (word, (tag, score)) in enumerate(zip(words, units[begin:end], strict=True))
        ]
        for words, (begin, end) in zip(items, pairwise(offsets.tolist()), strict=True)
    ]


def _routes(answers: Answers) -> list[list[dict[str, Any]]]:
    """Routes of each item's units, with their characters where the tokenizer found them."""
    units, place = routes_of(answers), 0
    for shown in answers.extra:
        begins, ends = shown.texts.begins, shown.texts.ends
        if len(units) != sum(len(one.strings) for one in answers.extra):  # units are words, pieces from one `new` on
            starts = np.flatnonzero(shown.new)
            begins, ends = begins[starts], ends[np.append(starts[1:], len(ends))[: len(starts)] - 1]
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
            units[place].update(start=begin, end=end)
            place += 1
    return [units[begin:end] for begin, end in pairwise(answers.offsets.tolist())]


async def contents(call: Call) -> Reply:
    """`POST /api/v1/text/contents`: what a detector of FMS Guardrails finds in each text, from a threshold on."""
    texts, _ = strings(call.json, "contents")
    given = call.json.get("detector_params")
    least = given.get("threshold", 0.5) if isinstance(given, dict) else 0.5
    if not isinstance(least, int | float):
        raise misshapen("detector_params", f"expected a number as `threshold`, got {kind_of(least)}")
    served = call.models.of(field(call.json, "model", str)).served
    if served.words:
        answers, found = await entities(call, texts, AggregationStrategy.SIMPLE)
        rows = [[(one["entity_group"], one["score"], one["start"], one["end"]) for one in own] for own in found]
    else:
        answers = await ask(call, texts)
        rows = [
            [(name, score, 0, len(text)) for name, score in zip(served.labels, own, strict=True)]
            for text, own in zip(texts, answers.probabilities.tolist(), strict=True)
        ]
    names = ("start", "end", "text", "detection", "detection_type", "score")

    def told(text: str, name: str, score: float, begin: int, end: int) -> dict[str, Any]:
        return dict(zip(names, (begin, end, text[begin:end], name, name, score), strict=True))

    shown = [[told(text, *one) for one in row if one[1] >= least] for text, row in zip(texts, rows, strict=True)]
    return replied(call, json.dumps(shown), answers)


ROUTES: Final = (Route("/predict_tokens", predict_tokens, as_tei), Route("/api/v1/text/contents", contents, as_tei))

"""What all dialects share: asking the engine within the limits, scores as JSON, routes and costs of an answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from time import perf_counter
from typing import Any

import numpy as np

from cascade.core.confidence import evidence
from cascade.core.rows import FloatArray
from cascade.serving.errors import Invalid
from cascade.serving.served import Form, Served
from cascade.serving.wire import JSON, Call, Reply, field
from cascade.serving.work import Answers


async def ask(
    call: Call,
    items: Sequence[Any],
    form: Form = Form.TEXT,
    *,
    body: dict[str, Any] | None = None,
    truncate: bool | None = None,
    left: bool = False,
) -> Answers:
    """Ask the model that the path names, or the body, or the default one, for items whose shape was checked.

    It reads `model`, `truncate` and `windows` from the body, that of the call if left out, and notes the answers for
    the log. `truncate` is for what the body does not say; `left`: what is cut is cut there. A `Refused`: there is no
    such model, it is for another task, there are too many items, or they are too long.
    """
    told = call.json if body is None else body
    batcher, windows = call.models.of(call.named or field(told, "model", str)), field(told, "windows", bool, False)
    truncate = field(told, "truncate", bool) if truncate is None else truncate
    check_count(call, items)
    call.model, call.items = batcher.served.name, len(items)
    call.characters = sum([len(item) if isinstance(item, str) else sum(map(len, item)) for item in items])
    call.answers = answers = await batcher.answer(items, form, truncate=truncate, windows=windows, left=left)
    return answers


def check_count(call: Call, items: Sequence[Any]) -> None:
    """An `Invalid` where a request has more items than one may have."""
    most = call.models.limits.max_client_batch_size
    if len(items) > most:
        raise Invalid(f"batch size {len(items)} > maximum allowed batch size {most}")


def raw_of(served: Served, probabilities: FloatArray) -> FloatArray:
    """Raw scores of probabilities: logarithms, of yes/no labels log-odds. Shapes `(texts, labels)`.

    A softmax, or a sigmoid, gives the probabilities again; they differ from logits by a constant for each text.
    """
    if served.pipeline.regression:
        return probabilities
    return evidence(probabilities, weight=1.0, multi_label=served.pipeline.multi_label)


@lru_cache(maxsize=64)
def _endings(labels: tuple[str, ...]) -> list[str]:
    return [f',"label":{json.dumps(label)}}}' for label in labels]


def ranked(served: Served, scores: FloatArray) -> list[str]:
    """JSON of each text: all labels, the highest score first. `scores`: of shape `(texts, labels)`."""
    endings, order = _endings(served.labels), np.argsort(-scores, axis=1, kind="stable")
    return [
        "[" + ",".join([f'{{"score":{row[number]!r}{endings[number]}' for number in numbers]) + "]"
        for row, numbers in zip(scores.tolist(), order.tolist(), strict=True)
    ]


def routes_of(answers: Answers) -> list[dict[str, Any]]:
    """Which tier and exit answered each unit, and how sure it was."""
    columns = (answers.tier.tolist(), answers.exit_layer.tolist(), answers.confidence.tolist())
    return [dict(zip(("tier", "exit_layer", "confidence"), unit, strict=True)) for unit in zip(*columns, strict=True)]


def replied(call: Call, predictions: str, answers: Answers, routes: object = None) -> Reply:
    """Predictions, which are JSON, with the headers of TEI and ours; with routes and costs where these were asked for.

    Headers are in whole milliseconds; `x-cascade-tier` is the last tier that was asked.
    """
    parts = {**answers.seconds, "total": perf_counter() - call.begin}
    if routes is not None:
        costs = {name: 1000 * seconds for name, seconds in parts.items()}
        more = json.dumps({"routes": routes, "degraded": answers.degraded, "milliseconds": costs})
        predictions = f'{{"predictions":{predictions},{more[1:]}'
    names = ("tokenize", "queue", "inference", "total")
    tokenize, queue, inference, total = (int(1000 * parts.get(name, 0.0)) for name in names)
    headers = (
        JSON,
        (b"x-compute-type", b"cpu+optimized"),
        (b"x-compute-time", b"%d" % (tokenize + inference)),
        (b"x-compute-characters", b"%d" % call.characters),
        (b"x-compute-tokens", b"%d" % answers.tokens),
        (b"x-total-time", b"%d" % total),
        (b"x-tokenization-time", b"%d" % tokenize),
        (b"x-queue-time", b"%d" % queue),
        (b"x-inference-time", b"%d" % inference),
        (b"x-cascade-tier", b"%d" % answers.tier.max(initial=0)),
        (b"x-cascade-degraded", b"true" if answers.degraded else b"false"),
    )
    return Reply(predictions.encode(), headers=headers)

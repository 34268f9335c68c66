"""The routes of text-embeddings-inference for classifiers: `/predict`, `/tokenize`, `/info`, probes.

Contract: TEI 1.9.3, router/src/http. Differences: scores of a multi-label model are sigmoid, as it was trained, not a
softmax; a number is given as it is; equal scores stand in the order of labels; an empty text is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import parse_qs

from cascade._version import __version__
from cascade.serving.asking import ask, check_count, ranked, raw_of, replied, routes_of
from cascade.serving.errors import Failed, Refused, as_tei, misshapen
from cascade.serving.served import Served
from cascade.serving.tokens import predict_tokens
from cascade.serving.wire import Call, Reply, Route, field, kind_of, required, strings
from cascade.text.texts import repair_text

EMBEDDINGS: Final = ("/embed", "/embed_all", "/embed_sparse", "/embeddings", "/rerank", "/similarity", "/v1/embeddings")


async def predict(call: Call) -> Reply:
    """`POST /predict`: the labels of a text, of a pair, or of several of both."""
    return await _predicted(call, call.json)


async def predict_default(call: Call) -> Reply:
    """`POST /` and `/invocations`: `/predict`, or `/predict_tokens` where the model is a tagger."""
    words = call.models.of(field(call.json, "model", str)).served.words
    return await (predict_tokens if words else predict)(call)


async def _predicted(call: Call, body: dict[str, Any]) -> Reply:
    items, one = texts_of(required(body, "inputs"))
    raw, routes = (field(body, name, bool, False) for name in ("raw_scores", "routes"))
    direction = field(body, "truncation_direction", str, "Right")
    if direction.lower() not in ("left", "right"):
        raise misshapen("truncation_direction", f"expected `Left` or `Right`, got {direction[:100]}")
    answers = await ask(call, items, body=body, left=direction.lower() == "left")
    served, scores = answers.served, answers.probabilities
    rows = ranked(served, raw_of(served, scores) if raw else scores)
    text = rows[0] if one else f"[{','.join(rows)}]"
    return replied(call, text, answers, routes_of(answers)[0 if one else slice(None)] if routes else None)


def texts_of(inputs: object) -> tuple[list[Any], bool]:
    """The texts and pairs of `inputs`, and whether it is one of them, by TEI's rules; a 422 for another shape.

    A list of one or two strings is one text or one pair; a list of such lists is several.
    """
    if isinstance(inputs, str):
        return [inputs], True
    if not isinstance(inputs, list):
        raise misshapen("inputs", f"expected a string, a pair of strings or a list of such, got {kind_of(inputs)}")
    if not inputs or not isinstance(inputs[0], list):
        return [text_of(inputs, "inputs")], True
    return [text_of(one, "inputs") for one in inputs], False


def text_of(parts: object, where: str) -> str | tuple[str, str]:
    """A text or a pair from a list of its strings; a 422 for another shape. `where`: the key that holds it."""
    if not isinstance(parts, list):
        raise misshapen(where, f"expected a list of one or two strings, got {kind_of(parts)}")
    if not 1 <= len(parts) <= 2:
        raise misshapen(where, f"invalid length {len(parts)}, expected one text, or a pair of two")
    for part in parts:
        if not isinstance(part, str):
            raise misshapen(where, f"expected a string, got {kind_of(part)}")
    return parts[0] if len(parts) == 1 else (parts[0], parts[1])


async def vertex(call: Call) -> Reply:
    """`POST /vertex`: several bodies of `/predict`, asked at once."""
    instances = required(call.json, "instances")
    if not isinstance(instances, list) or not all(isinstance(one, dict) for one in instances):
        raise misshapen("instances", "expected a list of objects with `inputs`")
    check_count(call, instances)
    found = await asyncio.gather(*(_predicted(call, one) for one in instances))
    return Reply(b'{"predictions":[%s]}' % b",".join([reply.body for reply in found]))


async def tokenize(call: Call) -> Reply:
    """`POST /tokenize`: the pieces of texts with their characters, special tokens included; nothing is cut."""
    texts, _ = strings(call.json, "inputs")
    special = field(call.json, "add_special_tokens", bool, True)
    served = call.models.of(field(call.json, "model", str)).served
    if not texts:
        raise Refused("`inputs` cannot be empty", 400, "Empty")
    check_count(call, texts)
    return Reply.of(await asyncio.to_thread(_tokens, served, texts, special))


def _tokens(served: Served, texts: Sequence[str], special: bool) -> list[list[dict[str, Any]]]:
    tokenizer = served.pipeline.tokenizer
    repaired = list(map(repair_text, texts))
    edges = (tokenizer.special.prefix, tokenizer.special.suffix)
    before, after = (
        [{"id": one, "text": tokenizer.piece(one), "special": True, "start": None, "stop": None} for one in ids]
        for ids in (edge.tolist() if special else [] for edge in edges)
    )
    found = []
    for text, encoding in zip(repaired, tokenizer.tokenize_with_offsets(repaired), strict=True):
        pieces = zip(encoding.ids, encoding.offsets, strict=True)
        own = [{"id": one, "text": text[a:b], "special": False, "start": a, "stop": b} for one, (a, b) in pieces]
        found.append([*before, *own, *after])
    return found


async def info(call: Call) -> Reply:
    """`GET /info`: TEI's description of the default model, or of `?model=`, with ours under `cascade`."""
    asked = parse_qs(call.scope["query_string"].decode("latin-1")).get("model", [""])
    served, limits = call.models.of(asked[0]).served, call.models.limits
    labels = dict(enumerate(served.labels))
    kind = "token_classifier" if served.words else "classifier"
    told = ("max_concurrent_requests", "max_batch_tokens", "max_batch_requests", "max_client_batch_size")
    return Reply.of(
        {
            "model_id": str(served.pipeline.bundle.folder),
            "model_dtype": "float32",
            "served_model_name": served.name,
            "model_type": {kind: {"id2label": labels, "label2id": {label: one for one, label in labels.items()}}},
            "max_input_length": served.max_input_length,
            **{name: getattr(limits, name) for name in (*told, "auto_truncate")},
            "tokenization_workers": 1,
            "version": __version__,
            **dict.fromkeys(("model_sha", "sha", "docker_label")),
            "cascade": served.info(),
        }
    )


async def health(call: Call) -> Reply:
    """`GET /health`: 200 with an empty body as long as the engine answers, otherwise 503."""
    if not call.models.healthy:
        raise Refused("unhealthy", 503, "Unhealthy")
    return Reply(headers=())


async def metrics(call: Call) -> Reply:
    """`GET /metrics`: counters in Prometheus' text format."""
    counted = call.models.metrics
    return Reply(await asyncio.to_thread(counted.render), headers=((b"content-type", counted.content_type.encode()),))


async def no_embeddings(_: Call) -> Reply:
    """TEI's routes for other models, which its servers have and refuse."""
    raise Failed("Backend error: Model is not an embedding model")


ROUTES: Final = (
    Route("/predict", predict, as_tei),
    *(Route(path, predict_default, as_tei) for path in ("/", "/invocations")),
    Route("/vertex", vertex, as_tei),
    Route("/tokenize", tokenize, as_tei),
    *(Route(path, no_embeddings, as_tei) for path in EMBEDDINGS),
    *(Route(path, health, as_tei, "GET") for path in ("/health", "/ping", "/")),
    Route("/info", info, as_tei, "GET"),
    Route("/metrics", metrics, as_tei, "GET"),
)

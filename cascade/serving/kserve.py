"""KServe's protocols: v1 `:predict`, v2 (Open Inference Protocol) `infer` with BYTES in JSON, metadata, health.

Sources: kserve/docs predict-api/v1.md and open_inference_rest.yaml. Predictions of v1 are the probability of each label
by its name, as KServe's own runtime gives them with `--return_probabilities`; of a tagger, the dicts of transformers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from cascade._version import __version__
from cascade.serving.asking import ask, replied, routes_of
from cascade.serving.errors import Refused, as_kserve, misshapen
from cascade.serving.served import Served
from cascade.serving.tei import text_of
from cascade.serving.tokens import entities
from cascade.serving.wire import Call, Reply, Route, field, required
from cascade.serving.work import Answers
from cascade.text.entities import AggregationStrategy


async def predict_v1(call: Call) -> Reply:
    """`POST /v1/models/{model}:predict`: texts, pairs, or `{"text": ..., "text_pair": ...}` as instances."""
    instances = required(call.json, "instances")
    if not isinstance(instances, list) or not instances:
        raise misshapen("instances", "expected a list of texts")
    items = list(map(_item, instances))
    routes = field(call.json, "routes", bool, False)
    answers, predictions = await _predictions(call, items)
    more = {"routes": routes_of(answers), "degraded": answers.degraded} if routes else {}
    return replied(call, json.dumps({"predictions": predictions, **more}), answers)


def _item(instance: object) -> str | tuple[str, str]:
    given: Any = instance
    if isinstance(instance, dict):
        given = [instance.get("text"), *([instance["text_pair"]] if instance.get("text_pair") is not None else [])]
    return text_of(given if isinstance(given, list) else [given], "instances")


async def _predictions(call: Call, items: Sequence[Any]) -> tuple[Answers, list[Any]]:
    """What `:predict` gives for each item."""
    served = _served(call)
    if served.words:
        if not all(isinstance(item, str) for item in items):
            raise misshapen("instances", "expected texts, because the model is a tagger")
        return await entities(call, items, AggregationStrategy.SIMPLE)
    answers = await ask(call, items)
    labels = answers.served.labels
    return answers, [dict(zip(labels, row, strict=True)) for row in answers.probabilities.tolist()]


async def infer(call: Call) -> Reply:
    """`POST /v2/models/{model}/infer`: texts as a tensor of BYTES; `label` and `probs`, of a tagger `entities`."""
    body = call.json
    tensors = required(body, "inputs")
    found = [one for one in tensors if isinstance(one, dict)] if isinstance(tensors, list) else []
    if len(found) != 1 or found[0].get("datatype") != "BYTES":
        raise misshapen("inputs", "expected one tensor of the datatype BYTES")
    if b"inference-header-content-length" in call.headers:
        raise Refused("tensors must be JSON, got the binary form; send `data`", 400)
    items = _tensor(found[0])
    answers, predictions = await _predictions(call, items)
    served, shape = answers.served, list(answers.probabilities.shape)
    if served.words:
        outputs = [_named("entities", "BYTES", [len(items)], data=list(map(json.dumps, predictions)))]
    else:
        best = [served.labels[number] for number in answers.probabilities.argmax(axis=1).tolist()]
        outputs = [_named("label", "BYTES", shape[:1], data=best)]
        outputs.append(_named("probs", "FP32", shape, data=answers.probabilities.ravel().tolist()))
    wanted = body.get("outputs") or []
    names = [one.get("name") for one in wanted if isinstance(one, dict)] if isinstance(wanted, list) else [None]
    known = [one["name"] for one in outputs]
    if not set(names) <= set(known):
        raise Refused(f"outputs must be among {', '.join(known)}, got others", 400)
    outputs = [one for one in outputs if not names or one["name"] in names]
    told = {"id": body["id"]} if isinstance(body.get("id"), str) else {}
    answer = {"model_name": served.name, "model_version": "1", **told, "outputs": outputs}
    return replied(call, json.dumps(answer), answers)


def _named(name: str, datatype: str, shape: list[int], **data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, **data}


def _tensor(tensor: dict[str, Any]) -> list[Any]:
    """Texts of a tensor of the shape `[texts]` or `[texts, 1]`, pairs of one of `[texts, 2]`, flat or nested."""
    shape, data = tensor.get("shape"), tensor.get("data")
    if not (isinstance(shape, list) and isinstance(data, list)) or not (
        1 <= len(shape) <= 2 and all(type(size) is int and size > 0 for size in shape)
    ):
        raise misshapen("inputs", "expected `shape` [texts] or [texts, 1], or [pairs, 2], and a list as `data`")
    flat = [part for row in data for part in (row if isinstance(row, list) else [row])]
    width = shape[1] if len(shape) == 2 else 1
    if width > 2 or len(flat) != shape[0] * width or not all(isinstance(part, str) for part in flat):
        raise misshapen("inputs", f"expected {shape[0]} times {width} strings in `data`, got {len(flat)} values")
    return flat if width == 1 else list(zip(flat[::2], flat[1::2], strict=True))


def _served(call: Call) -> Served:
    return call.models.of(call.named).served


async def model_v1(call: Call) -> Reply:
    """`GET /v1/models/{model}`: whether it answers."""
    return Reply.of({"name": _served(call).name, "ready": call.models.healthy})


async def model_v2(call: Call) -> Reply:
    """`GET /v2/models/{model}`: its tensors."""
    served = _served(call)
    text, label, entities = (_named(name, "BYTES", [-1]) for name in ("text", "label", "entities"))
    outputs = [entities] if served.words else [label, _named("probs", "FP32", [-1, len(served.labels)])]
    about = {"name": served.name, "versions": ["1"], "platform": "cascade"}
    return Reply.of({**about, "inputs": [text], "outputs": outputs})


async def ready_v2(call: Call) -> Reply:
    """`GET /v2/models/{model}/ready` and `/v2/health/ready`: 200 as long as the engine answers, otherwise 503."""
    about = {} if call.named is None else {"name": _served(call).name}
    healthy = call.models.healthy
    return Reply.of({**about, "ready": healthy}, 200 if healthy else 503)


async def live(_: Call) -> Reply:
    """`GET /v2/health/live`: 200."""
    return Reply.of({"live": True})


async def server(_: Call) -> Reply:
    """`GET /v2`: what this is."""
    return Reply.of({"name": "cascade", "version": __version__, "extensions": []})


READ: Final = {
    "/v1/models/{model}": model_v1,
    "/v2": server,
    "/v2/health/live": live,
    "/v2/health/ready": ready_v2,
    "/v2/models/{model}": model_v2,
    "/v2/models/{model}/ready": ready_v2,
}
ROUTES: Final = (
    Route("/v1/models/{model}:predict", predict_v1, as_kserve),
    Route("/v2/models/{model}/infer", infer, as_kserve),
    *(Route(path, handler, as_kserve, "GET") for path, handler in READ.items()),
)

"""What the server says of itself: an OpenAPI document that is true (tests hold the server to it), and a page of it."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

from starlette.routing import Route

from cascade._version import __version__
from cascade.serving.errors import Dialect, as_kserve, as_tei, as_vllm
from cascade.serving.wire import Call, Endpoint, Reply, route

PATHS: Final = ("/docs", "/openapi.json", "/api-doc/openapi.json")
Schema: TypeAlias = dict[str, Any]


def _object(properties: Mapping[str, Schema], *optional: str) -> Schema:
    """An object of these properties, all of which it has but for the optional ones."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), **({"required": required} if required else {})}


def _list(items: Schema, least: int = 0, most: int | None = None) -> Schema:
    return {"type": "array", "items": items, "minItems": least, **({} if most is None else {"maxItems": most})}


def _any(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def _type(*names: str) -> Schema:
    return {"type": names[0] if len(names) == 1 else list(names)}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_TEXT, _NUMBER, _WHOLE, _FLAG, _OBJECT = map(_type, ("string", "number", "integer", "boolean", "object"))
_MAYBE, _MAYBE_FLAG, _ANY = _type("string", "null"), _type("boolean", "null"), Schema()
_TEXTS, _PAIR, _SHAPE = _any(_TEXT, _list(_TEXT)), _list(_TEXT, 1, 2), _list(_WHOLE)
_OURS = {"routes": _MAYBE_FLAG, "model": _MAYBE}
_NAMED = {"name": _TEXT, "datatype": _TEXT, "shape": _SHAPE}
_COSTS = {"degraded": _FLAG, "milliseconds": _OBJECT}

SCHEMAS: Final[Mapping[str, Schema]] = {
    "PredictRequest": _object(
        {
            "inputs": _any(_TEXT, _PAIR, _list(_PAIR, 1)),
            "truncate": _MAYBE_FLAG,
            "truncation_direction": {"enum": ["Right", "right", "Left", "left"]},
            "raw_scores": _MAYBE_FLAG,
            "windows": _MAYBE_FLAG,
            **_OURS,
        },
        *("truncate", "truncation_direction", "raw_scores", "windows", *_OURS),
    ),
    "Score": _object({"score": _NUMBER, "label": _TEXT}),
    "Route": _object({"tier": _WHOLE, "exit_layer": _WHOLE, "confidence": _NUMBER}),
    "Predictions": _any(_list(_ref("Score")), _list(_list(_ref("Score")))),
    "RoutedPredictions": _object({"predictions": _ref("Predictions"), "routes": _ANY, **_COSTS}),
    "VertexRequest": _object({"instances": _list(_ref("PredictRequest"))}),
    "VertexResponse": _object({"predictions": _list(_any(_ref("Predictions"), _ref("RoutedPredictions")))}),
    "TokensRequest": _object(
        {
            "inputs": _any(_TEXTS, _list(_list(_TEXT))),
            "aggregation_strategy": {"enum": ["none", "simple", "first", "average", "max", None]},
            "truncate": _MAYBE_FLAG,
            **_OURS,
        },
        *("aggregation_strategy", "truncate", *_OURS),
    ),
    "Entity": _object(
        {"entity": _TEXT, "entity_group": _TEXT, "score": _NUMBER, "word": _TEXT}
        | {"index": _WHOLE, "start": _WHOLE, "end": _WHOLE},
        *("entity", "entity_group", "index", "start", "end"),
    ),
    "Entities": _any(_list(_ref("Entity")), _list(_list(_ref("Entity")))),
    "RoutedEntities": _object({"predictions": _ref("Entities"), "routes": _ANY, **_COSTS}),
    "TokenizeRequest": _object(
        {"inputs": _TEXTS, "add_special_tokens": _MAYBE_FLAG, "model": _MAYBE}, "add_special_tokens", "model"
    ),
    "Token": _object(
        {"id": _WHOLE, "text": _TEXT, "special": _FLAG}
        | {"start": _type("integer", "null"), "stop": _type("integer", "null")}
    ),
    "Info": _object({"model_id": _TEXT, "model_type": _OBJECT, "max_input_length": _WHOLE, "cascade": _OBJECT}),
    "ClassifyRequest": _object(
        {"input": _TEXTS, "truncate_prompt_tokens": _type("integer", "null"), "use_activation": _MAYBE_FLAG, **_OURS},
        *("truncate_prompt_tokens", "use_activation", *_OURS),
    ),
    "Class": _object({"index": _WHOLE, "label": _TEXT, "probs": _list(_NUMBER), "num_classes": _WHOLE}),
    "ClassifyResponse": _object(
        {"id": _TEXT, "created": _WHOLE, "model": _TEXT, "data": _list(_ref("Class")), "usage": _OBJECT}
    ),
    "ModelList": _object({"object": _TEXT, "data": _list(_OBJECT), "models": _list(_TEXT)}),
    "PredictV1Request": _object({"instances": _list(_any(_TEXT, _PAIR, _object({"text": _TEXT})), 1), **_OURS}, *_OURS),
    "PredictV1Response": _object({"predictions": _list(_any(_OBJECT, _list(_ref("Entity"))))}),
    "InferRequest": _object({"id": _TEXT, "inputs": _list(_object({**_NAMED, "data": _list(_ANY)}), 1, 1)}, "id"),
    "InferResponse": _object(
        {"model_name": _TEXT, "model_version": _TEXT, "outputs": _list(_object({**_NAMED, "data": _list(_ANY)}))}
    ),
    "ModelMetadata": _object({"name": _TEXT, "inputs": _list(_object(_NAMED)), "outputs": _list(_object(_NAMED))}),
    "Ready": _object({"name": _TEXT, "ready": _FLAG}, "name"),
    "Live": _object({"live": _FLAG}),
    "Server": _object({"name": _TEXT, "version": _TEXT, "extensions": _list(_TEXT)}),
    "ContentsRequest": _object({"contents": _TEXTS, "detector_params": _OBJECT}, "detector_params"),
    "Detection": _object(
        {"start": _WHOLE, "end": _WHOLE, "text": _TEXT, "detection": _TEXT, "detection_type": _TEXT, "score": _NUMBER}
    ),
    "TeiError": _object({"error": _TEXT, "error_type": _TEXT}),
    "VllmError": _object({"error": _object({"message": _TEXT, "type": _TEXT, "param": _MAYBE, "code": _WHOLE})}),
    "KserveError": _object({"error": _TEXT}),
}
_PREDICT = ("PredictRequest", _any(_ref("Predictions"), _ref("RoutedPredictions")), {"inputs": "a gripping film"})
_TAGS = _any(_ref("Entities"), _ref("RoutedEntities"))
_CLASSIFY = ("ClassifyRequest", _ref("ClassifyResponse"), {"input": ["a gripping film"]})
_TENSOR = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a gripping film"]}

POSTS: Final[Mapping[str, tuple[str, Schema, object]]] = {
    "/predict": _PREDICT,
    **dict.fromkeys(("/", "/invocations"), (_PREDICT[0], _any(*_PREDICT[1]["anyOf"], _TAGS), _PREDICT[2])),
    "/vertex": ("VertexRequest", _ref("VertexResponse"), {"instances": [{"inputs": "a gripping film"}]}),
    "/tokenize": ("TokenizeRequest", _list(_list(_ref("Token"))), {"inputs": "a gripping film"}),
    "/predict_tokens": ("TokensRequest", _TAGS, {"inputs": "Ada lives in Rome", "aggregation_strategy": "simple"}),
    "/classify": _CLASSIFY,
    "/v1/classify": _CLASSIFY,
    "/v1/models/{model}:predict": ("PredictV1Request", _ref("PredictV1Response"), {"instances": ["a gripping film"]}),
    "/v2/models/{model}/infer": ("InferRequest", _ref("InferResponse"), {"inputs": [_TENSOR]}),
    "/api/v1/text/contents": ("ContentsRequest", _list(_list(_ref("Detection"))), {"contents": ["a gripping film"]}),
}
"""By path: the schema of the body, that of the answer, and a body."""
GETS: Final[Mapping[str, str]] = {
    "/info": "Info",
    "/v1/models": "ModelList",
    "/v1/models/{model}": "Ready",
    "/v2": "Server",
    "/v2/health/live": "Live",
    "/v2/health/ready": "Ready",
    "/v2/models/{model}": "ModelMetadata",
    "/v2/models/{model}/ready": "Ready",
}
"""By path: the schema of the answer. Others answer with text, or with nothing."""
ERRORS: Final = {
    400: "no JSON, or an empty list",
    404: "no such model",
    408: "the body did not come in time",
    413: "the body is above the payload limit",
    415: "the body is not announced as JSON",
    422: "JSON of another shape, too many items, too many tokens",
    424: "the model cannot answer, or is for another task",
    429: "more work than there is room for; see Retry-After",
}
DIALECTS: Final[Mapping[Dialect, str]] = {as_tei: "TeiError", as_vllm: "VllmError", as_kserve: "KserveError"}


def document(routes: Sequence[Route], *, keyed: bool) -> Schema:
    """The OpenAPI document of these routes. `keyed`: whether requests need a key."""
    paths: dict[str, Schema] = {}
    for one in routes:
        endpoint = cast(Endpoint, one.endpoint)
        doc = (endpoint.handler.__doc__ or "").partition("\n")[0]
        summary = doc.rpartition("`: ")[2]
        names = {"name": "model", "in": "path", "required": True, "schema": _TEXT}
        about: Schema = {"summary": summary, "parameters": [names] if "{model}" in one.path else []}
        posted = POSTS.get(one.path) if endpoint.reads else None
        failed = {str(code): {"description": text, "content": _failed(code, endpoint)} for code, text in ERRORS.items()}
        if posted is not None:
            schema, answer, example = posted
            about["requestBody"] = {"required": True, "content": _json(_ref(schema), example)}
            about["responses"] = {"200": {"description": "the answer", "content": _json(answer)}, **failed}
        elif endpoint.reads:  # routes of other kinds of models
            about["responses"] = failed
        else:
            known = GETS.get(one.path)
            content = {} if known is None else {"content": _json(_ref(known))}
            about["responses"] = {"200": {"description": "the answer", **content}, "503": {"description": "unhealthy"}}
            if "{model}" in one.path or one.path == "/info":
                about["responses"]["404"] = failed["404"]
        paths.setdefault(one.path, {})["post" if endpoint.reads else "get"] = about
    described: Schema = {"openapi": "3.1.0", "info": {"title": "cascade serve", "version": __version__}, "paths": paths}
    described["components"] = {"schemas": dict(SCHEMAS)}
    if keyed:
        described["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        described["security"] = [{"key": []}]
    return described


def _json(schema: Schema, example: object = None) -> Schema:
    return {"application/json": {"schema": schema, **({} if example is None else {"example": example})}}


def _failed(code: int, endpoint: Endpoint) -> Schema:
    content = _json(_ref(DIALECTS[endpoint.dialect]))
    plain = endpoint.dialect is as_tei and code in (400, 408, 413, 415, 422)
    return {**content, "text/plain": {"schema": _TEXT}} if plain else content


def routes(described: Sequence[Route], *, keyed: bool) -> list[Route]:
    """`/openapi.json`, its name in TEI, and `/docs`."""
    made = document(described, keyed=keyed)
    text, page = json.dumps(made).encode(), _page(made).encode()

    async def openapi(_: Call) -> Reply:
        """`GET /openapi.json`: this document."""
        return Reply(text)

    async def docs(_: Call) -> Reply:
        """`GET /docs`: this document to read."""
        return Reply(page, headers=((b"content-type", b"text/html; charset=utf-8"),))

    return [route(path, docs if path == "/docs" else openapi, as_tei, "GET") for path in PATHS]


def _page(made: Schema) -> str:
    """The document as HTML."""
    rows = []
    for path, methods in made["paths"].items():
        for method, about in methods.items():
            body = about.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
            shown = "" if body is None else f"<pre>{html.escape(json.dumps(body))}</pre>"
            codes = ", ".join(about["responses"])
            name = f"{method.upper()} {html.escape(path)}"
            rows.append(f"<h2>{name}</h2><p>{html.escape(about['summary'])}</p>{shown}<p>{codes}</p>")
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>cascade serve</title>'
    style = "<style>body{font:1rem system-ui;max-width:50rem;margin:2rem auto;color-scheme:light dark}</style>"
    about = '<h1>cascade serve</h1><p>The same for machines: <a href="/openapi.json">/openapi.json</a></p>'
    return f'<!doctype html><html lang="en"><head>{head}{style}</head><body>{about}{"".join(rows)}</body></html>'

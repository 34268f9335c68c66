"""What the server says of itself: an OpenAPI document that is true (tests hold the server to it), and a page of it."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cascade._version import __version__
from cascade.serving.errors import Dialect, as_kserve, as_tei, as_vllm
from cascade.serving.wire import Call, Reply, Route

PATHS: Final = ("/docs", "/openapi.json", "/api-doc/openapi.json")
_DATA: Final = json.loads(Path(__file__).with_name("openapi.json").read_text(encoding="utf-8"))
POSTS: Final[Mapping[str, tuple[str, Any, object]]] = _DATA["posts"]
"""By path: the schema of the body, that of the answer, and a body. The file has also, by path, the schema of what GET
answers, where it is JSON; and by status, why a request is refused."""
DIALECTS: Final[Mapping[Dialect, str]] = {as_tei: "TeiError", as_vllm: "VllmError", as_kserve: "KserveError"}


def document(routes: Sequence[Route], *, keyed: bool) -> dict[str, Any]:
    """The OpenAPI document of these routes. `keyed`: whether requests need a key."""
    paths: dict[str, Any] = {}
    named = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    for route in routes:
        summary = (route.handler.__doc__ or "").partition("\n")[0].rpartition("`: ")[2]
        refused = {code: {"description": why, "content": _error(code, route)} for code, why in _DATA["errors"].items()}
        about: dict[str, Any] = {"summary": summary, "parameters": [named] if "{model}" in route.path else []}
        answer: dict[str, Any] = {"200": {"description": "the answer"}}
        if route.path in POSTS and route.method == "POST":
            body, schema, example = POSTS[route.path]
            about["requestBody"] = {"required": True, "content": _json(_ref(body), example=example)}
            about["responses"] = {"200": {"description": "the answer", "content": _json(schema)}, **refused}
        elif route.method == "POST":  # routes of other kinds of models
            about["responses"] = refused
        else:
            if route.path in _DATA["gets"]:
                answer["200"]["content"] = _json(_ref(_DATA["gets"][route.path]))
            missing = {"404": refused["404"]} if "{model}" in route.path or route.path == "/info" else {}
            about["responses"] = {**answer, "503": {"description": "unhealthy"}, **missing}
        paths.setdefault(route.path, {})[route.method.lower()] = about
    made = {"openapi": "3.1.0", "info": {"title": "cascade serve", "version": __version__}, "paths": paths}
    if not keyed:
        return {**made, "components": {"schemas": _DATA["schemas"]}}
    key = {"key": {"type": "http", "scheme": "bearer"}}
    return {**made, "components": {"schemas": _DATA["schemas"], "securitySchemes": key}, "security": [{"key": []}]}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(schema: Any, **more: object) -> dict[str, Any]:
    return {"application/json": {"schema": schema, **more}}


def _error(code: str, route: Route) -> dict[str, Any]:
    content = _json(_ref(DIALECTS[route.dialect]))
    plain = route.dialect is as_tei and code in ("400", "408", "413", "415", "422")
    return {**content, "text/plain": {"schema": {"type": "string"}}} if plain else content


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

    return [Route(path, docs if path == "/docs" else openapi, as_tei, "GET") for path in PATHS]


def _page(made: dict[str, Any]) -> str:
    """The document as HTML."""
    rows = []
    for path, methods in made["paths"].items():
        for method, about in methods.items():
            body = about.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
            shown = "" if body is None else f"<pre>{html.escape(json.dumps(body))}</pre>"
            name, codes = f"{method.upper()} {html.escape(path)}", ", ".join(about["responses"])
            rows.append(f"<h2>{name}</h2><p>{html.escape(about['summary'])}</p>{shown}<p>{codes}</p>")
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>cascade serve</title>'
    style = "<style>body{font:1rem system-ui;max-width:50rem;margin:2rem auto;color-scheme:light dark}</style>"
    about = '<h1>cascade serve</h1><p>The same for machines: <a href="/openapi.json">/openapi.json</a></p>'
    return f'<!doctype html><html lang="en"><head>{head}{style}</head><body>{about}{"".join(rows)}</body></html>'

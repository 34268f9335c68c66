"""The OpenAPI document is true: what it names is there, bodies that it allows are answered as it says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cascade import Classifier, Tagger
from cascade.serving import app as application
from cascade.serving import openapi
from tests.serving.http import Client, serving

DOCUMENT = openapi.document(application.ROUTES, keyed=False)
SCHEMAS = DOCUMENT["components"]["schemas"]
TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "null": type(None),
    "object": dict,
    "array": list,
}
CALLS = [
    (path, method, about)
    for path, methods in DOCUMENT["paths"].items()
    for method, about in methods.items()
    if method == "get" or "requestBody" in about
]


@pytest.fixture(scope="module")
def client(clf: Classifier, tagger: Tagger) -> Iterator[Client]:
    with serving(clf, tagger) as made:
        yield made


def fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value is as a schema says; of the keywords that the document has."""
    if "$ref" in schema:
        return fits(value, SCHEMAS[schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return any(fits(value, one) for one in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    kinds = schema.get("type", list(TYPES))
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not any(isinstance(value, TYPES[kind]) and (kind == "boolean" or type(value) is not bool) for kind in kinds):
        return False
    if isinstance(value, list):
        most = schema.get("maxItems", len(value))
        return schema.get("minItems", 0) <= len(value) <= most and all(
            fits(one, schema.get("items", {})) for one in value
        )
    if isinstance(value, dict):
        known = schema.get("properties", {})
        return set(schema.get("required", ())) <= set(value) and all(
            fits(one, known[name]) for name, one in value.items() if name in known
        )
    return True


def values(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a schema allows, small ones."""
    if "$ref" in schema:
        return values(SCHEMAS[schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return st.one_of(*map(values, schema["anyOf"]))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kinds = schema.get("type", "null")
    if not isinstance(kinds, str):
        return st.one_of(*(values({**schema, "type": kind}) for kind in kinds))
    if kinds == "array":
        return st.lists(values(schema["items"]), min_size=schema["minItems"], max_size=schema.get("maxItems", 3))
    if kinds == "object":
        known = {name: values(one) for name, one in schema.get("properties", {}).items()}
        required = set(schema.get("required", ()))
        return st.fixed_dictionaries(
            {name: one for name, one in known.items() if name in required},
            optional={name: one for name, one in known.items() if name not in required},
        )
    plain: dict[str, st.SearchStrategy[Any]] = {
        "string": st.text(max_size=30),
        "number": st.floats(0, 1),
        "integer": st.integers(0, 9),
        "boolean": st.booleans(),
        "null": st.none(),
    }
    return plain[kinds]


def answered(client: Client, path: str, method: str, about: Mapping[str, Any], body: Any, model: str) -> int:
    """The status of an answer that was held to the document."""
    answer = client.request(method.upper(), path.replace("{model}", model), json=body)
    said = about["responses"][str(answer.status_code)]  # a status that is not documented ends here
    kind = answer.headers.get("content-type", "").partition(";")[0]
    if "content" in said:
        schema = said["content"][kind]["schema"]
        assert fits(answer.json() if kind == "application/json" else answer.text, schema), answer.text
    return answer.status_code


def test_every_route_is_documented_and_nothing_else(clf: Classifier) -> None:
    with serving(clf) as client:
        told = client.get("/openapi.json").json()["paths"]
    own = {route.path for route in client.app.routes if not route.path.startswith("/page/")} - set(openapi.PATHS)
    assert set(told) == own
    posts = {path for path, methods in DOCUMENT["paths"].items() if "requestBody" in methods.get("post", {})}
    assert posts == set(openapi.POSTS)
    assert all(about["summary"] for methods in DOCUMENT["paths"].values() for about in methods.values())


@pytest.mark.parametrize(("path", "method", "about"), CALLS, ids=lambda value: value if isinstance(value, str) else "")
def test_documented_requests_are_answered_as_documented(
    client: Client, path: str, method: str, about: Mapping[str, Any]
) -> None:
    body = about.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
    model = "toy1" if path == "/predict_tokens" else "toy"
    if path == "/predict_tokens":
        body = {**body, "model": model}
    assert answered(client, path, method, about, body, model) == 200


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(path=st.sampled_from(sorted(openapi.POSTS)), data=st.data())
def test_bodies_that_the_document_allows_are_answered(client: Client, path: str, data: st.DataObject) -> None:
    about = DOCUMENT["paths"][path]["post"]
    body = data.draw(values({"$ref": f"#/components/schemas/{openapi.POSTS[path][0]}"}))
    if "model" in body:
        body["model"] = data.draw(st.sampled_from(["toy", "toy1", "none", None]))
    status = answered(client, path, "post", about, body, data.draw(st.sampled_from(["toy", "toy1"])))
    # Lists may be empty, tensors of another shape, pairs too many for a tagger: refused in words, and never otherwise.
    assert status in (200, 400, 404, 422, 424)


def test_the_document_has_a_page(client: Client) -> None:
    page = client.get("/docs").text
    assert "POST /predict_tokens" in page
    assert "<script" not in page

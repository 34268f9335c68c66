"""Whatever comes, the answer is one of those that are documented, and the next request is answered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cascade import Classifier, Tagger
from cascade.serving import openapi
from tests.serving.http import Client, serving

NAMES = (
    *("inputs", "input", "instances", "contents", "model", "truncate", "truncation_direction", "raw_scores", "routes"),
    *("windows", "shape", "data", "datatype", "text", "text_pair", "aggregation_strategy", "outputs", "id", "name"),
    *("add_special_tokens", "detector_params", "threshold"),
)
KEYS = st.sampled_from(NAMES)
SCALARS: Any = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
SCALARS |= st.sampled_from(["Left", "simple", "toy", "toy1", "BYTES", "\ud800", "\x00", "a" * 5000])
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4))
PATHS = sorted(path.replace("{model}", name) for path in openapi.POSTS for name in ("toy", "toy1"))
STATUSES = {200, 400, 404, 413, 415, 422, 424}


@pytest.fixture(scope="module")
def client(clf: Classifier, tagger: Tagger) -> Iterator[Client]:
    with serving(clf, tagger) as made:
        yield made


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(path=st.sampled_from(PATHS), body=st.dictionaries(KEYS, VALUES, max_size=6), named=VALUES)
def test_any_json_is_answered(client: Client, path: str, body: dict[str, Any], named: Any) -> None:
    body.setdefault("inputs", named)
    answer = client.post(path, json=body)
    assert answer.status_code in STATUSES


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(
    path=st.sampled_from(PATHS) | st.text(max_size=10).map(lambda text: f"/{text}"),
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "OPTIONS"]),
    body=st.binary(max_size=200),
    kind=st.sampled_from([b"application/json", b"text/plain"]) | st.binary(max_size=20),
    length=st.none() | st.sampled_from([b"0", b"-1", b"9" * 30, b"x"]),
    key=st.none() | st.binary(max_size=20),
)
def test_any_bytes_are_answered(
    client: Client, path: str, method: str, body: bytes, kind: bytes, length: bytes | None, key: bytes | None
) -> None:
    """At the application's door, where a client library refuses nothing."""
    headers = [(b"content-type", kind), *([(b"content-length", length)] if length else [])]
    headers += [(b"authorization", key), (b"origin", key)] if key is not None else []
    assert client.send(method, path, headers, body, query=body).status_code in STATUSES | {405}

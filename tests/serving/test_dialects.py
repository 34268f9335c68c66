"""vLLM's and KServe's clients get what they expect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cascade import Classifier, Tagger
from tests.serving.http import TEXT, Client, near, serving

OTHER = "dull plot"


@pytest.fixture(scope="module")
def client(clf: Classifier, tagger: Tagger) -> Iterator[Client]:
    with serving(clf, tagger) as made:
        yield made


@pytest.mark.parametrize("path", ["/classify", "/v1/classify"])
def test_classify_is_vllms(client: Client, clf: Classifier, path: str) -> None:
    wanted = clf.predict([TEXT, OTHER])
    found = client.post(path, json={"model": "toy", "input": [TEXT, OTHER]}).json()
    assert found["id"].startswith("classify-")
    assert (found["object"], found["model"]) == ("list", "toy")
    rows = zip(wanted.labels, wanted.probabilities.tolist(), strict=True)
    data = [{"index": i, "label": label, "probs": row, "num_classes": 3} for i, (label, row) in enumerate(rows)]
    assert near(found["data"], data)
    assert found["usage"]["prompt_tokens"] == found["usage"]["total_tokens"] == wanted.stats.tokens
    one = client.post(path, json={"input": TEXT, "routes": True}).json()
    assert near(one["data"], data[:1])
    assert one["routes"][0]["tier"] == wanted.routes[0].tier
    raw = client.post(path, json={"input": TEXT, "use_activation": False}).json()["data"][0]["probs"]
    assert max(raw) <= 0


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"model": "none", "input": TEXT}, 404, "NotFoundError"),
        ({"model": "toy", "input": []}, 400, "BadRequestError"),
        ({"model": "toy", "input": [[1, 2]]}, 400, "BadRequestError"),
        ({"model": "toy"}, 400, "BadRequestError"),
        ({"model": "toy", "input": ["a"] * 33}, 400, "BadRequestError"),
        ({"model": "toy1", "input": TEXT}, 424, "InternalServerError"),
    ],
)
def test_errors_are_vllms(client: Client, body: dict[str, Any], status: int, kind: str) -> None:
    answer = client.post("/classify", json=body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == (kind, status, None)
    assert error["message"]


def test_models_are_listed_in_both_forms(client: Client) -> None:
    found = client.get("/v1/models").json()
    assert [one["id"] for one in found["data"]] == found["models"] == ["toy", "toy1"]
    assert found["data"][0]["max_model_len"] == 16
    assert client.get("/v1/models/toy1").json() == {"name": "toy1", "ready": True}
    assert client.get("/v1/models/none").status_code == 404


def test_predict_is_kserves(client: Client, clf: Classifier) -> None:
    instances = [TEXT, [TEXT, OTHER], {"text": OTHER}, {"text": TEXT, "text_pair": OTHER}]
    found = client.post("/v1/models/toy:predict", json={"instances": instances, "routes": True}).json()
    wanted = clf.predict([TEXT, (TEXT, OTHER), OTHER, (TEXT, OTHER)]).probabilities.tolist()
    assert near(found["predictions"], [dict(zip(clf.labels, row, strict=True)) for row in wanted])
    assert len(found["routes"]) == 4


def test_a_tagger_answers_predict_with_entities(client: Client, tagger: Tagger) -> None:
    found = client.post("/v1/models/toy1:predict", json={"instances": ["the good story"]}).json()
    assert near(found["predictions"], tagger(["the good story"], aggregation_strategy="simple"))
    assert client.post("/v1/models/toy1:predict", json={"instances": [["a", "b"]]}).status_code == 400


@pytest.mark.parametrize("instances", [None, [], "a", [3], [{}], [{"text": 3}], [["a", "b", "c"]], [[]]])
def test_other_instances_are_refused(client: Client, instances: Any) -> None:
    answer = client.post("/v1/models/toy:predict", json={"instances": instances})
    assert answer.status_code == 400
    assert set(answer.json()) == {"error"}


def tensor(data: list[Any], shape: list[int], **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "text", "shape": shape, "datatype": "BYTES", "data": data}], **more}


def test_infer_is_kserves_second_protocol(client: Client, clf: Classifier) -> None:
    wanted = clf.predict([TEXT, OTHER])
    found = client.post("/v2/models/toy/infer", json=tensor([TEXT, OTHER], [2], id="7")).json()
    assert (found["model_name"], found["id"]) == ("toy", "7")
    label, probs = found["outputs"]
    assert label == {"name": "label", "datatype": "BYTES", "shape": [2], "data": list(wanted.labels)}
    assert (probs["datatype"], probs["shape"]) == ("FP32", [2, 3])
    assert near(probs["data"], wanted.probabilities.ravel().tolist())
    nested = client.post(
        "/v2/models/toy/infer", json=tensor([[TEXT], [OTHER]], [2, 1], outputs=[{"name": "label"}])
    ).json()
    assert nested["outputs"] == [label]
    pairs = client.post("/v2/models/toy/infer", json=tensor([TEXT, OTHER], [1, 2])).json()
    assert near(pairs["outputs"][1]["data"], clf.predict([(TEXT, OTHER)]).probabilities[0].tolist())


def test_a_tagger_infers_entities(client: Client, tagger: Tagger) -> None:
    (entities,) = client.post("/v2/models/toy1/infer", json=tensor(["the good story"], [1])).json()["outputs"]
    assert (entities["name"], entities["shape"]) == ("entities", [1])
    assert near(json.loads(entities["data"][0]), tagger("the good story", aggregation_strategy="simple"))


@pytest.mark.parametrize(
    "body",
    [
        tensor([TEXT], [2]),
        tensor([TEXT], [1, 3]),
        tensor([TEXT], []),
        tensor([TEXT], [True]),
        tensor([3], [1]),
        tensor([TEXT], [1], outputs=[{"name": "none"}]),
        tensor([TEXT], [1], outputs="label"),
        {"inputs": []},
        {"inputs": [{"name": "text", "shape": [1], "datatype": "FP32", "data": [1.0]}]},
        {},
    ],
)
def test_other_tensors_are_refused(client: Client, body: dict[str, Any]) -> None:
    answer = client.post("/v2/models/toy/infer", json=body)
    assert answer.status_code == 400
    assert set(answer.json()) == {"error"}


def test_the_binary_form_is_refused(client: Client) -> None:
    headers = {"inference-header-content-length": "10"}
    assert client.post("/v2/models/toy/infer", json=tensor([TEXT], [1]), headers=headers).status_code == 400


def test_metadata_says_which_tensors_there_are(client: Client) -> None:
    assert client.get("/v2").json()["name"] == "cascade"
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/toy/ready").json() == {"name": "toy", "ready": True}
    names = [one["name"] for one in client.get("/v2/models/toy").json()["outputs"]]
    assert names == ["label", "probs"]
    assert client.get("/v2/models/toy1").json()["outputs"][0]["name"] == "entities"
    assert client.post("/v2/models/none/infer", json=tensor([TEXT], [1])).status_code == 404

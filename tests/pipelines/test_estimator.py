"""A bundle as an estimator of scikit-learn: pipelines, searches, clones, and the checks that apply to texts."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.exceptions import SkipTestWarning
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks
from sklearn.utils.validation import check_is_fitted

from cascade import Classifier
from cascade.exceptions import OptionError
from cascade.pipelines.estimator import CascadeClassifier
from cascade.policies import MaxProbability, Threshold
from tests.models.toy import random_texts, toy_bundle

TEXTS = random_texts(60)
# Those of `check_estimator` that feed no table of numbers; scikit-learn itself runs none where texts are the input.
CHECKS = (
    "check_estimator_cloneable", "check_estimator_tags_renamed", "check_valid_tag_types", "check_estimator_repr",
    "check_no_attributes_set_in_init", "check_parameters_default_constructible", "check_get_params_invariance",
    "check_set_params",
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_bundle(tmp_path_factory.mktemp("bundle") / "toy", labels=("good", "bad", "odd")).folder


@pytest.fixture(scope="module")
def labels(model: Path) -> list[Any]:
    return Classifier.from_pretrained(model, threads=1).predict(TEXTS).labels


def test_answers_are_the_bundles_in_the_order_of_sorted_labels(model: Path, labels: list[Any]) -> None:
    estimator = CascadeClassifier(model, threads=1)
    assert estimator.classes_.tolist() == ["bad", "good", "odd"]
    for given in (TEXTS, np.array(TEXTS), iter(TEXTS)):
        assert estimator.predict(given).tolist() == labels
    chances = Classifier.from_pretrained(model, threads=1).predict(TEXTS).probabilities
    np.testing.assert_array_equal(estimator.predict_proba(TEXTS), chances[:, [1, 0, 2]])
    assert estimator.score(TEXTS, labels) == 1


@pytest.mark.parametrize("name", CHECKS)
def test_checks_that_apply(name: str) -> None:
    getattr(estimator_checks, name)("CascadeClassifier", CascadeClassifier())


def test_check_estimator_knows_that_texts_are_the_input() -> None:
    with pytest.warns(SkipTestWarning, match="requires input"):
        estimator_checks.check_estimator(CascadeClassifier())


def test_pipelines_and_cross_validation(model: Path, labels: list[Any]) -> None:
    whole = make_pipeline(
        FunctionTransformer(lambda texts: [text.upper().lower() for text in texts]), CascadeClassifier(model)
    )
    check_is_fitted(whole[-1])
    assert whole.fit(TEXTS, labels).predict(TEXTS).tolist() == labels
    assert cross_val_predict(whole, TEXTS, labels, cv=3).tolist() == labels
    chances = cross_val_predict(CascadeClassifier(model), TEXTS, labels, cv=2, method="predict_proba")
    np.testing.assert_allclose(chances, CascadeClassifier(model).predict_proba(TEXTS), atol=1e-6)
    assert cross_val_score(CascadeClassifier(model), np.array(TEXTS), labels, cv=2, scoring="f1_macro").tolist() == [
        1,
        1,
    ]
    assert roc_auc_score(labels, chances, multi_class="ovr") == 1


def test_a_search_over_thresholds(model: Path) -> None:
    deep = CascadeClassifier(model, threshold=1.0, exit_threshold=1.0).predict(TEXTS)
    grid = {"threshold": [0.0, 1.0], "exit_threshold": [0.0, 1.0]}
    found = GridSearchCV(CascadeClassifier(model), grid, cv=2).fit(TEXTS, deep)
    assert found.best_params_ == {"threshold": 1.0, "exit_threshold": 1.0}
    assert found.best_score_ == 1 > found.cv_results_["mean_test_score"][0]


def test_clones_and_pickles_hold_parameters_alone(model: Path, labels: list[Any]) -> None:
    estimator = CascadeClassifier(model, threshold=0.7, exit_threshold=0.8, threads=1).fit(TEXTS, labels)
    for other in (clone(estimator), pickle.loads(pickle.dumps(estimator))):
        assert other.get_params() == estimator.get_params()
        assert other.predict(TEXTS).tolist() == estimator.predict(TEXTS).tolist()
        assert other.classifier.tier1.backend is estimator.classifier.tier1.backend  # loaded once
    assert len(pickle.dumps(estimator)) < 1000
    assert estimator.classifier.router == Threshold(0.7)
    assert estimator.classifier.exit_policy == MaxProbability(0.8)


def test_several_labels_are_zeros_and_ones(tmp_path: Path) -> None:
    folder = toy_bundle(tmp_path / "toy", labels=("c", "a", "b"), multi_label=True).folder
    estimator, made = CascadeClassifier(folder), Classifier.from_pretrained(folder)
    assert estimator.classes_.tolist() == ["c", "a", "b"]
    found = estimator.fit(TEXTS, np.zeros((60, 3))).predict(TEXTS)
    assert [tuple(np.array(made.labels)[row == 1]) for row in found] == made.predict(TEXTS).labels


def test_what_is_refused(model: Path) -> None:
    with pytest.raises(OptionError, match="model must be a bundle for classification, got None; give a folder"):
        CascadeClassifier().predict(TEXTS)
    with pytest.raises(
        OptionError, match=r"y must hold the bundle's labels \(good, bad, odd\), got 'new'; rename them"
    ):
        CascadeClassifier(model).fit(["a", "b"], np.array(["good", "new"]))


def test_without_scikit_learn_one_line_says_so() -> None:
    code = "import sys; sys.modules['sklearn'] = None; import cascade.pipelines.estimator"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    told = 'needs the extra sklearn, but sklearn is missing; pip install "cascade-encoder[sklearn]"'
    assert told in done.stderr


FINGERPRINT = """
import sys, cascade
from datasets.fingerprint import Hasher
clf = cascade.load(sys.argv[1], threads=1).with_router(cascade.policies.Threshold(0.7))
def labels(batch):
    return {"label": clf.predict(batch["text"]).labels}
print(Hasher.hash(clf), Hasher.hash(labels), Hasher.hash(cascade.pipeline(model=clf, top_k=None)))
"""


def test_fingerprints_of_datasets_are_the_same_in_each_process(model: Path) -> None:
    pytest.importorskip("datasets")
    command = [sys.executable, "-c", FINGERPRINT, str(model)]
    first, second = (subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2))
    assert first == second
    assert len(set(first.split())) == 3


def test_datasets_map_finds_its_answers_again(model: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        datasets = pytest.importorskip("datasets")
        datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(tmp_path / "texts")
        found = []
        for _ in range(2):
            made = Classifier.from_pretrained(model, threads=1)

            def labels(batch: Any, made: Any = made) -> Any:
                return made.predict(batch["text"]).to_arrow().to_pydict()

            dataset = datasets.load_from_disk(tmp_path / "texts")
            found.append(dataset.map(labels, batched=True, batch_size=20))
    assert found[0]._fingerprint == found[1]._fingerprint
    assert found[0]["label"][:] == found[1]["label"][:] == made.predict(TEXTS).labels

"""What tests of both kinds of pipelines share: a toy bundle of each, loaded, and copies of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import cascade
from cascade import Classifier, Tagger
from cascade.bundle.manifest import MANIFEST_FILE
from cascade.bundle.opening import Bundle
from cascade.policies import Patience, Threshold, Viterbi, Windows
from tests.models.toy import toy_bundle
from tests.models.toy_tags import TAGS, tag_bundle

Pipeline: TypeAlias = Classifier | Tagger
TEXTS = ["good film", "bad", "", "a very dull plot it was", "we laugh", "not good not bad"]
LONG = "the film was not very good " * 12


@pytest.fixture(scope="package", params=["classifier", "tagger"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """For texts, and for words."""
    folder = tmp_path_factory.mktemp("bundles") / "toy"
    return toy_bundle(folder) if request.param == "classifier" else tag_bundle(folder)


@pytest.fixture(scope="package")
def loaded(bundle: Bundle) -> Pipeline:
    """As its bundle has it."""
    return cascade.load(bundle.folder, threads=1)


@pytest.fixture
def other(loaded: Pipeline) -> Pipeline:
    """With nothing as the bundle has it."""
    made = loaded.with_router(Threshold(0.7)).with_exit_policy(Patience(1)).with_blend(0.25)
    made = made.with_temperatures(0.5, (1, 2, 3))
    return made.with_windows(Windows(margin=1)).with_decoding(Viterbi(TAGS)) if isinstance(made, Tagger) else made


def items(pipeline: Pipeline, texts: list[str]) -> Any:
    """Texts as `predict` takes them, of a tagger split into words."""
    return [text.split() for text in texts] if isinstance(pipeline, Tagger) else texts


def answers(pipeline: Pipeline) -> Any:
    """Probabilities of some texts."""
    return pipeline.predict(items(pipeline, TEXTS)).probabilities


def rewrite(folder: Path, *place: Any, **changes: object) -> None:
    """Change what stands at this place of the manifest of a bundle."""
    file = folder / MANIFEST_FILE
    raw = inner = json.loads(file.read_text(encoding="utf-8"))
    for step in place:
        inner = inner[step]
    inner.update(changes)
    file.write_text(json.dumps(raw), encoding="utf-8")

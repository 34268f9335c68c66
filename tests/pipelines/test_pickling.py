"""Classifiers and taggers go to other processes: by folder, policies and options."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from cascade.core.rows import BoolArray, FloatArray
from cascade.exceptions import BundleError, BundleNotFoundError, OptionError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.policies.batching import FixedSize
from cascade.policies.decoding import Viterbi
from cascade.policies.exits import AtExit
from cascade.policies.routing import Budget, RoutingState, Threshold
from cascade.policies.windows import Windows
from cascade.runtime.backend import FunctionBackend
from tests.models.toy import toy_bundle
from tests.models.toy_tags import TAGS, tag_bundle

Either: TypeAlias = Classifier | Tagger
TEXTS = ["good film", "bad", "", "a very dull plot it was", "not good not bad"]
SENTENCES = [["the", "film", "is", "good", "but", "long"], [], ["warm"], ["a", "goodfilm", ",", "don't"]]


def answers(face: Either) -> tuple[FloatArray, list[str]]:
    found = face.predict(SENTENCES) if isinstance(face, Tagger) else face.predict(TEXTS)
    return found.probabilities, [repr(route) for route in found.routes]


def unsure(state: RoutingState) -> BoolArray:
    return np.asarray(state.probabilities.max(axis=1) < 0.7)


def through_pickle(face: Either) -> Any:
    return pickle.loads(pickle.dumps(face))


@pytest.fixture(scope="module", params=["classifier", "tagger"])
def face(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Either:
    folder = tmp_path_factory.mktemp("bundles") / "toy"
    if request.param == "tagger":
        return Tagger.from_pretrained(tag_bundle(folder).folder, threads=2)
    return Classifier.from_pretrained(toy_bundle(folder).folder, threads=2)


@pytest.fixture
def other(face: Either) -> Either:
    """With nothing as the bundle has it."""
    made = face.with_router(Budget(0.5)).with_exit_policy(AtExit(2)).with_blend(0.25).with_batching(FixedSize(2))
    made = made.with_temperatures(1.5, [1.1, 1.2, 1.3])
    return made.with_windows(Windows(margin=2)).with_decoding(Viterbi(TAGS)) if isinstance(made, Tagger) else made


@pytest.mark.parametrize("way", [through_pickle, copy.deepcopy, copy.copy])
def test_a_copy_answers_the_same(face: Either, other: Either, way: Callable[[Either], Any]) -> None:
    for one in (face, other, face.with_router(Threshold(0.6))):
        again = way(one)
        assert type(again) is type(one)
        assert again.policies == one.policies
        assert (again.tier1.batching, again.tier2.batching) == (one.tier1.batching, one.tier2.batching)
        assert (again.tier1.executor.threads, again.tier2.executor.threads) == (2, 2)
        for mine, its in zip(answers(one), answers(again), strict=True):
            np.testing.assert_array_equal(mine, its)
        assert (again.tier1.backend is one.tier1.backend) is (way is copy.copy)


def test_all_options_of_the_tiers_go_along(face: Either) -> None:
    tier1, tier2 = replace(face.tier1, pool_from=7), replace(face.tier2, pool_from=8, together=3)
    again = through_pickle(replace(face, tiers=(tier1, tier2)))
    assert (again.tier1.pool_from, again.tier2.pool_from, again.tier2.together) == (7, 8, 3)


def test_a_relative_folder_is_found_again(face: Either, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(face.bundle.folder.parent)
    written = pickle.dumps(type(face).from_pretrained("toy", threads=1))
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(written).labels == face.labels


def test_another_process_answers_the_same(other: Either) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        theirs = pool.submit(answers, other.with_router(unsure)).result(timeout=120)
    for mine, its in zip(answers(other.with_router(unsure)), theirs, strict=True):
        np.testing.assert_array_equal(mine, its)


def test_what_cannot_be_pickled_says_so(face: Either) -> None:
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        pickle.dumps(face.with_router(lambda state: ~unsure(state)))
    backend = FunctionBackend(dict, face.tier1.backend.inputs, ("logits",))
    own: Any = replace(face.tier1, backend=backend)
    with pytest.raises(OptionError, match="must run the graphs of its bundle, got a FunctionBackend; save the pipe"):
        pickle.dumps(replace(face, tiers=(own, face.tier2)))


def test_reading_verifies_the_bundle(face: Either, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(face.bundle.folder, folder)
    written = pickle.dumps(type(face).from_pretrained(folder, threads=1))
    face.with_blend(0.5).save_pretrained(folder, overwrite=True)
    with pytest.raises(BundleError, match="must hold the bundle that was pickled, but holds another one"):
        pickle.loads(written)
    with (folder / "tokenizer.json").open("a") as file:
        file.write(" ")
    with pytest.raises(BundleError, match=r"tokenizer.json must have"):
        pickle.loads(written)
    shutil.rmtree(folder)
    with pytest.raises(BundleNotFoundError, match="there is no folder"):
        pickle.loads(written)


def test_a_table_of_words_is_no_obstacle(tmp_path: Path) -> None:
    tokenizer = Tagger.from_pretrained(tag_bundle(tmp_path / "toy").folder, threads=1).tokenizer
    assert "word_table=True" in repr(tokenizer)
    again = pickle.loads(pickle.dumps(tokenizer))
    np.testing.assert_array_equal(again.encode(TEXTS).units.rows.ids, tokenizer.encode(TEXTS).units.rows.ids)

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
from typing import Any

import numpy as np
import pytest

import cascade
from cascade.bundle.opening import Bundle
from cascade.core.rows import BoolArray, FloatArray
from cascade.exceptions import BundleError, BundleNotFoundError, OptionError
from cascade.pipelines.tagger import Tagger
from cascade.policies.routing import Budget, RoutingState, Threshold
from cascade.runtime.backend import FunctionBackend
from tests.models.batching import FixedSize
from tests.models.toy_tags import tag_bundle
from tests.pipelines.conftest import Pipeline, items

TEXTS = ["good film", "bad", "", "a very dull plot it was", "a goodfilm , don't", "not good not bad"]


def answers(face: Pipeline) -> tuple[FloatArray, list[str]]:
    found = face.predict(items(face, TEXTS))
    return found.probabilities, [repr(route) for route in found.routes]


def unsure(state: RoutingState) -> BoolArray:
    return np.asarray(state.probabilities.max(axis=1) < 0.7)


def through_pickle(face: Pipeline) -> Any:
    return pickle.loads(pickle.dumps(face))


@pytest.fixture(scope="module")
def face(bundle: Bundle) -> Pipeline:
    return cascade.load(bundle.folder, threads=2)


@pytest.fixture
def changed(face: Pipeline, other: Pipeline) -> Pipeline:
    return face.with_policies(other.policies).with_router(Budget(0.5)).with_batching(FixedSize(2))


@pytest.mark.parametrize("way", [through_pickle, copy.deepcopy, copy.copy])
def test_a_copy_answers_the_same(face: Pipeline, changed: Pipeline, way: Callable[[Pipeline], Any]) -> None:
    for one in (face, changed, face.with_router(Threshold(0.6))):
        again = way(one)
        assert type(again) is type(one)
        assert again.policies == one.policies
        assert (again.tier1.batching, again.tier2.batching) == (one.tier1.batching, one.tier2.batching)
        assert (again.tier1.executor.threads, again.tier2.executor.threads) == (2, 2)
        for mine, its in zip(answers(one), answers(again), strict=True):
            np.testing.assert_array_equal(mine, its)
        assert (again.tier1.backend is one.tier1.backend) is (way is copy.copy)


def test_all_options_of_the_tiers_go_along(face: Pipeline) -> None:
    tier1, tier2 = replace(face.tier1, pool_from=7), replace(face.tier2, pool_from=8, together=3)
    again = through_pickle(replace(face, tiers=(tier1, tier2)))
    assert (again.tier1.pool_from, again.tier2.pool_from, again.tier2.together) == (7, 8, 3)


def test_a_relative_folder_is_found_again(face: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(face.bundle.folder.parent)
    written = pickle.dumps(cascade.load("toy", threads=1))
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(written).labels == face.labels


def test_another_process_answers_the_same(changed: Pipeline) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        theirs = pool.submit(answers, changed.with_router(unsure)).result(timeout=120)
    for mine, its in zip(answers(changed.with_router(unsure)), theirs, strict=True):
        np.testing.assert_array_equal(mine, its)


def test_what_cannot_be_pickled_says_so(face: Pipeline) -> None:
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        pickle.dumps(face.with_router(lambda state: ~unsure(state)))
    backend = FunctionBackend(dict, face.tier1.backend.inputs, ("logits",))
    own: Any = replace(face.tier1, backend=backend)
    with pytest.raises(OptionError, match="must run the graphs of its bundle, got a FunctionBackend; save the pipe"):
        pickle.dumps(replace(face, tiers=(own, face.tier2)))


def test_reading_verifies_the_bundle(face: Pipeline, tmp_path: Path) -> None:
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

"""Pipelines of one, three and four tiers, with a tokenizer or a function of their own."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

import cascade
from cascade import StreamOptions, Tagger
from cascade.bundle.manifest import Manifest
from cascade.bundle.opening import Bundle, open_bundle
from cascade.bundle.writing import write_bundle
from cascade.engine.tier import CallableTier
from cascade.exceptions import BundleError, CascadeWarning, OptionError
from cascade.policies import (
    AtExit,
    MaxProbability,
    Policies,
    Threshold,
    defer_all,
    defer_none,
    never,
    whole_sentences,
)
from cascade.policies.routing import Router
from tests.pipelines.conftest import LONG, Pipeline, items

TEXTS = ["good film", "bad", "", "a very dull plot it was", "we laugh", "not good not bad", LONG, "bright"]
THRESHOLDS = (0.8, 0.9)


def given(pipeline: Pipeline) -> Any:
    return items(pipeline, TEXTS)


def columns(answers: Any) -> list[Any]:
    routes = answers.routes.words if hasattr(answers.routes, "words") else answers.routes
    return [answers.probabilities, routes.tier, routes.exit_layer, routes.confidence]


def assert_same(one: Any, other: Any) -> None:
    for mine, its in zip(columns(one), columns(other), strict=True):
        np.testing.assert_allclose(mine, its, atol=1e-5)


def rebuilt(bundle: Bundle, folder: Path, manifest: Manifest, **files: bytes) -> Pipeline:
    """The same files, and these, as another bundle."""
    own: dict[str, bytes | Path] = {path: bundle.path(path) for path in bundle.manifest.files}
    made = write_bundle(folder, own | {path.replace("_", "/"): content for path, content in files.items()}, manifest)
    return cascade.load(made.folder, threads=1)


@pytest.fixture
def three(bundle: Bundle, tmp_path: Path) -> Pipeline:
    """Tier 2 again as tier 3, a little flatter."""
    one, second = bundle.manifest.tiers
    own = bundle.manifest.policies
    policies = Policies(
        routers=tuple(map(Threshold, THRESHOLDS)),
        exits=(never, MaxProbability(0.7), never),
        temperatures=(*own.temperatures, (1.5, 1.25, 1.1)),
        windows=own.windows,
        decoding=own.decoding,
    )
    return rebuilt(bundle, tmp_path / "three", replace(bundle.manifest, tiers=(one, second, second), policies=policies))


def test_each_unit_is_answered_where_it_stops(three: Pipeline) -> None:
    """With whole sentences as windows each tier answers as it does alone."""
    chosen = three.with_windows(whole_sentences) if isinstance(three, Tagger) else three
    found = chosen.predict(given(three))
    first = columns(chosen.with_router(defer_none).predict(given(three)))
    passing = chosen.with_router(defer_all)
    second = columns(passing.with_router(defer_none, tier=2).predict(given(three)))
    third = columns(passing.with_router(defer_all, tier=2).predict(given(three)))
    sure = [(own[3] >= threshold) for own, threshold in zip((first, second), THRESHOLDS, strict=True)]
    tier = np.where(sure[0], 1, np.where(sure[1], 2, 3))
    probabilities, tiers, layers, confidence = columns(found)
    assert set(tiers.tolist()) == {1, 2, 3}
    np.testing.assert_array_equal(tiers, tier)
    expected = np.where((tier == 1)[:, None], first[0], np.where((tier == 2)[:, None], second[0], third[0]))
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    np.testing.assert_array_equal(layers, np.where(tier == 1, 0, np.where(tier == 2, second[2], 3)))
    np.testing.assert_allclose(confidence, probabilities.max(axis=1), atol=1e-6)
    assert found.stats.deferred == (tier > 1).sum()


@pytest.mark.parametrize("blend", [(0.0, 0.0), (0.5, 0.25)])
def test_streams_and_single_items_answer_the_same(three: Pipeline, blend: tuple[float, float]) -> None:
    pipeline = three.with_blend(blend[0]).with_blend(blend[1], tier=2)
    expected: Any = pipeline.predict(given(three))
    options = StreamOptions(buffer_size=3, look_ahead=5, pool_tokens=10)
    streamed: list[Any] = list(pipeline.stream(iter(given(three)), options=options))
    for one, other in zip(streamed, expected, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
    for item, answer in zip(given(three), expected, strict=True):
        np.testing.assert_allclose(pipeline.predict([item])[0].probabilities, answer.probabilities, atol=1e-5)


def test_blends_count_where_two_tiers_were_asked(three: Pipeline) -> None:
    plain, blended = (columns(one.predict(given(three))) for one in (three, three.with_blend(0.5, tier=2)))
    deepest = plain[1] == 3
    assert not np.allclose(plain[0][deepest], blended[0][deepest])
    np.testing.assert_allclose(plain[0][~deepest], blended[0][~deepest], atol=1e-5)


def test_saved_loaded_pickled_copied(three: Pipeline, tmp_path: Path) -> None:
    changed = three.with_exit_policy(AtExit(2), tier=2).with_exit_policy(AtExit(1)).with_blend(0.5, tier=2)
    changed.save_pretrained(tmp_path / "again")
    for again in (cascade.load(tmp_path / "again", threads=1), pickle.loads(pickle.dumps(changed)), copy.copy(changed)):
        assert again.policies == changed.policies
        assert_same(again.predict(given(three)), changed.predict(given(three)))
    assert len(open_bundle(tmp_path / "again").manifest.tiers) == 3


def test_one_tier(bundle: Bundle, tmp_path: Path) -> None:
    expected = cascade.load(bundle.folder, threads=1)
    for number, alone in enumerate((expected.with_router(defer_none), expected.with_router(defer_all))):
        own = bundle.manifest.policies
        policies = replace(
            own, routers=(), blend=(), exits=own.exits[number:][:1], temperatures=own.temperatures[number:][:1]
        )
        manifest = replace(bundle.manifest, tiers=bundle.manifest.tiers[number:][:1], policies=policies)
        pipeline = rebuilt(bundle, tmp_path / f"one{number}", manifest)
        answers = pipeline.predict(given(pipeline))
        np.testing.assert_allclose(answers.probabilities, alone.predict(given(alone)).probabilities, atol=1e-5)
        assert answers.stats.deferred == 0
        assert len(list(pipeline.stream(given(pipeline)))) == len(TEXTS)
        assert pipeline.policies.full_depth().routers == ()


def shuffled(bundle: Bundle) -> bytes:
    """The bundle's tokenizer with other ids, which have other vectors."""
    inner = tokenizers.Tokenizer.from_file(str(bundle.path("tokenizer.json")))
    text: str = inner.to_str()
    for one, other in (("good", "bad"), ("film", "plot")):
        text = text.replace(f'"{one}":', '"?":').replace(f'"{other}":', f'"{one}":').replace('"?":', f'"{other}":')
    assert text != inner.to_str()
    return text.encode()


def test_a_tier_has_its_own_tokenizer(bundle: Bundle, tmp_path: Path) -> None:
    first, second = bundle.manifest.tiers
    manifest = replace(bundle.manifest, tiers=(replace(first, tokenizer="own/tokenizer.json"), second))
    pipeline = rebuilt(bundle, tmp_path / "own", manifest, **{"own_tokenizer.json": shuffled(bundle)})
    plain = cascade.load(bundle.folder, threads=1)
    swap = {"good": "bad", "bad": "good", "film": "plot", "plot": "film"}
    texts = ["good film", "bad plot it was", "we laugh"]
    for router in (defer_none, defer_all):
        own: Any = pipeline.with_router(router)
        other: Any = plain.with_router(router)
        words = [
            " ".join(swap.get(word, word) for word in text.split()) if router is defer_none else text for text in texts
        ]
        if isinstance(own, Tagger):
            for found in (own.predict([text.split() for text in texts]), own.predict_texts(texts)):
                expected = other.predict([text.split() for text in words])
                np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
            assert own("good film", aggregation_strategy="first") is not None
            with pytest.raises(OptionError, match="aggregation_strategy must be first where a tier reads words by its"):
                own("good film")
        else:
            np.testing.assert_allclose(own.predict(texts).probabilities, other.predict(words).probabilities, atol=1e-5)
    assert len(pipeline.predict(given(pipeline))) == len(TEXTS)
    with pytest.raises(BundleError, match=r"own/tokenizer.json must be a tokenizer.json"):
        rebuilt(bundle, tmp_path / "odd", manifest, **{"own_tokenizer.json": b"{}"})


def test_a_function_is_a_tier(three: Pipeline, tmp_path: Path) -> None:
    asked: list[Any] = []
    count = len(three.labels)

    def ask(items: list[Any]) -> Any:
        asked.extend(items)
        units = sum(map(len, items)) if isinstance(three, Tagger) else len(items)
        return np.tile(np.eye(count)[1], (units, 1))

    pipeline = three.with_tier(CallableTier(ask, price=1.0, labels=count), router=Threshold(0.99))
    found = pipeline.predict(given(three))
    probabilities, tiers, layers, *_ = columns(found)
    assert asked
    assert {1, 4} < set(tiers.tolist())
    np.testing.assert_array_equal(probabilities[tiers == 4], np.tile(np.eye(count)[1], ((tiers == 4).sum(), 1)))
    assert (layers[tiers == 4] == 0).all()
    assert_same(pipeline.with_router(defer_none, tier=3).predict(given(three)), three.predict(given(three)))
    assert len(list(pipeline.stream(given(three)))) == len(TEXTS)
    if isinstance(pipeline, Tagger):
        assert len(pipeline.predict_texts(TEXTS)) == len(TEXTS)
    for save in (lambda: pipeline.save_pretrained(tmp_path / "no"), lambda: pickle.dumps(pipeline)):
        with pytest.raises(OptionError, match="must run the graphs of its bundle, got a CallableTier; save the"):
            save()
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("router", [Threshold(0.99), defer_all], ids=repr)
def test_where_a_function_fails_the_tier_before_answers(three: Pipeline, router: Router) -> None:
    """It is asked with texts, or windows of words, and answers none that has "dull" in it."""
    count = len(three.labels)

    def ask(items: list[Any]) -> Any:
        (item,) = items
        if "dull" in item:
            raise ConnectionError("gone")
        return np.tile(np.eye(count)[1], (len(item) if isinstance(three, Tagger) else 1, 1))

    plain = three.with_router(defer_all).with_router(defer_all, tier=2)
    pipeline = plain.with_tier(CallableTier(ask, price=1.0, labels=count, at_once=1), router=router)
    with pytest.warns(CascadeWarning, match=r"could not answer \d+ of \d+ units.*ConnectionError: gone"):
        found = pipeline.predict(given(three))
    with pytest.warns(CascadeWarning, match=r"which keep the answer of the tier before"):
        streamed: list[Any] = list(pipeline.stream(given(three)))
    routes: Any = getattr(found.routes, "words", found.routes)
    lost = routes.failed == 4
    assert lost.any()
    assert found.stats.failed == lost.sum()
    before = columns(plain.predict(given(three)))
    for mine, its in zip(columns(found), before, strict=True):
        np.testing.assert_allclose(mine[lost], its[lost], atol=1e-5)
    assert not np.isnan(found.probabilities).any()
    for one, other in zip(streamed, list[Any](found), strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)


def test_tiers_that_do_not_fit(three: Pipeline) -> None:
    function = CallableTier(len, price=1.0, labels=2)
    with pytest.raises(OptionError, match=r"a tier must be a single one with \d labels, got 2 of 1 tiers; add tiers"):
        three.with_tier(function, router=defer_all)
    fourth = three.with_tier(replace(function, labels=len(three.labels)), router=defer_all)
    with pytest.raises(OptionError, match="tier 4 has no exits, its exit policy must be never"):
        fourth.with_exit_policy(AtExit(1))


def test_closing_frees_the_graphs_and_a_later_call_loads_them_again(three: Pipeline) -> None:
    expected = three.predict(given(three))
    with copy.copy(three) as pipeline:
        assert_same(pipeline.predict(given(three)), expected)
    assert not three.tier1.backend._sessions
    assert_same(three.predict(given(three)), expected)
    pipeline.close()
    three.bundle.path("onnx/model.onnx").write_bytes(b"altered")
    with pytest.raises(BundleError, match="must stay as it was while its bundle is in use"):
        three.predict(given(three))

"""The engine end to end and its pieces one by one, timed by pytest-benchmark."""

from __future__ import annotations

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from cascade.engine.packing import Packing
from cascade.pipelines.classifier import Classifier
from cascade.policies import defer_all, never
from cascade.policies.batching import batches
from cascade_bench.profile.parts import parts

GRAPHS = ("tier1", "embed", *(f"stage{number}" for number in range(12)))


@pytest.mark.parametrize("system", ["full", "exits", "cascade", "one text"])
def test_predict(benchmark: BenchmarkFixture, classifier: Classifier, texts: list[str], system: str) -> None:
    if system in {"full", "exits"}:
        classifier = classifier.with_router(defer_all)
    if system == "full":
        classifier = classifier.with_exit_policy(never)
    given = texts[:1] if system == "one text" else texts
    assert len(benchmark(classifier.predict, given)) == len(given)


def test_tokenise(benchmark: BenchmarkFixture, classifier: Classifier, texts: list[str]) -> None:
    assert len(benchmark(classifier.tokenizer.encode, texts).units) >= len(texts)


def test_make_batches(benchmark: BenchmarkFixture, classifier: Classifier, texts: list[str]) -> None:
    lengths = np.tile(classifier.tokenizer.encode(texts).units.rows.lengths, 16)
    assert sum(map(len, benchmark(batches, classifier.tier2.batching, lengths))) == len(lengths)


def test_pack(benchmark: BenchmarkFixture, classifier: Classifier, texts: list[str]) -> None:
    lengths, stage = classifier.tokenizer.encode(texts).units.rows.lengths, classifier.tier2.stages[0]
    names = [name for name in stage.inputs if name != "hidden"]
    made = benchmark(lambda: Packing.of(lengths, heads=classifier.tier2.heads).feeds(names))
    assert made["head_scatter"].shape == (lengths.sum(), classifier.tier2.heads)


@pytest.mark.parametrize("number", range(len(GRAPHS)), ids=GRAPHS)
def test_graph(benchmark: BenchmarkFixture, classifier: Classifier, texts: list[str], number: int) -> None:
    found = parts(classifier)
    if number >= len(found):
        pytest.skip(f"this bundle has {len(found)} graphs")
    lengths = classifier.tokenizer.encode(texts).units.rows.lengths[:64]
    assert benchmark(found[number].backend.run, found[number].feeds(lengths))

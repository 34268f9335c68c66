"""End to end: texts in, labels out."""

from __future__ import annotations

from pytest_benchmark.fixture import BenchmarkFixture

from cascade.pipelines.classifier import Classifier
from cascade.policies.exits import never
from cascade.policies.routing import defer_all


def test_full_tier2(benchmark: BenchmarkFixture, classifier: Classifier, texts: list[str]) -> None:
    full = classifier.with_router(defer_all).with_exit_policy(never)
    assert len(benchmark(full.predict, texts)) == len(texts)


def test_exits(benchmark: BenchmarkFixture, classifier: Classifier, texts: list[str]) -> None:
    assert len(benchmark(classifier.with_router(defer_all).predict, texts)) == len(texts)


def test_cascade(benchmark: BenchmarkFixture, classifier: Classifier, texts: list[str]) -> None:
    assert len(benchmark(classifier.predict, texts)) == len(texts)


def test_one_text(benchmark: BenchmarkFixture, classifier: Classifier, texts: list[str]) -> None:
    assert len(benchmark(classifier.predict, texts[:1])) == 1

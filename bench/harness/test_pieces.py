"""The pieces by themselves, one batch at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from cascade.core.rows import Rows
from cascade.engine.packing import Packing, compact
from cascade.pipelines.classifier import Classifier
from cascade.policies import exits, routing
from cascade.policies.batching import batches
from cascade.policies.exits import ExitState
from cascade.policies.routing import RoutingState
from cascade_bench.parts import Part, parts


@pytest.fixture
def part(request: pytest.FixtureRequest, classifier: Classifier) -> Part:
    """A graph by its number; a bundle with fewer exits leaves the others out."""
    found: Sequence[Part] = parts(classifier)
    number = int(request.param)
    if number >= len(found):
        pytest.skip(f"this bundle has {len(found)} graphs")
    return found[number]


def test_tokenise(benchmark: BenchmarkFixture, classifier: Classifier, texts: list[str]) -> None:
    assert len(benchmark(classifier.tokenizer.encode, texts).batch) >= len(texts)


def test_make_batches(benchmark: BenchmarkFixture, classifier: Classifier, batch: Rows) -> None:
    lengths = np.tile(batch.lengths, 16)
    assert sum(map(len, benchmark(batches, classifier.tier2.batching, lengths))) == len(lengths)


def test_pack(benchmark: BenchmarkFixture, classifier: Classifier, batch: Rows) -> None:
    heads = classifier.tier2.heads
    assert benchmark(lambda: Packing.of(batch.lengths, heads=heads).feeds)["head_scatter"].shape == (
        batch.tokens,
        heads,
    )


@pytest.mark.parametrize("part", range(14), ids=["tier1", "embed", *(f"stage{n}" for n in range(12))], indirect=True)
def test_graph(benchmark: BenchmarkFixture, part: Part, batch: Rows) -> None:
    feeds = part.feeds(batch.lengths)
    assert benchmark(part.backend.run, feeds)


def test_route(benchmark: BenchmarkFixture, classifier: Classifier, batch: Rows) -> None:
    scores = classifier.tier1.score(batch)
    state = RoutingState(scores.probabilities, scores.confidence, batch.lengths, classifier.multi_label)
    assert benchmark(routing.decide, classifier.router, state).shape == (len(batch),)


def test_decide_who_leaves(benchmark: BenchmarkFixture, classifier: Classifier, batch: Rows) -> None:
    first = classifier.tier2.all_exits(batch)[:, :1]
    state = ExitState(
        exit_index=0,
        exit_layer=classifier.tier2.layers[0],
        last=False,
        probabilities=first[:, 0],
        history=first,
        multi_label=classifier.multi_label,
    )
    assert benchmark(exits.decide, classifier.exit_policy, state).shape == (len(batch),)


def test_compact(benchmark: BenchmarkFixture, classifier: Classifier, batch: Rows) -> None:
    hidden = classifier.tier2.embedded(batch)
    keep = np.arange(len(batch)) % 2 == 0
    assert len(benchmark(compact, hidden, batch.lengths, keep)) == batch.lengths[keep].sum()


def test_merge(benchmark: BenchmarkFixture, classifier: Classifier, batch: Rows) -> None:
    engine = classifier.cascade
    first = engine.first(batch)
    second = engine.second(batch.select(np.flatnonzero(first.deferred))) if first.deferred.any() else None
    assert benchmark(engine.merge, first, second)[0].shape == (len(batch), len(classifier.labels))

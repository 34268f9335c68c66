"""What the suites run on: `pytest bench/harness --bundle models/sentiment`."""

from __future__ import annotations

from pathlib import Path

import pytest

from cascade.batch import Batch
from cascade.classifier import Classifier
from cascade.cli.demo import sentences

TEXTS = 128


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which bundle, and how many threads."""
    parser.addoption("--bundle", default="models/sentiment", help="A classifier's bundle.")
    parser.addoption("--threads", type=int, default=None, help="Of both tiers; the CPUs allowed if left out.")


@pytest.fixture(scope="session")
def classifier(request: pytest.FixtureRequest) -> Classifier:
    """The bundle, loaded once."""
    bundle = request.config.getoption("--bundle")
    if not Path(bundle).is_dir():
        pytest.skip(f"--bundle must be a folder that is there, was: {bundle}; give one such as models/sentiment")
    return Classifier.from_pretrained(bundle, threads=request.config.getoption("--threads"))


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """The demo's sentences, as often as they are needed."""
    some = [sentence.text for sentence in sentences("sentiment")]
    return [some[number % len(some)] for number in range(TEXTS)]


@pytest.fixture(scope="session")
def batch(classifier: Classifier, texts: list[str]) -> Batch:
    """The first batch that tier 2 would be given."""
    whole = classifier.tokenizer.encode(texts).batch
    return whole.select(next(iter(classifier.tier2.batching(whole.lengths))))

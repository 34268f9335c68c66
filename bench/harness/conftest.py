"""What the pytest-benchmark suite runs on: `pytest bench/harness --bundle models/sentiment`."""

from __future__ import annotations

from pathlib import Path

import pytest

from cascade.exceptions import TaskError
from cascade.pipelines.classifier import Classifier
from cascade_bench.harness.check import texts_for

TEXTS = 128


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which bundle and how many threads."""
    parser.addoption("--bundle", default="models/sentiment", help="A classifier's bundle.")
    parser.addoption("--threads", type=int, default=None, help="Of all tiers; the CPUs allowed if left out.")


@pytest.fixture(scope="session")
def classifier(request: pytest.FixtureRequest) -> Classifier:
    """The bundle, loaded once."""
    bundle = request.config.getoption("--bundle")
    if not Path(bundle).is_dir():
        pytest.skip(f"--bundle must be a folder, got {bundle}, which is none; give one such as models/sentiment")
    try:
        return Classifier.from_pretrained(bundle, threads=request.config.getoption("--threads"))
    except TaskError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def texts(request: pytest.FixtureRequest) -> list[str]:
    """The demo's sentences for the bundle, those about films if it has none."""
    return texts_for(Path(request.config.getoption("--bundle")), TEXTS)

"""What the suites run on: `pytest bench/harness --bundle models/sentiment`; and what the guard says at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from cascade.cli.demo.texts import sentences
from cascade.core.rows import Rows
from cascade.exceptions import TaskError
from cascade.pipelines.classifier import Classifier
from cascade_bench.harness.pins import PINNED
from cascade_bench.harness.summary import SUMMARY

TEXTS, MANY = 128, 1024
DEMOS = ("sentiment", "intents")
TURNS = 15  # so that the interval of a median may leave out three at either end and cover 96 %


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which bundle, how many threads, and what the guard does."""
    parser.addoption("--bundle", default="models/sentiment", help="A classifier's bundle.")
    parser.addoption("--threads", type=int, default=None, help="Of both tiers; the CPUs allowed if left out.")
    parser.addoption("--pin", action="store_true", help="Pin the guard's ratios as they are now, in --pinned.")
    parser.addoption("--pinned", type=Path, default=PINNED, help="The guard's file, pinned.json if left out.")
    parser.addoption("--turns", type=int, default=TURNS, help="Of the guard's contenders; at least 7 mean something.")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The guard's ratios beside those that are pinned."""
    summary = config.stash.get(SUMMARY, None)
    if summary is not None:
        terminalreporter.section(summary.title)
        for line in summary.lines():
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def classifier(request: pytest.FixtureRequest) -> Classifier:
    """The bundle, loaded once."""
    bundle = request.config.getoption("--bundle")
    if not Path(bundle).is_dir():
        pytest.skip(f"--bundle must be a folder that is there, was: {bundle}; give one such as models/sentiment")
    try:
        return Classifier.from_pretrained(bundle, threads=request.config.getoption("--threads"))
    except TaskError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def many_texts(request: pytest.FixtureRequest) -> list[str]:
    """The demo's sentences for the bundle (those about films if it has none), as often as they are needed."""
    name = Path(request.config.getoption("--bundle")).resolve().name
    some = [sentence.text for sentence in sentences(name if name in DEMOS else DEMOS[0])]
    return [some[number % len(some)] for number in range(MANY)]


@pytest.fixture(scope="session")
def texts(many_texts: list[str]) -> list[str]:
    """Few enough for one piece at a time."""
    return many_texts[:TEXTS]


@pytest.fixture(scope="session")
def batch(classifier: Classifier, texts: list[str]) -> Rows:
    """The first batch that tier 2 would be given."""
    whole = classifier.tokenizer.encode(texts).units.rows
    return whole.select(next(iter(classifier.tier2.batching(whole.lengths))))

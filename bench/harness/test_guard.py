"""The guard of the gains: a ratio that was pinned must not fall.

pytest bench/harness/test_guard.py --bundle models/sentiment          compare with pinned.json
pytest bench/harness/test_guard.py --bundle models/sentiment --pin    measure and write it, on a quiet machine
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from cascade.pipelines.classifier import Classifier
from cascade_bench import machine
from cascade_bench.harness.guard import RATIOS, Ratio, agreement, contenders, measure
from cascade_bench.harness.pins import cpu_kind, pins_of, read_pins, shortfall, write_pins
from cascade_bench.harness.reference import Plain
from cascade_bench.harness.summary import SUMMARY, Summary

AGREEMENT = 0.98  # a text whose two best labels are as good as equal may go either way


@pytest.fixture(scope="module")
def plain(request: pytest.FixtureRequest, classifier: Classifier) -> Plain:
    return Plain.from_folder(Path(request.config.getoption("--bundle")), threads=classifier.tier2.threads)


@pytest.fixture(scope="module")
def guard(request: pytest.FixtureRequest, classifier: Classifier, plain: Plain, many_texts: Sequence[str]) -> Summary:
    config, threads = request.config, classifier.tier2.threads
    bundle, file = Path(config.getoption("--bundle")), config.getoption("--pinned")
    name, facts = bundle.resolve().name, machine.facts(threads=threads)
    kind = cpu_kind(facts)
    pins = None if config.getoption("--pin") else read_pins(file, name, kind)
    if pins is None and not config.getoption("--pin"):
        pytest.skip(
            f"{name} has no pinned ratios for {kind}; on a quiet machine: "
            f"pytest bench/harness/test_guard.py --bundle {bundle} --pin"
        )
    one_thread = None if threads == 1 else Classifier.from_pretrained(bundle, threads=1)
    running = contenders(classifier, plain, many_texts, threads=threads, one_thread=one_thread)
    measured = measure(running, turns=config.getoption("--turns"))
    if pins is None:
        tolerances = {ratio.name: ratio.tolerance for ratio in RATIOS if ratio.tolerance is not None}
        pins = pins_of(measured, facts, tolerances=tolerances)
        write_pins(file, name, kind, pins)
    config.stash[SUMMARY] = made = Summary(name, kind, measured, pins)
    return made


def test_reference_answers_as_full_depth(classifier: Classifier, plain: Plain, many_texts: Sequence[str]) -> None:
    assert agreement(classifier, plain, many_texts) >= AGREEMENT


@pytest.mark.parametrize("ratio", RATIOS, ids=lambda ratio: ratio.name)
def test_ratio(guard: Summary, ratio: Ratio) -> None:
    if ratio.name not in guard.measured:
        pytest.skip(f"{ratio.name} needs two threads")
    if ratio.name not in guard.pins.ratios:
        pytest.skip(f"{ratio.name} is not pinned yet; pin anew with --pin on a quiet machine")
    if (line := shortfall(ratio.name, guard.measured[ratio.name], guard.pins)) is not None:
        pytest.fail(line, pytrace=False)

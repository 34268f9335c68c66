"""A bundle that is not sure of everything, examples that it mostly gets right, and the command with fixed costs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascade import Classifier
from cascade.bundle.manifest import MANIFEST_FILE
from cascade.calibration import observing
from cascade.calibration.certify import whole as certifying
from cascade.calibration.costs import Costs, TierCosts
from cascade.calibration.texts import TextAnswers
from cascade.cli.calibrate import run as calibrate_run
from cascade.policies.exits import never
from cascade.policies.routing import defer_all, defer_none
from tests.models.cli import Command
from tests.models.recorded import costs_of
from tests.models.toy import WORDS, toy_bundle

LABELS = ("negative", "neutral", "positive")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy") / "bundle"
    make(folder)
    return folder


@pytest.fixture(scope="session")
def examples(model: Path) -> list[dict[str, str]]:
    """Texts about which the tiers mostly agree, labelled as full depth answers but for a twentieth."""
    random = np.random.default_rng(0)
    texts = list(dict.fromkeys(" ".join(random.choice(WORDS[4:], random.integers(3, 9))) for _ in range(4000)))
    classifier = Classifier.from_pretrained(model, threads=1).with_exit_policy(never)
    full = classifier.with_router(defer_all).predict(texts).labels
    first = classifier.with_router(defer_none).predict(texts).labels
    kept = [row for row in range(len(texts)) if full[row] == first[row] or random.random() < 0.1][:600]
    assert len(kept) == 600
    return [
        {"text": texts[row], "label": str(random.choice(LABELS) if random.random() < 0.05 else full[row])}
        for row in kept
    ]


def make(folder: Path) -> None:
    """A bundle that is not sure of everything."""
    bundle = toy_bundle(folder.with_name(folder.name + "-sure"))
    Classifier.from_pretrained(bundle.folder, threads=1).with_temperatures(6.0, (6.0, 6.0, 6.0)).save_pretrained(folder)


@pytest.fixture
def data(tmp_path: Path, examples: list[dict[str, str]]) -> Path:
    return write(tmp_path / "data.jsonl", examples)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """With costs that do not depend on how fast this machine is: of so small graphs they say nothing."""

    def observe(*arguments: Any, **options: Any) -> TextAnswers:
        answers = observing.observe_texts(*arguments, **options)
        first, last = costs_of(5e-5, (3e-4, 3e-4, 3e-4)).tiers
        middle = TierCosts((3e-3, 3e-3, 3e-3))
        return replace(answers, costs=Costs((first, *[middle] * (len(answers.tiers) - 2), last)))

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(certifying, "observe_texts", observe)
    monkeypatch.setattr(calibrate_run, "observe_texts", observe)
    return Command(capsys, monkeypatch)


def write(file: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / MANIFEST_FILE).read_text())
    return found

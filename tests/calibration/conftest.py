"""What the tests of calibration share: a toy classifier, and texts for it."""

from __future__ import annotations

import pytest

from cascade import Classifier
from tests.models.toy import random_texts, toy_bundle


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    folder = toy_bundle(tmp_path_factory.mktemp("toy") / "bundle").folder
    return Classifier.from_pretrained(folder, threads=1).with_temperatures(6.0, (6.0, 6.0, 6.0))


def texts(count: int, *, shortest: int = 3, longest: int = 9) -> list[str]:
    """Long enough for the tiers to be sure of some."""
    return random_texts(count, shortest=shortest, longest=longest)

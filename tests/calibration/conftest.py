"""What the tests of calibration share: a toy classifier, and texts for it."""

from __future__ import annotations

import numpy as np
import pytest

from cascade import Classifier
from tests.models.toy import SENTENCES, toy_bundle

WORDS = " ".join(SENTENCES).split()


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    folder = tmp_path_factory.mktemp("toy") / "bundle"
    toy_bundle(folder)
    return Classifier.from_pretrained(folder, threads=1).with_temperatures(6.0, (6.0, 6.0, 6.0))


def texts(count: int, *, shortest: int = 3, longest: int = 9) -> list[str]:
    """Random words of the toy's, from `shortest` to below `longest` of them."""
    random = np.random.default_rng(0)
    return [" ".join(random.choice(WORDS, random.integers(shortest, longest))) for _ in range(count)]

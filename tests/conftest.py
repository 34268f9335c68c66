"""What all tests share. Hypothesis measures no time and draws the same each time: no run depends on load or luck."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from cascade import Classifier, Tagger

settings.register_profile("cascade", deadline=None, print_blob=True, max_examples=25, derandomize=True)
settings.register_profile("fuzz", deadline=None, print_blob=True, max_examples=2500)  # make fuzz
settings.load_profile("cascade")


@pytest.fixture(scope="session")
def clf(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """The toy bundle for texts, of three labels."""
    from cascade import Classifier
    from tests.models.toy import toy_bundle

    return Classifier.from_pretrained(toy_bundle(tmp_path_factory.mktemp("toys") / "sentiment").folder, threads=1)


@pytest.fixture(scope="session")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Tagger:
    """The toy bundle for words."""
    from cascade import Tagger
    from tests.models.toy_tags import tag_bundle

    return Tagger.from_pretrained(tag_bundle(tmp_path_factory.mktemp("toys") / "tags").folder, threads=1)

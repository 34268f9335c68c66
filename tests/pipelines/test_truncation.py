"""Long texts cut as transformers' `truncation=True` cuts them, in the place of windows."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascade import Classifier, Tagger, load
from cascade.bundle.manifest import Manifest
from cascade.exceptions import BundleError

pytestmark = pytest.mark.filterwarnings("ignore:pairs and words must fit")

LONG = "a very good film it was not dull " * 200
TEXTS: list[Any] = [LONG, "good film", (LONG, "bad"), ""]


def test_texts(clf: Classifier) -> None:
    inner, special = clf.tokenizer, clf.tokenizer.special
    encoding = inner.tokenize_with_offsets([LONG])[0]
    cut = LONG[: encoding.offsets[inner.max_length - len(special) - 1][1]]
    wanted = clf.predict([cut, *TEXTS[1:]])
    assert wanted.stats.truncated == 1  # the pair
    short = clf.with_truncation()
    found = short.predict(TEXTS)
    np.testing.assert_array_equal(found.probabilities, wanted.probabilities)
    assert found.stats.truncated == 2
    windows = clf.predict(TEXTS).probabilities
    assert not np.array_equal(windows, found.probabilities)
    for same in (pickle.loads(pickle.dumps(short)), Classifier.from_pretrained(clf.bundle.folder, truncation=True)):
        np.testing.assert_allclose(same.predict(TEXTS).probabilities, found.probabilities, atol=1e-6)
    np.testing.assert_array_equal(short.with_truncation(False).predict(TEXTS).probabilities, windows)
    assert clf(TEXTS, truncation=True) == short(TEXTS)
    assert short.with_truncation() is short
    assert short.certificate is None


def test_tags(tagger: Tagger) -> None:
    short = tagger.with_truncation()
    found = short.predict_texts([LONG, "good film"])
    assert [len(tags) for tags in found.tags] == [tagger.tokenizer.room, 2]
    assert len(tagger.predict_texts([LONG]).tags[0]) > tagger.tokenizer.room
    words = [LONG.split()]
    assert short.predict(words).tags == tagger.predict(words).tags
    assert tagger([LONG], truncation=True) == short([LONG])
    assert tagger([LONG], truncation=False) == tagger([LONG])


def test_a_bundle_says_so(clf: Classifier, tmp_path: Path) -> None:
    """What is saved cuts as the copy did; nobody has to ask for it again, and a certificate is about one way only."""
    short = clf.with_truncation()
    short.save_pretrained(tmp_path / "short")
    again = load(tmp_path / "short", threads=1)
    assert again.bundle.manifest.truncation
    wanted = short.predict(TEXTS).probabilities
    np.testing.assert_allclose(again.predict(TEXTS).probabilities, wanted, atol=1e-6)
    windows = load(tmp_path / "short", threads=1, truncation=False)
    np.testing.assert_allclose(windows.predict(TEXTS).probabilities, clf.predict(TEXTS).probabilities, atol=1e-6)
    told = (tmp_path / "short" / "cascade.json").read_text(encoding="utf-8")
    assert Manifest.from_json(told).models() != clf.bundle.manifest.models()
    assert "truncation" not in clf.bundle.manifest.to_json()  # as older releases wrote it
    with pytest.raises(BundleError, match="truncation must be true or false, got 1"):
        Manifest.from_json(told.replace('"truncation": true', '"truncation": 1'))

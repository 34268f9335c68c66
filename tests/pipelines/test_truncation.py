"""Long texts cut as transformers' `truncation=True` cuts them, in the place of windows."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np

from cascade import Classifier, Tagger

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

from __future__ import annotations

import numpy as np
import pytest

from cascade.training.build.shares import with_gaps


def test_every_copy_lacks_a_word_and_keeps_one() -> None:
    items = ["one two three four", ["a", "b", "c"], ("what is it ?", "a fine thing indeed")]
    made, kept = with_gaps(items, copies=40, seed=1)
    assert len(made) == len(kept) == 120
    for number, (new, here) in enumerate(zip(made, kept, strict=True)):
        old = items[number % 3]
        pairs = zip(old, new, strict=True) if isinstance(old, tuple) else [(old, new)]
        for number_in_pair, (given, left) in enumerate(pairs):
            words, others = (text.split() if isinstance(text, str) else text for text in (given, left))
            assert 0 < len(others) < len(words)
            if not number_in_pair:
                assert [word for word, stays in zip(words, here.tolist(), strict=True) if stays] == others
    assert len({str(new) for new in made}) > 20
    assert with_gaps(items, copies=40, seed=1)[0] == made


@pytest.mark.parametrize("text", ["", "a", "猫が好き", "   "])
def test_texts_without_spaces_lose_characters(text: str) -> None:
    (new,), (kept,) = with_gaps([text], copies=1, seed=2)
    assert new == "".join(letter for letter, here in zip(text, kept.tolist(), strict=True) if here)
    assert len(kept) == len(text)
    assert np.count_nonzero(kept) == len(new) >= min(len(text), 1)

"""Parts of a look are answered as the whole is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cascade import Classifier, Tagger
from cascade.engine.inputs import Inputs
from cascade.engine.looks import part_of
from cascade.policies import Threshold, defer_all, defer_none, whole_sentences
from cascade.policies.windows import Spans
from cascade.text.word_encoding import WordEncoder
from tests.models.kinds import assert_equal
from tests.models.toy import random_texts

TEXTS = [*random_texts(12, longest=9), "", "good film " * 30, "bad"]


def backwards(state: Any) -> Spans:
    """Whole sentences, the last one first."""
    spans = whole_sentences(state)
    return Spans(spans.rows[::-1], spans.starts[::-1], spans.stops[::-1])


@pytest.mark.parametrize("router", [Threshold(0.9), defer_all, defer_none], ids=repr)
@pytest.mark.parametrize("cut", [(0, 15), (0, 1), (3, 9), (11, 15), (12, 13), (13, 14)])
@pytest.mark.parametrize("kind", ["texts", "windows", "backwards"])
def test_a_part_is_answered_as_in_the_whole(
    clf: Classifier, tagger: Tagger, kind: str, cut: tuple[int, int], router: Any
) -> None:
    words = kind != "texts"
    model: Any = (tagger.with_windows(backwards) if kind == "backwards" else tagger) if words else clf
    cascade = model.with_router(router).with_blend(0.5).cascade
    items = [text.split() for text in TEXTS] if words else TEXTS
    inputs = Inputs.of(items, WordEncoder(model.tokenizer) if words else model.tokenizer)
    look = cascade.look(inputs)
    offsets = inputs.offsets if words else np.arange(len(items) + 1)
    begin, end = (int(offsets[place]) for place in cut)
    whole, part = cascade.finish([look, part_of(look, begin, end, words=words)])
    if cut == (0, 15) or router is defer_none:
        assert part_of(look, begin, end, words=words) is look
    else:
        assert_equal(part, whole[begin:end])
        assert part_of(look, begin, end, words=words).inputs.n_units == end - begin

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.exceptions import OptionError
from cascade.policies import windows
from cascade.policies.windows import Spans, WindowPolicy, Windows, WindowState, whole_sentences


def state(*sentences: str, pieces: Sequence[int] | None = None) -> WindowState:
    """Sentences as strings, a character per word: `?` is unsure."""
    unsure = [word == "?" for sentence in sentences for word in sentence]
    return WindowState(
        unsure=np.array(unsure, dtype=np.bool_),
        offsets=np.cumsum([0, *map(len, sentences)]),
        pieces=np.array(pieces if pieces is not None else [1] * len(unsure), dtype=np.int64),
    )


def spans_of(policy: WindowPolicy, now: WindowState) -> list[tuple[int, int, int]]:
    spans = windows.decide(policy, now)
    for array in (spans.rows, spans.starts, spans.stops):
        assert array.dtype == np.int64
    return list(zip(spans.rows.tolist(), spans.starts.tolist(), spans.stops.tolist(), strict=True))


def test_worked_examples() -> None:
    narrow = Windows(margin=1, whole=1.0)
    assert spans_of(narrow, state("....?.....")) == [(0, 3, 6)]
    # Windows end where the sentence does, and never reach into the next one.
    assert spans_of(narrow, state("?.....", ".....?", "......")) == [(0, 0, 2), (1, 10, 12)]
    assert spans_of(narrow, state("....?", "?....")) == [(0, 3, 5), (1, 5, 7)]
    # Overlapping windows merge, touching ones too; with a word between them they are two.
    assert spans_of(narrow, state("...?.?....")) == [(0, 2, 7)]
    assert spans_of(narrow, state("...?..?...")) == [(0, 2, 8)]
    assert spans_of(narrow, state("...?...?..")) == [(0, 2, 5), (0, 6, 9)]
    assert spans_of(Windows(margin=0, whole=1.0), state("..?", "??.")) == [(0, 2, 3), (1, 3, 5)]
    assert spans_of(Windows(), state(".........?..........")) == [(0, 6, 13)]
    assert spans_of(whole_sentences, state("..?..", ".....", "?")) == [(0, 0, 5), (2, 10, 11)]
    assert whole_sentences == Windows(margin=0, whole=0)


def test_rounding_of_shares() -> None:
    # 0.07 * 100 is a hair above 7, 0.29 * 100 a hair below 29.
    for share in (0.07, 0.29):
        count = round(share * 100)
        now = state("?" * count + "." * (100 - count))
        assert spans_of(Windows(margin=0, whole=share), now) == [(0, 0, count)]


SENTENCES = st.lists(st.text(alphabet=".?", max_size=12), max_size=6)
POLICIES = st.builds(Windows, st.integers(0, 4), st.sampled_from([0.0, 0.3, 0.6, 1.0]))


@given(SENTENCES, POLICIES, st.data())
def test_equals_a_loop(sentences: list[str], policy: Windows, data: Any) -> None:
    total = sum(map(len, sentences))
    pieces = data.draw(st.lists(st.integers(1, 4), min_size=total, max_size=total))
    expected, first = [], 0
    for row, words in enumerate(sentences):
        sizes = pieces[first : first + len(words)]
        inside = [
            any(words[other] == "?" for other in range(max(place - policy.margin, 0), place + policy.margin + 1)
                if other < len(words))
            for place in range(len(words))
        ]  # fmt: skip
        read = sum(size for size, chosen in zip(sizes, inside, strict=True) if chosen)
        if read > policy.whole * sum(sizes) + 1e-6:
            inside = [True] * len(words)
        place = 0
        while place < len(words):
            start = place
            while place < len(words) and inside[place]:
                place += 1
            if place > start:
                expected.append((row, first + start, first + place))
            place += 1
        first += len(words)
    assert spans_of(policy, state(*sentences, pieces=pieces)) == expected


def test_any_callable_serves() -> None:
    def alone(now: WindowState) -> Spans:
        places = np.flatnonzero(now.unsure)
        return Spans(np.searchsorted(now.offsets, places, side="right") - 1, places, places + 1)

    assert spans_of(alone, state("..?", "?.")) == [(0, 2, 3), (1, 3, 4)]


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        (None, "must return Spans, got None; give equally many rows, starts and stops"),
        (([0, 1], [0], [1]), "must return Spans, got Spans"),
        (([0], [1], [1]), "must return runs of one or more words of their sentence, got words 1 to 1 of sentence"),
        (([0], [1], [4]), "got words 1 to 4 of sentence 0; numbers count over all sentences"),
        (([1], [1], [4]), "got words 1 to 4 of sentence 1"),
        (([2], [3], [5]), "got words 3 to 5 of sentence 2"),
        (([-1], [0], [1]), "got words 0 to 1 of sentence -1"),
        (([0], [0], [3]), "must have every unsure word exactly once, got 1 never and 0 more often; merge windows"),
        (([0, 1, 1], [0, 3, 3], [3, 5, 4]), "got 0 never and 1 more often"),
    ],
)
def test_wrong_spans_are_refused(spans: Any, message: str) -> None:
    def wrong(_: WindowState) -> Spans:
        return Spans(*map(np.array, spans)) if spans else None  # type: ignore[return-value]  # wrong on purpose

    with pytest.raises(OptionError, match=rf"the windows .*wrong.* {message}"):
        windows.decide(wrong, state("..?", "?."))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": -1}, "margin must be a whole number of at least 0, got -1; 0 sends unsure words without context"),
        ({"margin": 1.5}, "margin must be a whole number of at least 0, got 1.5"),
        ({"whole": 1.2}, r"whole must be in \[0, 1\], got 1.2; 0 sends whole sentences"),
    ],
)
def test_impossible_options(options: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Windows(**options)

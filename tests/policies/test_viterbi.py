from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.core.rows import FloatArray, IntArray
from cascade.exceptions import OptionError
from cascade.policies.viterbi import Scheme, chunks, viterbi

BIO = ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")
BIOES = ("O", "B-X", "I-X", "E-X", "S-X", "S-Y")


def path_score(
    path: tuple[int, ...], scores: FloatArray, transitions: FloatArray, start: FloatArray, end: FloatArray
) -> float:
    """By the definition, in double precision."""
    own = sum(float(scores[word, label]) for word, label in enumerate(path))
    between = sum(float(transitions[pair]) for pair in itertools.pairwise(path))
    return own + between + float(start[path[0]]) + float(end[path[-1]])


@st.composite
def cases(draw: st.DrawFn) -> tuple[FloatArray, IntArray, FloatArray, FloatArray, FloatArray]:
    labels = draw(st.integers(1, 4))
    lengths = draw(st.lists(st.integers(0, 4), max_size=5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    wild = draw(st.sampled_from([0.1, 1.0, 20.0]))
    shapes = [(sum(lengths), labels), (labels, labels), (labels,), (labels,)]
    scores, transitions, start, end = (rng.normal(0, wild, shape).astype(np.float32) for shape in shapes)
    if draw(st.booleans()):
        transitions[rng.random(transitions.shape) < 0.3] = -np.inf
        np.fill_diagonal(transitions, 0)  # so that there is a sequence of every length
    return scores, np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))), transitions, start, end


@given(cases())
def test_no_sequence_is_better(case: tuple[FloatArray, IntArray, FloatArray, FloatArray, FloatArray]) -> None:
    scores, offsets, *chain = case
    found = viterbi(scores, offsets, *chain)
    assert found.shape == (len(scores),)
    assert found.dtype == np.int64
    for first, stop in itertools.pairwise(offsets.tolist()):
        if stop > first:
            own = scores[first:stop]
            every = itertools.product(range(scores.shape[1]), repeat=stop - first)
            best = max(path_score(path, own, *chain) for path in every)
            assert path_score(tuple(found[first:stop].tolist()), own, *chain) == pytest.approx(best, abs=1e-3)


def test_worked_example() -> None:
    # Two labels, three words. By themselves: 0, 1, 0 (scores 2 + 1 + 2 = 5). A change costs 1, so staying at 0
    # (2 + 0 + 2 = 4) beats changing twice (5 - 2 = 3).
    scores = np.array([[2, 0], [0, 1], [2, 0]], dtype=np.float32)
    change = np.array([[0, -1], [-1, 0]], dtype=np.float32)
    nothing = np.zeros(2, dtype=np.float32)
    np.testing.assert_array_equal(viterbi(scores, np.array([0, 3]), change, nothing, nothing), [0, 0, 0])
    # Of single words there is nothing to change.
    np.testing.assert_array_equal(viterbi(scores, np.arange(4), change, nothing, nothing), [0, 1, 0])
    # Ends of 1.5 outweigh the margins of the second word, and not those of the others.
    end = np.array([1.5, 0], dtype=np.float32)
    np.testing.assert_array_equal(viterbi(scores, np.arange(4), change, nothing, end), [0, 0, 0])
    start = np.array([0, 2.5], dtype=np.float32)
    np.testing.assert_array_equal(viterbi(scores, np.arange(4), change, start, nothing), [1, 1, 1])


def test_chunks_hold_every_sentence_once_and_stay_small() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 30, 100)
    lengths[7] = 1000  # more than fit: a chunk of its own
    order = np.argsort(-lengths, kind="stable")
    made = list(chunks(order, lengths, 4, cells=400))
    np.testing.assert_array_equal(np.concatenate(made), order)
    assert made[0].tolist() == [7]
    assert len(made) > 10
    assert all(lengths[part].sum() * 4 <= 400 and len(part) * 16 <= 400 for part in made[1:])


def test_long_sentences_keep_their_precision() -> None:
    # 20,000 words of score -1000: a plain float32 sum of 2e7 would swallow the differences of 0.01.
    better = np.random.default_rng(0).integers(0, 3, 20_000)
    scores = np.full((len(better), 3), -1000, dtype=np.float32)
    scores[np.arange(len(better)), better] += np.float32(0.01)
    nothing = np.zeros(3, dtype=np.float32)
    found = viterbi(scores, np.array([0, len(better)]), np.zeros((3, 3), dtype=np.float32), nothing, nothing)
    np.testing.assert_array_equal(found, better)


def test_impossible_probabilities_are_the_last_choice() -> None:
    scores = np.array([[-np.inf, -5], [np.nan, -5], [-np.inf, -np.inf]], dtype=np.float32)
    nothing = np.zeros(2, dtype=np.float32)
    forbid = np.array([[0, 0], [-np.inf, 0]], dtype=np.float32)
    np.testing.assert_array_equal(viterbi(scores, np.array([0, 3]), forbid, nothing, nothing), [1, 1, 1])


@pytest.mark.parametrize("labels", [BIO, BIOES])
def test_scheme_is_that_of_the_definition(labels: tuple[str, ...]) -> None:
    scheme = Scheme.of(labels)
    for length in (1, 2, 3):
        for path in itertools.product(range(len(labels)), repeat=length):
            names = tuple(labels[number] for number in path)
            wanted = valid_in(names, closed=labels is BIOES)
            assert scheme.valid(np.array(path), np.array([0, length]))[0] == wanted, names


def valid_in(names: tuple[str, ...], *, closed: bool) -> bool:
    """BIO, or BIOES where `closed`, word by word."""
    inside = ""  # the type that may go on, and with BIOES must
    for name in names:
        letter, _, kind = name.partition("-")
        if letter in "IE" and inside != kind:
            return False
        if closed and inside and letter not in "IE":
            return False
        inside = kind if letter in "BI" else ""
    return not (closed and inside)


@pytest.mark.parametrize(
    ("labels", "good", "bad"),
    [
        (("O", "B-X", "I-X", "L-X", "U-X"), [1, 2, 3, 4, 0], [1, 0]),  # BILOU
        (("B-X", "M-X", "E-X", "S-X"), [0, 1, 2, 3, 0, 2], [0, 3]),  # BMES, Chinese word segmentation
    ],
)
def test_other_letters(labels: tuple[str, ...], good: list[int], bad: list[int]) -> None:
    scheme = Scheme.of(labels)
    assert scheme.valid(np.array(good), np.array([0, len(good)])).all()
    assert not scheme.valid(np.array(bad), np.array([0, len(bad)])).any()


def test_validity_by_sentence() -> None:
    scheme = Scheme.of(("O", "B-X", "I-X"))
    # [B I] [] [I] [] [O B] [O I]: the third and the last are invalid, though I follows B across the border.
    chosen, offsets = np.array([1, 2, 2, 0, 1, 0, 2]), np.array([0, 2, 2, 3, 3, 5, 7])
    np.testing.assert_array_equal(scheme.valid(chosen, offsets), [True, True, False, True, True, False])
    none = scheme.valid(np.zeros(0, dtype=np.int64), np.array([0, 0]))
    np.testing.assert_array_equal(none, [True])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("NOUN", "VERB"), r"must be named in BIO or BIOES .* got 'NOUN' among NOUN, VERB; use argmax"),
        (("O", "B-"), "got 'B-'"),
        (("O", "Q-X"), "got 'Q-X'"),
        (("I-X",), "must include O, or one that is valid alone"),
        (("B-X", "E-X"), "must include O, or one that is valid alone"),
    ],
)
def test_labels_without_a_scheme(labels: tuple[str, ...], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Scheme.of(labels)

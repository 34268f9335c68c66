from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.core.rows import FloatArray, IntArray
from cascade.exceptions import OptionError
from cascade.policies import decoding
from cascade.policies.decoding import Crf, Decoder, Viterbi, argmax
from cascade.policies.registry import ModelInfo
from cascade.policies.viterbi import viterbi
from tests.policies.test_viterbi import valid_in

LABELS = ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")
OUT, I_PER, B_PER = 4, 3, 1
ZEROS = np.zeros((3, 3))


@st.composite
def sentences(draw: st.DrawFn, labels: int) -> tuple[FloatArray, IntArray]:
    """Log-probabilities and offsets of ragged sentences, some without words."""
    lengths = draw(st.lists(st.integers(0, 5), max_size=6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = rng.normal(0, draw(st.sampled_from([0.3, 3.0])), (sum(lengths), labels))
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logits.astype(np.float32), np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))


def is_bio(path: list[int]) -> bool:
    return valid_in(tuple(LABELS[number] for number in path), closed=False)


@given(sentences(len(LABELS)))
def test_viterbi_is_the_likeliest_valid_sequence(case: tuple[FloatArray, IntArray]) -> None:
    scores, offsets = case
    found = Viterbi(LABELS)(scores, offsets)
    for first, stop in itertools.pairwise(offsets.tolist()):
        path = found[first:stop].tolist()
        assert is_bio(path)
        own = scores[first:stop].astype(np.float64)
        likeliest = own.argmax(axis=1).tolist()
        if is_bio(likeliest):  # no other is likelier
            assert path == likeliest
        every = [other for other in itertools.product(range(5), repeat=min(stop - first, 3)) if is_bio(list(other))]
        if 0 < stop - first <= 3:
            best = max(sum(own[word, label] for word, label in enumerate(other)) for other in every)
            assert sum(own[word, label] for word, label in enumerate(path)) == pytest.approx(best, abs=1e-4)


def test_viterbi_worked_example() -> None:
    # "saw Mary Smith": argmax says O, I-PER, I-PER. Either the first I-PER becomes B-PER (0.5 -> 0.3), or all is O.
    p = np.array(
        [[0.02, 0.02, 0.02, 0.02, 0.92], [0.05, 0.3, 0.05, 0.5, 0.1], [0.1, 0.1, 0.1, 0.6, 0.1]], dtype=np.float32
    )
    scores, offsets = np.log(p), np.array([0, 3])
    np.testing.assert_array_equal(argmax(scores, offsets), [OUT, I_PER, I_PER])
    np.testing.assert_array_equal(Viterbi(LABELS)(scores, offsets), [OUT, B_PER, I_PER])
    np.testing.assert_array_equal(Viterbi(LABELS)(scores[1:2], np.array([0, 1])), [B_PER])


@given(sentences(3), st.integers(0, 2**32 - 1))
def test_crf_is_viterbi_with_its_transitions(case: tuple[FloatArray, IntArray], seed: int) -> None:
    rng = np.random.default_rng(seed)
    chain = [rng.normal(size=shape).astype(np.float32) for shape in ((3, 3), 3, 3)]
    np.testing.assert_array_equal(Crf(*chain)(*case), viterbi(*case, *chain))


@pytest.mark.parametrize("decoder", [argmax, Viterbi(("O", "B-X", "I-X")), Crf(ZEROS)], ids=repr)
@pytest.mark.parametrize("offsets", [[0], [0, 0], [0, 0, 1, 1], [0, 1]])
def test_sentences_without_words_and_single_words(decoder: Decoder, offsets: list[int]) -> None:
    scores = np.log([[0.2, 0.7, 0.1]]).astype(np.float32)[: offsets[-1]]
    np.testing.assert_array_equal(decoding.decide(decoder, scores, np.array(offsets)), [1] * offsets[-1])


@pytest.mark.parametrize("decoder", [Viterbi(("O", "B-X", "I-X")), Crf(ZEROS)], ids=repr)
def test_probabilities_of_zero(decoder: Decoder) -> None:
    scores = np.array([[-np.inf, 0, -np.inf], [-np.inf, -np.inf, 0], [0, -np.inf, -np.inf]], dtype=np.float32)
    before = scores.copy()
    np.testing.assert_array_equal(decoder(scores, np.array([0, 3])), [1, 2, 0])
    np.testing.assert_array_equal(scores, before)  # what it was given is the caller's


def test_own_callables_decode() -> None:
    def last(log_probabilities: FloatArray, offsets: IntArray) -> IntArray:
        return np.full(len(log_probabilities), 2)

    scores, offsets = np.zeros((4, 3), dtype=np.float32), np.array([0, 4])
    np.testing.assert_array_equal(decoding.decide(last, scores, offsets), [2, 2, 2, 2])


@pytest.mark.parametrize("made", [np.zeros(3), np.zeros(4), np.full(4, 3), np.full(4, -1), np.zeros((4, 1), dtype=int)])
def test_what_a_decoder_returned_is_checked(made: Any) -> None:
    with pytest.raises(OptionError, match=r"must return numbers of labels \(0 to 2\) of shape \(4,\), got .* of"):
        decoding.decide(lambda _scores, _offsets: made, np.zeros((4, 3), dtype=np.float32), np.array([0, 4]))


def test_decoders_of_other_labels_are_refused() -> None:
    decoding.check(Viterbi(LABELS), ModelInfo(LABELS))
    decoding.check(Crf(ZEROS), ModelInfo(("a", "b", "c")))
    decoding.check(argmax, ModelInfo(("a",)))
    with pytest.raises(OptionError, match="Viterbi must have the model's 5 labels in their order"):
        decoding.check(Viterbi(LABELS), ModelInfo(LABELS[::-1]))
    with pytest.raises(OptionError, match="Crf must have transitions between the model's 2 labels, got 3"):
        decoding.check(Crf(ZEROS), ModelInfo(("a", "b")))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Viterbi(("NOUN",)), "must be named in BIO or BIOES"),
        (lambda: Crf(np.zeros((2, 3))), r"transitions must be square, .* got shape \(2, 3\)"),
        (lambda: Crf(np.zeros((0, 0))), "transitions must be square"),
        (lambda: Crf(np.zeros(3)), "transitions must be finite numbers in 2 dimensions"),
        (lambda: Crf([[0.0, -np.inf], [0.0, 0.0]]), "must be finite numbers .* -10000 forbids"),
        (lambda: Crf([["a"]]), "transitions must be finite numbers in 2 dimensions"),
        (lambda: Crf(ZEROS, [0, 0]), "start must have a number for each of 3 labels, got 2"),
        (lambda: Crf(ZEROS, end=[[0, 0, 0]]), "end must be finite numbers in 1 dimension, "),
    ],
)
def test_bad_use(make: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make()

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cascade.core.confidence import (
    Measure,
    answers,
    certainty,
    evidence,
    margin,
    max_probability,
    probabilities,
    sigmoid,
    softmax,
)
from cascade.core.rows import FloatArray

MEASURES = (max_probability, margin, certainty)
LOGITS = hnp.arrays(
    np.float32, st.tuples(st.integers(0, 5), st.integers(1, 7)), elements=st.floats(-(2.0**100), 2.0**100, width=32)
)


def rows(*values: list[float]) -> FloatArray:
    return np.array(values, dtype=np.float32)


def test_softmax_of_labels_sigmoid_of_one_and_a_number_stays() -> None:
    np.testing.assert_allclose(softmax(rows([np.log(1), np.log(2), np.log(5)])), [[0.125, 0.25, 0.625]], rtol=1e-6)
    logits = rows([0.0], [np.log(3)])
    np.testing.assert_allclose(probabilities(logits, multi_label=True), [[0.5], [0.75]], rtol=1e-6)
    np.testing.assert_array_equal(probabilities(logits, temperature=3), logits)
    np.testing.assert_array_equal(max_probability(rows([-7.0], [np.nan])), [1, np.nan])


def test_extremes_neither_overflow_nor_warn_and_nan_stays() -> None:
    np.testing.assert_array_equal(softmax(rows([1e38, -1e38])), [[1, 0]])
    np.testing.assert_array_equal(sigmoid(rows([1e38, -1e38, 0])), [[1, 0, 0.5]])
    for multi_label in (False, True):
        assert np.isfinite(evidence(rows([1.0, 0.0]), weight=1.0, multi_label=multi_label)).all()
    assert np.isnan(max_probability(rows([np.nan, 0.5]))).all()


def test_temperature_divides() -> None:
    logits = rows([1, 3])
    np.testing.assert_allclose(probabilities(logits, temperature=2), softmax(rows([0.5, 1.5])))
    np.testing.assert_allclose(probabilities(logits, multi_label=True, temperature=2), sigmoid(rows([0.5, 1.5])))


def test_evidence_multiplies() -> None:
    """0.8 : 0.2 and, counting half, 0.9 : 0.1 make 0.8 * 3 : 0.2 * 1, that is 12 : 1."""
    prior = evidence(rows([0.9, 0.1]), weight=0.5)
    found = probabilities(np.log(rows([0.8, 0.2])), prior=prior)
    np.testing.assert_allclose(found, rows([12 / 13, 1 / 13]), rtol=1e-5)
    # A yes/no label counts by its odds, 4 : 1 times 3 : 1.
    both = probabilities(np.log(rows([4.0])), multi_label=True, prior=evidence(rows([0.9]), weight=0.5))
    np.testing.assert_allclose(both, rows([12 / 13]), rtol=1e-5)


def test_worked_examples() -> None:
    p = rows([0.7, 0.2, 0.1], [1, 0, 0], [1 / 3, 1 / 3, 1 / 3])
    np.testing.assert_allclose(max_probability(p), [0.7, 1, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(margin(p), [0.5, 1, 0], atol=1e-6)
    entropy = -(0.7 * np.log(0.7) + 0.2 * np.log(0.2) + 0.1 * np.log(0.1))
    np.testing.assert_allclose(certainty(p), [1 - entropy / np.log(3), 1, 0], atol=1e-6)


def test_multi_label_is_as_sure_as_its_least_sure_label() -> None:
    p = rows([0.99, 0.3, 0.0])
    np.testing.assert_allclose(max_probability(p, multi_label=True), [0.7], rtol=1e-6)
    np.testing.assert_allclose(margin(p, multi_label=True), [0.4], rtol=1e-6)
    entropy = -(0.3 * np.log2(0.3) + 0.7 * np.log2(0.7))
    np.testing.assert_allclose(certainty(p, multi_label=True), [1 - entropy], rtol=1e-5)


def test_two_labels_and_one_label_agree() -> None:
    p = rows([0.8], [0.1])
    both = np.concatenate((1 - p, p), axis=1)
    for measure in MEASURES:
        np.testing.assert_allclose(measure(p, multi_label=True), measure(both), rtol=1e-5)


@pytest.mark.parametrize("measure", MEASURES)
@given(logits=LOGITS, multi_label=st.booleans())
def test_every_measure_is_in_the_unit_interval(measure: Measure, logits: FloatArray, multi_label: bool) -> None:
    sure = measure(probabilities(logits, multi_label=multi_label), multi_label=multi_label)
    assert sure.shape == (len(logits),)
    assert sure.dtype == np.float32
    assert ((sure >= 0) & (sure <= 1)).all()


@pytest.mark.parametrize("measure", MEASURES)
def test_surer_is_higher(measure: Measure) -> None:
    steps = np.linspace(0, 5, 20, dtype=np.float32)
    logits = np.stack((steps, np.zeros_like(steps), np.zeros_like(steps)), axis=1)
    assert (np.diff(measure(softmax(logits))) > 0).all()


def test_answers() -> None:
    p = rows([0.2, 0.8], [0.6, 0.5])
    np.testing.assert_array_equal(answers(p), [[1], [0]])
    np.testing.assert_array_equal(answers(p, multi_label=True), [[0, 1], [1, 1]])
    np.testing.assert_array_equal(answers(rows([0.2], [0.8]), multi_label=True), [[0], [1]])

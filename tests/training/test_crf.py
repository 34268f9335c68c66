from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.policies.decoding import Crf, argmax

torch = pytest.importorskip("torch")

from cascade.training.models.crf import Chain, fit_crf  # noqa: E402  # after the skip

Table = npt.NDArray[np.float64]
LABELS = ("O", "B", "I")


def by_enumeration(
    scores: Table, labels: npt.NDArray[np.int64], offsets: list[int], transitions: Table, start: Table, end: Table
) -> float:
    """The negative log-likelihood by its definition: all sequences of every sentence are listed."""
    loss = 0.0
    for first, stop in itertools.pairwise(offsets):
        if first == stop:
            continue

        def total(path: tuple[int, ...], own: Table = scores[first:stop]) -> float:
            between = sum(float(transitions[pair]) for pair in itertools.pairwise(path))
            ends = float(start[path[0]] + end[path[-1]])
            return sum(float(own[word, label]) for word, label in enumerate(path)) + between + ends

        every = [total(path) for path in itertools.product(range(scores.shape[1]), repeat=stop - first)]
        loss += float(np.logaddexp.reduce(every)) - total(tuple(labels[first:stop].tolist()))
    return loss


@settings(deadline=None)
@given(st.integers(1, 3), st.lists(st.integers(0, 4), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_loss_is_the_sum_over_all_sequences(labels: int, lengths: list[int], seed: int) -> None:
    if not sum(lengths):
        lengths = [*lengths, 1]
    rng = np.random.default_rng(seed)
    offsets = [0, *np.cumsum(lengths).tolist()]
    scores, right = rng.normal(0, 3, (offsets[-1], labels)), rng.integers(0, labels, offsets[-1])
    chain: list[Table] = [rng.normal(0, 3, shape) for shape in ((labels, labels), labels, labels)]
    made = Chain(scores.astype(np.float32), right, np.array(offsets)).loss(*map(torch.from_numpy, chain))
    assert float(made) == pytest.approx(by_enumeration(scores, right, offsets, *chain), abs=1e-4)


def simulated(sentences: int, seed: int) -> tuple[Any, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Sentences in which I only follows B or I, seen by a model that is right on 6 words of 10."""
    rng = np.random.default_rng(seed)
    likely = np.array([[0.7, 0.3, 0], [0.3, 0.1, 0.6], [0.5, 0.1, 0.4]])
    lengths = rng.integers(0, 12, sentences)
    labels = np.zeros(lengths.sum(), dtype=np.int64)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    for first, stop in itertools.pairwise(offsets.tolist()):
        before = 0
        for word in range(first, stop):
            before = labels[word] = rng.choice(3, p=likely[before])
    seen = np.where(rng.random(len(labels)) < 0.4, labels, rng.integers(0, 3, len(labels)))
    p = np.full((len(labels), 3), 0.2)
    p[np.arange(len(labels)), seen] = 0.6
    return np.log(p).astype(np.float32), labels, offsets


def test_forbidden_transitions_are_recovered() -> None:
    fitted = fit_crf(*simulated(600, seed=0))
    transitions, start, _ = fitted
    allowed = np.array([[True, True, False], [True, True, True], [True, True, True]])
    assert transitions[~allowed].max() < transitions[allowed].min() - 2
    assert start[2] < start[:2].min() - 3
    scores, labels, offsets = simulated(300, seed=1)
    exact, plain = (decode(scores, offsets) for decode in (Crf(*fitted), argmax))
    assert (exact == labels).mean() > (plain == labels).mean() + 0.05
    words = np.arange(1, len(labels))
    inside = np.setdiff1d(words, offsets)  # those that have a neighbour to the left
    assert not ((exact[inside - 1] == 0) & (exact[inside] == 2)).any()


def test_the_fit_is_the_best_one() -> None:
    # The loss is convex, so where its gradient vanishes nothing is better.
    scores, labels, offsets = simulated(50, seed=2)
    fitted = fit_crf(scores, labels, offsets, l2=0.5)
    parts = [torch.from_numpy(part).requires_grad_() for part in fitted]
    penalty = torch.stack([(part**2).sum() for part in parts]).sum() / 4
    ((Chain(scores, labels, offsets).loss(*parts) + penalty) / len(labels)).backward()
    assert max(float(part.grad.abs().max()) for part in parts) < 1e-3


def test_answers_of_zero_probability_leave_the_fit_finite() -> None:
    scores = np.array([[0, -np.inf], [-np.inf, 0], [0, -np.inf]], dtype=np.float32)
    fitted = fit_crf(scores, np.array([0, 1, 1]), np.array([0, 3]))
    assert all(np.isfinite(part).all() for part in fitted)
    assert [part.shape for part in fitted] == [(2, 2), (2,), (2,)]

"""Learning the transitions of a linear-chain CRF over frozen answers: what `decoding.Crf` adds up.

The model that made the log-probabilities is not touched, so a fit takes seconds. With frozen answers the negative
log-likelihood is convex in the transitions: there is one best fit, and L-BFGS finds it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cascade.core.rows import Doubles, FloatArray, IntArray
from cascade.policies.viterbi import LOWEST

TINY = 1e-300  # the smallest sum of probabilities whose logarithm is taken
L2 = 0.1  # weight of half the squared transitions beside the summed loss: it keeps those that never occur finite
DIGITS = 4  # that are kept: what lies below changes no answer and fills the manifest


class Chain:
    """Negative log-likelihood of labelled sentences under a linear-chain CRF, all sentences side by side.

    Sentences are sorted by length, so that at each place those that are still going on are the first ones. Sums over
    the labels before are matrix products of exponentials: time and memory of a place do not grow with labels squared
    for each sentence.
    """

    def __init__(self, log_probabilities: FloatArray, labels: IntArray, offsets: IntArray) -> None:
        """Sort sentences; the arguments are those of `fit_crf`, and -inf counts as -10000."""
        words, self.labels = log_probabilities.shape
        lengths = np.diff(offsets)
        order = np.argsort(-lengths, kind="stable")[: np.count_nonzero(lengths)]
        firsts, lengths = offsets[order], lengths[order]
        self.counts = [int(np.count_nonzero(lengths > place)) for place in range(lengths[0])]
        places = [firsts[:count] + place for place, count in enumerate(self.counts)]
        own = np.where(log_probabilities > LOWEST, log_probabilities, LOWEST).astype(np.float64)
        self.scores = [torch.from_numpy(own[place]) for place in places]
        # The score of the right sequences is linear in the transitions: they only need to be counted.
        follows = np.ones(words, dtype=np.bool_)
        follows[firsts] = False
        pairs = np.flatnonzero(follows)
        shape = (self.labels, self.labels)
        counted = np.bincount(labels[pairs - 1] * self.labels + labels[pairs], minlength=self.labels**2).reshape(shape)
        self.pairs = torch.from_numpy(counted.astype(np.float64))
        self.firsts, self.lasts = (
            torch.from_numpy(np.bincount(labels[at], minlength=self.labels).astype(np.float64))
            for at in (firsts, firsts + lengths - 1)
        )
        self.right = float(own[np.arange(words), labels].sum())

    def loss(self, transitions: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """Summed over sentences: log of the sum over all label sequences less the score of the right one. A scalar."""
        right = (self.pairs * transitions).sum() + self.firsts @ start + self.lasts @ end + self.right
        highest = transitions.detach().max()
        likely = (transitions - highest).exp()
        before = self.scores[0] + start
        total = torch.zeros((), dtype=torch.float64)
        for place, scores in enumerate(self.scores):
            if place:
                top = before.detach().max(dim=1, keepdim=True).values
                arriving = (before - top).exp() @ likely
                before = arriving.clamp_min(TINY).log() + top + highest + scores
            goes_on = self.counts[place + 1] if place + 1 < len(self.counts) else 0
            total = total + (before[goes_on:] + end).logsumexp(dim=1).sum()
            before = before[:goes_on]
        return total - right


def fit_crf(
    log_probabilities: FloatArray, labels: IntArray, offsets: IntArray, *, l2: float = L2
) -> tuple[Doubles, Doubles, Doubles]:
    """The transitions under which these labels are likeliest, given the answers of a model.

    Use examples that did not train the model: on those that did it is too sure of itself to need its neighbours, and
    the transitions stay small.

    `log_probabilities`: the model's, for each word, shape `(words, labels)`; `labels`: number of each word's right
    label, shape `(words,)`; the words of sentence `i` are `offsets[i]:offsets[i + 1]`, perhaps none.

    Returned is what `Crf` takes, with 4 decimals: transitions from row to column `(labels, labels)`, start and end
    `(labels,)`.
    """
    chain = Chain(log_probabilities, labels, offsets)
    shapes = ((chain.labels, chain.labels), (chain.labels,), (chain.labels,))
    made = [torch.zeros(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    optimiser = torch.optim.LBFGS(
        made, max_iter=200, tolerance_grad=1e-5, tolerance_change=1e-9, history_size=10, line_search_fn="strong_wolfe"
    )
    words = len(labels)

    def closure() -> Tensor:
        optimiser.zero_grad()
        squares = torch.stack([(part**2).sum() for part in made]).sum()
        loss = (chain.loss(*made) + l2 / 2 * squares) / words
        loss.backward()
        return loss

    optimiser.step(closure)
    transitions, start, end = (np.round(part.detach().numpy(), DIGITS) for part in made)
    return transitions, start, end

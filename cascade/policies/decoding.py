"""Decoders: from the probabilities of words to one label each, by sentence.

A decoder is called with log-probabilities of shape `(words, labels)` and offsets of shape `(sentences + 1,)`, and
returns numbers of labels of shape `(words,)`. It works on finished answers; no model runs again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from cascade.core.rows import Doubles, FloatArray, IntArray, offsets_of, ranges
from cascade.exceptions import OptionError
from cascade.policies.registry import ModelInfo, ReadyMade, Registry
from cascade.policies.viterbi import Scheme, viterbi

Decoder: TypeAlias = Callable[[FloatArray, IntArray], IntArray]
"""`(log_probabilities (words, labels), offsets (sentences + 1,))` to numbers of labels `(words,)`."""


_REGISTRY: Registry[Decoder] = Registry(
    "decoder", "with_decoding", gone={"MeanField": "write Crf in its place, without iterations"}
)
register, to_json, from_json, check = _REGISTRY.register, _REGISTRY.to_json, _REGISTRY.from_json, _REGISTRY.check


def decide(decoder: Decoder, log_probabilities: FloatArray, offsets: IntArray) -> IntArray:
    """Ask a decoder (`Decoder`); anything but the number of a label for each word is an `OptionError`."""
    words, labels = log_probabilities.shape
    given: Any = decoder(log_probabilities, offsets)
    made = np.asarray(given)
    fits = made.shape == (words,) and made.dtype.kind in "iu"
    if not fits or ((made < 0) | (made >= labels)).any():
        raise OptionError(
            f"the decoder {decoder!r} must return numbers of labels (0 to {labels - 1}) of shape ({words},), got "
            f"{made.dtype} of shape {made.shape}; return one for each word"
        )
    return made.astype(np.int64, copy=False)


@register
class Argmax(ReadyMade):
    """Each word's likeliest label; use the ready-made value `argmax`."""

    name = "argmax"

    def __call__(self, log_probabilities: FloatArray, offsets: IntArray) -> IntArray:
        return np.asarray(log_probabilities.argmax(axis=1).astype(np.int64))


argmax = Argmax()
"""Each word's likeliest label, whatever its neighbours have."""


@register
@dataclass(frozen=True, repr=False)
class Viterbi:
    """The likeliest sequence among those that are valid BIO, or BIOES where labels are named so.

    A sentence whose likeliest labels are valid keeps them: no other sequence is likelier. Only the others are searched.
    `labels`: names of the model's labels, in its order; see `viterbi.Scheme.of`.
    """

    labels: tuple[str, ...]
    _scheme: Scheme = field(init=False, compare=False)

    def __post_init__(self) -> None:
        given: object = self.labels
        if not isinstance(given, list | tuple) or not all(isinstance(label, str) for label in given):
            raise OptionError(f"labels must be a list of names, got {given!r}; give the model's labels")
        object.__setattr__(self, "labels", tuple(given))
        object.__setattr__(self, "_scheme", Scheme.of(self.labels))

    def __call__(self, log_probabilities: FloatArray, offsets: IntArray) -> IntArray:
        chosen = argmax(log_probabilities, offsets)
        invalid = np.flatnonzero(~self._scheme.valid(chosen, offsets))
        lengths = np.diff(offsets)[invalid]
        words = ranges(offsets[invalid], lengths)
        chosen[words] = viterbi(log_probabilities[words], offsets_of(lengths), *self._scheme.scores())
        return chosen

    def check(self, model: ModelInfo) -> None:
        """Whether its labels are the model's."""
        if self.labels != model.labels:
            raise OptionError(
                f"Viterbi must have the model's {len(model.labels)} labels in their order, got {len(self.labels)} or "
                "others; build it with them"
            )

    def __repr__(self) -> str:
        return f"Viterbi({len(self.labels)} labels)"


@register
@dataclass(frozen=True, repr=False)
class Crf:
    """The likeliest sequence of a linear-chain CRF over frozen log-probabilities, exactly (Viterbi).

    Arrays and nested sequences are kept as tuples.

    `transitions`: added for each pair of neighbours, from row to column, shape `(labels, labels)`; `start`, `end`:
    added for a sentence's first and last word, zeros if left out, shape `(labels,)`.
    """

    transitions: npt.ArrayLike
    start: npt.ArrayLike = ()
    end: npt.ArrayLike = ()

    def __post_init__(self) -> None:
        table = _numbers("transitions", self.transitions, 2)
        if not table.size or table.shape[0] != table.shape[1]:
            raise OptionError(f"transitions must be square, of all labels, got shape {table.shape}; see training.crf")
        object.__setattr__(self, "transitions", tuple(map(tuple, table.tolist())))
        for name in ("start", "end"):
            row = _numbers(name, getattr(self, name), 1)
            if len(row) not in (0, len(table)):
                raise OptionError(f"{name} must have a number for each of {len(table)} labels, got {len(row)}")
            object.__setattr__(self, name, tuple(row.tolist() or [0.0] * len(table)))

    @property
    def labels(self) -> int:
        """How many labels it knows."""
        return len(np.asarray(self.start))

    def check(self, model: ModelInfo) -> None:
        """Whether it has transitions between as many labels as the model has."""
        if self.labels != len(model.labels):
            raise OptionError(
                f"Crf must have transitions between the model's {len(model.labels)} labels, got {self.labels}; fit it "
                "to this model"
            )

    def __call__(self, log_probabilities: FloatArray, offsets: IntArray) -> IntArray:
        table, start, end = (np.asarray(part, dtype=np.float32) for part in (self.transitions, self.start, self.end))
        return viterbi(log_probabilities, offsets, table, start, end)

    def __repr__(self) -> str:
        return f"Crf({self.labels} labels)"


def _numbers(name: str, given: object, dimensions: int) -> Doubles:
    try:
        array = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.full(1, np.nan)
    if array.ndim != dimensions or not np.isfinite(array).all():
        raise OptionError(
            f"{name} must be finite numbers in {dimensions} dimension{'s' * (dimensions > 1)}, one per label, "
            f"got {str(given)[:60]}; -10000 forbids"
        )
    return array

"""Decoders: from the probabilities of words to one label each, by sentence.

A decoder is called with log-probabilities of shape `(words, labels)` and offsets of shape `(sentences + 1,)`, and
returns numbers of labels of shape `(words,)`. It works on frozen answers: wherever a word was answered, and no model
runs again.

    argmax                       each word's likeliest label
    Viterbi(labels)              the likeliest sequence that is valid BIO or BIOES
    Crf(transitions, ...)        the likeliest sequence of a linear-chain CRF
    MeanField(transitions, ...)  the same approximately, all words in parallel (AIN)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from cascade.core.checks import check_whole
from cascade.core.confidence import softmax
from cascade.core.rows import FloatArray, IntArray
from cascade.exceptions import OptionError
from cascade.policies.viterbi import LOWEST, Scheme, viterbi

__all__ = [
    "Argmax",
    "Crf",
    "Decoder",
    "MeanField",
    "Viterbi",
    "argmax",
    "check",
    "decide",
    "from_json",
    "to_json",
]

Decoder: TypeAlias = Callable[[FloatArray, IntArray], IntArray]
"""`(log_probabilities (words, labels), offsets (sentences + 1,))` to numbers of labels `(words,)`."""


def decide(decoder: Decoder, log_probabilities: FloatArray, offsets: IntArray) -> IntArray:
    """Ask a decoder and check what it returned.

    Args:
        decoder: one of this module or a caller's own.
        log_probabilities: shape `(words, labels)`.
        offsets: the words of sentence `i` are `offsets[i]:offsets[i + 1]`, perhaps none. Shape `(sentences + 1,)`.

    Raises:
        OptionError: it returned something other than the number of a label for each word.
    """
    words, labels = log_probabilities.shape
    given: Any = decoder(log_probabilities, offsets)
    made = np.asarray(given)
    fits = made.shape == (words,) and made.dtype.kind in "iu"
    if not fits or ((made < 0) | (made >= labels)).any():
        raise OptionError(
            f"the decoder {decoder!r} must return numbers of labels (0 to {labels - 1}) of shape ({words},), returned: "
            f"{made.dtype} of shape {made.shape}; return one for each word"
        )
    return made.astype(np.int64, copy=False)


def check(decoder: Decoder, labels: Sequence[str]) -> None:
    """Whether a decoder fits a model with these labels. A caller's own callable always does.

    Raises:
        OptionError: it was made for others.
    """
    if isinstance(decoder, Viterbi) and decoder.labels != tuple(labels):
        raise OptionError(
            f"Viterbi must have the model's {len(labels)} labels in their order, had {len(decoder.labels)} or others; "
            "build it with them"
        )
    if isinstance(decoder, Crf | MeanField) and decoder.labels != len(labels):
        raise OptionError(
            f"{type(decoder).__name__} must have transitions between the model's {len(labels)} labels, had: "
            f"{decoder.labels}; fit it to this model"
        )


@dataclass(frozen=True, repr=False)
class Argmax:
    """Each word's likeliest label; use the ready-made value `argmax`."""

    def __call__(self, log_probabilities: FloatArray, offsets: IntArray) -> IntArray:
        """Numbers of labels. Shape `(words,)`."""
        likeliest: IntArray = log_probabilities.argmax(axis=1).astype(np.int64)
        return likeliest

    def __repr__(self) -> str:
        return "argmax"


argmax = Argmax()
"""Each word's likeliest label, whatever its neighbours have."""


@dataclass(frozen=True, repr=False)
class Viterbi:
    """The likeliest sequence among those that are valid BIO, or BIOES where labels are named so.

    A sentence whose likeliest labels are valid keeps them: no other sequence is likelier. Only the others are searched.

    Attributes:
        labels: names of the model's labels, in its order; see `viterbi.Scheme.of`.
    """

    labels: tuple[str, ...]
    _scheme: Scheme = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        object.__setattr__(self, "_scheme", Scheme.of(self.labels))

    def __call__(self, log_probabilities: FloatArray, offsets: IntArray) -> IntArray:
        """Numbers of labels. Shape `(words,)`."""
        chosen = argmax(log_probabilities, offsets)
        invalid = np.flatnonzero(~self._scheme.valid(chosen, offsets))
        lengths = np.diff(offsets)[invalid]
        wanted = np.concatenate(([0], np.cumsum(lengths)))
        words = np.arange(wanted[-1]) + np.repeat(offsets[invalid] - wanted[:-1], lengths)
        chosen[words] = viterbi(log_probabilities[words], wanted, *self._scheme.scores())
        return chosen

    def __repr__(self) -> str:
        return f"Viterbi({len(self.labels)} labels)"


@dataclass(frozen=True, repr=False)
class _Chain:
    """A linear-chain CRF over frozen log-probabilities. Arrays and nested sequences are kept as tuples.

    Attributes:
        transitions: added for each pair of neighbours, from row to column. Shape `(labels, labels)`.
        start: added for a sentence's first word; zeros if left out. Shape `(labels,)`.
        end: added for its last word; zeros if left out. Shape `(labels,)`.
    """

    transitions: npt.ArrayLike
    start: npt.ArrayLike = ()
    end: npt.ArrayLike = ()

    def __post_init__(self) -> None:
        table = _numbers("transitions", self.transitions, 2)
        if not table.size or table.shape[0] != table.shape[1]:
            raise OptionError(
                f"transitions must be square, from each label to each, were of shape {table.shape}; see training.crf"
            )
        object.__setattr__(self, "transitions", tuple(map(tuple, table.tolist())))
        for name in ("start", "end"):
            row = _numbers(name, getattr(self, name), 1)
            if len(row) not in (0, len(table)):
                raise OptionError(f"{name} must have a number for each of {len(table)} labels, had: {len(row)}")
            object.__setattr__(self, name, tuple(row.tolist() or [0.0] * len(table)))

    @property
    def labels(self) -> int:
        """How many labels it knows."""
        return len(np.asarray(self.start))

    def _arrays(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        table, start, end = (np.asarray(part, dtype=np.float32) for part in (self.transitions, self.start, self.end))
        return table, start, end

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.labels} labels)"


@dataclass(frozen=True, repr=False)
class Crf(_Chain):
    """The likeliest sequence of a linear-chain CRF, exactly (Viterbi)."""

    def __call__(self, log_probabilities: FloatArray, offsets: IntArray) -> IntArray:
        """Numbers of labels. Shape `(words,)`."""
        return viterbi(log_probabilities, offsets, *self._arrays())


@dataclass(frozen=True, repr=False)
class MeanField(_Chain):
    """A CRF's labels by parallel mean-field inference (AIN: Wang et al., EMNLP 2020, section 2.3).

    Every word starts from its own distribution. Then all are computed anew, at once, from those of their neighbours:
    q_i(y) ~ exp(u_i(y) + sum over z of q_{i-1}(z) T[z, y] + sum over z of T[y, z] q_{i+1}(z)).

    Attributes:
        iterations: how often, at least 1.
    """

    iterations: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("iterations", self.iterations, "3 as in AIN; for each word by itself use argmax")

    def __call__(self, log_probabilities: FloatArray, offsets: IntArray) -> IntArray:
        """Numbers of labels. Shape `(words,)`."""
        table, start, end = self._arrays()
        some = np.flatnonzero(np.diff(offsets))
        firsts, lasts = offsets[some], offsets[some + 1] - 1
        own = np.where(log_probabilities > LOWEST, log_probabilities, LOWEST).astype(np.float32, copy=False)
        own[firsts] += start
        own[lasts] += end
        now = own
        for _ in range(self.iterations):
            expected = softmax(now)
            now = own.copy()
            from_left, from_right = expected[:-1] @ table, expected[1:] @ table.T
            from_left[firsts[1:] - 1] = 0  # the sentence before is nobody's neighbour
            from_right[lasts[:-1]] = 0
            now[1:] += from_left
            now[:-1] += from_right
        return argmax(now, offsets)

    def __repr__(self) -> str:
        return f"MeanField({self.labels} labels, iterations={self.iterations})"


def to_json(decoder: Decoder) -> dict[str, Any]:
    """A plain dict from which `from_json` makes an equal decoder.

    Raises:
        OptionError: a caller's own callable, which has no written form.
    """
    if isinstance(decoder, Argmax):
        return {"policy": "argmax"}
    if isinstance(decoder, Viterbi):
        return {"policy": "Viterbi", "labels": list(decoder.labels)}
    if isinstance(decoder, Crf | MeanField):
        chain = {name: np.asarray(getattr(decoder, name)).tolist() for name in ("transitions", "start", "end")}
        more = {"iterations": decoder.iterations} if isinstance(decoder, MeanField) else {}
        return {"policy": type(decoder).__name__, **chain, **more}
    raise OptionError(
        f"only the decoders of cascade.policies can be saved, was: {decoder!r}; "
        "set one of them with with_decoding before saving"
    )


def from_json(written: Mapping[str, Any]) -> Decoder:
    """The decoder that `to_json` wrote.

    Raises:
        OptionError: an unknown name, a missing or misspelt field, an impossible value.
    """
    if not isinstance(written, Mapping):
        raise OptionError(f'a decoder must be written {{"policy": name, ...}}, was: {written!r}; see to_json')
    fields = {key: value for key, value in written.items() if key != "policy"}
    name = written.get("policy")
    if not isinstance(name, str) or name not in _MAKERS:
        raise OptionError(f"the decoder must be one of {', '.join(_MAKERS)}, was: {name!r}; choose one of them")
    maker, expected = _MAKERS[name]
    if set(fields) != set(expected):
        raise OptionError(
            f"the decoder {name} must have the fields {list(expected)}, were: {sorted(fields)}; see to_json"
        )
    listed = fields.get("labels", [])
    if not isinstance(listed, list | tuple) or not all(isinstance(label, str) for label in listed):
        raise OptionError(f"labels must be a list of names, was: {listed!r}; see to_json")
    return maker(**fields)


_MAKERS: dict[str, tuple[Callable[..., Decoder], tuple[str, ...]]] = {
    "argmax": (Argmax, ()),
    "Viterbi": (Viterbi, ("labels",)),
    "Crf": (Crf, ("transitions", "start", "end")),
    "MeanField": (MeanField, ("transitions", "start", "end", "iterations")),
}


def _numbers(name: str, given: object, dimensions: int) -> npt.NDArray[np.float64]:
    try:
        array = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.full(1, np.nan)
    if array.ndim != dimensions or not np.isfinite(array).all():
        raise OptionError(
            f"{name} must be finite numbers in {dimensions} dimension{'s' * (dimensions > 1)}, one per label, "
            f"was: {str(given)[:60]}; -10000 forbids"
        )
    return array

"""Features by which texts in use are compared with those of a calibration: how deep, how long, how new.

`depth` is how far a text goes, and how sure its answer is; `length` counts tokens; `new` is the share of tokens that
do not occur in other texts of the calibration. A little noise tells equal values apart.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from cascade.bundle.profile import DEPTH, SLOTS, Profile
from cascade.core.results import Prediction, Route, Routes, TagPrediction
from cascade.core.rows import BoolArray, Doubles, IntArray
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.text.word_encoding import encode_texts, encode_words

FEWEST: Final = 100  # texts, below which a profile says too little
MOST: Final = 2000  # of each half: smaller differences than it could show are no shift
RUNS: Final = 16
DEEPEST: Final = 64  # more than any tier has layers
NOISE: Final = 1e-6


def profile_of(pipeline: Classifier | Tagger, items: Sequence[Any], *, seed: int = 0) -> Profile | None:
    """What texts look like to a pipeline with its policies; `None` for fewer than 100, and of a regression.

    One half, drawn by `seed`, says which tokens are known, the other one how deep, long and new texts are.
    """
    if pipeline.regression or len(items) < FEWEST:
        return None
    random = np.random.default_rng(seed)
    order = random.permutation(len(items))[: 2 * MOST].tolist()
    half = len(order) // 2
    known, ranked = ([items[number] for number in part] for part in (order[:half], order[half:]))
    slots = np.zeros(SLOTS, dtype=np.bool_)
    slots[_tokens(pipeline, known)[0] % SLOTS] = True
    reads_texts = isinstance(pipeline, Tagger) and isinstance(ranked[0], str)
    answers: Any = pipeline.predict_texts(ranked) if reads_texts else pipeline.predict(ranked)  # type: ignore[union-attr]
    found = features(pipeline, ranked, np.array(list(map(depth_of, answers))), slots, random)
    places = cuts(len(ranked)) - 1
    edges = {name: tuple(np.sort(values)[places].tolist()) for name, values in found.items()}
    return Profile(len(ranked), edges, base64.b64encode(np.packbits(slots).tobytes()).decode())


def cuts(texts: int, runs: int = RUNS) -> IntArray:
    """Ranks, from 1, of the texts at the edges between runs of about equal size. Shape `(runs - 1,)`."""
    return np.round(np.arange(1, runs) * (texts + 1) / runs).astype(np.int64)


def features(
    pipeline: Classifier | Tagger, items: Sequence[Any], depth: Doubles, slots: BoolArray, random: np.random.Generator
) -> dict[str, Doubles]:
    """All features of items, by name; `depth`: see `depth_of`; `slots`: see `Profile`. Shapes `(items,)`."""
    ids, owners = _tokens(pipeline, items)
    lengths = np.bincount(owners, minlength=len(items))
    new = np.bincount(owners, weights=~slots[ids % SLOTS], minlength=len(items)) / np.maximum(lengths, 1)
    noise = random.random(len(items))  # one for all: none of them is compared with another one
    return {DEPTH: depth + NOISE * noise, "length": lengths + noise, "new": new + NOISE * noise}


def depth_of(answer: Prediction | TagPrediction) -> float:
    """How deep an answer comes from, and how unsure it is; of a sentence the mean of its words."""
    if isinstance(answer, Prediction):
        return float(_depth(answer.route))
    return float(_depth(answer.routes).mean()) if len(answer.tags) else 0.0


def _depth(routes: Route | Routes) -> Any:
    return routes.tier + (routes.exit_layer + 1 - routes.confidence) / DEEPEST


def _tokens(pipeline: Classifier | Tagger, items: Sequence[Any]) -> tuple[IntArray, IntArray]:
    """All tokens, and the item that each belongs to."""
    if isinstance(pipeline, Tagger):
        if isinstance(items[0], str):
            units = encode_texts(pipeline.tokenizer, items, per_piece=True).words
        else:
            units = encode_words(pipeline.tokenizer, items)
        rows, numbers = units.rows, np.arange(units.n_rows, dtype=np.int64)
    else:
        encoded = pipeline.tokenizer.encode(items)
        rows, numbers = encoded.units.rows, encoded.numbers
    return rows.ids, np.repeat(numbers, rows.lengths)

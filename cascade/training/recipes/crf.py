"""`cascade-train crf`: decoders of a finished bundle, learned from its own answers and measured beside each other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from cascade.core.labels import label_numbers
from cascade.core.rows import FloatArray, IntArray
from cascade.exceptions import OptionError
from cascade.pipelines.tagger import Tagger
from cascade.policies import decoding
from cascade.policies.decoding import Crf, Decoder, Viterbi, argmax
from cascade.text.entity_f1 import has_entities
from cascade.text.labelled import Columns
from cascade.training.data import Examples, joined, read_file
from cascade.training.models.crf import fit_crf
from cascade.training.units import ENTITY_F1, tag_f1


def train_crf(
    bundle: str,
    *,
    train: Sequence[str],
    evaluation: str | None,
    columns: Columns | None = None,
    write: str | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """Fit transitions to a bundle's answers, with its own routing and exits, and measure all decoders.

    `bundle`: a tagger's folder or Hub id; `train`: files of tagged sentences, from which transitions are learned;
    `evaluation`: a file on which decoders are measured, the training sentences if left out; `write`: the decoder that
    becomes the bundle's (`argmax`, `viterbi`, `crf`), none if left out. Viterbi for labels that are not
    BIO is an `OptionError`, a tag that the bundle does not know a `DataError`.

    Returned are, by name in `decoders`, `scores` (word accuracy, and entity F1 for labels of spans) and `seconds` of
    decoding; `decoding`, what was written, else None; `words`, `learned_from`, `seconds`.
    """
    begin = time.perf_counter()
    if write and not Path(bundle).expanduser().is_dir():
        raise OptionError(f"--write needs a bundle in a folder, got {bundle}; download it first")
    tagger = Tagger.from_pretrained(bundle, threads=threads).with_decoding(argmax)
    spans = has_entities(tagger.labels)
    decoders: dict[str, Decoder] = {"argmax": argmax}
    if spans or write == "viterbi":  # which says what is wrong
        decoders["viterbi"] = Viterbi(tagger.labels)
    sentences = joined([read_file(file, words=True, columns=columns) for file in train])
    measured = None if evaluation is None else read_file(evaluation, words=True, columns=columns)
    learned = _answer(tagger, sentences)
    seen = learned if measured is None else _answer(tagger, measured)
    decoders["crf"] = Crf(*fit_crf(*learned))
    report = {name: _measured(decoder, seen, tagger.labels, spans=spans) for name, decoder in decoders.items()}
    chosen = decoders.get(write or "")
    if chosen is not None:
        tagger.with_decoding(chosen).save_pretrained(bundle, overwrite=True)
    return {
        "decoders": report,
        "decoding": None if chosen is None else repr(chosen),
        "words": len(seen[1]),
        "learned_from": len(learned[1]),
        "seconds": time.perf_counter() - begin,
    }


def _answer(tagger: Tagger, sentences: Examples) -> tuple[FloatArray, IntArray, IntArray]:
    """Log-probabilities `(words, labels)`, numbers of the words' tags `(words,)`, the sentences' offsets."""
    own = label_numbers(sentences.labels or (), tagger.labels, source=sentences.source)
    numbers = np.fromiter(chain.from_iterable(own), dtype=np.int64)
    made = tagger.predict(sentences.items)
    with np.errstate(divide="ignore"):
        scores = np.log(made.probabilities)
    return scores, numbers, made.offsets


def _measured(
    decoder: Decoder, seen: tuple[FloatArray, IntArray, IntArray], labels: Sequence[str], *, spans: bool
) -> dict[str, Any]:
    scores, targets, offsets = seen
    begin = time.perf_counter()
    found = decoding.decide(decoder, scores, offsets)
    seconds = time.perf_counter() - begin
    measured = {"accuracy": float((found == targets).mean())}
    if spans:
        measured[ENTITY_F1] = tag_f1(found, targets, labels, offsets[1:-1])
    return {"scores": measured, "seconds": seconds}

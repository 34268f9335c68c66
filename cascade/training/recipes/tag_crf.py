"""`cascade-train crf`: decoders of a finished bundle, learned from its own answers and measured beside each other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from cascade.core.rows import FloatArray, IntArray
from cascade.exceptions import DataError, OptionError
from cascade.pipelines.tagger import Tagger
from cascade.policies import decoding
from cascade.policies.decoding import Crf, Decoder, MeanField, Viterbi, argmax
from cascade.training import tag_data
from cascade.training.models.crf import fit_crf
from cascade.training.recipes.tag_exits import ENTITY_F1, require_seqeval
from cascade.training.tag_data import Sentences, TagColumns

__all__ = ["CrfOptions", "train_crf"]


@dataclass(frozen=True, kw_only=True)
class CrfOptions:
    """How transitions are learned.

    Attributes:
        l2: see `crf.fit_crf`.
        iterations: of mean-field inference.
        write: the decoder that becomes the bundle's: `argmax`, `viterbi`, `crf`, `mean-field`; none if left out.
        threads: of the bundle; the CPUs allowed if left out.
    """

    l2: float = 0.1
    iterations: int = 3
    write: str | None = None
    threads: int | None = None


@dataclass(frozen=True, eq=False)
class _Answered:
    """What a bundle says about labelled sentences.

    Attributes:
        scores: log-probabilities. Shape `(words, labels)`.
        targets: number of each word's tag. Shape `(words,)`.
        offsets: the words of sentence `i` are `offsets[i]` to `offsets[i + 1] - 1`. Shape `(sentences + 1,)`.
    """

    scores: FloatArray
    targets: IntArray
    offsets: IntArray


def train_crf(
    bundle: str,
    *,
    train: Sequence[str],
    evaluation: str | None,
    options: CrfOptions | None = None,
    columns: TagColumns | None = None,
) -> dict[str, Any]:
    """Fit transitions to a bundle's answers, with its own routing and exits, and measure all decoders.

    Args:
        bundle: a tagger's folder or Hub id.
        train: files of tagged sentences, from which transitions are learned.
        evaluation: a file on which decoders are measured; the training sentences if left out.
        options: `CrfOptions()` if left out.
        columns: names of the columns.

    Returns:
        `decoders`: by name, `scores` (word accuracy, and entity F1 for labels of spans) and `seconds` of decoding;
        `decoding`: what was written, else None; `words`, `learned_from`, `seconds`.

    Raises:
        DataError: a file that cannot be read, or a tag that the bundle does not know.
        OptionError: an impossible option, or Viterbi for labels that are not BIO.
        MissingExtraError: entities without seqeval.
    """
    begin = time.perf_counter()
    options = options or CrfOptions()
    if options.write and not Path(bundle).expanduser().is_dir():
        raise OptionError(f"--write needs a bundle in a folder, was: {bundle}; download it first")
    tagger = Tagger.from_pretrained(bundle, threads=options.threads).with_decoding(argmax)
    spans = tag_data.has_entities(tagger.labels)
    if spans:
        require_seqeval()
    decoders: dict[str, Decoder] = {"argmax": argmax}
    if spans or options.write == "viterbi":  # which says what is wrong
        decoders["viterbi"] = Viterbi(tagger.labels)
    sentences = tag_data.joined([tag_data.read(file, columns=columns) for file in train])
    measured = None if evaluation is None else tag_data.read(evaluation, columns=columns)
    learned = _answer(tagger, sentences)
    seen = learned if measured is None else _answer(tagger, measured)
    transitions, start, end = fit_crf(learned.scores, learned.targets, learned.offsets, l2=options.l2)
    decoders["crf"] = Crf(transitions, start, end)
    decoders["mean-field"] = MeanField(transitions, start, end, iterations=options.iterations)
    report = {name: _measured(decoder, seen, tagger.labels, spans=spans) for name, decoder in decoders.items()}
    chosen = decoders.get(options.write or "")
    if chosen is not None:
        tagger.with_decoding(chosen).save_pretrained(bundle, overwrite=True)
    return {
        "decoders": report,
        "decoding": None if chosen is None else repr(chosen),
        "words": len(seen.targets),
        "learned_from": len(learned.targets),
        "seconds": time.perf_counter() - begin,
    }


def _answer(tagger: Tagger, sentences: Sentences) -> _Answered:
    numbers = {label: number for number, label in enumerate(tagger.labels)}
    tags = list(chain.from_iterable(sentences.tags or ()))
    unknown = sorted(set(tags) - set(numbers))
    if unknown:
        raise DataError(
            f"{sentences.source}: tags must be the bundle's ({', '.join(tagger.labels[:8])}, ...), "
            f"was: {unknown[0]!r}; give the data that it was made for"
        )
    made = tagger.predict([list(words) for words in sentences.words])
    with np.errstate(divide="ignore"):
        scores = np.log(made.probabilities)
    return _Answered(scores, np.array([numbers[tag] for tag in tags], dtype=np.int64), made.offsets)


def _measured(decoder: Decoder, seen: _Answered, labels: Sequence[str], *, spans: bool) -> dict[str, Any]:
    begin = time.perf_counter()
    found = decoding.decide(decoder, seen.scores, seen.offsets)
    seconds = time.perf_counter() - begin
    scores = {"accuracy": float((found == seen.targets).mean())}
    if spans:
        from seqeval.metrics import f1_score

        names = np.array(labels)
        edges = list(pairwise(seen.offsets.tolist()))
        right, given = ([names[some[a:b]].tolist() for a, b in edges] for some in (seen.targets, found))
        scores[ENTITY_F1] = float(f1_score(right, given, zero_division=0))
    return {"scores": scores, "seconds": seconds}

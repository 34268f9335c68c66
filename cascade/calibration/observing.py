"""Running both tiers once on examples: what they answer, and how long each part takes per token on this machine.

A single pass after a warm-up: good enough to compare settings, not to publish.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cascade.calibration.costs import Costs
from cascade.calibration.sentences import WordAnswers
from cascade.calibration.texts import TextAnswers
from cascade.core.rows import Encoded, FloatArray, IntArray, Units
from cascade.engine.live import HALTED
from cascade.engine.multi_exit import MultiExit
from cascade.engine.single_exit import SingleExit
from cascade.engine.tier import Progress
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.runtime.timing import Timed
from cascade.text.word_encoding import encode_words

__all__ = ["observe_rows", "observe_sentences", "observe_texts", "run_both"]

WARM_UP = 64  # rows
MEASURED = 500  # sentences that the costs of a tagger are measured on


def observe_texts(
    classifier: Classifier, texts: Sequence[Any], truth: IntArray | None, *, progress: Progress | None = None
) -> TextAnswers:
    """What both tiers say, no row exiting early, and what each part costs.

    Args:
        classifier: whose tiers run; its policies do not count.
        texts: texts or pairs.
        truth: see `TextAnswers`.
        progress: called with rows done, twice for each row: once per tier.
    """
    begin = time.perf_counter()
    encoded = classifier.tokenizer.encode(texts)
    seconds = time.perf_counter() - begin
    return observe_rows(classifier.tier1, classifier.tier2, encoded, truth, encode_seconds=seconds, progress=progress)


def observe_rows(
    tier1: SingleExit,
    tier2: MultiExit,
    encoded: Encoded,
    truth: IntArray | None,
    *,
    encode_seconds: float = 0.0,
    progress: Progress | None = None,
) -> TextAnswers:
    """The same of texts that are encoded already."""
    first, second, costs = run_both(tier1, tier2, encoded.units, encode_seconds=encode_seconds, progress=progress)
    return TextAnswers(
        tier1=first,
        tier2=second,
        items=encoded.numbers,
        lengths=encoded.units.rows.lengths,
        layers=tuple(tier2.layers),
        truth=truth,
        temperatures=((tier1.temperature,), tuple(tier2.temperatures)),
        costs=costs,
        multi_label=tier2.multi_label,
    )


def observe_sentences(
    tagger: Tagger, sentences: Sequence[Sequence[str]], truth: IntArray | None, *, progress: Progress | None = None
) -> WordAnswers:
    """Encode sentences, run tier 2 on them at full depth, and measure what each part costs on 500 of them.

    Args:
        tagger: whose tiers and decoder these are; its other policies do not count.
        sentences: lists of words, none of them empty.
        truth: see `WordAnswers`.
        progress: called with words done, three times for each at most.
    """
    begin = time.perf_counter()
    words = encode_words(tagger.tokenizer, sentences)
    seconds = time.perf_counter() - begin
    answers = WordAnswers(tagger.tier1, tagger.tier2, tagger.decoding, words, truth, encode_seconds=seconds)
    answers = replace(answers, at_full=answers.full)
    if progress is not None:
        progress(len(words))
    some = answers.fitting()
    some = some.select(np.arange(min(MEASURED, len(some))))
    if not len(some.words):
        return answers
    costs = run_both(tagger.tier1, tagger.tier2, some.words, encode_seconds=some.encode_seconds, progress=progress)[2]
    return replace(answers, costs=replace(costs, halted=tuple(HALTED * stage for stage in costs.stages)))


def run_both(
    tier1: SingleExit,
    tier2: MultiExit,
    units: Units,
    *,
    encode_seconds: float = 0.0,
    progress: Progress | None = None,
) -> tuple[FloatArray, FloatArray, Costs]:
    """Run and time both tiers, no unit exiting early.

    Args:
        tier1: the cheap tier.
        tier2: the accurate one, whatever its policy.
        units: of the rows of a classifier, or of sentences that fit both tiers.
        encode_seconds: what making them took; every setting pays it.
        progress: called with units done, twice for each.

    Returns:
        Probabilities of tier 1, shape `(units, labels)`; at every exit of tier 2, shape `(units, exits, labels)`; costs
        in seconds per token.
    """
    embed, stages = Timed(tier2.embed), [Timed(stage) for stage in tier2.stages]
    timed = replace(tier2, embed=embed, stages=stages)
    one, start = (units.select(np.arange(min(count, units.n_rows))) for count in (1, WARM_UP))
    # Sessions for both ways of running are made when first asked for: now, not while the clock runs.
    for pool_from in (0, sys.maxsize):
        replace(tier1, pool_from=pool_from).score(one)
        replace(tier2, pool_from=pool_from).all_exits(one)
    tier1.score(start)
    tier2.all_exits(start)
    begin = time.perf_counter()
    first = tier1.score(units, progress=progress)
    middle = time.perf_counter()
    second = timed.all_exits(units, progress=progress)
    end = time.perf_counter()
    tokens = units.rows.tokens
    parts = np.array([part.seconds for part in (embed, *stages)])
    # What happens between the graphs (index arithmetic, softmax) is shared out in proportion to them.
    parts *= (end - middle) / parts.sum() / tokens
    costs = Costs(
        tier1=(middle - begin) / tokens,
        stages=tuple(parts[1:].tolist()),
        embed=float(parts[0]),
        always=encode_seconds / tokens,
    )
    return first.probabilities, second, costs

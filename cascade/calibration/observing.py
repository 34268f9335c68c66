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
from cascade.calibration.sentences import WordAnswers, all_exits
from cascade.calibration.texts import TextAnswers
from cascade.core.rows import Encoded, FloatArray, IntArray
from cascade.engine.inputs import Inputs
from cascade.engine.live import HALTED
from cascade.engine.multi_exit import MultiExit
from cascade.engine.single_exit import SingleExit
from cascade.engine.tier import Progress, Readable, as_inputs
from cascade.exceptions import OptionError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.runtime.timing import Timed
from cascade.text.word_encoding import encode_words

WARM_UP = 64  # rows
MEASURED = 500  # sentences that the costs of a tagger are measured on


def observe_texts(
    classifier: Classifier, texts: Sequence[Any], truth: IntArray | None, *, progress: Progress | None = None
) -> TextAnswers:
    """What both tiers of a classifier say, no row exiting early, and what each part costs; see `TextAnswers`.

    `progress` is called with texts or their rows done, twice for each: once per tier.
    """
    if classifier.regression:
        raise OptionError(
            "calibration must be about labels, got a regression; choose tau by hand, with_exit_policy(Settled(0.05))"
        )
    tier1, tier2 = _two_tiers(classifier)
    begin = time.perf_counter()
    inputs = Inputs.of(texts, classifier.tokenizer)
    encoded = inputs.encode()
    seconds = time.perf_counter() - begin
    first, second, costs = run_both(tier1, tier2, inputs, encode_seconds=seconds, progress=progress)
    items, lengths, layers, temperatures = rows_of(tier2, encoded)
    return TextAnswers(
        tier1=first,
        tier2=second,
        items=items,
        lengths=lengths,
        layers=layers,
        truth=truth,
        temperatures=((tier1.temperature,), temperatures),
        costs=costs,
        multi_label=tier2.multi_label,
    )


def observe_sentences(
    tagger: Tagger, sentences: Sequence[Sequence[str]], truth: IntArray | None, *, progress: Progress | None = None
) -> WordAnswers:
    """Encode sentences, none of them empty, run tier 2 on them at full depth, and measure what each part costs.

    `progress` is called with words done, three times for each at most.
    """
    tier1, tier2 = _two_tiers(tagger)
    begin = time.perf_counter()
    words = encode_words(tagger.tokenizer, sentences)
    seconds = time.perf_counter() - begin
    answers = WordAnswers(tier1, tier2, tagger.decoding, words, truth, encode_seconds=seconds)
    answers = replace(answers, at_full=answers.full)
    if progress is not None:
        progress(len(words))
    some = answers.fitting()
    some = some.select(np.arange(min(MEASURED, len(some))))
    if not len(some.words):
        return answers
    costs = run_both(tier1, tier2, some.words, encode_seconds=some.encode_seconds, progress=progress)[2]
    return replace(answers, costs=replace(costs, halted=tuple(HALTED * stage for stage in costs.stages)))


def rows_of(
    tier: SingleExit | MultiExit, encoded: Encoded
) -> tuple[IntArray, IntArray, tuple[int, ...], tuple[float, ...]]:
    """The item and the tokens of each row that a tier answers, shape `(rows,)`; its exits' layers and temperatures."""
    items, lengths = encoded.numbers, encoded.units.rows.lengths
    if isinstance(tier, MultiExit):
        return items, lengths, tuple(tier.layers), tuple(tier.temperatures)
    whole = np.bincount(items, weights=lengths).astype(np.int64)  # one exit, and answers of whole items
    return np.arange(len(whole)), whole, (1,), (tier.temperature,)


def run_both(
    tier1: SingleExit,
    tier2: SingleExit | MultiExit,
    given: Readable,
    *,
    encode_seconds: float = 0.0,
    progress: Progress | None = None,
) -> tuple[FloatArray, FloatArray, Costs]:
    """Run and time both tiers on texts, or on sentences that fit both tiers, no unit exiting early.

    `encode_seconds`: what encoding them took, which every setting pays; `progress` is called with units done, twice.

    Returns:
        Probabilities of tier 1, shape `(units, labels)`; at every exit of tier 2, shape `(row units, exits, labels)`,
        without exits `(units, 1, labels)`; costs in seconds per token.
    """
    inputs = as_inputs(given)
    units, tokens = inputs.encode().units, inputs.tokens
    if isinstance(tier2, SingleExit):
        parts = [Timed(tier2.backend)]
        timed: SingleExit | MultiExit = replace(tier2, backend=parts[0])
    else:
        parts = [Timed(graph) for graph in (tier2.embed, *tier2.stages)]
        timed = replace(tier2, embed=parts[0], stages=parts[1:])
    one, start = (units.select(np.arange(min(count, units.n_rows))) for count in (1, WARM_UP))
    # Sessions for both ways of running are made when first asked for: now, not while the clock runs.
    for pool_from in (0, sys.maxsize):
        replace(tier1, pool_from=pool_from).score(one)
        all_exits(replace(tier2, pool_from=pool_from), one)
    tier1.score(start)
    all_exits(tier2, start)
    begin = time.perf_counter()
    first = tier1.score(inputs, progress=progress)
    middle = time.perf_counter()
    second = all_exits(timed, inputs, progress)
    end = time.perf_counter()
    seconds = np.array([part.seconds for part in parts])
    # What happens between the graphs (index arithmetic, softmax) is shared out in proportion to them.
    seconds *= (end - middle) / seconds.sum() / tokens
    embed, *stages = seconds.tolist() if len(seconds) > 1 else (0.0, *seconds.tolist())
    costs = Costs(
        tier1=(middle - begin) / tokens,
        stages=tuple(stages),
        embed=embed,
        always=encode_seconds / tokens,
    )
    return first.probabilities, second, costs


def _two_tiers(pipeline: Classifier | Tagger) -> tuple[SingleExit, SingleExit | MultiExit]:
    kinds = [type(tier) for tier in pipeline.tiers]
    if kinds not in ([SingleExit, MultiExit], [SingleExit, SingleExit]):
        raise OptionError(
            "calibration needs two tiers, of which the first has no exits, got "
            f"{', '.join(kind.__name__ for kind in kinds)}; set the policies of other cascades by hand"
        )
    return pipeline.tier1, pipeline.tier2

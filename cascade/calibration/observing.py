"""Running all tiers once on examples: what they answer, and how long each part takes per token on this machine.

A single pass after a warm-up: good enough to compare settings, not to publish.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cascade.calibration.costs import Costs, TierCosts
from cascade.calibration.sentences import WordAnswers, all_exits
from cascade.calibration.texts import TextAnswers, TierAnswers
from cascade.core.rows import FloatArray, IntArray
from cascade.engine.inputs import Inputs
from cascade.engine.live import HALTED
from cascade.engine.multi_exit import MultiExit
from cascade.engine.single_exit import SingleExit
from cascade.engine.tier import Progress, Readable, Tier, as_inputs
from cascade.exceptions import OptionError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.runtime.backend import Timed
from cascade.text.word_encoding import encode_words

WARM_UP = 64  # rows
MEASURED = 500  # sentences that the costs of a tagger are measured on


def observe_texts(
    classifier: Classifier, texts: Sequence[Any], truth: IntArray | None, *, progress: Progress | None = None
) -> TextAnswers:
    """What all tiers of a classifier say, no row exiting early, and what each part costs; see `TextAnswers`.

    `progress` is called with texts or their rows done, once for each and tier.
    """
    if classifier.regression:
        raise OptionError("calibration must be about labels, got a regression; give with_exit_policy(Settled(0.05))")
    begin = time.perf_counter()
    inputs = Inputs.of(texts, classifier.tokenizer)
    inputs.encode()
    seconds = time.perf_counter() - begin
    said, costs = run_tiers(classifier.tiers, inputs, encode_seconds=seconds, progress=progress)
    return TextAnswers(
        tiers=tuple(rows_of(tier, inputs, own) for tier, own in zip(classifier.tiers, said, strict=True)),
        lengths=inputs.lengths,
        truth=truth,
        temperatures=classifier.policies.temperatures,
        costs=costs,
        multi_label=classifier.multi_label,
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
    answers = WordAnswers((tier1, tier2), tagger.decoding, words, truth, encode_seconds=seconds)
    answers = replace(answers, at_full=answers.full)
    if progress is not None:
        progress(len(words))
    some = answers.fitting()
    some = some.select(np.arange(min(MEASURED, len(some))))
    if not len(some.words):
        return answers
    costs = run_tiers((tier1, tier2), some.words, encode_seconds=some.encode_seconds, progress=progress)[1]
    first, second = costs.tiers
    halted = replace(second, halted=tuple(HALTED * stage for stage in second.stages))
    return replace(answers, costs=replace(costs, tiers=(first, halted)))


def rows_of(tier: Tier, inputs: Inputs, said: FloatArray) -> TierAnswers:
    """What a tier said of texts, with the rows that it answers: a tier without exits answers whole texts.

    `said`: see `all_exits`.
    """
    encoded = inputs.encode(getattr(tier, "encoder", None))
    items, lengths = encoded.numbers, encoded.units.rows.lengths
    if isinstance(tier, MultiExit):
        return TierAnswers(said, items, lengths, tuple(tier.layers))
    whole = np.bincount(items, weights=lengths).astype(np.int64)
    return TierAnswers(said, np.arange(len(whole)), whole)


def run_tiers(
    tiers: Sequence[Tier], given: Readable, *, encode_seconds: float = 0.0, progress: Progress | None = None
) -> tuple[list[FloatArray], Costs]:
    """Run and time tiers on texts, or on sentences that fit all of them, no unit exiting early.

    `encode_seconds`: what encoding them took, which every setting pays; `progress` is called with units done. Returned
    are, of each tier, probabilities at every exit (`all_exits`), and costs in seconds per token of its rows.
    """
    inputs, said, costs = as_inputs(given), list[FloatArray](), list[TierCosts]()
    for tier in tiers:
        begin = time.perf_counter()
        units = inputs.encode(getattr(tier, "encoder", None)).units
        encoding = time.perf_counter() - begin  # of a tier that has a tokenizer of its own
        parts: list[Timed] = []
        timed: Any = tier
        if isinstance(tier, SingleExit):
            parts = [Timed(tier.backend)]
            timed = replace(tier, backend=parts[0])
        elif isinstance(tier, MultiExit):
            parts = [Timed(graph) for graph in (tier.embed, *tier.stages)]
            timed = replace(tier, embed=parts[0], stages=parts[1:])
        if parts:
            one, start = (units.select(np.arange(min(count, units.n_rows))) for count in (1, WARM_UP))
            plain: Any = replace(tier, encoder=None)  # type: ignore[type-var]  # rows are read as they are
            # Sessions for both ways of running are made when first asked for: now, not while the clock runs.
            for pool_from in (0, sys.maxsize):
                all_exits(replace(plain, pool_from=pool_from), one)
            all_exits(plain, start)
        begin = time.perf_counter()
        said.append(all_exits(timed, inputs, progress))
        spent = time.perf_counter() - begin + encoding
        seconds = np.array([part.seconds for part in parts] or [spent])
        # What happens between the graphs (index arithmetic, softmax) is shared out in proportion to them.
        seconds *= spent / seconds.sum() / units.rows.tokens
        embed, *stages = seconds.tolist() if len(seconds) > 1 else (0.0, *seconds.tolist())
        costs.append(TierCosts(tuple(stages), embed=embed))
    return said, Costs(tuple(costs), encode_seconds / inputs.tokens)


def _two_tiers(tagger: Tagger) -> tuple[SingleExit, SingleExit | MultiExit]:
    kinds = [type(tier) for tier in tagger.tiers]
    if kinds not in ([SingleExit, MultiExit], [SingleExit, SingleExit]):
        raise OptionError(
            "the calibration of a tagger needs two tiers, of which the first has no exits, because windows of a third "
            f"tier are not replayed, got {', '.join(kind.__name__ for kind in kinds)}; set the policies by hand"
        )
    if any(getattr(tier, "encoder", None) is not None for tier in tagger.tiers):
        raise OptionError(
            "the calibration of a tagger needs tiers that read the same pieces of words, got a tier with a tokenizer "
            "of its own; train the first tier from the second one's checkpoint, or set the policies by hand"
        )
    return tagger.tier1, tagger.tier2

"""The whole calibration of a tagger: choose a path on one share, run it on the other until a setting fails.

Words of a sentence depend on each other, so whole sentences are counted: a sentence is an event if any of its words is,
and the test is exact. F1 of entities is no mean over sentences, and is not certified. Temperatures stay the bundle's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cascade.calibration.certify.claims import Claim, Unit
from cascade.calibration.certify.doubts import unknown_pieces
from cascade.calibration.certify.outcomes import Certified, Refused, told
from cascade.calibration.certify.procedure import Chosen, certify, check_labels
from cascade.calibration.certify.split import Split
from cascade.calibration.certify.word_paths import GRID, Reach, word_path
from cascade.calibration.examples import copies_said, distinct, tag_numbers
from cascade.calibration.observing import observe_sentences
from cascade.calibration.runs import Stages, no_progress
from cascade.calibration.sentences import WordAnswers
from cascade.calibration.thresholds.words import WordGrid
from cascade.exceptions import OptionError
from cascade.pipelines.tagger import Tagger

FEWEST = 10  # sentences; fewer say nothing
CHOOSERS = 500  # sentences that the path is chosen on, at most: more would take long and leave fewer for the test
CHOSEN = 0.3


def calibrate_sentences(
    tagger: Tagger,
    sentences: Sequence[Sequence[str]],
    tags: Sequence[Sequence[str]] | None,
    claim: Claim,
    *,
    seed: int = 0,
    grid: WordGrid = GRID,
    progress: Stages = no_progress,
) -> Certified | Refused:
    """Find the cheapest setting of a tagger that can be certified; its policies but for the decoder do not count.

    Args:
        tagger: whose tiers and decoder these are.
        sentences: lists of words, drawn as those will be that the claim is about. Empty ones and copies are left out.
        tags: the right tags, one per word; `None` where nobody knows.
        claim: about sentences; one that cannot be made about these is an `OptionError`.
        seed: of the split: 30 % of the sentences, 500 at most, choose a path, the others test it.
        grid: what is replayed on them.
        progress: of each stage of the work.

    Returns:
        What was certified, or why nothing was, with sentences numbered as given, from 0; seconds are measured, per
        sentence, in turns with full depth. Too few sentences, or tags that do not fit, are a `DataError`. What makes
        the guarantee doubtful is a `CertificateWarning`, too.
    """
    _check(claim, labelled=tags is not None)
    if tags is not None:
        tag_numbers(sentences, tags, tagger.labels)  # faults are named by the numbers that the caller knows
    some = np.flatnonzero([len(words) > 0 for words in sentences])
    numbers = some[distinct([sentences[number] for number in some.tolist()])]
    split = Split.of(len(numbers), claim, seed=seed, chosen=CHOSEN, most=CHOOSERS, least=FEWEST)
    given = [sentences[number] for number in numbers.tolist()]
    truth = None if tags is None else tag_numbers(given, [tags[number] for number in numbers.tolist()], tagger.labels)
    with progress("both tiers", 3 * sum(map(len, given))) as ahead:
        answers = observe_sentences(tagger, given, truth, progress=ahead)
    found = certify_sentences(
        answers, claim, labels=tagger.labels, seed=seed, split=split, grid=grid, progress=progress
    )
    copies = copies_said(len(some), len(numbers), "sentences")
    return told(found, numbers, (*copies, *unknown_pieces(answers.words.rows.ids, tagger.tokenizer.unknown)))


def certify_sentences(
    answers: WordAnswers,
    claim: Claim,
    *,
    labels: Sequence[str] = (),
    seed: int = 0,
    split: Split | None = None,
    grid: WordGrid = GRID,
    reach: Reach | None = None,
    progress: Stages = no_progress,
) -> Certified | Refused:
    """The same of sentences that are encoded already, with costs. `split`: instead of 30 % that are drawn by `seed`."""
    _check(claim, labelled=answers.labelled)
    split = split or Split.of(len(answers), claim, seed=seed, chosen=CHOSEN, most=CHOOSERS, least=FEWEST)
    cut = len(answers) - len(answers.fitting())
    told = f"{cut} sentences are longer than a tier reads at once: they were tested, but no path was chosen on them"

    tester = answers.select(split.testers)

    def choose() -> Chosen[WordAnswers]:
        steps = word_path(answers.select(split.choosers), claim.ask, grid=grid, reach=reach, progress=progress)
        return Chosen(steps, tester, (told,) * bool(cut))

    with progress("testing the path", (reach or Reach()).steps) as ahead:
        return certify(tester, claim, choose, split=split, seed=seed, labels=labels, progress=ahead)


def _check(claim: Claim, *, labelled: bool) -> None:
    if claim.unit is not Unit.SENTENCE:
        raise OptionError(f"the unit of a tagger must be the sentence, got {claim.unit.value}; use Unit.SENTENCE")
    check_labels(claim, labelled=labelled)

"""The whole calibration of a tagger: split, choose a path on one share, run it on the other until a setting fails.

Each setting of the path is really run on the testing share, in the fixed order and no further than the first that
fails, so the answers that are counted are those that users will see. Words of a sentence depend on each other, so the
unit is the sentence (exact) or the word with whole sentences resampled (approximate); see `word_events`. F1 is not
certified. Temperatures stay the bundle's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from cascade.calibration import WordCosts, WordGrid, observe_costs
from cascade.calibration.bounds import examples_to_test
from cascade.calibration.certify import Certified, Refused, Tested
from cascade.calibration.claims import Agreement, Claim, MaxDeferred, MaxDrop, MeanCost, Unit
from cascade.calibration.replay import Setting
from cascade.calibration.sequence import fixed_sequence
from cascade.calibration.word_answers import WordAnswers, WordRun, truth_of
from cascade.calibration.word_candidates import GRID, Stages, quietly
from cascade.calibration.word_costs import Spending
from cascade.calibration.word_events import by_word, counted, needed
from cascade.calibration.word_outcomes import TURNS, Frame, figures_of, timed
from cascade.calibration.word_paths import Reach, deferring_path, spending_path, word_path
from cascade.core.checks import check_share
from cascade.exceptions import DataError, OptionError
from cascade.pipelines.tagger import Tagger

__all__ = ["calibrate_words", "certify_answers"]

LEAST = 10  # sentences; fewer say nothing
CHOOSERS = 500  # sentences that the path is chosen on, at most: more would take long and leave fewer for the test


def calibrate_words(
    tagger: Tagger,
    sentences: Sequence[Sequence[str]],
    tags: Sequence[Sequence[str]] | None,
    claim: Claim,
    *,
    seed: int = 0,
    chosen: float = 0.3,
    grid: WordGrid = GRID,
    progress: Stages | None = None,
) -> Certified | Refused:
    """Find the cheapest setting of a tagger that can be certified.

    Args:
        tagger: whose tiers and decoder these are. Its other policies count only with `MaxDeferred`, which leaves its
            windows, exits and blend as they are and looks for a router.
        sentences: lists of words, drawn as those will be that the claim is about. Empty ones are left out.
        tags: the right tags, one per word; `None` where nobody knows.
        claim: what, how surely, and by sentence or by word.
        seed: of the split and of the bootstrap.
        chosen: share of the sentences that the path is chosen on, 500 of them at most; the others test it.
        grid: what is replayed on them.
        progress: of each stage of the work.

    Returns:
        What was certified, or why nothing was. Sentences are numbered as given, from 0; `seconds` of the figures are
        measured, per sentence, in turns with full depth.

    Raises:
        OptionError: a claim that cannot be made about a tagger, or one about right answers without tags.
        DataError: too few sentences with words, or tags that are not one per word or unknown to the model.
    """
    _check(claim, labelled=tags is not None)
    truth = None if tags is None else truth_of(sentences, tags, tagger.labels)
    numbers = np.flatnonzero([len(words) > 0 for words in sentences])
    if len(numbers) < LEAST:
        raise DataError(
            f"there must be at least {LEAST} sentences with words, were: {len(numbers)}; a bound of "
            f"{claim.ask.bound:g} needs hundreds or thousands"
        )
    given = [sentences[number] for number in numbers.tolist()]
    watched = progress or quietly
    with watched("tier 2 at full depth", 1) as ahead:
        answers = WordAnswers.observe(tagger, given, truth)
        ahead(1)
    current = Setting(
        tagger.router, tagger.exit_policy, blend=tagger.blend, windows=tagger.windows, decoding=tagger.decoding
    )
    found = certify_answers(answers, claim, current=current, seed=seed, chosen=chosen, grid=grid, progress=watched)
    doubts = _doubts(given, answers, tagger.labels)
    return replace(
        found,
        chosen_on=numbers[found.chosen_on],
        tested_on=numbers[found.tested_on],
        warnings=(*found.warnings, *doubts),
    )


def certify_answers(
    answers: WordAnswers,
    claim: Claim,
    *,
    current: Setting,
    seed: int = 0,
    chosen: float = 0.3,
    grid: WordGrid = GRID,
    reach: Reach | None = None,
    costs: WordCosts | None = None,
    progress: Stages = quietly,
) -> Certified | Refused:
    """The same of sentences that are encoded already.

    Args:
        answers: of all sentences.
        claim: what is claimed.
        current: the windows, exits and blend of settings for `MaxDeferred`.
        seed: see `calibrate_words`, as of the next two.
        chosen: share of the sentences.
        grid: what is replayed.
        reach: of the path.
        costs: of tokens; measured on the choosing share if left out.
        progress: of each stage of the work.
    """
    _check(claim, labelled=answers.truth is not None)
    order = np.random.default_rng(seed).permutation(len(answers))
    count = _choosers(len(answers), chosen, claim)
    chooser, tester = answers.select(order[:count]), answers.select(order[count:])
    frame = Frame(claim, answers, order[:count], order[count:], seed, partial(_in_all, chosen=chosen))
    ask, spending = claim.ask, None
    if isinstance(ask, MaxDrop | Agreement) and counted(claim, tester, tester.full, seed=seed).p_value > claim.level:
        why = f"{len(tester)} sentences could not show it even if none of them were against it"
        return frame.refused(why, needed(claim, tester, tester.full, seed=seed))
    if not len(chooser.fitting()):
        return frame.refused("no sentence to choose a path on is short enough for both tiers", None)
    if isinstance(ask, MaxDeferred):
        steps = deferring_path(chooser, claim, current=current, progress=progress)
    else:
        known = _measured(chooser.fitting(), progress) if costs is None else costs
        if isinstance(ask, MeanCost):
            spending = Spending.of(chooser, known, claim)
            frame = replace(frame, doubts=spending.doubts(tester))
            steps = spending_path(chooser, spending, grid=grid, reach=reach, progress=progress)
        else:
            steps = word_path(chooser, known, claim, grid=grid, reach=reach, progress=progress)
    if not steps:
        return frame.refused("nothing that was tried is cheaper than tier 2 at full depth", None)
    tested: list[Tested] = []
    runs: list[WordRun] = []

    def p_values() -> Iterator[float]:
        with progress("testing the path", len(steps)) as ahead:
            for step in steps:
                runs.append(tester.really(step.setting))
                tested.append(
                    counted(claim, tester, runs[-1], seed=seed).of(step)
                    if spending is None
                    else spending.tested(tester, step, runs[-1])
                )
                ahead(1)
                yield tested[-1].p_value

    passed = fixed_sequence(p_values(), level=claim.level)
    if not passed:
        more = needed(claim, tester, runs[0], seed=seed) if spending is None else spending.needed(tested[0])
        return frame.failed(steps, tested[0], more)
    with progress("timing it beside full depth", TURNS) as ahead:
        seconds = timed(tester, steps[passed - 1].setting, ahead)
    figures = figures_of(claim, tester, runs[passed - 1], seconds, seed=seed)
    return frame.certified(steps, tested, figures, number=passed - 1)


def _measured(answers: WordAnswers, progress: Stages) -> WordCosts:
    with progress("timing both tiers", 4 * len(answers.words)) as ahead:
        return observe_costs(
            answers.tier1, answers.tier2, answers.words, encode_seconds=answers.encode_seconds, progress=ahead
        )


def _check(claim: Claim, *, labelled: bool) -> None:
    ask = claim.ask
    if claim.unit is Unit.TEXT:
        raise OptionError("the unit of a tagger must be the sentence or the word, was: text; use Unit.WORD")
    if ask.needs_labels and not labelled:
        raise OptionError("a bound on the drop in accuracy needs the right tags, there were none; ask for agreement")
    if claim.unit is Unit.SENTENCE and isinstance(ask, MaxDrop | Agreement) and ask.per_class:
        raise OptionError("the unit of a bound per label must be the word, was: sentence; use Unit.WORD")


def _choosers(sentences: int, chosen: object, claim: Claim) -> int:
    """How many sentences choose the path; of whole sentences so many test it as an event more or less needs."""
    share = check_share("chosen", chosen, "0.3 chooses on a third and tests on the rest")
    if not 0 < share < 1:
        raise OptionError(f"chosen must be above 0 and below 1, was: {share:g}; both shares need sentences")
    if by_word(claim) or isinstance(claim.ask, MeanCost):
        testers = round((1 - share) * sentences)
    else:
        testers = examples_to_test(sentences, claim.ask.bound, confidence=claim.confidence, most=1 - share)
    return min(CHOOSERS, max(1, sentences - max(1, testers)))


def _in_all(testers: int, *, chosen: float) -> int:
    """Sentences of both shares, if so many have to test."""
    return testers + min(CHOOSERS, math.ceil(testers * chosen / (1 - chosen)))


def _doubts(sentences: Sequence[Sequence[str]], answers: WordAnswers, labels: Sequence[str]) -> tuple[str, ...]:
    """What stands in the certificate as a warning."""
    found = []
    again = len(sentences) - len({tuple(words) for words in sentences})
    if again:
        found.append(
            f"{again} of {len(sentences)} sentences have been there before: the guarantee is about sentences drawn "
            "independently"
        )
    if answers.truth is not None:
        seen = np.bincount(answers.truth, minlength=len(labels))
        missing = [label for label, count in zip(labels, seen.tolist(), strict=True) if not count]
        if missing:
            found.append(f"no word is tagged {', '.join(missing)}: nothing is known about these")
    return tuple(found)

"""The whole calibration of a tagger: split, choose a path on one share, run it on the other until a setting fails.

Each setting of the path is really run on the testing share, in the fixed order and no further than the first that
fails, so the answers that are counted are those that users will see. Words of a sentence depend on each other, so the
unit is the sentence (exact) or the word with whole sentences resampled (approximate); see `word_events`. F1 is not
certified. Temperatures stay the bundle's.

It leaves to others: reading files and writing certificates (`cli`), the path (`word_paths`), texts (`certify`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cascade.batch import BoolArray, IntArray
from cascade.calibration import WordCosts, WordGrid, observe_costs
from cascade.certification.bounds import examples_to_test
from cascade.certification.certify import Certified, Figures, Refused, Tested
from cascade.certification.claims import Agreement, Claim, MaxDeferred, MaxDrop, MeanCost, Unit
from cascade.certification.paths import Step
from cascade.certification.replay import Setting
from cascade.certification.sequence import fixed_sequence
from cascade.certification.temperature import Temperatures
from cascade.certification.word_answers import WordAnswers, WordRun, truth_of
from cascade.certification.word_events import by_sentence, by_word, counted, needed
from cascade.certification.word_paths import GRID, Reach, Stages, deferring_path, quietly, word_path
from cascade.checks import check_share
from cascade.exceptions import DataError, OptionError
from cascade.tagger import Tagger

__all__ = ["calibrate_words"]

LEAST = 10  # sentences; fewer say nothing
CHOOSERS = 500  # sentences that the path is chosen on, at most: more would take long and leave fewer for the test
TIMED = 500  # sentences that the certified setting and full depth are timed on, at most
TURNS = 3


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
    frame = _Frame(claim, answers, order[:count], order[count:], seed, chosen)
    deferring = isinstance(claim.ask, MaxDeferred)
    if not deferring and counted(claim, tester, tester.full, seed=seed).p_value > claim.level:
        return frame.hopeless(tester)
    if deferring:
        steps = deferring_path(chooser, claim, current=current, progress=progress)
    else:
        costs = _costs(chooser.fitting(), progress) if costs is None else costs
        steps = word_path(chooser, costs, claim, grid=grid, reach=reach, progress=progress)
    if not steps:
        return frame.refused((), (), "nothing that was tried is cheaper than tier 2 at full depth", None)
    tested: list[Tested] = []
    runs: list[WordRun] = []

    def p_values() -> Iterator[float]:
        with progress("testing the path", len(steps)) as ahead:
            for step in steps:
                run = tester.really(step.setting)
                found = counted(claim, tester, run, seed=seed)
                tested.append(Tested(step, found.events, found.rate, found.examples, found.p_value, found.upper))
                runs.append(run)
                ahead(1)
                yield found.p_value

    passed = fixed_sequence(p_values(), level=claim.level)
    if not passed:
        return frame.failed(steps, tested[0], needed(claim, tester, runs[0], seed=seed))
    taken = passed - 1
    with progress("timing it beside full depth", TURNS) as ahead:
        seconds = _timed(tester, steps[taken].setting, ahead)
    figures = _figures(claim, tester, runs[taken], seconds)
    return frame.certified(steps, tested, taken, figures)


def _costs(answers: WordAnswers, progress: Stages) -> WordCosts:
    with progress("timing both tiers", 4 * answers.words.words) as ahead:
        return observe_costs(
            answers.tier1, answers.tier2, answers.words, encode_seconds=answers.encode_seconds, progress=ahead
        )


@dataclass(frozen=True, eq=False)
class _Frame:
    """What every outcome of one calibration says alike."""

    claim: Claim
    answers: WordAnswers
    chosen_on: IntArray
    tested_on: IntArray
    seed: int
    chosen: float

    def certified(self, steps: tuple[Step, ...], tested: Sequence[Tested], taken: int, figures: Figures) -> Certified:
        return Certified(
            claim=self.claim,
            method=self.method,
            steps=steps,
            tested=tuple(tested),
            chosen_on=self.chosen_on,
            tested_on=self.tested_on,
            temperatures=self.temperatures,
            seed=self.seed,
            warnings=self.warnings,
            number=taken,
            figures=figures,
        )

    def refused(self, steps: tuple[Step, ...], tested: tuple[Tested, ...], why: str, needs: int | None) -> Refused:
        return Refused(
            claim=self.claim,
            method=self.method,
            steps=steps,
            tested=tested,
            chosen_on=self.chosen_on,
            tested_on=self.tested_on,
            temperatures=self.temperatures,
            seed=self.seed,
            warnings=self.warnings,
            why=why,
            examples_needed=needs,
        )

    def hopeless(self, tester: WordAnswers) -> Refused:
        needs = needed(self.claim, tester, tester.full, seed=self.seed)
        why = f"{len(tester)} sentences could not show it even if none of them were against it"
        return self.refused((), (), why, self.in_all(needs))

    def failed(self, steps: tuple[Step, ...], first: Tested, needs: int | None) -> Refused:
        units = "words" if by_word(self.claim) else "sentences"
        why = (
            f"even the safest setting had {first.events} of {first.examples} {units} against it "
            f"({100 * first.rate:.2f} %, upper bound {100 * first.upper:.2f} %)"
        )
        return self.refused(steps, (first,), why, self.in_all(needs))

    def in_all(self, needs: int | None) -> int | None:
        """Sentences to give, if so many have to be tested."""
        if needs is None:
            return None
        return needs + min(CHOOSERS, math.ceil(needs * self.chosen / (1 - self.chosen)))

    @property
    def temperatures(self) -> Temperatures:
        return Temperatures(self.answers.tier1.temperature, tuple(self.answers.tier2.temperatures))

    @property
    def method(self) -> str:
        settings = "settings really run one after the other, safest first, until one fails (fixed-sequence test)"
        if isinstance(self.claim.ask, MaxDeferred):
            return f"{settings}; share of deferred words, sentence-level bootstrap (approximate)"
        if by_word(self.claim):
            return (
                f"{settings}; rate of words, sentence-level bootstrap (approximate; by sentence the test is exact); "
                "F1 is not certified"
            )
        return f"{settings}; sentences with any such word, exact binomial p-values; F1 is not certified"

    @property
    def warnings(self) -> tuple[str, ...]:
        cut = len(self.answers) - len(self.answers.fitting())
        if not cut:
            return ()
        return (
            f"{cut} sentences are longer than a tier reads at once: they were tested, but no path was chosen on them",
        )


def _check(claim: Claim, *, labelled: bool) -> None:
    ask = claim.ask
    if claim.unit is Unit.TEXT:
        raise OptionError("the unit of a tagger must be the sentence or the word, was: text; use Unit.WORD")
    if isinstance(ask, MeanCost):
        raise OptionError(
            "what is asked of a tagger must be a drop, agreement or a share to defer, was: a mean cost; "
            "use MaxDeferred, which bounds what tier 2 reads"
        )
    if ask.needs_labels and not labelled:
        raise OptionError("a bound on the drop in accuracy needs the right tags, there were none; ask for agreement")
    if claim.unit is Unit.SENTENCE and isinstance(ask, MaxDrop | Agreement) and ask.per_class:
        raise OptionError("the unit of a bound per label must be the word, was: sentence; use Unit.WORD")


def _choosers(sentences: int, chosen: object, claim: Claim) -> int:
    """How many sentences choose the path; of whole sentences so many test it as an event more or less needs."""
    share = check_share("chosen", chosen, "0.3 chooses on a third and tests on the rest")
    if not 0 < share < 1:
        raise OptionError(f"chosen must be above 0 and below 1, was: {share:g}; both shares need sentences")
    if by_word(claim):
        testers = round((1 - share) * sentences)
    else:
        testers = examples_to_test(sentences, claim.ask.bound, confidence=claim.confidence, most=1 - share)
    return min(CHOOSERS, max(1, sentences - max(1, testers)))


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


def _timed(answers: WordAnswers, setting: Setting, ahead: Callable[[int], object]) -> tuple[float, float]:
    """Seconds per sentence of a setting and of full depth, in turns: medians."""
    some = answers.select(np.arange(min(TIMED, len(answers))))
    taken = []
    for _ in range(TURNS):
        taken.append((some.really(setting).seconds, some.really(some.at_full_depth).seconds))
        ahead(1)
    own, full = np.median(taken, axis=0) / len(some)
    return float(own), float(full)


def _figures(claim: Claim, answers: WordAnswers, run: WordRun, seconds: tuple[float, float]) -> Figures:
    """What the setting did to the testing share, counted by sentence or by word as the claim counts."""

    def count(words: BoolArray) -> int:
        found = by_sentence(words, answers)
        return int(found.sum()) if by_word(claim) else int((found > 0).sum())

    units = answers.words.words if by_word(claim) else len(answers)
    layers = run.layers[run.deferred]
    own, full = seconds
    accuracy = full_accuracy = harms = gains = None
    if answers.truth is not None:
        right = run.tags == answers.truth
        harms, gains = count(answers.right & ~right), count(right & ~answers.right)
        accuracy, full_accuracy = 1 - count(~right) / units, 1 - count(~answers.right) / units
    return Figures(
        examples=units,
        accuracy=accuracy,
        full_accuracy=full_accuracy,
        drop=None if accuracy is None or full_accuracy is None else full_accuracy - accuracy,
        harms=harms,
        gains=gains,
        disagreements=count(run.tags != answers.full.tags),
        deferred=float(run.deferred.mean()),
        mean_exit=float(layers.mean()) if len(layers) else 0.0,
        seconds=own,
        full_seconds=full,
    )

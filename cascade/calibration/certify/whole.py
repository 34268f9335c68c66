"""The whole calibration: run all tiers once, choose a path on a share of the examples, test it on the others.

Of a classifier the engine runs what was chosen. Words of a sentence depend on each other, so of a tagger whole
sentences are counted: one is an event if any of its words is, and the test is exact. F1 of entities is no mean over
sentences, and is not certified. A tagger's temperatures stay the bundle's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cascade.calibration.certify.claims import Claim, Unit
from cascade.calibration.certify.events import count, differ, unknown_pieces
from cascade.calibration.certify.outcomes import Certified, Refused, told
from cascade.calibration.certify.paths import PathGrid, text_path
from cascade.calibration.certify.procedure import Chosen, Split, certify, check_labels
from cascade.calibration.certify.word_paths import WordGrid, word_path
from cascade.calibration.examples import copies_said, distinct, tag_numbers
from cascade.calibration.observing import observe_sentences, observe_texts
from cascade.calibration.runs import Stages, no_progress
from cascade.calibration.sentences import WordAnswers
from cascade.calibration.temperature import LEAST, MOST, at_limit, fit_temperatures
from cascade.calibration.texts import TextAnswers
from cascade.core.confidence import answers as answers_of
from cascade.core.rows import IntArray
from cascade.exceptions import OptionError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.policies.settings import Policies

ENOUGH = 100  # texts of the choosing share; temperatures of fewer are worth less than the bundle's
SEEN = 1000  # texts whose tokens are looked at


def calibrate(
    pipeline: Classifier | Tagger,
    items: Sequence[Any],
    truth: Any,
    claim: Claim,
    *,
    seed: int = 0,
    grid: PathGrid | None = None,
    progress: Stages = no_progress,
) -> tuple[Certified | Refused, TextAnswers | WordAnswers]:
    """Find the cheapest setting of a pipeline that can be certified; thresholds of its policies are of no account.

    Args:
        pipeline: whose tiers these are; its kinds of router and exit policy get thresholds.
        items: texts or pairs, of a tagger lists of words, drawn as those will be that the claim is about. Copies are
            left out, and sentences without a word.
        truth: number of the label of each text, shape `(texts,)`, or zeros and ones per label, shape `(texts, labels)`;
            of a tagger the tags of each sentence, one per word; `None` where nobody knows.
        claim: what, and how surely; one that cannot be made about these is an `OptionError`.
        seed: of the split (see `split`).
        grid: which paths are tried; of a tagger a `WordGrid`.
        progress: of each stage of the work.

    Returned is what was certified, or why nothing was, with examples numbered as given; and what the tiers say about
    the distinct ones. Fewer of these than it takes to choose anything, and tags that do not fit, are a `DataError`.
    What makes the guarantee doubtful is a `CertificateWarning`, too.
    """
    tagging = isinstance(pipeline, Tagger)
    _check(claim, Unit.SENTENCE if tagging else Unit.TEXT, labelled=truth is not None)
    if tagging and truth is not None:
        tag_numbers(items, truth, pipeline.labels)  # faults are named by the numbers that the caller knows
    some = np.flatnonzero([not tagging or len(item) > 0 for item in items])
    numbers = some[distinct([items[number] for number in some.tolist()])]
    split = Split.of(len(numbers), claim, seed=seed)
    given = [items[number] for number in numbers.tolist()]
    answers: TextAnswers | WordAnswers
    if isinstance(pipeline, Tagger):
        own = None if truth is None else tag_numbers(given, [truth[n] for n in numbers.tolist()], pipeline.labels)
        with progress("both tiers", 3 * sum(map(len, given))) as ahead:
            answers = observe_sentences(pipeline, given, own, progress=ahead)
    else:
        with progress("all tiers", len(pipeline.tiers) * len(given)) as ahead:
            answers = observe_texts(pipeline, given, None if truth is None else truth[numbers], progress=ahead)
    found = certify_sample(
        answers,
        claim,
        labels=pipeline.labels,
        seed=seed,
        split=split,
        like=pipeline.policies,
        grid=grid,
        progress=progress,
    )
    if isinstance(found, Certified) and isinstance(answers, TextAnswers):
        with progress("running what was chosen", 1) as ahead:
            real = pipeline.with_policies(found.policies).predict([given[n] for n in found.tested_on.tolist()])
            tester = answers.select(found.tested_on).with_temperatures(found.temperatures)
            found = confirmed(found, tester, answers_of(real.probabilities, multi_label=answers.multi_label))
            ahead(1)
    read = answers.words if isinstance(answers, WordAnswers) else pipeline.tokenizer.encode(given[:SEEN]).units
    unknown = unknown_pieces(read.rows.ids, pipeline.tokenizer.unknown)
    return told(found, numbers, (*copies_said(len(some), len(numbers), f"{claim.unit.value}s"), *unknown)), answers


def certify_sample(
    answers: TextAnswers | WordAnswers,
    claim: Claim,
    *,
    labels: Sequence[str] = (),
    seed: int = 0,
    split: Split | None = None,
    like: Policies | None = None,
    grid: PathGrid | None = None,
    progress: Stages = no_progress,
) -> Certified | Refused:
    """The same from answers about distinct examples, without the run of what was chosen.

    Temperatures of texts are fitted on the choosing share where it has labels and 100 texts at least. `labels`: names,
    for messages about classes; `split`: instead of one that is drawn by `seed`; `like`: policies whose kinds get
    thresholds; `grid`: which paths are tried, of sentences a `WordGrid`.
    """
    words = isinstance(answers, WordAnswers)
    _check(claim, Unit.SENTENCE if words else Unit.TEXT, labelled=answers.labelled)
    split = split or Split.of(len(answers), claim, seed=seed)
    word_grid = grid if isinstance(grid, WordGrid) else WordGrid()
    chooser: Any = answers.select(split.choosers)
    tester: Any = answers.select(split.testers)

    def choose() -> Chosen[Any]:
        if isinstance(answers, WordAnswers):
            steps = word_path(chooser, claim.ask, like=like, grid=word_grid, progress=progress)
            cut = len(answers) - len(answers.fitting())
            said = f"{cut} sentences are longer than a tier reads at once: tested, but no path was chosen on them"
            return Chosen(steps, tester, (said,) * bool(cut))
        if chooser.truth is None or len(chooser) < ENOUGH:
            return Chosen(text_path(chooser, claim.ask, like=like, grid=grid), tester)
        goal = chooser.goal if chooser.binary else chooser.goal[:, 0]
        heads = [(tier.probabilities, goal[tier.items]) for tier in chooser.tiers]
        fitted = fit_temperatures(heads, was=chooser.temperatures, multi_label=chooser.multi_label)
        said = (
            f"a fitted temperature is at a limit ({LEAST:g} to {MOST:g}): the answers agree with all labels or with "
            "hardly any, which may be wrong or of another task, so confidence cannot be fitted to them"
        )
        steps = text_path(chooser.with_temperatures(fitted), claim.ask, like=like, grid=grid)
        return Chosen(steps, tester.with_temperatures(fitted), (said,) * at_limit(fitted))

    claim = claim.of_tiers(len(answers.tiers))
    with progress("testing the path", (word_grid if words else grid or PathGrid()).steps) as ahead:
        return certify(tester, claim, choose, split=split, seed=seed, labels=labels, progress=ahead)


def confirmed(found: Certified, tester: TextAnswers, real: IntArray) -> Certified | Refused:
    """What is left of a certificate once the engine has run its setting on the testing share; `real`: its answers.

    A replay rescales recorded float32 probabilities, so an answer may differ by rounding. That is said, and the claim
    must hold for what really ran.
    """
    apart = int(differ(real, found.run.answers).sum())
    if not apart:
        return found
    said = f"{apart} of {len(tester)} answers of the engine differ from those that were replayed"
    events, seen, p_value = count(found.claim, tester, replace(found.run, answers=real))
    if p_value <= found.claim.level:
        return replace(found, warnings=(*found.warnings, said))
    same = {name: value for name, value in vars(found).items() if name in Refused.__dataclass_fields__}
    why = f"{said}, and with {events} events among {seen} the claim does not hold for what ran"
    return Refused(**same, why=why, examples_needed=None)


def _check(claim: Claim, unit: Unit, *, labelled: bool) -> None:
    if claim.unit is not unit:
        whose = "tagger" if unit is Unit.SENTENCE else "classifier"
        raise OptionError(f"the unit of a {whose} must be {unit.value}, got {claim.unit.value}; use Unit.{unit.name}")
    check_labels(claim, labelled=labelled)

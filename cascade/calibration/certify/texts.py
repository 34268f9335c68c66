"""The whole calibration of a classifier: run all tiers once, choose a path, test it, run what was chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from cascade.calibration.certify.claims import Claim
from cascade.calibration.certify.doubts import unknown_pieces
from cascade.calibration.certify.events import count, differ
from cascade.calibration.certify.outcomes import Certified, Refused, told
from cascade.calibration.certify.paths import PathGrid, text_path
from cascade.calibration.certify.procedure import Chosen, certify, check_labels
from cascade.calibration.certify.split import Split
from cascade.calibration.examples import copies_said, distinct
from cascade.calibration.observing import observe_texts
from cascade.calibration.runs import Stages, no_progress
from cascade.calibration.temperature import LEAST, MOST, at_limit, fit_temperatures
from cascade.calibration.texts import TextAnswers
from cascade.core.confidence import answers as answers_of
from cascade.core.rows import IntArray
from cascade.pipelines.classifier import Classifier
from cascade.policies.settings import Policies

FEWEST = 20  # texts, below which there is nothing to choose from
ENOUGH = 100  # of the choosing share; temperatures of fewer are worth less than the bundle's
CHOOSERS = 5000  # texts that choose, at most
CHOSEN = 0.2
SEEN = 1000  # texts whose tokens are looked at


def calibrate_texts(
    classifier: Classifier,
    texts: Sequence[Any],
    truth: IntArray | None,
    claim: Claim,
    *,
    seed: int = 0,
    like: Policies | None = None,
    progress: Stages = no_progress,
) -> tuple[Certified | Refused, TextAnswers]:
    """Find the cheapest setting of a classifier that can be certified.

    Args:
        classifier: whose tiers these are.
        texts: texts or pairs, drawn as those will be that the claim is about. Copies are left out.
        truth: number of the label of each, shape `(texts,)`, or zeros and ones per label, shape `(texts, labels)`.
        claim: what, and how surely; it needs labels or an `OptionError` says so.
        seed: of the split: a fifth of the texts, 5,000 at most, chooses a path, the others test it.
        like: policies whose kinds of router and exit policy get thresholds; those of the classifier if left out.
        progress: of each stage of the work.

    Returns:
        What was certified, or why nothing was, with texts numbered as given; and what the tiers say about the distinct
        ones. Fewer of these than it takes to choose anything are a `DataError`. What makes the guarantee doubtful is a
        `CertificateWarning`, too.
    """
    check_labels(claim, labelled=truth is not None)
    kept = distinct(texts)
    split = Split.of(len(kept), claim, seed=seed, chosen=CHOSEN, most=CHOOSERS, least=FEWEST)
    given = [texts[number] for number in kept.tolist()]
    with progress("all tiers", len(classifier.tiers) * len(given)) as ahead:
        answers = observe_texts(classifier, given, None if truth is None else truth[kept], progress=ahead)
    with progress("testing the path", PathGrid().steps) as ahead:
        found = certify_texts(
            answers,
            claim,
            labels=classifier.labels,
            seed=seed,
            split=split,
            like=classifier.policies if like is None else like,
            progress=ahead,
        )
    if isinstance(found, Certified):
        with progress("running what was chosen", 1) as ahead:
            real = classifier.with_policies(found.policies).predict([given[n] for n in found.tested_on.tolist()])
            tester = answers.select(found.tested_on).with_temperatures(found.temperatures)
            found = confirmed(found, tester, answers_of(real.probabilities, multi_label=answers.multi_label))
            ahead(1)
    pieces = classifier.tokenizer.encode(given[:SEEN]).units.rows.ids
    said = *copies_said(len(texts), len(kept), "texts"), *unknown_pieces(pieces, classifier.tokenizer.unknown)
    return told(found, kept, said), answers


def certify_texts(
    answers: TextAnswers,
    claim: Claim,
    *,
    labels: Sequence[str] = (),
    seed: int = 0,
    split: Split | None = None,
    like: Policies | None = None,
    grid: PathGrid | None = None,
    progress: Callable[[int], object] | None = None,
) -> Certified | Refused:
    """The same from recorded answers about distinct texts, without the run of what was chosen.

    Temperatures are fitted on the choosing share where it has labels and 100 texts at least. `labels`: names, for
    messages about classes; `split`: instead of a fifth of the texts that is drawn by `seed`; `progress`: called with 1
    for each setting tested.
    """
    claim = claim.of_tiers(len(answers.tiers))
    split = split or Split.of(len(answers), claim, seed=seed, chosen=CHOSEN, most=CHOOSERS, least=FEWEST)

    chooser, tester = answers.select(split.choosers), answers.select(split.testers)

    def choose() -> Chosen[TextAnswers]:
        if chooser.truth is None or len(chooser) < ENOUGH:
            return Chosen(text_path(chooser, claim.ask, like=like, grid=grid), tester)
        some, other, warnings = _tempered(chooser, tester)
        return Chosen(text_path(some, claim.ask, like=like, grid=grid), other, warnings)

    return certify(tester, claim, choose, split=split, seed=seed, labels=labels, progress=progress)


def confirmed(found: Certified, tester: TextAnswers, real: IntArray) -> Certified | Refused:
    """What is left of a certificate once the engine has run its setting on the testing share; `real`: its answers.

    A replay rescales recorded float32 probabilities, so an answer may differ by rounding. That is said, and the claim
    must hold for what really ran.
    """
    apart = int(differ(real, found.run.answers).sum())
    if not apart:
        return found
    said = f"{apart} of {len(tester)} answers of the engine differ from those that were replayed"
    run = replace(found.run, answers=real)
    events, seen, p_value = count(found.claim, tester, run)
    if p_value <= found.claim.level:
        return replace(found, warnings=(*found.warnings, said))
    same = {name: value for name, value in vars(found).items() if name in Refused.__dataclass_fields__}
    why = f"{said}, and with {events} events among {seen} the claim does not hold for what ran"
    return Refused(**same, why=why, examples_needed=None)


def _tempered(chooser: TextAnswers, tester: TextAnswers) -> tuple[TextAnswers, TextAnswers, tuple[str, ...]]:
    """Both shares with temperatures that fit the choosing share, and what has to be said of them."""
    goal = chooser.goal if chooser.binary else chooser.goal[:, 0]
    heads = [(tier.probabilities, goal[tier.items]) for tier in chooser.tiers]
    fitted = fit_temperatures(heads, was=chooser.temperatures, multi_label=chooser.multi_label)
    told = (
        f"a fitted temperature is at a limit ({LEAST:g} to {MOST:g}): the answers agree with all labels or with hardly "
        "any, which may be wrong or of another task, so confidence cannot be fitted to them"
    )
    return chooser.with_temperatures(fitted), tester.with_temperatures(fitted), (told,) * at_limit(fitted)

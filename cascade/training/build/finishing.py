"""The last steps: bundles of the trained tiers, the choice among them, its certificate, its report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cascade.bundle.certificate import Certificate, Data
from cascade.bundle.opening import Bundle, open_bundle
from cascade.bundle.tiers import MultiExitSpec, TierSpec
from cascade.bundle.writing import write_bundle
from cascade.calibration.certify.claims import Claim
from cascade.calibration.certify.outcomes import Certified, Outcome
from cascade.calibration.certify.outcomes import Step as Setting
from cascade.calibration.certify.procedure import Chosen, Split, certify
from cascade.calibration.certify.whole import confirmed
from cascade.calibration.certify.written import issue
from cascade.calibration.examples import copies_said
from cascade.calibration.texts import TextAnswers
from cascade.exceptions import BundleError
from cascade.pipelines.profiling import profile_of
from cascade.policies.routing import DeferAll
from cascade.policies.settings import Policies
from cascade.training.build.choosing import WITH_EXITS, Candidate, Within, candidates, fastest, observed
from cascade.training.build.looking import picked
from cascade.training.build.report import report_of
from cascade.training.build.shares import TOLERANCE, Answered, Given, Original, with_gaps
from cascade.training.build.work import Making, Step
from cascade_export import Calibration, ExportOptions, export_bundle

HARDER = 1500  # texts with gaps that choose, about; of sentences each once: settings are run on them, not replayed
PAGE = "report.html"
CALIBRATION = 512  # texts that give int8 its ranges
CHECKED = 500  # texts on which full depth is compared with the original


def claim_of(given: Given) -> Claim:
    """What is to be certified."""
    claim = given.options.claim(tags=given.checkpoint.tags)
    if not given.checkpoint.regression:
        return claim
    return replace(claim, ask=Within(bound=given.options.bound, within=given.choose.tolerance))


def exported(given: Given, making: Making, tiers: Mapping[str, Path], learn: Sequence[Any]) -> Mapping[str, Any]:
    """A bundle for each second tier with a first tier; the first in fp32 too, to be compared and removed.

    Of a model without exits one for each first tier: that model behind it.
    """
    some = given.choose.select(np.arange(min(CHECKED, len(given.choose.items))))
    firsts: list[str | None] = [name for name in tiers if name not in WITH_EXITS] or [None]
    seconds = [name for name in tiers if name in WITH_EXITS]
    kinds = {name: firsts[min(number, len(firsts) - 1)] for number, name in enumerate(seconds)}
    kinds = kinds or {name or "whole": name for name in firsts}
    found: dict[str, Any] = {"first_tiers": kinds}
    for number, (name, kind) in enumerate(kinds.items()):
        own, first = tiers[name] if name in seconds else given.checkpoint.source, tiers.get(kind or "")
        for folder in (making.folder / "fp32", making.folder / name):
            shutil.rmtree(folder, ignore_errors=True)
        if not number:
            fp32 = export(given, making.folder / "fp32", own, first, learn, int8=False).folder
            found["fp32"] = check_fp32(*some.compared(given.full_depth(fp32)))
            shutil.rmtree(fp32)
        full = given.full_depth(export(given, making.folder / name, own, first, learn).folder)
        if not number:
            found |= {"int8": some.compared(full)[0], "form": form_of(full.bundle.manifest.tiers[-1])}
        making.progress((2 + number) / (1 + len(kinds)))
    return found


def chosen(given: Given, making: Making, exported: Step, spent: Mapping[str, float]) -> Mapping[str, Any]:
    """The bundle: the cheapest pair, certified, with its report; or full depth alone."""
    begin, kinds, work = time.monotonic(), exported.facts["first_tiers"], making.folder
    own = next(iter(kinds))  # the model as it is
    some, seconds = given.choose, 60 * making.minutes
    full = given.full_depth(exported.folder / own)
    pipelines = {name: given.load(exported.folder / name) for name in kinds}
    found = candidates(pipelines, _with_gaps(given), claim_of(given), seconds=seconds / 3)
    making.progress(0.3)
    best, timed = fastest(found, full, some.items, kinds=kinds, seconds=seconds / 6)
    making.progress(0.4)
    for name in ("pair", "single", "bundle"):  # of an interrupted step
        shutil.rmtree(work / name, ignore_errors=True)
    outcome, pair = _certified(given, work, exported.folder, own, best)
    if best is not None and isinstance(outcome, Certified) and outcome.number:
        real = replace(best, pipeline=pair.with_policies(outcome.policies))
        # What is certified may be safer than what was timed.
        if fastest([real], full, some.items, kinds=kinds, seconds=seconds / 12)[0] is None:
            outcome, pair = _certified(given, work, exported.folder, own, None)
    making.progress(0.6)
    pipeline, certificate = _kept(given, work, pair, outcome)
    manifest, pays = pipeline.bundle.manifest, isinstance(outcome, Certified) and outcome.number > 0
    line, page, figures = report_of(
        given,
        pipeline,
        outcome,
        full=full,
        exported=exported.facts,
        pays=pays,
        seconds=seconds / 3,
        steps={**spent, "choose": time.monotonic() - begin},
        candidates=timed,
    )
    files: dict[str, bytes | Path] = {path: pipeline.bundle.path(path) for path in manifest.files}
    made = replace(
        manifest,
        policies=pipeline.policies,
        certificate=certificate,
        figures={**manifest.figures, "build": figures},
        profile=profile_of(pipeline, given.certify.items),
    )
    write_bundle(work / "bundle", {**files, PAGE: page.encode()}, made)
    for name in ("pair", "single"):
        shutil.rmtree(work / name, ignore_errors=True)
    told = f"full depth, {exported.facts['form']}"
    if best is not None and pays:
        told = best.named(kinds[best.first] if len(manifest.tiers) > 1 else None)
    return {"setting": told, "certified": isinstance(outcome, Certified), "line": line, **figures}


def _with_gaps(given: Given) -> Answered:
    """The items that choose, with words left out: what the original says of these, and the right answers."""
    some = given.choose
    copies = 1 if given.checkpoint.tags else max(round(HARDER / len(some.items)), 1)
    items, kept = with_gaps(some.items, copies=copies, seed=given.options.seed)
    truth: Any = picked(some.truth, np.tile(np.arange(len(some.items)), copies))
    if isinstance(truth, list):
        truth = [own[here] for own, here in zip(truth, kept, strict=True)]
    return replace(some, items=items, logits=Original(given.checkpoint).record(items), truth=truth).read_whole()


def _certified(given: Given, work: Path, bundles: Path, own: str, best: Candidate | None) -> tuple[Outcome, Any]:
    """What is certified of the best pair of bundles, of the own one's full depth where nothing is, and its tiers.

    One sequence of tests, in an order that was fixed on other texts: the own full depth, then the path of the best.
    """
    found: tuple[Outcome, Any] | None = None
    if best is None or best.exits != own:
        found = _tested(given, bundles / own, ())
        if best is None or not isinstance(found[0], Certified):
            return found
    folder = bundles / best.exits
    if best.exits != best.first:
        shutil.rmtree(work / "pair", ignore_errors=True)
        both = (open_bundle(one, verify=False) for one in (folder, bundles / best.first))
        folder = composed(work / "pair", *both).folder
    cheaper = _tested(given, folder, best.steps)
    better = isinstance(cheaper[0], Certified) and cheaper[0].number
    return cheaper if found is None or better else found


def _tested(given: Given, bundle: Path, steps: Sequence[Setting]) -> tuple[Outcome, Any]:
    """What is certified of a bundle, and its pipeline: the cheapest setting that keeps the bound; see `certify`.

    Tested from full depth on; `steps`: that other items chose for these tiers.
    """
    pipeline, some, choosers = given.load(bundle), given.certify, len(given.choose.items)
    testers = np.arange(len(some.items), dtype=np.int64)
    split = Split(np.empty(0, dtype=np.int64), testers, choosers / (choosers + len(testers)), choosers)
    tester = observed(pipeline, some)
    safest = Setting(tester.at_full_depth, risk=0.0, cost=1.0, deferred=1.0)
    chosen, claim = Chosen[Any]((safest, *steps), tester), claim_of(given)
    outcome = certify(tester, claim, lambda: chosen, split=split, seed=given.options.seed, labels=pipeline.labels)
    if isinstance(outcome, Certified) and isinstance(tester, TextAnswers):
        real = pipeline.with_policies(outcome.policies).predict(some.items)
        outcome = confirmed(outcome, tester, tester.answered(real.probabilities))
    return outcome, pipeline


def _kept(given: Given, folder: Path, pipeline: Any, outcome: Outcome) -> tuple[Any, Certificate | None]:
    """What was certified, full depth where nothing was, without a first tier that is never asked."""
    certificate, policies, texts = None, pipeline.policies.full_depth(), given.texts
    if isinstance(outcome, Certified):
        choosing, testing = len(given.choose.items), len(given.certify.items)
        data = Data(name=texts.name, sha256=texts.digest, examples=choosing + testing, chosen_on=choosing)
        distinct = len(texts.items)
        said = copies_said(distinct + texts.copies, distinct, f"{outcome.claim.unit.value}s")
        told = replace(outcome, warnings=(*outcome.warnings, *said))
        certificate, policies = issue(pipeline, told, data), outcome.policies
    settings = (policies, *(certificate.safer if certificate is not None else ()))
    if policies.routers and all(isinstance(one.routers[0], DeferAll) for one in settings):
        pipeline, policies = given.load(composed(folder / "single", pipeline.bundle, None).folder), alone(policies)
        if certificate is not None:
            safer = tuple(map(alone, certificate.safer))
            certificate = replace(certificate, policies=policies, safer=safer, models=pipeline.bundle.manifest.models())
    return pipeline.with_policies(policies), certificate


def export(
    given: Given, folder: Path, exits: str | Path, first: Path | None, texts: Sequence[Any], *, int8: bool = True
) -> Bundle:
    """A bundle of these checkpoints, or of the last tier's alone.

    In int8 a quarter of the bound may be spent, or layers stay fp32.
    """
    some = list(texts[:CALIBRATION])
    options = ExportOptions(
        int8=int8,
        agreement=1 - given.options.bound / 4,
        by_sentence=given.checkpoint.tags,
        max_length=given.checkpoint.limit,
        truncation=given.options.truncation,
        encode_special_tokens=given.checkpoint.encode_special_tokens,
        fp32=False,
    )
    calibration = Calibration([*some, *mixed(some)], None, "texts of the build, and mixtures of two of them")
    return export_bundle(exits, first, folder, calibration=calibration, options=options)


def mixed(items: Sequence[Any]) -> list[Any]:
    """Half of each item before half of the next: what a model is less sure of than of the texts that trained it.

    Of pairs the first text with the next pair's second one. int8 that answers as fp32 on a model's own training texts
    may still differ on new ones: of a MiniLM on TREC on 0 of 512 of the first and 6 of 500 of the second kind, and of
    mixtures on 6 of 500.
    """

    def joined(one: Any, other: Any) -> Any:
        if isinstance(one, tuple):
            return one[0], other[1]
        first, second = (item if isinstance(item, list) else item.split() for item in (one, other))
        words = [*first[: (len(first) + 1) // 2], *second[len(second) // 2 :]]
        return words if isinstance(one, list) else " ".join(words)

    return [joined(one, other) for one, other in zip(items, [*items[1:], *items[:1]], strict=True)]


def form_of(tier: TierSpec) -> str:
    """How a last tier was exported, in words: int8 or, where that changes too many answers, fp32 in part."""
    if not isinstance(tier, MultiExitSpec):
        return f"in {'fp32' if tier.precision == 'fp32' else 'int8'}"
    small, count = sum(stage.precision != "fp32" for stage in tier.stages), len(tier.stages)
    if small in (0, count):
        return f"packed in {'int8' if small else 'fp32'}"
    return f"packed, {small} of {count} stages in int8"


def check_fp32(share: float, largest: float) -> float:
    """What `compared` says of full depth in fp32: it answers as the original, or a `BundleError` says what differs."""
    if share < 1 or not largest <= TOLERANCE:
        raise BundleError(
            f"full depth in fp32 must answer as the original model within {TOLERANCE:g}, got the same answer for "
            f"{100 * share:.2f} % and a difference of {largest:.2g}; some part of it is not read as transformers does"
        )
    return share


def composed(folder: Path, exits: Bundle, first: Bundle | None) -> Bundle:
    """A bundle of the second tier of one and the first tier of another one, if any; both are of one checkpoint."""
    own = exits.manifest
    gone = set(own.tier1.graphs) - set(own.tier2.graphs)
    files: dict[str, bytes | Path] = {path: exits.path(path) for path in own.files if path not in gone}
    if first is None:
        return write_bundle(folder, files, replace(own, tiers=own.tiers[1:], policies=alone(own.policies)))
    other = first.manifest
    files |= {path: first.path(path) for path in other.tier1.graphs}
    temperatures = (other.policies.temperatures[0], own.policies.temperatures[1])
    policies, figures = replace(own.policies, temperatures=temperatures), {"tier1": other.figures.get("tier1")}
    tiers = (other.tier1, own.tier2)
    return write_bundle(folder, files, replace(own, tiers=tiers, policies=policies, figures={**own.figures, **figures}))


def alone(policies: Policies) -> Policies:
    """Those of the last tier, by itself."""
    return replace(policies, routers=(), blend=(), exits=policies.exits[-1:], temperatures=policies.temperatures[-1:])

"""The last steps: bundles of the trained tiers, the choice among them, its certificate, its report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cascade.bundle.certificate import Certificate, Data
from cascade.bundle.opening import Bundle
from cascade.bundle.writing import write_bundle
from cascade.calibration.certify.claims import Claim
from cascade.calibration.certify.outcomes import Certified, Outcome
from cascade.calibration.certify.procedure import Split
from cascade.calibration.certify.written import issue
from cascade.calibration.examples import copies_said
from cascade.core.confidence import answers as answers_of
from cascade.core.rows import IntArray
from cascade.core.statistics import speed_up
from cascade.pipelines.loading import load
from cascade.pipelines.profiling import profile_of
from cascade.policies.routing import DeferAll
from cascade.training.build.choosing import WITH_EXITS, Candidate, candidates, certified, fastest
from cascade.training.build.exporting import (
    CHECKED,
    Answered,
    alone,
    check_fp32,
    composed,
    export,
    form_of,
    full_depth,
    without_first,
)
from cascade.training.build.gaps import with_gaps
from cascade.training.build.looking import Checkpoint, Texts, picked
from cascade.training.build.measuring import in_turns, own_pipeline, seconds_of
from cascade.training.build.numbers import Within
from cascade.training.build.options import BuildOptions
from cascade.training.build.original import Original, read_whole
from cascade.training.build.report import SHOWN, Report, routes_of
from cascade.training.build.shares import Shares
from cascade.training.build.work import Making, Step
from cascade_export import ExportOptions, Int8

TIMED, LEAST = 500, 32  # texts that are timed, at most and at least
HARDER = 1500  # texts with gaps that choose, about; of sentences each once: settings are run on them, not replayed
PAGE = "report.html"


@dataclass(frozen=True, eq=False)
class Finish:
    """What the last steps need to know.

    `every`: all texts with the original's answers, each of which took `each` seconds; `output`: what the bundle will be
    called.
    """

    checkpoint: Checkpoint
    texts: Texts
    shares: Shares
    options: BuildOptions
    every: Answered
    each: float
    output: Path

    @property
    def claim(self) -> Claim:
        """What is to be certified."""
        claim = self.options.claim(tags=self.checkpoint.tags)
        if not self.checkpoint.regression:
            return claim
        return replace(claim, ask=Within(bound=self.options.bound, within=self.every.tolerance))

    def export(self, making: Making, tiers: Mapping[str, Path], learn: Sequence[Any]) -> Mapping[str, Any]:
        """A bundle for each second tier with a first tier; the first in fp32 too, to be compared and removed.

        Of a model without exits one for each first tier: that model behind it.
        """
        some, threads = self.every.select(self.shares.choose[:CHECKED]), self.options.threads
        firsts: list[str | None] = [name for name in tiers if name not in WITH_EXITS] or [None]
        seconds = [name for name in tiers if name in WITH_EXITS]
        kinds = {name: firsts[min(number, len(firsts) - 1)] for number, name in enumerate(seconds)}
        kinds = kinds or {name or "whole": name for name in firsts}
        found: dict[str, Any] = {"first_tiers": kinds}
        for number, (name, kind) in enumerate(kinds.items()):
            own = tiers[name] if name in seconds else self.checkpoint.source
            for folder in (making.folder / "fp32", making.folder / name):
                shutil.rmtree(folder, ignore_errors=True)
            if not number:
                fp32 = self._exported(making.folder / "fp32", own, tiers.get(kind or ""), learn, int8=False)
                found["fp32"] = check_fp32(fp32, some, threads=threads)
                shutil.rmtree(fp32.folder)
            made = self._exported(making.folder / name, own, tiers.get(kind or ""), learn)
            full = full_depth(made.folder, threads=threads)
            found.setdefault("int8", some.fitting(full).compared(full)[0])
            found.setdefault("form", form_of(full.bundle.manifest.tiers[-1]))
            making.progress((2 + number) / (1 + len(kinds)))
        return found

    def _exported(
        self, folder: Path, exits: str | Path, first: Path | None, learn: Sequence[Any], *, int8: bool = True
    ) -> Bundle:
        """In int8 a quarter of the bound may be spent, or layers stay fp32."""
        options = ExportOptions(
            int8=Int8.STATIC if int8 else Int8.NONE,
            agreement=1 - self.options.bound / 4,
            by_sentence=self.checkpoint.tags,
            max_length=self.checkpoint.limit,
            truncation=self.options.truncation,
            encode_special_tokens=self.checkpoint.encode_special_tokens,
            fp32=False,
        )
        return export(folder, exits, first, learn, options)

    def choose(self, making: Making, exported: Step, spent: Mapping[str, float]) -> Mapping[str, Any]:
        """The bundle: the cheapest pair, certified, with its report; or full depth alone."""
        begin = time.monotonic()
        kinds = exported.facts["first_tiers"]
        pipelines = {name: self._loaded(exported.folder / name) for name in kinds}
        own = next(iter(kinds))  # the model as it is
        some, seconds = self.every.select(self.shares.choose), 60 * making.minutes
        harder, truth = self._with_gaps(some)
        found = candidates(pipelines, harder, truth, self.claim, seconds=seconds / 3)
        making.progress(0.3)
        full = full_depth(exported.folder / own, threads=self.options.threads)
        best, timed = fastest(found, full, some.items, kinds=kinds, seconds=seconds / 6)
        making.progress(0.4)
        for name in ("pair", "single", "bundle"):  # of an interrupted step
            shutil.rmtree(making.folder / name, ignore_errors=True)
        outcome, pair = self._certified(making.folder, exported.folder, own, best)
        if best is not None and isinstance(outcome, Certified) and outcome.number:
            real = replace(best, pipeline=pair.with_policies(outcome.policies))
            # What is certified may be safer than what was timed.
            if fastest([real], full, some.items, kinds=kinds, seconds=seconds / 12)[0] is None:
                outcome, pair = self._certified(making.folder, exported.folder, own, None)
        making.progress(0.6)
        pipeline, certificate = self._kept(making.folder, pair, outcome)
        manifest, pays = pipeline.bundle.manifest, isinstance(outcome, Certified) and outcome.number > 0
        report = self._report(pipeline, outcome, full, exported.facts, pays=pays, seconds=seconds / 3)
        report = replace(report, steps={**spent, "choose": time.monotonic() - begin}, candidates=timed)
        files: dict[str, bytes | Path] = {path: pipeline.bundle.path(path) for path in manifest.files}
        made = replace(
            manifest,
            policies=pipeline.policies,
            certificate=certificate,
            figures={**manifest.figures, "build": report.figures()},
            profile=profile_of(pipeline, self.every.select(self.shares.certify).items),
        )
        write_bundle(making.folder / "bundle", {**files, PAGE: report.html().encode()}, made)
        for name in ("pair", "single"):
            shutil.rmtree(making.folder / name, ignore_errors=True)
        told = f"full depth, {report.form}"
        if best is not None and pays:
            told = best.named(kinds[best.first] if len(manifest.tiers) > 1 else None)
        return {"setting": told, "certified": isinstance(outcome, Certified), "line": report.line(), **report.figures()}

    def _with_gaps(self, some: Answered) -> tuple[Answered, Any]:
        """The items that choose, with words left out: what the original says of these, and the right answers."""
        copies = 1 if self.checkpoint.tags else max(round(HARDER / len(some.items)), 1)
        items, kept = with_gaps(some.items, copies=copies, seed=self.options.seed)
        truth: Any = self._truth(np.tile(self.shares.choose, copies))
        if isinstance(truth, list):
            truth = [own[here] for own, here in zip(truth, kept, strict=True)]
        harder = replace(some, items=items, logits=Original(self.checkpoint).record(items))
        whole = read_whole(self.checkpoint, items, harder.logits)
        return (harder, truth) if len(whole) == len(items) else (harder.select(whole), picked(truth, whole))

    def _certified(self, work: Path, exported: Path, own: str, best: Candidate | None) -> tuple[Outcome, Any]:
        """What is certified of the best pair of bundles, of the own one's full depth where nothing is, and its tiers.

        One sequence of tests, in an order that was fixed on other texts: the own full depth, then the path of the best.
        """
        found: tuple[Outcome, Any] | None = None
        if best is None or best.exits != own:
            found = self._tested(exported / own, ())
        if best is None or (found is not None and not isinstance(found[0], Certified)):
            assert found is not None  # noqa: S101  # tested above
            return found
        both = [exported / name for name in (best.exits, best.first)]
        shutil.rmtree(work / "pair", ignore_errors=True)
        folder = both[0] if both[0] == both[1] else composed(work / "pair", *both).folder
        cheaper = self._tested(folder, best.steps)
        better = isinstance(cheaper[0], Certified) and cheaper[0].number
        return cheaper if found is None or better else found

    def _tested(self, bundle: Path, steps: Sequence[Any]) -> tuple[Outcome, Any]:
        """What is certified of a bundle, and its pipeline."""
        pipeline, chosen = self._loaded(bundle), self.shares.choose
        count, testers = len(chosen), np.arange(len(self.shares.certify), dtype=np.int64)
        split = Split(np.empty(0, dtype=np.int64), testers, count / (count + len(testers)), count)
        some, truth = self.every.select(self.shares.certify), self._truth(self.shares.certify)
        return certified(pipeline, some, truth, self.claim, split, steps, seed=self.options.seed), pipeline

    def _kept(self, folder: Path, pipeline: Any, outcome: Outcome) -> tuple[Any, Certificate | None]:
        """What was certified, full depth where nothing was, without a first tier that is never asked."""
        certificate, policies = None, pipeline.policies.full_depth()
        if isinstance(outcome, Certified):
            choosing, testing = len(self.shares.choose), len(self.shares.certify)
            name, sha256 = self.texts.name, self.texts.digest
            data = Data(name=name, sha256=sha256, examples=choosing + testing, chosen_on=choosing)
            distinct = len(self.texts.items)
            said = copies_said(distinct + self.texts.copies, distinct, f"{self.claim.unit.value}s")
            told = replace(outcome, warnings=(*outcome.warnings, *said))
            certificate, policies = issue(pipeline, told, data), outcome.policies
        settings = (policies, *(certificate.safer if certificate is not None else ()))
        if policies.routers and all(isinstance(one.routers[0], DeferAll) for one in settings):
            single = without_first(folder / "single", pipeline.bundle, policies)
            pipeline, policies = self._loaded(single.folder), alone(policies)
            certificate = None if certificate is None else _alone(certificate, single)
        return pipeline.with_policies(policies), certificate

    def _report(
        self, pipeline: Any, outcome: Outcome, full: Any, exported: Mapping[str, Any], *, pays: bool, seconds: float
    ) -> Report:
        some, manifest = self.every.select(self.shares.certify), pipeline.bundle.manifest
        found = pipeline.predict(some.items)
        routes = getattr(found.routes, "words", found.routes)
        # The user's pipeline is tried in four ways before it is timed.
        timed = some.items[: min(TIMED, max(int(seconds / 10 / self.each), LEAST))]
        how, own = own_pipeline(self.checkpoint, timed)
        taken = in_turns(
            {"pipeline": own, "full depth": lambda: full.predict(timed), "bundle": lambda: pipeline.predict(timed)},
            seconds=seconds,
        )
        over = [speed_up(taken[name], taken["bundle"]) for name in ("pipeline", "full depth")]
        form = exported["form"]
        alike = {"full depth, fp32": exported["fp32"], f"full depth, {form}": exported["int8"]}
        same = some.alike(found.probabilities)
        return Report(
            name=str(self.output),
            source=str(self.checkpoint.source),
            outcome=outcome,
            pays=pays,
            form=form,
            pipeline=how,
            over_pipeline=over[0],
            over_full=over[1],
            seconds=seconds_of(taken, len(timed)),
            alike={**alike, "this bundle": float(same.mean())},
            routes=routes_of(routes.tier.tolist(), routes.exit_layer.tolist(), count=len(manifest.tiers)),
            differing=self._differing(some, found, routes, ~same),
            mebibytes=sum(record.bytes for record in manifest.files.values()) / 2**20,
            steps={},
            candidates={},
            notes=[f"{self.texts.copies:,} copies of other texts were left out"] * bool(self.texts.copies),
        )

    def _differing(self, some: Answered, found: Any, routes: Any, differs: Any) -> list[tuple[str, str, str, str]]:
        """The first units with another answer: text, original's, bundle's, where from."""
        labels, rows = np.array(self.checkpoint.labels, dtype=object), []
        numbers = self.checkpoint.regression
        several, wanted = self.checkpoint.multi_label, some.logits if numbers else some.answers
        answers = found.probabilities if numbers else answers_of(found.probabilities, multi_label=several)
        owners = np.arange(len(some.items))
        if self.checkpoint.tags:
            owners = np.repeat(owners, [len(item) for item in some.items])
        for unit in np.flatnonzero(differs)[:SHOWN].tolist():
            item = some.items[owners[unit]]
            both = (one[unit] for one in (wanted, answers))
            one, other = (f"{own[0]:.4g}" if numbers else _named(labels, own, several=several) for own in both)
            text = " | ".join(item) if isinstance(item, tuple) else item if isinstance(item, str) else " ".join(item)
            rows.append((text, one, other, f"tier {int(routes.tier[unit])}, layer {int(routes.exit_layer[unit])}"))
        return rows

    def _truth(self, numbers: IntArray) -> Any:
        return picked(self.texts.truth, numbers)

    def _loaded(self, folder: Path) -> Any:
        return load(folder, threads=self.options.threads, tuned=False)


def _alone(certificate: Certificate, bundle: Bundle) -> Certificate:
    """A certificate about the last tier, by itself, of a bundle that holds no other."""
    return replace(
        certificate,
        policies=alone(certificate.policies),
        safer=tuple(map(alone, certificate.safer)),
        models=bundle.manifest.models(),
    )


def _named(labels: Any, answer: IntArray, *, several: bool) -> str:
    return ", ".join(labels[np.flatnonzero(answer)]) if several else str(labels[int(answer[0])])

"""The whole journey from a fine-tuned checkpoint and texts to a bundle with a certificate and a report."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from cascade.bundle.opening import Bundle, open_bundle
from cascade.bundle.writing import copy_bundle
from cascade.core.files import check_new_folder, text_stream
from cascade.core.rows import FloatArray
from cascade.exceptions import CascadeError, OptionError
from cascade.runtime.host import cpu_info, multiplies_bf16
from cascade.runtime.threads import check_threads
from cascade.training.build import finishing
from cascade.training.build.looking import BuildOptions, Checkpoint, Texts, look, picked, read
from cascade.training.build.shares import LEARN, Answered, Given, Original, Shares
from cascade.training.build.work import Making, Step, Work
from cascade.training.loop import LoopOptions
from cascade.training.models.config import load_model
from cascade.training.models.students import Static, StaticTagger, Student, Transformer
from cascade.training.recipes.exits import ExitsOptions, train_exits
from cascade.training.recipes.first_tier import FirstTierOptions, train_first_tier
from cascade.training.recipes.objectives import OBJECTIVES
from cascade.training.run import Run
from cascade_export.checkpoints import load_tier
from cascade_export.tiers import export_tier1

CHUNK = 1024  # texts between looks at the clock
ROWS = 40_000  # to learn from, at most: the texts, and as many varied ones as are missing
PASS = 0.08  # of the time, for the original to read them once
EPOCHS = {"frozen": 60.0, "static": 30.0, "transformer": 30.0, "tuned": 5.0}
"""More than these teach nothing more."""
LOOPS: Mapping[str, Mapping[str, Any]] = {
    "frozen": {"learning_rate": 1e-4, "head_factor": 10.0},
    # A static tier's time goes into the table of embeddings, step by step, however few rows a step reads.
    "static": {"learning_rate": 2e-3, "batch_size": 256},
    "transformer": {"learning_rate": 5e-4, "batch_size": 64},
    "tuned": {"learning_rate": 3e-5, "head_factor": 10.0},
}
COPIES = 12  # of each, at most


@dataclass(frozen=True, eq=False)
class Built:
    """What a build made: the bundle, whether it is certified, the verdict in one line, figures of the report."""

    bundle: Bundle
    certified: bool
    line: str
    figures: Mapping[str, Any]


def build(
    model: str | Path,
    texts: Sequence[str | Path],
    output: str | Path,
    *,
    options: BuildOptions | None = None,
    tell: Callable[[str], object] = lambda _line: None,
    show_progress: bool = False,
) -> Built:
    """Make a bundle of a fine-tuned classifier or tagger.

    Full depth stays the original model, or learns from its answers; exits and first tiers are distilled from them. What
    is cheapest within the bound on texts that took no part is certified against the original model, and kept. Where
    nothing is cheaper than full depth the bundle is that alone.

    The work lies in a folder beside the output. Interrupted or killed at any moment, the same call goes on with it.

    Args:
        model: a folder or a Hub id, `...ForSequenceClassification` or `...ForTokenClassification`.
        texts: files (txt, jsonl, csv, parquet) of texts, pairs or sentences like those that will come; labels are not
            needed but for `max_drop`.
        output: folder to make; it is moved into place at the end.
        options: see there.
        tell: called with one line for each step.
        show_progress: draw one bar for the whole on standard error.

    Raises:
        OptionError, DataError: what cannot be built, before anything is written, in one line with its remedy.
        BundleError: the exported model does not answer as the original.
        OptionError: the disk is full; what is done is kept.
    """
    options, output = options or BuildOptions(), Path(output)
    check_new_folder(output, overwrite=options.overwrite)
    checkpoint = look(model, encode_special_tokens=options.encode_special_tokens)
    found = read(checkpoint, texts, options)
    claim = options.claim(tags=checkpoint.tags)
    drawn = Shares.of(found.items, claim, seed=options.seed)
    found = replace(found, items=picked(found.items, drawn.order), truth=picked(found.truth, drawn.order))
    testing, choosing = len(drawn.certify), len(drawn.choose)
    torch.set_num_threads(check_threads(options.threads))
    load_model(checkpoint.task.model.whole, checkpoint.source)  # or it is refused now, as one that torch cannot trace
    if checkpoint.alone is not None:
        export_tier1(load_tier(checkpoint.source, checkpoint.task), checkpoint.task, number=2)
    work = Work(output.with_name(f"{output.name}.build"), options.minutes, tell, show_progress)
    try:
        work.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"the output must be where folders can be, got {output}: {error.strerror}") from None
    pairs = any(isinstance(item, tuple) for item in found.items)
    tell(
        f"{'look':<12} {checkpoint.config.model_type} {checkpoint.task.name}, {len(checkpoint.labels)} labels; "
        f"{len(found.items):,} {'pairs' if pairs else f'{claim.unit.value}s'}, {len(drawn.learn):,} to learn "
        f"from, {choosing:,} choose, {testing:,} certify"
    )
    try:
        made = _Build(checkpoint, found, testing, choosing, options, work, output).run()
    except (CascadeError, OSError, RuntimeError, SafetensorError) as error:
        if not work.is_full(error):
            raise
        raise OptionError(
            f"the disk of {work.folder} must have room for the work, but it is full; make room, or choose an output "
            "elsewhere, and give the same command again"
        ) from None
    finally:
        work.close()
    if not options.keep:
        shutil.rmtree(work.folder, ignore_errors=True)
    return made


@dataclass(frozen=True, eq=False)
class _Build:
    """`texts`: first those that certify, `testing` of them, then those that choose, then the others."""

    checkpoint: Checkpoint
    texts: Texts
    testing: int
    choosing: int
    options: BuildOptions
    work: Work
    output: Path

    def run(self) -> Built:
        checkpoint, options, step, start = self.checkpoint, self.options, self.work.step, self.testing + self.choosing
        claim = options.claim(tags=checkpoint.tags)
        inputs: dict[str, Any] = {"model": checkpoint.digest, "texts": self.texts.digest}
        inputs |= {"columns": repr(options.columns), "minutes": options.minutes}
        inputs |= {"seed": options.seed, "certify": self.testing, "choose": self.choosing}
        original = step("original", inputs, self._original, told="{units:,} answers of the original model")
        logits, each, numbers = np.load(original.folder / "logits.npy"), original.facts["each"], np.arange(start)
        every = Answered.of(checkpoint, self.texts.items[: original.facts["items"]], logits, others=start)
        # The backbone runs over what is learned from about three times, each time for a part of the minutes.
        rows = max(min(ROWS, int(PASS * 60 * options.minutes / each)), LEARN)
        learn, file = list(every.items[start : start + rows]), self.work.folder / "learn.jsonl"
        write_texts(file, learn)
        trainer = partial(self._trained, file=file, items=len(learn), rows=rows)
        own = {"original": original.digest, "learn": len(learn), "rows": rows, "seed": options.seed}
        tiers = self._tiers(trainer, own)
        every = replace(every, truth=self.texts.truth)
        testers, choosers = (every.select(some).read_whole() for some in np.split(numbers, [self.testing]))
        given = Given(checkpoint, self.texts, options, choosers, testers, each, self.output)
        made, folders = [tier.digest for tier in tiers.values()], {name: tier.folder for name, tier in tiers.items()}
        exported = step(
            "export",
            own | {"tiers": made, "bound": options.bound, "truncation": options.truncation},
            lambda making: finishing.exported(given, making, folders, learn),
            told="as the original answer {fp32:.2%} in fp32, {int8:.2%} {form}",
        )
        seconds = {one.folder.name: one.facts["seconds"] for one in (original, *tiers.values(), exported)}
        chosen = step(
            "choose",
            {"exported": exported.digest, "claim": claim.to_json(), "name": str(self.output)},
            lambda making: finishing.chosen(given, making, exported, seconds),
            told="{setting}",
        )
        bundle = open_bundle(chosen.folder / "bundle")
        bundle = copy_bundle(bundle, self.output, policies=bundle.manifest.policies, overwrite=options.overwrite)
        return Built(bundle, chosen.facts["certified"], chosen.facts["line"], chosen.facts)

    def _original(self, making: Making) -> Mapping[str, Any]:
        """Answers for all that certify and choose, and for as many to learn from as the time allows."""
        model, begin, items = Original(self.checkpoint), time.monotonic(), self.texts.items
        needed = self.testing + self.choosing
        found, start = list[FloatArray](), 0
        for stop in dict.fromkeys((*range(needed, len(items), CHUNK), len(items))):
            found.append(model.record(items[start:stop]))
            start = stop
            making.progress(stop / len(items))
            if stop > needed + LEARN and time.monotonic() - begin > 60 * making.minutes:
                break
        logits = np.concatenate(found)
        np.save(making.folder / "logits.npy", logits)
        return {"units": len(logits), "items": start, "each": (time.monotonic() - begin) / start}

    def _tiers(self, trainer: Callable[..., Mapping[str, Any]], own: Mapping[str, Any]) -> dict[str, Step]:
        """What the model allows: second tiers with exits, first tiers for labels."""
        work, tiers = self.work, dict[str, Step]()
        teacher, inputs = self.checkpoint.source, {**own, "from": ""}
        if self.checkpoint.alone is not None:
            work.skip("frozen", self.checkpoint.alone)
            work.skip("tuned", "see above")
        else:
            told = "exits on your model as it is, {rows:,} texts"
            make = partial(trainer, kind="frozen", source=teacher)
            frozen = tiers["frozen"] = work.step("frozen", own, make, told=told)
            teacher, inputs = frozen.folder, {**own, "from": frozen.digest}
        for kind in ("static", "transformer"):
            if self.checkpoint.regression:
                work.skip(kind, "nothing says how sure a number is, so none can be handed on")
                continue
            make, told = partial(trainer, kind=kind, source=teacher), f"first tier, {kind}, {{rows:,}} texts"
            try:
                tiers[kind] = work.step(kind, {**inputs, "kind": kind}, make, told=told)
            except OptionError as error:
                if kind == "static":
                    raise
                work.skip(kind, str(error))
        if "frozen" in tiers:
            told = "exits that all layers learn with, {rows:,} texts"
            tiers["tuned"] = work.step("tuned", inputs, partial(trainer, kind="tuned", source=teacher), told=told)
        return tiers

    def _trained(
        self, making: Making, *, kind: str, source: str | Path, file: Path, items: int, rows: int
    ) -> Mapping[str, Any]:
        """Train a tier of a kind from a checkpoint, a first tier as its student, on `items` texts of a file.

        `rows`: to learn from, with those that are varied.

        `frozen`: exits on the backbone as it is: full depth stays the original model. Earlier exits of a classifier
        read the mean of their layer. Its first token gathers what it says late: of a MiniLM on TREC the exits after
        layers 1 to 5 answered 44, 55, 43, 92 and 99 % of new texts as the original by that token, and 84, 90, 95, 98
        and 99 % by the mean. `tuned`: all layers learn what the original answered: earlier exits become better, full
        depth changes a little. `static`, `transformer`: first tiers.
        """
        texts, how = not self.checkpoint.tags, dict(LOOPS[kind])
        if kind == "static" and not texts:
            how = {"learning_rate": 1e-3, "batch_size": 32}
        if kind == "tuned":
            how["bf16"] = multiplies_bf16(cpu_info("flags"))
        common: dict[str, Any] = {
            "copies": min(COPIES, max(rows // items - 1, 0)),  # alike: the teacher answers these rows once
            "max_length": self.checkpoint.limit,
            "loop": LoopOptions(
                epochs=EPOCHS[kind], seed=self.options.seed, resume=making.resume, minutes=making.minutes, **how
            ),
        }
        run = Run(
            source=source,
            train=[file],
            output=making.folder,
            task=self.checkpoint.task,
            overwrite=True,
            shared=self.work.folder / "teacher",
            progress=making.progress,
        )
        if kind == "frozen":
            pooling = "mean" if texts else None
            report = train_exits(run, ExitsOptions(OBJECTIVES["distil"], pooling=pooling, recorded=True, **common))
        elif kind == "tuned":
            report = train_exits(run, ExitsOptions(**common))
        else:
            # With its neighbours a token says more: of new texts of TREC 50 % are answered at a risk of 1 %, else 29 %.
            student: Student = Static(reach=1) if texts else StaticTagger()
            if kind == "transformer":
                student = Transformer(layers=2, width=max(self.checkpoint.config.hidden_size // 96 * 32, 32))
            report = train_first_tier(run, FirstTierOptions(student=student, imitation=1.0, **common))
        shutil.rmtree(run.folder, ignore_errors=True)
        return {"rows": report["rows"]}


def write_texts(file: Path, items: Sequence[Any]) -> None:
    """Texts, pairs or sentences as the trainings read them; without labels, so that the original's answers teach."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with text_stream(file) as stream:
        for item in items:
            record = {"tokens": item} if isinstance(item, list) else {"text": item}
            if isinstance(item, tuple):
                record = {"text": item[0], "text_pair": item[1]}
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")

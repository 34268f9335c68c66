"""One training from a checkpoint to a folder: what it reads, what teachers answer, what it keeps and leaves behind."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import set_seed
from transformers.utils.hub import cached_file

from cascade.core.files import staged, staged_folder
from cascade.core.rows import FloatArray
from cascade.exceptions import OptionError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.loading import load
from cascade.text.labelled import Columns
from cascade.training.checkpoint import byte_level_parts
from cascade.training.data import Examples, TrainingRows, has_labels, joined, read_file
from cascade.training.loop import LoopOptions
from cascade.training.models.teacher import Teacher
from cascade.training.task import CLASSIFICATION, Task
from cascade.training.units import device, teacher_logits

TOKENIZER_FILES = ("tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where a training begins and where it goes: what every recipe needs beside its own options.

    Attributes:
        source: the checkpoint that it begins from: a folder or a Hub id.
        train: files of rows to learn from; repeatable.
        extra_text: files of more text; labels are not read.
        evaluation: file of rows that choose the best epoch.
        output: folder for the trained model.
        task: what the model is trained for.
        columns: names of the files' columns.
        answers: bundle whose answers are learned, through the engine: any size, other pieces; of texts alone.
        overwrite: write into a folder that is not empty.
        shared: folder where runs share what teachers answered; the run's own by default.
        progress: called with the share of the training that is done, in place of bars and lines.
    """

    source: str | Path
    train: Sequence[str | Path]
    extra_text: Sequence[str | Path] = ()
    evaluation: str | Path | None = None
    output: Path
    task: Task = CLASSIFICATION
    columns: Columns | None = None
    answers: str | Path | None = None
    overwrite: bool = False
    shared: Path | None = None
    progress: Callable[[float], object] | None = field(default=None, repr=False)
    started: float = field(default_factory=time.monotonic, repr=False)

    @property
    def folder(self) -> Path:
        """For checkpoints, beside the finished model; not made yet."""
        return self.output / "run"

    def begin(self, loop: LoopOptions) -> None:
        """Claim the output folder and set the seed.

        Folders without files count as empty, so that a command that was refused can be corrected and given again. An
        `OptionError`: the folder holds something and neither `overwrite` nor `resume` was asked for.
        """
        if self.output.exists() and not self.output.is_dir():
            raise OptionError(f"--output must be a folder, got a file: {self.output}")
        if self.output.is_mount() or Path.cwd().is_relative_to(self.output.resolve()):
            told = f"got {self.output}, which is mounted or the current one; name a folder inside it"
            raise OptionError(f"--output must be a folder that a finished one can take the place of, {told}")
        if any(path.is_file() for path in self.output.rglob("*")) and not (self.overwrite or loop.resume):
            raise OptionError(f"--output must be empty, got {self.output}; --resume goes on, --overwrite starts again")
        if self.overwrite and not loop.resume:
            shutil.rmtree(self.folder, ignore_errors=True)
        if self.answers is not None and self.task is not CLASSIFICATION:
            raise OptionError(f"--answers must be left out of --task {self.task.name}, got {self.answers}")
        set_seed(loop.seed)

    def read(self, *, require_labels: bool = True, known: bool = False) -> tuple[list[Examples], Examples | None]:
        """The training examples, those of each file of `extra_text` without labels, and the evaluation examples.

        The latter need no labels where they are `known` to a model.
        """
        read = partial(read_file, words=self.task.tags, columns=self.columns)
        parts = [joined([read(path, require_labels=require_labels) for path in self.train])]
        parts += [replace(read(path, require_labels=False), labels=None) for path in self.extra_text]
        return parts, None if self.evaluation is None else read(self.evaluation, require_labels=not known)

    def tell(self, line: str) -> None:
        """Write a line, unless `progress` takes the place of all that is written."""
        if self.progress is None:
            tqdm.write(line)

    def said(self, model: Teacher, rows: TrainingRows, *, resume: bool, bf16: bool = False) -> FloatArray:
        """Full depth's logits for every unit, kept; with `bf16` multiplied in bfloat16. Shape `(units, labels)`."""
        digests = (rows.digest(), model.digest(), *(["bfloat16"] * bf16))
        quiet = None if self.progress is None else bool
        with torch.autocast(device().type, torch.bfloat16, enabled=bf16):
            return self.kept("teacher", digests, lambda: teacher_logits(model, rows, quiet), resume=resume)

    def kept(self, name: str, digests: Sequence[str], make: Callable[[], FloatArray], *, resume: bool) -> FloatArray:
        """An array that takes long to make, kept on disk so that a resumed run need not make it again.

        `digests` are of all that it is made from: what was made from anything else, or is cut, is not taken.
        """
        digest = hashlib.sha256("".join(digests).encode()).hexdigest()
        folder = self.shared or self.folder
        file = folder / f"{name}-{digest[:16]}.npy"
        if (resume or self.shared) and file.is_file():
            try:
                known: FloatArray = np.load(file)
            except (OSError, ValueError, EOFError) as error:
                tqdm.write(f"{file} is made again, because it cannot be read: {error}")
            else:
                return known
        made = make()
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"{name}-*.npy") if self.shared is None else ():
            old.unlink()
        with staged(file) as path, path.open("wb") as stream:
            np.save(stream, made)
        return made

    def finish(
        self, command: str, model: Any, tokenizer: str, options: Any, *, max_length: int, details: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Publish the trained model, the text of its `tokenizer.json`, and a report, which is returned too.

        The report tells the recipe's `options`, those of its loop, and `details`: `rows`, `scores`.
        """
        own = vars(options) | {"max_length": max_length}
        loop = own.pop("loop", None)
        if self.answers is not None:
            own["answers"] = Path(self.answers).name
        report = {
            "command": f"cascade-train {command}{f' --task {self.task.name}' if self.task.tags else ''}",
            "source": Path(self.source).name,
            "train": [Path(path).name for path in self.train],
            "evaluation": None if self.evaluation is None else Path(self.evaluation).name,
            "options": ({} if loop is None else asdict(loop)) | own,
            **details,
            "seconds": round(time.monotonic() - self.started, 1),
        }
        self.publish(model, tokenizer, report)
        return report

    def publish(self, model: Any, tokenizer: str, report: Mapping[str, Any]) -> None:
        """Write the finished model into a folder beside `output`, which then takes its place in one step.

        So `output` holds an old model or the new one, whenever a run is killed. What else is in it goes along. The
        small tokenizer files are those of `source`; `report` becomes `training.json`.
        """
        self.output.parent.mkdir(parents=True, exist_ok=True)
        with staged_folder(self.output) as part:
            model.save_pretrained(part)
            spec = json.loads(tokenizer)
            spec["truncation"] = spec["padding"] = None
            (part / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")
            for name in TOKENIZER_FILES:
                found = cached_file(self.source, name, _raise_exceptions_for_missing_entries=False)
                if found is not None:
                    shutil.copyfile(found, part / name)
            _agree(part / "tokenizer_config.json", spec)
            (part / "training.json").write_text(json.dumps(report, indent=2, default=repr) + "\n", encoding="utf-8")
            own = {*TOKENIZER_FILES, *(path.name for path in part.iterdir())}
            for other in [path for path in self.output.glob("*") if path.name not in own]:
                _link(other, part / other.name)


def _link(source: str | Path, target: str | Path) -> None:
    """The same file, or folder of files, under another name; a copy where the file system has no links."""
    if Path(source).is_dir():
        shutil.copytree(source, target, symlinks=True, copy_function=_link)
        return
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)


def _agree(config: Path, spec: Mapping[str, Any]) -> None:
    """Let `tokenizer_config.json` say what `tokenizer.json` says: transformers believes the former."""
    if not config.exists():
        return
    told = json.loads(config.read_text(encoding="utf-8"))
    if any(part["add_prefix_space"] for part in byte_level_parts(spec)) and told.get("add_prefix_space") is False:
        config.write_text(json.dumps(told | {"add_prefix_space": True}, indent=2) + "\n", encoding="utf-8")


PART = 8192  # texts that are answered, and kept, together: what an interrupted run may have to ask again


def full_depth(bundle: str | Path) -> Classifier:
    """A classifier's bundle, its last tier alone at full depth, on as many threads as torch has.

    An `OptionError`: a tagger's bundle, or that of a regression.
    """
    pipeline = load(bundle, threads=torch.get_num_threads(), tuned=False)
    if not isinstance(pipeline, Classifier) or pipeline.regression:
        raise OptionError(f"--answers must be a bundle that gives texts labels, got {bundle}, a {pipeline.task} bundle")
    return pipeline.with_policies(pipeline.policies.full_depth())


def answers_of(
    teacher: Classifier,
    files: Sequence[Examples],
    labels: Sequence[str],
    *,
    run: Run,
    resume: bool,
    labelled: bool = True,
) -> FloatArray:
    """The teacher's probabilities of these labels, in this order, for the items of all files. Shape `(items, labels)`.

    They are kept part by part, so that a resumed run goes on, and in the run's shared folder other runs take them.
    `labelled`: whether items with labels are asked too; zeros stand for them if not. An `OptionError`: the teacher has
    other labels.
    """
    if {*labels} != {*teacher.labels}:
        raise OptionError(f"--answers must have the labels {', '.join(labels)}, got {', '.join(teacher.labels)}")
    order = [teacher.labels.index(label) for label in labels]
    records = teacher.bundle.manifest.files
    digest = json.dumps({path: records[path].sha256 for path in sorted(records) if not path.endswith(".md")})
    asked = [labelled or file.labels is None for file in files]
    parts = [(number, start) for number, file in enumerate(files) for start in range(0, len(file), PART)]
    found = []
    for number, start in tqdm(parts, desc="answers", unit="part", disable=run.progress is not None):
        part = list(files[number].items[start : start + PART])
        if not asked[number]:
            found.append(np.zeros((len(part), len(labels)), np.float32))
            continue
        texts = hashlib.sha256(json.dumps(part).encode()).hexdigest()
        made = run.kept(f"answers-{texts[:16]}", (digest, texts), partial(_asked, teacher, part), resume=resume)
        found.append(made[:, order])
    return np.concatenate(found)


def _asked(teacher: Classifier, part: list[Any]) -> FloatArray:
    return teacher.predict(part).probabilities


def mixed(answers: FloatArray, labels: Any, share: float) -> Any:
    """Answers to learn from: `share` of each is the teacher's, the rest its label's; of rows without one all of it.

    Labels are numbers `(rows,)` or zeros and ones `(rows, labels)`, as `TrainingRows` has them. Shape `(rows, labels)`.
    """
    known = has_labels(labels)
    wanted = labels[known] if labels.ndim == 2 else np.eye(answers.shape[1], dtype=np.float32)[labels[known]]
    made = answers.copy()
    made[known] = share * made[known] + (1 - share) * wanted
    return made

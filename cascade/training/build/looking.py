"""What a user gives: options, checkpoint and texts. All that a build refuses is refused here, before it writes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils.hub import cached_file

from cascade.calibration.certify.claims import ORIGINAL, Agreement, Claim, MaxDrop, RiskTarget, Unit
from cascade.calibration.examples import distinct
from cascade.core.checks import check_inside
from cascade.core.files import sha256_of
from cascade.core.labels import as_array, label_numbers
from cascade.core.rows import IntArray
from cascade.exceptions import DataError, OptionError
from cascade.runtime.threads import check_threads
from cascade.text.labelled import Columns
from cascade.text.sources import check_there
from cascade.training.checkpoint import load_tokenizer_text, tokenizer_config
from cascade.training.data import joined, read_file
from cascade.training.models.config import (
    MULTI_LABEL,
    REGRESSION,
    adapted,
    has_head,
    inputs_of,
    load_config,
    named_labels,
    problem_of,
)
from cascade.training.models.families import family_of, max_length
from cascade.training.task import TAGGING, TASKS, Task

DISAGREEMENT = 0.02
IGNORED = {".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".ot"}
"""Suffixes of files that say nothing of a checkpoint with safetensors: states of its training, other forms."""


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Everything but the checkpoint, the texts and the output.

    Attributes:
        max_disagreement: share of texts, of a tagger sentences, that the bundle may answer differently from the
            original model; 0.02 if neither bound is given. Needs no labels.
        max_drop: accuracy that may be lost against the original model, instead; needs labels in all files.
        confidence: of the bound.
        minutes: how long it takes, about.
        threads: of torch and of the tiers; the CPUs allowed if left out.
        seed: of the training and of the shares.
        columns: of the files.
        truncation: whether the bundle reads the first tokens alone of a text that is too long, as transformers does; in
            windows if not.
        encode_special_tokens: read special tokens typed by users as text, in the original model too; see `Tokenizer`.
        keep: leave the work folder beside the output.
        overwrite: replace a bundle that is there.
    """

    max_disagreement: float | None = None
    max_drop: float | None = None
    confidence: float = 0.95
    minutes: float = 20.0
    threads: int | None = None
    seed: int = 1
    columns: Columns = field(default_factory=Columns)
    truncation: bool = False
    encode_special_tokens: bool = False
    keep: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.max_disagreement is not None and self.max_drop is not None:
            raise OptionError("max_disagreement and max_drop exclude each other, both were given; leave one out")
        if not self.minutes > 0:
            raise OptionError(f"minutes must be above 0, got {self.minutes}; 20 are usual")
        check_inside(
            "max_disagreement" if self.max_drop is None else "max_drop", self.bound, "0.02 is two in a hundred"
        )
        check_inside("confidence", self.confidence, "0.95 is usual")
        check_threads(self.threads)

    @property
    def bound(self) -> float:
        """The bound that was asked for, of either kind."""
        asked = self.max_disagreement if self.max_drop is None else self.max_drop
        return DISAGREEMENT if asked is None else asked

    def claim(self, *, tags: bool) -> Claim:
        """What is to be certified. `tags`: of a tagger."""
        ask: RiskTarget = Agreement(self.bound) if self.max_drop is None else MaxDrop(self.bound)
        unit = Unit.SENTENCE if tags else Unit.TEXT
        return Claim(ask, confidence=self.confidence, unit=unit, than=ORIGINAL)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A fine-tuned model.

    Attributes:
        source: a folder or a Hub id.
        config: its `config.json`.
        task: what it does.
        limit: tokens that it reads of a text, special ones included.
        digest: changes with its files.
        alone: why there can be no exits in it; None if there can.
        encode_special_tokens: its tokenizer reads special tokens that stand in a text as characters.
    """

    source: str | Path
    config: Any
    task: Task
    limit: int
    digest: str
    alone: str | None = None
    encode_special_tokens: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        """Their names, in the order of the logits."""
        return named_labels(self.config)

    @property
    def tags(self) -> bool:
        """Whether it tags words."""
        return self.task is TAGGING

    @property
    def multi_label(self) -> bool:
        """Whether labels are independent yes/no decisions."""
        return not self.tags and problem_of(self.config) == MULTI_LABEL

    @property
    def regression(self) -> bool:
        """Whether its answer is a number."""
        return not self.tags and problem_of(self.config) == REGRESSION


@dataclass(frozen=True, eq=False)
class Texts:
    """Distinct texts, pairs or sentences.

    Attributes:
        items: each once, in the order of the files.
        truth: numbers of the right labels, shape `(items,)`, or zeros and ones, shape `(items, labels)`; of a tagger an
            array per sentence; None without labels that are needed.
        copies: how many were left out.
        name: of the files.
        digest: of all of these.
    """

    items: Sequence[Any]
    truth: Any
    copies: int
    name: str
    digest: str


def look(source: str | Path, *, encode_special_tokens: bool = False) -> Checkpoint:
    """A checkpoint, by its `config.json` and its tokenizer; no weights are read.

    `encode_special_tokens`: special tokens are to be read as text, though its own tokenizer may not say so. An
    `OptionError`: it is none, has no head or no tokenizer that transformers reads, answers several numbers, or reads
    padding.
    """
    config = load_config(source)
    if getattr(config, "cascade_exits", None):
        raise OptionError(f"the model must be one of transformers, but {source} has exits already; use cascade-export")
    task = next((task for task in TASKS.values() if has_head(config, task.model.whole)), None)
    if task is None:
        raise OptionError(
            "the model must be fine-tuned for classification or tagging (...ForSequenceClassification, "
            f"...ForTokenClassification), got {', '.join(config.architectures or ['no architectures'])}; fine-tune it"
        )
    if problem_of(config) == REGRESSION and config.num_labels > 1:
        raise OptionError(f"a regression must have one output, got {config.num_labels}; fine-tune one for each number")
    alone = _why_alone(config, task)
    load_tokenizer_text(source, known=True)
    told = tokenizer_config(source)
    as_text = encode_special_tokens or bool(told.get("split_special_tokens"))
    digest, most = _digest(source) + " special tokens are text" * as_text, max_length(config)
    limit = min(int(told.get("model_max_length") or most), most)
    return Checkpoint(source, config, task, limit, digest, alone, as_text)


def read(checkpoint: Checkpoint, files: Sequence[str | Path], options: BuildOptions) -> Texts:
    """The texts of all files, each once.

    A `DataError`: a file is missing or malformed, or labels are needed and missing or unknown.
    """
    if not files:
        raise OptionError("texts must be one file at least, got none; give texts like those that will come")
    check_there(files)
    task, needed, several = checkpoint.task, options.max_drop is not None, checkpoint.multi_label
    if needed and checkpoint.regression:
        raise OptionError("max_drop must be of labels, got a regression; ask for max_disagreement")
    reading: dict[str, Any] = {"words": checkpoint.tags, "columns": options.columns, "require_labels": False}
    parts = [read_file(file, **reading) for file in files]
    found = joined(parts)
    truth: Any = None
    if needed:
        bare = next((part.source for part in parts if part.labels is None), None)
        if bare is not None:
            told = f"max_drop needs a label for every {task.item}, but {bare} has some without"
            raise DataError(f"{told}; label them, or ask for max_disagreement, which needs none")
        own = label_numbers(found.labels or (), checkpoint.labels, multi_label=several, source=found.source)
        truth = [np.array(one, np.int64) for one in own]
        if not checkpoint.tags:
            truth = as_array(truth, len(checkpoint.labels), multi_label=several, source=found.source)
    kept = distinct(found.items)
    items = picked(found.items, kept)
    names = [Path(file).name for file in files]
    name = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    digests = [sha256_of(file) for file in files]
    digest = hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest() if len(files) > 1 else digests[0]
    return Texts(items, picked(truth, kept), len(found) - len(items), name, digest)


def picked(values: Any, numbers: IntArray) -> Any:
    """Those of some items, of an array or a list; None of None."""
    if values is None or isinstance(values, np.ndarray):
        return None if values is None else values[numbers]
    return [values[number] for number in numbers.tolist()]


def _why_alone(config: Any, task: Task) -> str | None:
    """Why there can be no exits in a model: its family, or what its configuration says. None if there can.

    An `OptionError`: it cannot be a tier without exits either.
    """
    try:
        family_of(config)
    except OptionError as error:
        try:
            with torch.device("meta"):  # no weights
                made = task.model.whole.from_config(config)
        except ValueError:  # there is no such model of this family
            raise error from None
        inputs_of(made)
        return str(error).partition(";")[0]
    return None


def _digest(source: str | Path) -> str:
    """Of a folder's files, of an adapter its model's too; on the Hub of the commit, by which its cache has a folder."""
    folder = Path(source)
    if not folder.is_dir():
        return str(Path(cached_file(source, "config.json") or "").resolve().parent)
    files = sorted(file for file in folder.iterdir() if file.is_file())
    whole = any(file.suffix == ".safetensors" for file in files)
    kept = [f"{file.name} {sha256_of(file)}" for file in files if not (whole and file.suffix in IGNORED)]
    base = adapted(source)
    return hashlib.sha256("".join([*kept, *([] if base is None else [_digest(base)])]).encode()).hexdigest()

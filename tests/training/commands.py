"""Running `cascade-train` in this process, and tiny data for both tasks."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from cascade import Classifier
from cascade.bundle.manifest import Manifest
from cascade.policies.exits import never
from cascade.policies.routing import defer_all
from cascade.training.cli import main
from cascade.training.models.multi_exit import MultiExitModel, MultiExitTagger
from cascade.training.task import TASKS
from cascade_export import Calibration, ExportOptions, export_bundle
from tests.models import tiny

TEXTS = [
    {"text": f"{subject} {verb} {word}", "label": label}
    for subject in ("the film", "a story", "the plot", "it", "the actor", "the end")
    for verb in ("is", "was", "is very", "was never")
    for word, label in (("good", "positive"), ("bright", "positive"), ("bad", "negative"), ("dull", "negative"))
]
NOUNS, VERBS, OTHERS = ("film", "story", "plot", "actor"), ("is", "was", "laugh", "cry"), ("the", "a", "very", "not")
SENTENCES = [
    {"tokens": [first, noun, verb, last], "tags": ["X", "NOUN", "VERB", "X"]}
    for first in OTHERS[:2]
    for noun in NOUNS
    for verb in VERBS
    for last in OTHERS[2:]
]
SPANS = [
    {"tokens": [first, "good", noun, verb], "tags": ["O", "B-thing", "I-thing", "O"]}
    for first in OTHERS
    for noun in NOUNS
    for verb in VERBS
]


@dataclass(frozen=True, eq=False)
class Case:
    """A task with its data.

    Attributes:
        name: as `--task` takes it.
        rows: labelled records.
        item, label: their columns.
        labels: of `rows`.
        units: of `rows`.
    """

    name: str
    rows: Sequence[dict[str, Any]]
    item: str
    label: str
    labels: tuple[str, ...]
    units: int

    @property
    def model(self) -> type[MultiExitModel | MultiExitTagger]:
        return TASKS[self.name].model

    def bare(self) -> list[dict[str, Any]]:
        """The records without labels."""
        return [{self.item: row[self.item]} for row in self.rows]

    def teacher(
        self, folder: Path, family: str = "bert", *, layers: Sequence[int] | None = None
    ) -> MultiExitModel | MultiExitTagger:
        """A multi-exit model with random weights."""
        build = tiny.tier2 if self.name == "classification" else tiny.tagger
        made: MultiExitModel | MultiExitTagger = build(folder, family, layers=layers)
        return made


Trained = Callable[[Case], Path]
"""From a case to the folder of a second tier that was trained on its rows."""

CASES = [
    Case("classification", TEXTS, "text", "label", ("negative", "positive"), len(TEXTS)),
    Case("tagging", SENTENCES, "tokens", "tags", ("NOUN", "VERB", "X"), 4 * len(SENTENCES)),
]


@dataclass(frozen=True)
class Done:
    """How a command ended; `output` has both streams."""

    status: int
    output: str


def train(*arguments: object, ok: bool = False) -> Done:
    """Run `cascade-train`, with `ok` expecting it to succeed."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    status = end.value.code
    assert isinstance(status, int)
    done = Done(status, out.getvalue() + err.getvalue())
    assert not ok or status == 0, done.output
    return done


def refused(done: Done, message: str) -> None:
    """The command ended with this message in one line."""
    assert done.status == 2, done.output
    assert done.output.startswith("Error: ")
    assert message in done.output


def exits(case: Case, checkpoint: Path, rows: Path, output: Path, *more: object, ok: bool = False) -> Done:
    """`cascade-train exits` with options under which a tiny model learns."""
    return train(
        *("exits", checkpoint, "--task", case.name, "--train", rows, "--eval", rows, "--output", output),
        *("--epochs", 4, "--batch-size", 8, "--learning-rate", 1e-2, "--head-factor", 1, *more),
        ok=ok,
    )


def exported(folder: Path, texts: Sequence[Any]) -> tuple[Manifest, Classifier]:
    """The manifest and full depth of an fp32 bundle of a folder's `tier2` and `tier1`."""
    tier2, tier1, options = folder / "tier2", folder / "tier1", ExportOptions(int8=False)
    bundle = export_bundle(tier2, tier1, folder / "bundle", calibration=Calibration(texts), options=options)
    pipeline = Classifier.from_pretrained(bundle.folder, threads=1)
    return bundle.manifest, pipeline.with_router(defer_all).with_exit_policy(never)


def write(path: Path, records: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def report_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "training.json").read_text())
    return found


def fine_tuned(
    family: str,
    folder: Path,
    *,
    tagging: bool = False,
    labels: Sequence[str] | None = None,
    problem_type: str | None = None,
) -> Any:
    """A fine-tuned checkpoint of transformers in `folder`, with its tokenizer."""
    torch.manual_seed(5)
    config = tiny.named(tiny.config(family), labels or (tiny.TAGS if tagging else tiny.LABELS), problem_type)
    kind: Any = AutoModelForTokenClassification if tagging else AutoModelForSequenceClassification
    return tiny.kept(kind.from_config(config), folder)

"""Second tiers with exits in two ways, first tiers of two kinds; all learn from texts without labels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascade.core.files import text_stream
from cascade.runtime.host import cpu_info
from cascade.training.build.looking import BuildOptions, Checkpoint
from cascade.training.build.work import Making
from cascade.training.loop import LoopOptions
from cascade.training.models.students import Static, StaticTagger, Student, Transformer
from cascade.training.recipes.exits import ExitsOptions, train_exits
from cascade.training.recipes.first_tier import FirstTierOptions, train_first_tier
from cascade.training.recipes.objectives import OBJECTIVES
from cascade.training.run import Run
from cascade.training.task import CLASSIFICATION

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


@dataclass(frozen=True)
class Trainer:
    """Trains tiers from a checkpoint and a file of texts.

    Attributes:
        checkpoint: the original.
        texts: jsonl file to learn from, of so many `items`.
        rows: to learn from, with those that are varied.
        shared: folder for the teacher's answers, which several trainings need.
    """

    checkpoint: Checkpoint
    texts: Path
    items: int
    rows: int
    shared: Path
    options: BuildOptions

    def __call__(self, making: Making, *, kind: str, source: str | Path) -> Mapping[str, Any]:
        """Train a tier of a kind from a checkpoint, a first tier as its student.

        `frozen`: exits on the backbone as it is: full depth stays the original model. Earlier exits of a classifier
        read the mean of their layer. Its first token gathers what it says late: of a MiniLM on TREC the exits after
        layers 1 to 5 answered 44, 55, 43, 92 and 99 % of new texts as the original by that token, and 84, 90, 95, 98
        and 99 % by the mean. `tuned`: all layers learn what the original answered: earlier exits become better, full
        depth changes a little. `static`, `transformer`: first tiers.
        """
        texts, how = self.checkpoint.task is CLASSIFICATION, dict(LOOPS[kind])
        if kind == "static" and not texts:
            how = {"learning_rate": 1e-3, "batch_size": 32}
        if kind == "tuned":
            how["bf16"] = "amx_bf16" in cpu_info("flags").split()  # multiplies much faster than float32
        common: dict[str, Any] = {
            "copies": min(COPIES, max(self.rows // self.items - 1, 0)),  # alike: the teacher answers these rows once
            "max_length": self.checkpoint.limit,
            "loop": LoopOptions(
                epochs=EPOCHS[kind], seed=self.options.seed, resume=making.resume, minutes=making.minutes, **how
            ),
        }
        run = Run(
            source=source,
            train=[self.texts],
            output=making.folder,
            task=self.checkpoint.task,
            overwrite=True,
            shared=self.shared,
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

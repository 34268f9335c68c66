"""Second tiers with exits in two ways, first tiers of two kinds; all learn from texts without labels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
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

    def frozen(self, making: Making) -> Mapping[str, Any]:
        """Exits on the backbone as it is: full depth stays the original model.

        Earlier exits of a classifier read the mean of their layer. Its first token gathers what it says late: of a
        MiniLM on TREC the exits after layers 1 to 5 answered 44, 55, 43, 92 and 99 % of new texts as the original by
        that token, and 84, 90, 95, 98 and 99 % by the mean.
        """
        loop = self._loop(making, "frozen", learning_rate=1e-4, head_factor=10.0)
        options = ExitsOptions(
            objectives=OBJECTIVES["distil"],
            pooling="mean" if self._texts else None,
            recorded=True,
            copies=self._copies,
            max_length=self.checkpoint.limit,
            loop=loop,
        )
        return self._trained(train_exits, making, self.checkpoint.source, options)

    def tuned(self, making: Making, frozen: Path) -> Mapping[str, Any]:
        """All layers learn what the original answered: earlier exits become better, full depth changes a little."""
        loop = self._loop(making, "tuned", learning_rate=3e-5, head_factor=10.0, bf16=has_amx())
        options = ExitsOptions(copies=self._copies, max_length=self.checkpoint.limit, loop=loop)
        return self._trained(train_exits, making, frozen, options)

    def first(self, making: Making, kind: str, teacher: str | Path) -> Mapping[str, Any]:
        """A first tier of a kind, `static` or `transformer`, distilled from this checkpoint."""
        # A static tier's time goes into the table of embeddings, step by step, however few rows a step reads.
        rate, size = (5e-4, 64) if kind == "transformer" else (2e-3, 256) if self._texts else (1e-3, 32)
        loop = self._loop(making, kind, learning_rate=rate, batch_size=size, head_factor=1.0)
        options = FirstTierOptions(
            student=self._student(kind),
            imitation=1.0,
            copies=self._copies,
            max_length=self.checkpoint.limit,
            loop=loop,
        )
        return self._trained(train_first_tier, making, teacher, options)

    @property
    def _copies(self) -> int:
        """The same for all, so that the teacher answers its rows once."""
        return min(COPIES, max(self.rows // self.items - 1, 0))

    def _student(self, kind: str) -> Student:
        if kind == "transformer":
            return Transformer(layers=2, width=max(self.checkpoint.config.hidden_size // 96 * 32, 32))
        # With its neighbours a token says more: of new texts of TREC 50 % are answered at a risk of 1 %, else 29 %.
        return Static(reach=1) if self._texts else StaticTagger()

    @property
    def _texts(self) -> bool:
        return self.checkpoint.task is CLASSIFICATION

    def _loop(self, making: Making, name: str, **more: Any) -> LoopOptions:
        return LoopOptions(
            epochs=EPOCHS[name], seed=self.options.seed, resume=making.resume, minutes=making.minutes, **more
        )

    def _trained(
        self, train: Callable[[Run, Any], Mapping[str, Any]], making: Making, source: str | Path, options: Any
    ) -> Mapping[str, Any]:
        run = Run(
            source=source,
            train=[self.texts],
            output=making.folder,
            task=self.checkpoint.task,
            overwrite=True,
            shared=self.shared,
            progress=making.progress,
        )
        rows = train(run, options)["rows"]
        shutil.rmtree(run.folder, ignore_errors=True)
        return {"rows": rows}


def write_texts(file: Path, items: Sequence[Any]) -> None:
    """Texts, pairs or sentences as the trainings read them; without labels, so that the original's answers teach."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with text_stream(file) as stream:
        for item in items:
            record = {"tokens": item} if isinstance(item, list) else {"text": item}
            if isinstance(item, tuple):
                record = {"text": item[0], "text_pair": item[1]}
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")


def has_amx() -> bool:
    """Whether this CPU multiplies in bfloat16 much faster than in float32."""
    return "amx_bf16" in cpu_info("flags").split()

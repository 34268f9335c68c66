"""`cascade-train first-tier --task tagging`: a small tagger that imitates a second tier, word by word."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm
from transformers import EvalPrediction, set_seed

from cascade.training import checkpoint, tag_data
from cascade.training.augmentation import neighbours
from cascade.training.data import Rows
from cascade.training.loop import Loss, run_loop
from cascade.training.models.students import StaticTagger, TagStudent
from cascade.training.models.tagging import MultiExitTagger
from cascade.training.recipes.imitation import Imitation
from cascade.training.recipes.tag_exits import ENTITY_F1, entity_f1, require_seqeval
from cascade.training.recipes.word_pass import over_words, split_words
from cascade.training.tag_data import Sentences, TagColumns
from cascade.training.tag_encoding import NO_LABEL, PadTags, WordTokenizer, encode

__all__ = ["TagFirstTierOptions", "train_tag_first_tier"]


@dataclass(frozen=True, kw_only=True)
class TagFirstTierOptions(Imitation):
    """What a user chooses of a first tier for tagging. `student`: kind and size."""

    student: TagStudent = field(default_factory=StaticTagger)


def train_tag_first_tier(
    teacher: str | Path,
    *,
    train: Sequence[str | Path],
    evaluation: str | Path | None,
    output: str | Path,
    extra_text: Sequence[str | Path] = (),
    options: TagFirstTierOptions | None = None,
    columns: TagColumns | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Distil and write a first tier.

    Args:
        teacher: a folder that `cascade-train exits --task tagging` wrote.
        train: files of sentences or `datasets` names; those without tags teach by the teacher's answers.
        evaluation: a file of tagged sentences; entity F1 where the labels are those of spans, else accuracy, chooses
            the best epoch.
        output: folder to write.
        extra_text: files of sentences without tags, which the teacher tags.
        options: everything about the model and its training; `TagFirstTierOptions()` by default.
        columns: names of the files' columns.
        overwrite: write into a folder that is not empty.

    Returns:
        the report that also stands in `training.json`.
    """
    options = options or TagFirstTierOptions()
    started = time.monotonic()
    run_folder = checkpoint.claim(Path(output), overwrite=overwrite, resume=options.loop.resume)
    set_seed(options.loop.seed)
    tier2 = MultiExitTagger.from_pretrained(teacher)
    tokenizer = WordTokenizer(checkpoint.load_tokenizer_text(teacher))
    length = min(options.max_length, tier2.longest)

    def read(source: str | Path, tagged: bool, *, needed: bool = True) -> Rows:
        found = tag_data.read(source, columns=columns, require_tags=tagged and needed)
        if tagged and found.tags is None:
            tqdm.write(f"{source}: not every sentence has tags; what is learned is the teacher's answers alone")
        if not tagged:
            found = Sentences(words=found.words, tags=None, source=found.source)
        return encode(tokenizer, found, tier2.labels, max_length=length)

    parts = [read(source, True, needed=not options.imitation) for source in train]
    parts += [read(source, False) for source in extra_text]
    eval_rows = read(evaluation, True) if evaluation is not None else None
    student = options.student.build_tagger(tier2)
    rows = _with_teacher(tier2, parts, options, run_folder)
    student.get_input_embeddings().requires_grad_(not options.freeze_embeddings)
    padding = tier2.config.pad_token_id or 0
    spans = tag_data.has_entities(tier2.labels)
    scores = run_loop(
        student,
        train=rows,
        evaluation=eval_rows,
        loss=_loss(options),
        metrics=_metrics(tier2.labels),
        best=ENTITY_F1 if spans else "accuracy",
        output=run_folder,
        padding=padding,
        options=options.loop,
        is_head=lambda _name: False,
        collate=PadTags(padding),
        answers=lambda logits, _labels: logits.argmax(-1),
    )
    report = {
        "command": "cascade-train first-tier --task tagging",
        "teacher": Path(teacher).name,
        "train": [Path(path).name for path in train],
        "rows": len(rows),
        "evaluation": Path(evaluation).name if evaluation is not None else None,
        "student": repr(options.student),
        "options": options.reported | {"max_length": length},
        "scores": scores,
        "seconds": round(time.monotonic() - started, 1),
    }
    checkpoint.publish(
        Path(output), save=student.save_pretrained, tokenizer=tokenizer.text, source=teacher, report=report
    )
    return report


def _with_teacher(
    teacher: MultiExitTagger, parts: Sequence[Rows], options: TagFirstTierOptions, run_folder: Path
) -> Rows:
    """All rows, tagged and not, with the teacher's logits."""
    ids = [list(row) for part in parts for row in part.ids]
    labels = [row for part in parts for row in part.targets["labels"]]
    firsts = [row for part in parts for row in part.targets["firsts"]]
    if options.augmentation.copies:
        table: Any = teacher.backbone.get_input_embeddings()
        more = options.augmentation.in_place(
            ids,
            similar=neighbours(table.weight.detach().numpy()),
            rng=np.random.default_rng(options.loop.seed),
        )
        firsts = firsts * (options.augmentation.copies + 1)
        labels = labels + [np.full(len(row), NO_LABEL, dtype=np.int64) for row in more]
        ids = ids + more
    rows = Rows(ids=ids, targets={"labels": labels, "firsts": firsts})
    words = sum(int(row.sum()) for row in firsts)
    logits = options.answers(run_folder, words, lambda: over_words(teacher, rows, read=_last_exit))
    return Rows(ids=ids, targets=rows.targets | {"teacher": split_words(logits, rows)})


def _last_exit(logits: Tensor, _labels: Tensor) -> Tensor:
    return logits[:, -1]


def _loss(options: TagFirstTierOptions) -> Loss:
    def loss(logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        found, labels = logits[batch["firsts"]], batch["labels"][batch["firsts"]]
        known = labels != NO_LABEL

        def plain() -> Tensor | None:
            return F.cross_entropy(found[known], labels[known], reduction="sum") if bool(known.any()) else None

        return options.loss(found, batch.get("teacher"), plain)

    return loss


def _metrics(labels: Sequence[str]) -> Callable[[EvalPrediction], dict[str, float]]:
    spans = tag_data.has_entities(labels)
    if spans:
        require_seqeval()

    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        answers, wanted = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
        known = wanted != NO_LABEL
        found = {"accuracy": float((answers[known] == wanted[known]).mean())}
        return found | ({ENTITY_F1: entity_f1(answers, wanted, labels)} if spans else {})

    return metrics

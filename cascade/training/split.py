"""Holding out a share of a labelled file, of every label alike; of tagged sentences, any."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Hashable
from pathlib import Path

import numpy as np

from cascade.core.files import refuse_same_file, text_stream
from cascade.exceptions import OptionError
from cascade.text.reading import read_examples
from cascade.training.task import CLASSIFICATION, TAGGING, Task


def hold_out(
    file: Path, *, share: float, kept: Path, held_out: Path, seed: int = 1, task: Task = CLASSIFICATION
) -> tuple[int, int]:
    """Write two jsonl files from one: the rows that stay, and a stratified share of the others; the number in each.

    `file`: jsonl, csv or parquet with a label (or tokens and tags) in every row, whose order is kept. `share`: of each
    label's rows that is held out, in (0, 1), rounded down; tagged sentences have no label to be stratified by.
    """
    if not 0 < share < 1:
        raise OptionError(f"--share must be in (0, 1), got {share}")
    tokens, label = ("tokens", "tags") if task is TAGGING else (None, "label")
    examples = [*read_examples(file, tokens_column=tokens, label_column=label, require_label=True, all_columns=True)]
    by_label: dict[Hashable, list[int]] = defaultdict(list)
    for row, example in enumerate(examples):
        by_label[None if task is TAGGING else example.label].append(row)
    rng = np.random.default_rng(seed)
    out = {
        row for rows in by_label.values() for row in rng.permutation(np.array(rows))[: int(len(rows) * share)].tolist()
    }
    for path, chosen in ((kept, False), (held_out, True)):
        path.parent.mkdir(parents=True, exist_ok=True)
        refuse_same_file(path, [file, *([kept] if chosen else [])])
        with text_stream(path) as stream:
            for row, example in enumerate(examples):
                if (row in out) == chosen:
                    stream.write(json.dumps(example.record, ensure_ascii=False) + "\n")
    return len(examples) - len(out), len(out)

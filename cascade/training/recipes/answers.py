"""What a bundle answers, through the engine: targets from a teacher that torch would take several times as long for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from cascade.core.rows import FloatArray
from cascade.exceptions import OptionError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.loading import load
from cascade.training.data.encoding import has_labels
from cascade.training.data.examples import Examples
from cascade.training.run import Run

PART = 8192  # texts that are answered, and kept, together: what an interrupted run may have to ask again


def full_depth(bundle: str | Path) -> Classifier:
    """A classifier's bundle, its last tier alone at full depth, on as many threads as torch has.

    Raises:
        OptionError: a tagger's bundle, or that of a regression.
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
    `labelled`: whether items with labels are asked too; zeros stand for them if not.

    Raises:
        OptionError: the teacher has other labels.
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

"""One second tier in every numeric form: its seconds, its answers, and whether these depend on batch mates.

The forms are made of the checkpoint that the bundle was made of; everything else is the bundle's. All run at full
depth. Besides time and accuracy each form says:

    agreement    share of answers that are those of fp32
    difference   how far a probability moves at most when the same rows run in other batches (`BATCHINGS`)
    changed      share of answers that are not the same in all of these batches

A form is batch-invariant if no answer changes and the difference is rounding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import numpy as np

from cascade.bundle.manifest import TAGGING
from cascade.bundle.opening import Bundle
from cascade.core.rows import FloatArray
from cascade.exceptions import OptionError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.policies.batching import BatchingPolicy, FixedSize, SortedByLength
from cascade.policies.exits import never
from cascade.policies.routing import defer_all
from cascade_bench import contenders, taggers
from cascade_bench.contenders import FULL, Contender
from cascade_bench.data import Labelled
from cascade_bench.table import Row, Table, measure
from cascade_bench.tag_data import Tagged

__all__ = ["BATCHINGS", "FORMS", "SHIPPED", "Line", "Precisions", "Stability", "compare", "load", "stability"]

SHIPPED = "shipped"
FORMS = {
    "fp32": "fp32",
    "dynamic": "int8, dynamic",
    "static": "int8, static",
    "smoothed": "int8, static, smoothed",
    "percentile": "int8, static, percentile",
    "rows": "int8, a scale per row",
    SHIPPED: "as shipped",
}
"""What readers call the forms."""
BATCHINGS: Mapping[str, BatchingPolicy] = {
    "8 in caller order": FixedSize(8),
    "64 in caller order": FixedSize(64),
    "64 sorted by length": SortedByLength(64),
}
"""Batches in which a row has other mates each time, and other padding inside attention."""

Face: TypeAlias = Classifier | Tagger
Examples: TypeAlias = Labelled | Tagged


@dataclass(frozen=True)
class Stability:
    """How far answers depend on batches.

    Attributes:
        difference: largest one of a probability between two of the batchings.
        changed: share of texts (or words) whose answer is not the same in all of them.
        accuracy: of each batching, by its name.
    """

    difference: float
    changed: float
    accuracy: Mapping[str, float]


@dataclass(frozen=True)
class Line:
    """A form.

    Attributes:
        form: a key of `FORMS`.
        row: seconds and accuracy; `over_full` is over fp32.
        agreement: share of texts (or words) with the answer of fp32.
        stability: how far answers depend on batches.
        stages: the precision of each, as the bundle says.
        mebibytes: of tier 2's files.
    """

    form: str
    row: Row
    agreement: float
    stability: Stability
    stages: tuple[str, ...]
    mebibytes: float


@dataclass(frozen=True)
class Precisions:
    """What was measured: a line per form, fp32 first, and the table that their seconds come from."""

    lines: tuple[Line, ...]
    table: Table


def load(folder: str | Path, *, tagging: bool, threads: int) -> Face:
    """A bundle whose second tier answers everything at full depth."""
    if tagging:
        return Tagger.from_pretrained(folder, threads=threads).with_router(defer_all).with_exit_policy(never)
    return Classifier.from_pretrained(folder, threads=threads).with_router(defer_all).with_exit_policy(never)


def compare(
    faces: Mapping[str, Face],
    data: Examples,
    *,
    repeats: int = 7,
    progress: Callable[[str], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Precisions:
    """Run every form on the same data: in several batchings for its answers, in turns for its seconds.

    Args:
        faces: by form, as `load` gives them, `fp32` first.
        data: what they answer, tokenisation included.
        repeats: turns of each, but for slow ones.
        progress: called before each pass with the form.
        clock: gives seconds.

    Raises:
        OptionError: the first form is not fp32.
    """
    if next(iter(faces), None) != "fp32":
        raise OptionError(f"the first form must be fp32, were: {list(faces)}; put it first")
    say = progress or (lambda _name: None)
    answers: dict[str, list[Any]] = {}
    found: dict[str, Stability] = {}
    for form, face in faces.items():
        say(f"other batches: {FORMS[form]}")
        answers[form] = _flat(face, _answered(face, data)[0])
        found[form] = stability(face, data)
    who = [Contender(_key(form), FORMS[form], _runner(face)) for form, face in faces.items()]
    table = measure(who, data, repeats=repeats, progress=progress, clock=clock)
    lines = [
        Line(
            form=form,
            row=table.row(_key(form)),
            agreement=_share_equal(answers[form], answers["fp32"]),
            stability=found[form],
            stages=tuple(stage.precision for stage in face.bundle.manifest.tier2.stages),
            mebibytes=_mebibytes(face.bundle),
        )
        for form, face in faces.items()
    ]
    return Precisions(tuple(lines), table)


def stability(face: Face, data: Examples, batchings: Mapping[str, BatchingPolicy] = BATCHINGS) -> Stability:
    """How far a form's answers depend on the batches in which rows run.

    Args:
        face: at full depth.
        data: what it answers.
        batchings: at least one, by name.
    """
    runs = {name: _answered(face.with_batching(batching), data) for name, batching in batchings.items()}
    every = np.stack([probabilities for _, probabilities in runs.values()])
    first, *others = (_flat(face, answers) for answers, _ in runs.values())
    same = [all(answer == other for other in more) for answer, *more in zip(first, *others, strict=True)]
    return Stability(
        difference=float(np.ptp(every, axis=0).max()),
        changed=1 - sum(same) / len(same),
        accuracy={name: data.right(answers) / len(data) for name, (answers, _) in runs.items()},
    )


def _answered(face: Face, data: Examples) -> tuple[Any, FloatArray]:
    """Labels, or lists of tags, and probabilities of shape `(texts or words, labels)`."""
    if isinstance(face, Tagger):
        tagged = face.predict(data.inputs)
        return tagged.tags, tagged.probabilities
    made = face.predict(data.inputs)
    return made.labels, made.probabilities


def _flat(face: Face, answers: Any) -> list[Any]:
    return list(chain.from_iterable(answers)) if face.bundle.manifest.task == TAGGING else list(answers)


def _share_equal(answers: Sequence[Any], others: Sequence[Any]) -> float:
    equal = [bool(one == other) for one, other in zip(answers, others, strict=True)]
    return sum(equal) / len(equal)


def _runner(face: Face) -> Callable[[Sequence[Any]], contenders.Answered]:
    return taggers.runner(face) if isinstance(face, Tagger) else contenders.runner(face)


def _key(form: str) -> str:
    """What the table calls a form: its base must have the key of tier 2 at full depth."""
    return FULL if form == "fp32" else form


def _mebibytes(bundle: Bundle) -> float:
    """Of the files in the folder of tier 2's graphs."""
    folder = PurePosixPath(bundle.manifest.tier2.embed).parent
    files = bundle.manifest.files.items()
    return sum(record.bytes for path, record in files if PurePosixPath(path).parent == folder) / 2**20

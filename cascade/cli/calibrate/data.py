"""The examples of `cascade calibrate`: read, checked against a bundle's labels, and doubts about them in words.

A certificate assumes examples that the models have not seen: files that the bundle knows are told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cascade.bundle.manifest import Manifest
from cascade.core.labels import as_array, label_numbers
from cascade.exceptions import DataError
from cascade.monitoring.shift import MEANING, ShiftDetector
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.profiling import features
from cascade.pipelines.tagger import Tagger
from cascade.text.labelled import Columns, read_labelled

LOOKED_AT = 1000  # examples, for their kind


def examples_of(
    file: Path, columns: Columns, *, words: bool, labels: Sequence[str], multi_label: bool
) -> tuple[list[Any], Any]:
    """The items of a file, and their truth: `None` where no example has any.

    That is the number of each text's label, or zeros and ones for independent labels; of a tagger the tags of each
    sentence. `labels`: the bundle's; `multi_label`: a text may have any number of them. A `DataError`: a line that
    cannot be read, some labelled and some not, or a label that the bundle lacks.
    """
    read = read_labelled(file, words=words, columns=columns)
    items, given = [one.item for one in read], [one.label for one in read if one.label is not None]
    if 0 < len(given) < len(read):
        line = next(one.line for one in read if one.label is None)
        what, remedy = ("sentence must have tags", "tag them") if words else ("text must have a label", "label them")
        remedy = "write [], or in a csv give --label-separator, where none applies" if multi_label else remedy
        told = f"{file}, line {line}: every {what}, or none, got {len(read) - len(given)} of {len(read)} without"
        raise DataError(f"{told}; {remedy}, or take them out")
    if words or not given:
        return items, [list(own) for own in given] or None
    lines = [one.line for one in read]
    numbers = label_numbers(given, labels, multi_label=multi_label, source=file, lines=lines)
    several = multi_label or len(labels) == 1
    return items, as_array(numbers, len(labels), multi_label=several, source=file, lines=lines)


def known_files(manifest: Manifest, *, name: str, sha256: str, counted: bool) -> tuple[str, ...]:
    """Doubts, where a bundle's figures or certificate say that it has seen a file, by hash or else by name.

    `counted`: what was asked of its examples before is paid for.
    """
    if not counted and manifest.certificate is not None and manifest.certificate.data.sha256 == sha256:
        again = "a claim that is asked for more than once is false more often than the confidence says"
        return (f"these examples certified this bundle before: {again}",)
    figures = json.dumps(manifest.figures, ensure_ascii=False)
    if sha256 in figures:
        return ("the bundle was made with these very examples, so they tell less than unseen ones",)
    if re.search(f'["/]{re.escape(json.dumps(name, ensure_ascii=False)[1:])}', figures):
        unknown = "no hash is kept, so nobody can tell whether it is this one"
        return (f"the bundle was made with a file of the same name; {unknown}",)
    return ()


def of_another_kind(pipeline: Classifier | Tagger, items: Sequence[Any]) -> tuple[str, ...]:
    """A doubt, where examples are shown to differ from those of the bundle's profile.

    A thousand are looked at, in an order of their own: files may be sorted.
    """
    profile = pipeline.bundle.manifest.profile
    if profile is None:
        return ()
    random = np.random.default_rng(0)
    some = [items[number] for number in random.permutation(len(items))[:LOOKED_AT].tolist()]
    values = features(pipeline, some, np.zeros(len(some)), profile.slots, random)
    found = ShiftDetector(profile=profile.of_texts()).after(values)
    if found.alarm_at is None:
        return ()
    kind = "these examples are of another kind than those of the bundle's profile"
    return (f"{kind}, most of all by {MEANING[str(found.feature)]}",)

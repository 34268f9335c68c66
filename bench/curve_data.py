"""What a curve is drawn on: a file with labels, or without, whose faults are said in the report and not fatal.

Lines whose labels the bundle does not know are left out; a file without labels is answered by tier 2 at full depth, so
that accuracy becomes agreement with it.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cascade.exceptions import DataError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.policies.exits import never
from cascade.policies.routing import defer_all
from cascade.text.reading import Example, read_examples
from cascade_bench.data import Columns, Labelled
from cascade_bench.tag_data import TagColumns, Tagged

__all__ = ["Given", "read_for_curve"]

FEWEST = 30  # rows below which no interval of an accuracy is of use
SHOWN = 3  # unknown labels that a note names


@dataclass(frozen=True, eq=False)
class Given:
    """A file, as far as it can be used.

    Attributes:
        data: what is answered, and what is right about it.
        labelled: the file says what is right; otherwise tier 2 at full depth did.
        notes: what readers of the figures have to know.
        sha256: of the file that was read; `None` of a stream.
    """

    data: Labelled | Tagged
    labelled: bool
    notes: tuple[str, ...]
    sha256: str | None

    @property
    def metric(self) -> str:
        """What right answers are called."""
        return "accuracy" if self.labelled else "agreement"


def read_for_curve(file: str, model: Classifier | Tagger, *, columns: Columns, tag_columns: TagColumns) -> Given:
    """Read a file for a bundle.

    Args:
        file: its path.
        model: whose labels count; it answers where there are none.
        columns: of a classifier's file.
        tag_columns: of a tagger's.

    Raises:
        DataError: no file, an empty one, or a line without a text (or words).
    """
    before = _digest(file)
    tagging = isinstance(model, Tagger)
    read = list(
        read_examples(
            file,
            text_column=columns.text,
            pair_column=columns.pair,
            tokens_column=tag_columns.tokens if tagging else None,
            label_column=tag_columns.tags if tagging else columns.label,
        )
    )
    notes = [] if _digest(file) == before else [f"{Path(file).name} changed while it was read: measure it again."]
    examples = [example for example in read if example.tokens != []]
    if not examples:
        raise DataError(f"{file} must hold at least one word, but it holds none; check the file")
    several = isinstance(model, Classifier) and model.multi_label
    used = [example for example in examples if _usable(example, model.labels, several=several)]
    labelled = bool(used)
    if labelled:
        notes += _left_out(examples, used, model.labels)
        notes += _one_class(used)
    else:
        notes += _no_labels(examples, model.labels)
        used = examples
    if len(used) < FEWEST:
        width = 196 * math.sqrt(0.9 * 0.1 / max(len(used), 1))
        notes.append(
            f"Only {len(used)} rows: an accuracy of 90 % would be known to ± {width:.0f} points, too wide to tell "
            f"settings apart; give at least {FEWEST}, better some hundreds."
        )
    return Given(_data(used, model, labelled=labelled), labelled, tuple(notes), before)


def _labels(example: Example) -> tuple[str, ...] | None:
    return (example.label,) if isinstance(example.label, str) else example.label


def _usable(example: Example, known: Sequence[str], *, several: bool) -> bool:
    own = _labels(example)
    if own is None or not set(own) <= set(known):
        return False
    return several or len(own) == (1 if example.tokens is None else len(example.tokens))


def _data(used: Sequence[Example], model: Classifier | Tagger, *, labelled: bool) -> Labelled | Tagged:
    found = [_labels(example) or () for example in used]
    if isinstance(model, Tagger):
        sentences = [example.tokens or [] for example in used]
        full = model.with_router(defer_all).with_exit_policy(never)
        tags = [list(own) for own in found] if labelled else full.predict(sentences).tags
        return Tagged.of(sentences, tags, model.labels)
    texts = [example.text for example in used if example.text is not None]
    if not labelled:
        answers = model.with_router(defer_all).with_exit_policy(never).predict(texts).labels
        found = [(answer,) if isinstance(answer, str) else answer for answer in answers]
    return Labelled.of(texts, found, model.labels, multi_label=model.multi_label)


def _left_out(examples: Sequence[Example], used: Sequence[Example], known: Sequence[str]) -> list[str]:
    count = len(examples) - len(used)
    if not count:
        return []
    strange = _unknown(examples, known)
    why = f"labels that the bundle does not know ({strange})" if strange else "no label, or too few or too many"
    return [f"{count} of {len(examples)} rows are left out: {why}. The figures say nothing about them."]


def _no_labels(examples: Sequence[Example], known: Sequence[str]) -> list[str]:
    strange = _unknown(examples, known)
    why = f"No row has a label that the bundle knows ({strange})" if strange else "The file has no labels"
    return [f"{why}: agreement with tier 2 at full depth is reported, not accuracy."]


def _one_class(used: Sequence[Example]) -> list[str]:
    words = used[0].tokens is not None
    labels = [_labels(example) or () for example in used]
    there = {(name,) for own in labels for name in own} if words else set(labels)
    if len(there) > 1:
        return []
    name = ", ".join(next(iter(there))) or "none"
    return [f"Every {'word' if words else 'row'} is labelled {name}: whoever always says so is right on 100 %."]


def _unknown(examples: Iterable[Example], known: Sequence[str]) -> str:
    counts = Counter(name for example in examples for name in _labels(example) or () if name not in known)
    names = ", ".join(repr(name) for name, _ in counts.most_common(SHOWN))
    return names + (", ..." if len(counts) > SHOWN else "")


def _digest(file: str) -> str | None:
    path = Path(file)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None

"""Files of texts or sentences, and what is right about them. Faults of a file are notes of the report.

Lines whose labels the bundle does not know are left out; a file without labels is answered by tier 2 at full depth, so
that accuracy becomes agreement with it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from cascade.core.labels import own_names
from cascade.exceptions import DataError, OptionError
from cascade.pipelines.tagger import Tagger
from cascade.text.entity_f1 import entity_f1, has_entities
from cascade.text.labelled import Columns
from cascade.text.reading import read_examples
from cascade_bench.systems.local import Model, answered, whole

FEWEST = 30  # rows below which no interval of an accuracy is of use
SHOWN = 3  # unknown labels that a note names


@dataclass(frozen=True, eq=False)
class Data:
    """A file, as far as it can be used.

    Attributes:
        items, right: texts, pairs or lists of words, and what is right in the form of the answers.
        words: items are sentences, and each word has an answer.
        bio: the tags are BIO or the like, so that entities can be counted.
        labelled: the file says what is right; otherwise tier 2 at full depth did.
        notes: what readers of the figures have to know.
    """

    items: Sequence[Any]
    right: Sequence[Any]
    words: bool = False
    bio: bool = False
    labelled: bool = True
    notes: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """What is counted."""
        return "words" if self.words else "texts"

    @property
    def metric(self) -> str:
        """What right answers are called."""
        return "accuracy" if self.labelled else "agreement"

    def __len__(self) -> int:
        return sum(map(len, self.items)) if self.words else len(self.items)

    def accuracy(self, answers: Sequence[Any]) -> float:
        """Share of these answers that are right."""
        return self.agreement(answers, self.right)

    def agreement(self, answers: Sequence[Any], others: Sequence[Any]) -> float:
        """Share of units with the same answer in both."""
        return sum(self.same(answers, others)) / len(self)

    def same(self, answers: Sequence[Any], others: Sequence[Any]) -> list[bool]:
        """Whether each unit has the same answer in both."""
        one, two = (chain.from_iterable(some) if self.words else some for some in (answers, others))
        return [bool(a == b) for a, b in zip(one, two, strict=True)]

    def unlike(self, answers: Sequence[Any], others: Sequence[Any]) -> float:
        """Share of items (a sentence is one) with another answer."""
        pairs = zip(answers, others, strict=True)
        return sum(bool(one != two) for one, two in pairs) / len(self.items)

    def f1(self, answers: Sequence[Any]) -> float | None:
        """F1 of whole entities, all types together; `None` where tags are not BIO or the like."""
        return entity_f1(self.right, answers) if self.bio else None


def read_data(file: str, model: Model, *, columns: Columns | None = None) -> Data:
    """Read a file for a bundle, which answers where there are no labels.

    No file, an empty one, or a line without a text (or words) is a `DataError`.
    """
    if model.regression:
        raise OptionError("accuracy must be of labels, got a regression; compare its numbers yourself")
    words, several = isinstance(model, Tagger), model.multi_label
    examples = read_examples(file, **(columns or Columns()).of(words=words))
    read = [example for example in examples if example.tokens != []]
    if not read:
        raise DataError(f"{file} must hold at least one word, but it holds none; check the file")
    items = [example.item for example in read]
    given = own_names([example.label for example in read], model.labels, multi_label=several)
    labels = [(own,) if isinstance(own, str) else own for own in given]
    used = [
        (item, own)
        for item, own in zip(items, labels, strict=True)
        if own is not None and set(own) <= set(model.labels) and (several or len(own) == (len(item) if words else 1))
    ]
    notes = _notes(labels, [own for _, own in used], model.labels, words=words)
    items = [item for item, _ in used] or items
    if len(items) < FEWEST:
        width = 196 * math.sqrt(0.9 * 0.1 / len(items))
        notes.append(
            f"Only {len(items)} rows: an accuracy of 90 % would be known to ± {width:.0f} points, too wide to tell "
            f"settings apart; give at least {FEWEST}, better some hundreds."
        )
    right = [_right(own, model.labels, words=words, several=several) for _, own in used]
    right = right or list(answered(whole(model), items).labels)
    return Data(items, right, words, words and has_entities(model.labels), bool(used), tuple(notes))


def read_items(file: str, *, words: bool = False) -> list[Any]:
    """The texts (or sentences) of a file, its labels left alone; see `read_data`."""
    return [one.item for one in read_examples(file, **Columns().of(words=words) | {"label_column": None})]


def _right(own: Sequence[str], names: Sequence[str], *, words: bool, several: bool) -> Any:
    """In the form of an answer."""
    if words:
        return list(own)
    return tuple(name for name in names if name in own) if several else own[0]


def _notes(
    labels: Sequence[Sequence[str] | None], used: Sequence[Sequence[str]], known: Sequence[str], *, words: bool
) -> list[str]:
    """What is wrong with the labels, of which some are used."""
    counts = Counter(name for own in labels for name in own or () if name not in known)
    strange = ", ".join(repr(name) for name, _ in counts.most_common(SHOWN)) + ", ..." * (len(counts) > SHOWN)
    if not used:
        why = f"No row has a label that the bundle knows ({strange})" if strange else "The file has no labels"
        return [f"{why}: agreement with tier 2 at full depth is reported, not accuracy."]
    notes = []
    if count := len(labels) - len(used):
        why = f"labels that the bundle does not know ({strange})" if strange else "no label, or too few or too many"
        notes.append(f"{count} of {len(labels)} rows are left out: {why}. The figures say nothing about them.")
    there = {(name,) for own in used for name in own} if words else set(map(tuple, used))
    if len(there) == 1:
        name = ", ".join(next(iter(there))) or "none"
        unit = "word" if words else "row"
        notes.append(f"Every {unit} is labelled {name}: a constant answer is right on 100 %.")
    return notes

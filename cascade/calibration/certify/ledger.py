"""Which questions were asked of which examples, in the user's cache: each further one is tested at its own level.

Asking again, with another seed, bound or a few examples more, is another chance for a bound that does not hold. The
level of each question is its part of one error (`Claim.level`). Questions are kept for the models of a bundle, on this
host; examples are recognised by the smallest of their hashes, an estimate of what two sets share (Broder 1997).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from heapq import nsmallest
from pathlib import Path
from typing import Any

from cascade.calibration.examples import key_of
from cascade.core import files
from cascade.core.checks import is_whole
from cascade.core.files import locked
from cascade.exceptions import OptionError
from cascade.runtime.host import cache_folder

SKETCH = 256  # hashes that are kept
SAME = 1 / 20  # of the examples; sets that share more are the same examples, more or less


@dataclass(frozen=True)
class Question:
    """What is asked: `key` changes with the claim, the seed and the examples; `number`: of the questions about these.

    `sketch`: the smallest hashes of the examples, rising.
    """

    key: str
    sketch: tuple[str, ...]
    number: int


class Ledger:
    """The questions about a bundle with certain models (`Manifest.models`). A broken file is an `OptionError`."""

    def __init__(self, models: Mapping[str, str]) -> None:
        self.file = cache_folder() / "asked" / f"{_digest(sorted(models.items()))[:32]}.json"
        self.asked = _read(self.file)

    def ask(self, items: Sequence[Any], asked: Any) -> tuple[Question, tuple[str, ...]]:
        """The number of a question: that which the same one had before, or one more than all about these examples.

        It is written down at once, for those who ask meanwhile; a warning comes along where that cannot be done.
        `asked`: all but the examples, as JSON has it.
        """
        sketch = tuple(nsmallest(SKETCH, {_digest(key_of(item))[:16] for item in items}))
        key, seen = _digest([asked, sketch]), set(sketch)
        with suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.file.parent):
            self.asked = _read(self.file)
            about = [one for one in self.asked if len(seen & set(one.sketch)) > SAME * min(len(seen), len(one.sketch))]
            again = [one for one in about if one.key == key]
            if again:
                return again[0], ()
            new = Question(key, sketch, max([len(about), *(one.number for one in about)]) + 1)
            return new, self._write([*self.asked, new])

    def __contains__(self, question: Question) -> bool:
        """Whether it had been asked when this was read, or before the last one was asked here."""
        return question.key in {one.key for one in self.asked}

    def withdraw(self, question: Question) -> None:
        """Forget a new question of which nothing was tested."""
        if question not in self:
            with locked(self.file.parent):
                self._write([one for one in _read(self.file) if one.key != question.key])

    def _write(self, asked: Sequence[Question]) -> tuple[str, ...]:
        try:
            files.write(self.file, json.dumps([vars(one) for one in asked]) + "\n")
        except OptionError:
            return (f"the next question about these examples will not be counted, as {self.file} cannot be written",)
        return ()


def _read(file: Path) -> list[Question]:
    if not file.is_file():
        return []
    try:
        found = [Question(one["key"], tuple(one["sketch"]), one["number"]) for one in json.loads(file.read_bytes())]
        if all(is_whole(one.number) and one.number > 0 and isinstance(one.key, str) for one in found):
            return found
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise OptionError(f"the record of what was asked must be as cascade wrote it, but {file} is not; remove it")


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()

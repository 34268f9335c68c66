"""A line of JSON for each example, in order, while answers come in buffers.

Every row that is read gets its line, at once or after the rows of its buffer; a row that could not be read gets one
with null for every answer.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TextIO, TypeVar

from cascade.cli.show import duration
from cascade.text.reading import Example

__all__ = ["Writer", "rounded"]

Given = TypeVar("Given")
Answer = TypeVar("Answer")


@dataclass(kw_only=True)
class Writer(ABC, Generic[Given, Answer]):
    """Writes a line for each example, and counts.

    Attributes:
        out: where the lines go.
        rows: lines so far.
        unread: of them, those of examples that could not be read.
        units: rows or words that were answered.
        deferred: of them, those that tier 2 answered.
        waiting: examples that are read and not answered.
    """

    out: TextIO
    rows: int = 0
    unread: int = 0
    units: int = 0
    deferred: int = 0
    waiting: deque[Example] = field(default_factory=deque)

    @abstractmethod
    def given(self, example: Example) -> Given | None:
        """What the model reads; `None` where the example could not be read."""

    @abstractmethod
    def answers(self, given: Iterator[Given]) -> Iterator[Answer]:
        """One for each, in order."""

    @abstractmethod
    def blank(self) -> dict[str, Any]:
        """The keys of a line, each with null."""

    @abstractmethod
    def line(self, example: Example, answer: Answer) -> dict[str, Any]:
        """The keys of a line with their values; counts `units` and `deferred`."""

    def write(self, examples: Iterable[Example]) -> None:
        """A line for each example."""
        for answer in self.answers(self._read(examples)):
            self._write_unread()
            example = self.waiting.popleft()
            self._write(example, self.line(example, answer))
        self._write_unread()

    def summary(self, seconds: float) -> str:
        """What was done, in one line."""
        unread = f", {self.unread} of them unreadable" if self.unread else ""
        share = f", {self.deferred / self.units:.1%}{self.of_what()} deferred to tier 2" if self.units else ""
        return f"{self.rows} {'row' if self.rows == 1 else 'rows'}{unread} in {duration(seconds)}{share}"

    def of_what(self) -> str:
        """What `units` are, where they are not rows."""
        return ""

    def _read(self, examples: Iterable[Example]) -> Iterator[Given]:
        for example in examples:
            self.waiting.append(example)
            given = self.given(example)
            if given is not None:
                yield given
            else:  # where nobody before it waits for an answer, a file of such lines stays small
                self._write_unread()

    def _write_unread(self) -> None:
        while self.waiting and self.given(self.waiting[0]) is None:
            self.unread += 1
            self._write(self.waiting.popleft(), self.blank())

    def _write(self, example: Example, values: dict[str, Any]) -> None:
        self.rows += 1
        self.out.write(json.dumps({"line": example.line, **values}) + "\n")


def rounded(probability: float) -> float:
    """A probability as lines show it."""
    return round(float(probability), 6)

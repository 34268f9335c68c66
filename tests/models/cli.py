"""What the tests of the command line share: a way to run a command, and a classifier that needs no model."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascade.cli import main
from cascade.core.results import Prediction, Predictions, Route, Routes, Stats
from cascade.policies.routing import DeferAll

Text = str | tuple[str, str]


def lines(text: str) -> list[dict[str, Any]]:
    """What lines of JSON hold."""
    return [json.loads(line) for line in text.splitlines()]


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Command:
    """Runs `cascade` inside the test's process."""

    capture: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch

    def __call__(self, *arguments: str | Path, stdin: str | bytes = "") -> Done:
        raw = stdin.encode() if isinstance(stdin, str) else stdin
        self.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"))
        self.capture.readouterr()
        with pytest.raises(SystemExit) as end:
            main(list(map(str, arguments)))
        seen = self.capture.readouterr()
        status = end.value.code
        assert isinstance(status, int)
        return Done(status, seen.out, seen.err)

    def well(self, *arguments: str | Path, stdin: str | bytes = "") -> Done:
        """A command that ends with status 0."""
        done = self(*arguments, stdin=stdin)
        assert done.status == 0, done.err
        return done

    def refused(self, *arguments: str | Path, stdin: str | bytes = "good\n") -> str:
        """What is said, in one line, by a command that ends with an error."""
        done = self(*arguments, stdin=stdin)
        assert (done.status, done.out) == (2, "")
        assert done.err.startswith("Error: ")
        assert done.err.count("\n") == 1
        return done.err


@dataclass(frozen=True)
class FakeTier:
    layers: tuple[int, ...] = (1, 2, 3)


@dataclass(frozen=True)
class FakeClassifier:
    """Positive where a text has "good"; short texts stay in tier 1, longer ones leave after layer 2."""

    labels: tuple[str, ...] = ("negative", "positive")
    router: Any = None
    exit_policy: Any = None
    multi_label: bool = False
    tier2: FakeTier = FakeTier()
    before: Callable[[Text], None] = lambda text: None

    def with_router(self, router: Any) -> FakeClassifier:
        return replace(self, router=router)

    def with_exit_policy(self, exit_policy: Any) -> FakeClassifier:
        return replace(self, exit_policy=exit_policy)

    def predict(self, texts: Iterable[Text]) -> Predictions:
        answers = [self.answer(text) for text in texts]
        routes = Routes(
            np.array([answer.route.tier for answer in answers]),
            np.array([answer.route.exit_layer for answer in answers]),
            np.array([answer.route.confidence for answer in answers], dtype=np.float32),
        )
        probabilities = np.stack([answer.probabilities for answer in answers])
        stats = Stats(len(answers), units=len(answers), deferred=int((routes.tier > 1).sum()))
        return Predictions([answer.label for answer in answers], probabilities, routes, stats)

    def answer(self, text: Text) -> Prediction:
        self.before(text)
        words = text if isinstance(text, str) else " ".join(text)
        sure = 0.75 if "good" in words else 0.25
        chances = np.array([1 - sure, sure], dtype=np.float32)
        deferred = isinstance(self.router, DeferAll) or len(words.split()) > 2
        label = self.labels[int(chances.argmax())]
        return Prediction(
            (label,) if self.multi_label else label, chances, Route(2 if deferred else 1, 2 * deferred, 0.75)
        )

"""`cascade predict`: a file or standard input to lines of JSON, in order, in constant memory.

Every row that is read gets its line, at once or after the rows of its buffer; with `--on-error null` a row that cannot
be read gets one too. It leaves to others: reading (`reading`), buffers and answers (`classifier`).
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import click
import numpy as np
from tqdm import tqdm

from cascade.classifier import Classifier
from cascade.cli.show import duration
from cascade.exceptions import DataError, OptionError
from cascade.exits import MaxProbability
from cascade.reading import Example, FileFormat, OnError, read_examples
from cascade.results import Prediction
from cascade.routing import Budget, Threshold

__all__ = ["Answers", "predict"]


@click.command(short_help="Label the texts of a file or of standard input.")
@click.argument("model")
@click.argument("file", default="-")
@click.option("--routes", is_flag=True, help="Add tier, exit (0 in tier 1) and confidence to each line.")
@click.option("--top-k", type=click.IntRange(min=1), metavar="K", help="Add the K likeliest labels to each line.")
@click.option("--threshold", type=float, metavar="P", help="Defer what tier 1 is less sure of than P, in [0, 1].")
@click.option("--budget", type=float, metavar="SHARE", help="Defer at most this share of the rows of each buffer.")
@click.option("--exit-threshold", type=float, metavar="P", help="Leave tier 2 at the first exit that is as sure as P.")
@click.option("--text-column", default="text", show_default=True, metavar="NAME", help="The texts.")
@click.option(
    "--pair-column",
    default="text_pair",
    show_default="text_pair, where there is one",
    metavar="NAME",
    help="The second texts of pairs.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice([form.value for form in FileFormat]),
    help="Of FILE.  [default: by its suffix; text for standard input]",
)
@click.option(
    "--on-error",
    type=click.Choice([way.value for way in OnError]),
    default="stop",
    show_default=True,
    help="What a line that cannot be read does: stop the command, nothing, or get a line with the label null.",
)
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Written whole or not at all.")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Of both tiers.  [default: the CPUs allowed]")
@click.option("--progress/--no-progress", default=None, help="A bar on standard error.  [default: on a terminal]")
def predict(
    model: str,
    file: str,
    routes: bool,
    top_k: int | None,
    threshold: float | None,
    budget: float | None,
    exit_threshold: float | None,
    text_column: str,
    pair_column: str,
    form: str | None,
    on_error: str,
    output: Path | None,
    threads: int | None,
    progress: bool | None,
) -> None:
    """Label the texts of a file or of standard input; one line of JSON per row, in order.

    MODEL is a folder or a Hub id. FILE holds a text per line, or is jsonl, csv or parquet; - or nothing is standard
    input. A summary goes to standard error.

    \b
    Example:
      echo "a gripping film" | cascade predict models/sentiment
        {"line": 1, "label": "positive", "score": 0.9981}
      cascade predict models/sentiment reviews.csv --text-column review --routes --output labels.jsonl
    """
    if threshold is not None and budget is not None:
        raise OptionError("--threshold and --budget exclude each other, both were given; leave one out")
    classifier = Classifier.from_pretrained(model, threads=threads)
    if threshold is not None:
        classifier = classifier.with_router(Threshold(threshold))
    if budget is not None:
        classifier = classifier.with_router(Budget(budget))
    if exit_threshold is not None:
        classifier = classifier.with_exit_policy(MaxProbability(exit_threshold))
    examples = read_examples(
        file,
        format=None if form is None else FileFormat(form),
        text_column=text_column,
        pair_column=pair_column,
        label_column=None,
        on_error=OnError(on_error),
        report=_report,
    )
    if progress is None:
        progress = sys.stderr.isatty() and (output is not None or not sys.stdout.isatty())
    begin = time.perf_counter()
    with _destination(output) as out:
        answers = Answers(classifier, out, routes=routes, top_k=top_k)
        answers.write(tqdm(examples, unit=" rows", file=sys.stderr, disable=not progress, leave=False))
        out.flush()
    click.echo(answers.summary(time.perf_counter() - begin), err=True)


@dataclass
class Answers:
    """Writes a line for each example, in order, and counts.

    Attributes:
        classifier: gives the answers.
        out: where the lines go.
        routes: whether lines tell tier, exit and confidence.
        top_k: how many labels lines list, if any.
    """

    classifier: Classifier
    out: TextIO
    routes: bool = False
    top_k: int | None = None
    rows: int = 0
    unread: int = 0
    deferred: int = 0
    waiting: deque[Example] = field(default_factory=deque)

    def write(self, examples: Iterable[Example]) -> None:
        """A line for each example. An example whose text is None gets one with the label null."""
        for prediction in self.classifier.stream(self._texts(examples)):
            self._write_unread()
            self._line(self.waiting.popleft(), prediction)
        self._write_unread()

    def summary(self, seconds: float) -> str:
        """What was done, in one line."""
        answered = self.rows - self.unread
        unread = f", {self.unread} of them unreadable" if self.unread else ""
        share = f", {self.deferred / answered:.1%} deferred to tier 2" if answered else ""
        return f"{self.rows} {'row' if self.rows == 1 else 'rows'}{unread} in {duration(seconds)}{share}"

    def _texts(self, examples: Iterable[Example]) -> Iterator[str | tuple[str, str]]:
        for example in examples:
            self.waiting.append(example)
            if example.text is not None:
                yield example.text
            elif self.waiting[0].text is None:  # nobody before it waits for an answer: a file of such lines stays small
                self._write_unread()

    def _write_unread(self) -> None:
        while self.waiting and self.waiting[0].text is None:
            self._line(self.waiting.popleft(), None)

    def _line(self, example: Example, prediction: Prediction | None) -> None:
        self.rows += 1
        line: dict[str, Any] = {"line": example.line, "label": None, "score": None}
        if self.top_k is not None:
            line["top"] = None
        if self.routes:
            line |= {"tier": None, "exit": None, "confidence": None}
        if prediction is None:
            self.unread += 1
        else:
            self.deferred += prediction.route.tier == 2
            line |= self._answer(prediction)
        self.out.write(json.dumps(line) + "\n")

    def _answer(self, prediction: Prediction) -> dict[str, Any]:
        names, chances = self.classifier.labels, prediction.probabilities
        score: Any = _rounded(chances.max())
        if isinstance(prediction.label, tuple):
            score = [_rounded(chances[names.index(label)]) for label in prediction.label]
        answer: dict[str, Any] = {"label": prediction.label, "score": score}
        if self.top_k is not None:
            best = np.argsort(-chances, kind="stable")[: self.top_k]
            answer["top"] = [{"label": names[label], "score": _rounded(chances[label])} for label in best]
        if self.routes:
            route = prediction.route
            answer |= {"tier": route.tier, "exit": route.exit, "confidence": _rounded(route.confidence)}
        return answer


def _report(error: DataError) -> None:
    tqdm.write(f"Warning: {error}", file=sys.stderr)


def _rounded(probability: float) -> float:
    return round(float(probability), 6)


@contextlib.contextmanager
def _destination(output: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that appears under its name when it is complete."""
    if output is None:
        yield sys.stdout
        return
    if output.is_dir():
        raise DataError(f"--output must be a file, but {output} is a folder; add a name")
    partial = output.with_name(f".{output.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with partial.open("x", encoding="utf-8") as out:
            yield out
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)

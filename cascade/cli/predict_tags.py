"""Lines of `cascade predict` for taggers: words with their tags, or transformers' entities."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from cascade.cli.writer import Writer, rounded
from cascade.core.results import TagPrediction
from cascade.exceptions import OptionError
from cascade.monitoring.monitor import Monitor
from cascade.pipelines.tagger import Tagger
from cascade.text.entities import AggregationStrategy, Entity
from cascade.text.reading import Example

__all__ = ["EntityLines", "TagLines", "tag_writer", "words_column"]

WITH_LISTS = ("jsonl", "ndjson", "parquet")  # formats in which a column can hold lists
BUFFER = 1024
ROUTE = ("tier", "exit", "confidence")


def words_column(
    file: str, form: str | None, *, text: str | None, tokens: str | None, strategy: str | None
) -> str | None:
    """The column of lists of words; `None` if texts are read.

    Args:
        file: the argument.
        form: the option `--format`.
        text: the option `--text-column`.
        tokens: the option `--tokens-column`.
        strategy: the option `--aggregation-strategy`; entities have places in a text.

    Raises:
        OptionError: options that exclude each other.
    """
    if tokens is None:
        lists = (form or Path(file).suffix.removeprefix(".").lower()) in WITH_LISTS
        return "tokens" if lists and text is None and strategy is None else None
    for name, other in (("--text-column", text), ("--aggregation-strategy", strategy)):
        if other is not None:
            raise OptionError(f"--tokens-column and {name} exclude each other, both were given; leave one out")
    return tokens


def tag_writer(
    tagger: Tagger,
    out: TextIO,
    *,
    routes: bool,
    strategy: str | None,
    words: bool,
    monitor: Monitor[Any] | None = None,
) -> Writer[Any, Any]:
    """What writes the lines that the options ask for.

    Args:
        tagger: gives the answers.
        out: where the lines go.
        routes: whether lines tell tier, exit and confidence of each word.
        strategy: give entities, by this aggregation strategy.
        words: lists of words are read, not texts.
        monitor: of the tagger; entities have none.

    Raises:
        OptionError: options that exclude each other.
    """
    if strategy is None:
        return TagLines(out=out, tagger=tagger, routes=routes, words=words, monitor=monitor)
    if routes:
        raise OptionError(
            "--routes and --aggregation-strategy exclude each other, both were given; an entity has no route of its own"
        )
    return EntityLines(out=out, tagger=tagger, strategy=AggregationStrategy(strategy))


@dataclass(kw_only=True)
class TagLines(Writer[Any, TagPrediction]):
    """A line with the words of each example and their tags.

    Attributes:
        tagger: gives the answers.
        routes: whether lines tell tier, exit and confidence of each word.
        words: examples are lists of words; otherwise texts, and lines tell where in the text each word is.
        monitor: gives the answers instead, the same, and shadows some.
    """

    tagger: Tagger
    routes: bool = False
    words: bool = True
    monitor: Monitor[Any] | None = None

    def given(self, example: Example) -> object:
        """The words or the text."""
        return example.tokens if self.words else example.text

    def answers(self, given: Iterator[Any]) -> Iterator[TagPrediction]:
        """One per sentence or text."""
        tagger = self.monitor or self.tagger
        return tagger.stream(given) if self.words else tagger.stream_texts(given)

    def blank(self) -> dict[str, Any]:
        """All keys."""
        spans = () if self.words else ("spans",)
        return dict.fromkeys(("tokens", "tags", *spans, *(ROUTE if self.routes else ())))

    def line(self, example: Example, answer: TagPrediction) -> dict[str, Any]:
        """The values."""
        routes = answer.routes
        self.units += len(routes)
        self.deferred += int((routes.tier == 2).sum())
        line: dict[str, Any] = {"tokens": example.tokens, "tags": answer.tags}
        if answer.spans is not None:
            text, spans = str(example.text), answer.spans.tolist()
            line |= {"tokens": [text[begin:end] for begin, end in spans], "spans": spans}
        if self.routes:
            confidence = [rounded(sure) for sure in routes.confidence.tolist()]
            line |= {"tier": routes.tier.tolist(), "exit": routes.exit_layer.tolist(), "confidence": confidence}
        return line

    def of_what(self) -> str:
        """Words."""
        return f" of {self.units} {'word' if self.units == 1 else 'words'}"


@dataclass(kw_only=True)
class EntityLines(Writer[Any, list[Entity]]):
    """A line with each text and its entities.

    Attributes:
        tagger: gives the answers.
        strategy: how pieces become entities.
    """

    tagger: Tagger
    strategy: AggregationStrategy

    def given(self, example: Example) -> object:
        """The text."""
        return example.text

    def answers(self, given: Iterator[Any]) -> Iterator[list[Entity]]:
        """One list per text."""
        while texts := list(islice(given, BUFFER)):
            for entities in self.tagger(texts, aggregation_strategy=self.strategy):
                yield [{**entity, "score": rounded(entity["score"])} for entity in entities]

    def blank(self) -> dict[str, Any]:
        """All keys."""
        return {"text": None, "entities": None}

    def line(self, example: Example, answer: list[Entity]) -> dict[str, Any]:
        """The values."""
        return {"text": example.text, "entities": answer}

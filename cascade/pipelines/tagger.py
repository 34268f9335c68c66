"""`Tagger`: sentences of words, or texts, in; a tag and a route per word out. The pipeline for tagging."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from cascade.bundle.manifest import TAGGING
from cascade.core.results import SentenceRoutes, TagPrediction, TagPredictions
from cascade.core.rows import Encoded
from cascade.engine.cascade import Outcome
from cascade.engine.inputs import Encoder, Inputs
from cascade.engine.multi_exit import MultiExit
from cascade.engine.single_exit import SingleExit
from cascade.engine.streaming import StreamOptions
from cascade.exceptions import OptionError
from cascade.pipelines.base import Pipeline
from cascade.policies.decoding import Decoder, argmax
from cascade.policies.windows import WindowPolicy
from cascade.text.entities import IGNORED, AggregationStrategy, PieceText, aggregate, chosen, strategy_of
from cascade.text.texts import check_texts, empty_items
from cascade.text.word_encoding import Sentence, TextWords, WordEncoder, check_sentences, encode_texts, grouped


@dataclass(frozen=True, eq=False, repr=False)
class Tagger(Pipeline):
    """A bundle, ready to tag. Make one with `Tagger.from_pretrained`.

    Nothing that a call does changes it; `with_router` and the like give copies that share its sessions.
    """

    task: ClassVar[str] = TAGGING

    @property
    def decoding(self) -> Decoder:
        """Labels from probabilities."""
        return self.policies.decoding or argmax

    def __call__(
        self,
        texts: str | Sequence[str],
        *,
        aggregation_strategy: AggregationStrategy | str = AggregationStrategy.NONE,
        ignore_labels: Sequence[str] = (IGNORED,),
        truncation: bool | None = None,
    ) -> Any:  # a list of dicts, or a list of such lists: no union of these is of use to a caller
        """Tag texts, with the results of transformers' token-classification pipeline.

        Each piece has its own answer; with `first` each word has one. Unlike in transformers, a text longer than the
        model is read in windows and not cut, unless `truncation` says so.

        Args:
            texts: a text or a list of texts.
            aggregation_strategy: `none`, `simple`, `first`, `average` or `max`.
            ignore_labels: what has one of these, without `B-` or `I-` unless with `none`, is left out.
            truncation: for this call, see `with_truncation`; as the pipeline is if left out.

        Returned is for one text a list of dicts, for a list of texts a list of such lists: `{"entity", "score",
        "index", "word", "start", "end"}` with `none`, `{"entity_group", "score", "word", "start", "end"}` otherwise. A
        text that cannot be read is an `InputError` with its position. There is no such strategy, or it needs pieces and
        a tier has another tokenizer or none: an `OptionError`.
        """
        own = self if truncation is None else self.with_truncation(truncation)
        strategy = strategy_of(aggregation_strategy)
        one = isinstance(texts, str)
        every = [texts] if isinstance(texts, str) else list(check_texts(texts))
        inputs, shown = own.read(every, by_word=strategy is AggregationStrategy.FIRST)
        outcome = own.cascade.run(inputs)
        own._warn_of_lost(outcome.stats)
        ignored = (ignore_labels,) if isinstance(ignore_labels, str) else ignore_labels
        chances, decoder = outcome.probabilities, self.decoding
        found = aggregate(shown, chances, self.labels, strategy=strategy, decoder=decoder, ignored=ignored)
        return found[0] if one else found

    def read(self, texts: Sequence[str], *, by_word: bool) -> tuple[Inputs, PieceText]:
        """Texts as `__call__` reads them, and their pieces as entities show them (`entities.aggregate`).

        `by_word`: a unit is a word of transformers; otherwise a piece, and a tier that has another tokenizer or none is
        an `OptionError`. A text that cannot be read is an `InputError` with its position.
        """
        pieces = encode_texts(self.tokenizer, texts, per_piece=True)
        shown = PieceText.of(self.tokenizer, texts, pieces)
        # A tier with another tokenizer makes rows of words by itself; a function has none.
        pieced = [isinstance(tier, SingleExit | MultiExit) and tier.encoder is None for tier in self.tiers]
        if not by_word and not all(pieced):
            raise OptionError(
                "aggregation_strategy must be first where a tier reads words by itself, got another one; its words "
                "have no answers piece by piece"
            )
        return _read(texts, grouped(self.tokenizer, pieces, shown.new) if by_word else pieces), shown

    def predict(self, sentences: Iterable[Sentence]) -> TagPredictions:
        """Tag sentences that are split into words: every word has exactly one tag.

        A sentence longer than the model is read in overlapping windows, and probabilities are averaged where they
        overlap. `sentences`: lists of words; a sentence may have none, and any string is a word. Something else is an
        `InputError` with its position.
        """
        begin = time.perf_counter()
        answers: TagPredictions = self._answered(self._words(list(check_sentences(sentences))), begin)
        return answers

    def predict_texts(self, texts: Iterable[str]) -> TagPredictions:
        """Tag texts, in which the tokenizer finds the words; `spans` of the results say which characters those are.

        A text may have no words. Something else than a list of texts, or a text that is no string, is an `InputError`
        with its position.
        """
        begin = time.perf_counter()
        answers: TagPredictions = self._answered(self._texts(texts), begin)
        return answers

    def stream(self, sentences: Iterable[Sentence], *, options: StreamOptions | None = None) -> Iterator[TagPrediction]:
        """Tag any number of sentences, lists of words, in constant memory: the tags of each, in order.

        The answers are those of `predict`, but that a router sees a buffer at a time. `options`: how much is held back
        and for how long. A sentence that cannot be read is an `InputError` with its number in the stream.
        """
        return self._streamed(self._words, check_sentences(sentences), options, "sentence")

    def stream_texts(self, texts: Iterable[str], *, options: StreamOptions | None = None) -> Iterator[TagPrediction]:
        """Tag any number of texts in constant memory: to `predict_texts` what `stream` is to `predict`."""
        return self._streamed(self._texts, check_texts(texts), options)

    def with_windows(self, windows: WindowPolicy) -> Tagger:
        """A copy whose later tiers read these windows: `cascade.policies.Windows`, or a function of a `WindowState`."""
        return self.with_policies(replace(self.policies, windows=windows))

    def with_decoding(self, decoder: Decoder) -> Tagger:
        """A copy that makes labels of probabilities like this: any of `cascade.policies`, or a function.

        A decoder that was made for other labels is an `OptionError`.
        """
        return self.with_policies(replace(self.policies, decoding=decoder))

    def _words(self, sentences: list[Sentence]) -> Inputs:
        return Inputs.of(sentences, WordEncoder(self.tokenizer))

    def _texts(self, texts: Iterable[str]) -> Inputs:
        given = list(check_texts(texts))
        return _read(given, encode_texts(self.tokenizer, given, per_piece=False))

    def _named(self, outcome: Outcome) -> TagPredictions:
        begin = time.perf_counter()
        offsets, found = outcome.inputs.offsets, outcome.inputs.extra
        numbers = chosen(self.decoding, outcome.probabilities, offsets)
        tags = np.array(self.labels, dtype=object)[numbers].tolist()
        sentences = [tags[start:stop] for start, stop in pairwise(offsets.tolist())]
        stats = replace(outcome.stats, seconds={**outcome.stats.seconds, "decode": time.perf_counter() - begin})
        spans = np.stack((found.begins, found.ends), axis=1) if isinstance(found, TextWords) else None
        routes = SentenceRoutes(outcome.routes, offsets)
        return TagPredictions(sentences, outcome.probabilities, routes, stats, spans, self.labels)


def _read(texts: Sequence[str], found: TextWords) -> Inputs:
    """The rows of the words that the tokenizer found; tiers with another one read the same words."""
    own = Encoded(found.words, np.arange(len(found.words), dtype=np.int64), found.truncated, empty_items(texts))

    def words() -> list[list[str]]:
        spans = list(zip(found.begins.tolist(), found.ends.tolist(), strict=True))
        rows = zip(texts, pairwise(found.words.offsets.tolist()), strict=True)
        return [[text[begin:end] for begin, end in spans[first:last]] for text, (first, last) in rows]

    def encode(asked: Encoder | None) -> Encoded:
        return own if asked is None else asked.encode(words())

    return Inputs(words, encode, extra=found)

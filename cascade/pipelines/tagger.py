"""`Tagger`: sentences of words, or texts, in; a tag and a route per word out. The face of the package for tagging."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from cascade.bundle.certificate import Settings
from cascade.bundle.manifest import TAGGING
from cascade.bundle.opening import Bundle
from cascade.core.results import SentenceRoutes, TagPrediction, TagPredictions
from cascade.engine.cascade import Cascade, Outcome
from cascade.engine.inputs import Inputs
from cascade.engine.multi_exit import MultiExit
from cascade.engine.single_exit import SingleExit
from cascade.engine.streaming import StreamOptions, stream
from cascade.pipelines.base import Face
from cascade.pipelines.loading import Graphs, open_for, readable
from cascade.policies import decoding, windows
from cascade.policies.batching import BatchingPolicy, for_tier2
from cascade.policies.decoding import Decoder
from cascade.policies.exits import ExitPolicy
from cascade.policies.routing import Router
from cascade.policies.windows import WindowPolicy, Windows
from cascade.policies.windows import check as check_windows
from cascade.runtime.backend import SessionOptions
from cascade.text.entities import AggregationStrategy, PieceText, aggregate, chosen, strategy_of
from cascade.text.texts import check_texts
from cascade.text.word_encoding import (
    Sentence,
    TextWords,
    WordEncoder,
    check_sentences,
    encode_texts,
    grouped,
)

__all__ = ["Tagger"]

STREAM: Final = StreamOptions(buffer_size=1024)


@dataclass(frozen=True, eq=False, repr=False)
class Tagger(Face):
    """A bundle, ready to tag. Make one with `Tagger.from_pretrained`.

    Nothing that a call does changes it; `with_router` and the like give copies that share its sessions.

    Attributes:
        windows: which words around an unsure one tier 2 reads.
        decoding: labels from probabilities.
    """

    known: ClassVar[tuple[str, ...]] = (*Face.known, "windows", "decoding")

    tier1: SingleExit
    tier2: MultiExit
    windows: WindowPolicy
    decoding: Decoder

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | Path,
        *,
        threads: int | None = None,
        router: Router | None = None,
        exit_policy: ExitPolicy | None = None,
        windows: WindowPolicy | None = None,
        decoding: Decoder | None = None,
        batching: BatchingPolicy | None = None,
        tuned: bool = True,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | None = None,
        local_files_only: bool = False,
    ) -> Tagger:
        """Load a bundle. Its files are verified first and nothing in it is ever unpickled.

        Args:
            path_or_id: a folder, or a repository on the Hugging Face Hub (`owner/name`).
            threads: threads for both tiers together; what this process may use if left out.
            router: instead of the bundle's.
            exit_policy: instead of the bundle's.
            windows: instead of the bundle's.
            decoding: instead of the bundle's.
            batching: for both tiers; if left out `TokenBudget()` for tier 1, `batching.for_tier2` for tier 2.
            tuned: whether these take the token budgets of `cascade tune --write`, where there are some for this host.
            revision: branch, tag or commit on the Hub.
            cache_dir: where downloads are kept.
            token: for closed repositories.
            local_files_only: download nothing.

        Raises:
            BundleNotFoundError: there is no such folder or repository.
            BundleError: it is incomplete, altered, of another format or for another task (`TaskError`).
            OptionError: an impossible option.
        """
        options = SessionOptions(threads=threads)
        bundle = open_for(
            TAGGING, path_or_id, revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only
        )
        first, second = bundle.manifest.tier1, bundle.manifest.tier2
        if windows is None or decoding is None:
            stored_windows, stored_decoding = _stored(bundle)
            windows = stored_windows if windows is None else windows
            decoding = stored_decoding if decoding is None else decoding
        graphs = Graphs.of(bundle, options, router=router, exit_policy=exit_policy)
        labels = len(bundle.manifest.labels)
        tagger = cls(
            bundle=bundle,
            tokenizer=graphs.tokenizer,
            tier1=SingleExit(
                per_unit=True,
                backend=graphs.tier1,
                labels=labels,
                max_length=first.max_length,
                temperature=first.temperature,
                executor=graphs.executor,
            ),
            tier2=MultiExit(
                embed=graphs.embed,
                stages=graphs.stages,
                layers=[stage.layer for stage in second.stages],
                labels=labels,
                heads=second.heads,
                batching=for_tier2(graphs.executor.threads),
                temperatures=[stage.temperature for stage in second.stages],
                exit_policy=graphs.exit_policy,
                position_offset=second.position_offset,
                max_length=second.max_length,
                executor=graphs.executor,
            ),
            router=graphs.router,
            blend=bundle.manifest.blend,
            windows=windows,
            decoding=decoding,
        )
        tagger = tagger.with_windows(windows).with_decoding(decoding)  # which check them
        if batching is not None:
            return tagger.with_batching(batching)
        return tagger.with_tuned() if tuned else tagger

    @property
    def settings(self) -> dict[str, Any]:
        """Policies, blend and temperatures of this copy in their written form.

        Raises:
            OptionError: a policy is a function of your own, which has no written form.
        """
        more = {"windows": windows.to_json(self.windows), "decoding": decoding.to_json(self.decoding)}
        return {**super().settings, **more}

    @property
    def cascade(self) -> Cascade:
        """The engine: rows of words in, probabilities and routes out."""
        return Cascade(self.tier1, self.tier2, self.router, windows=self.windows, blend=self.blend)

    def __repr__(self) -> str:
        return (
            f"Tagger({str(self.bundle.folder)!r}, {len(self.labels)} labels, {len(self.tier2.layers)} exits, "
            f"router={self.router!r}, exit_policy={self.exit_policy!r}, windows={self.windows!r}, "
            f"blend={self.blend!r}, max_tokens={self.max_tokens}, "
            f"decoding={self.decoding!r})"
        )

    def __call__(
        self,
        texts: str | Sequence[str],
        *,
        aggregation_strategy: AggregationStrategy | str = AggregationStrategy.NONE,
    ) -> Any:  # a list of dicts, or a list of such lists: no union of these is of use to a caller
        """Tag texts, with the results of transformers' token-classification pipeline.

        Each piece has its own answer; with `first` each word has one. Unlike in transformers, a text longer than the
        model is read in windows and not cut.

        Args:
            texts: a text or a list of texts.
            aggregation_strategy: `none`, `simple`, `first`, `average` or `max`.

        Returns:
            For one text a list of dicts, for a list of texts a list of such lists: `{"entity", "score", "index",
            "word", "start", "end"}` with `none`, `{"entity_group", "score", "word", "start", "end"}` otherwise. What is
            tagged `O` is left out.

        Raises:
            InputError: a text that cannot be read, with its position.
            OptionError: there is no such strategy.
        """
        strategy = strategy_of(aggregation_strategy)
        one = isinstance(texts, str)
        if not one:
            check_texts(texts)
        every = [texts] if isinstance(texts, str) else list(texts)
        pieces = encode_texts(self.tokenizer, every, per_piece=True)
        shown = PieceText.of(self.tokenizer, every, pieces)
        units = grouped(self.tokenizer, pieces, shown.new) if strategy is AggregationStrategy.FIRST else pieces
        probabilities = self.cascade.score(units.words).probabilities
        found = aggregate(shown, probabilities, self.labels, strategy=strategy, decoder=self.decoding)
        return found[0] if one else found

    def predict(self, sentences: Iterable[Sentence], *, show_progress: bool = False) -> TagPredictions:
        """Tag sentences that are split into words: every word has exactly one tag.

        A sentence longer than the model is read in overlapping windows, and probabilities are averaged where they
        overlap.

        Args:
            sentences: lists of words; a sentence may have none, and any string is a word.
            show_progress: draw a bar per tier on standard error.

        Returns:
            The tags of each sentence, in order.

        Raises:
            InputError: something else than lists of words, with its position.
        """
        begin = time.perf_counter()
        check_sentences(sentences)
        inputs = self._words(list(sentences))
        inputs.encode()
        return self._tagged(inputs, time.perf_counter() - begin, show_progress=show_progress)

    def predict_texts(self, texts: Iterable[str], *, show_progress: bool = False) -> TagPredictions:
        """Tag texts, in which the tokenizer finds the words; `spans` of the results say which characters those are.

        Args:
            texts: any strings; a text may have no words.
            show_progress: draw a bar per tier on standard error.

        Raises:
            InputError: something else than a list of texts, or a text that is no string, with its position.
        """
        begin = time.perf_counter()
        inputs = self._texts(texts)
        return self._tagged(inputs, time.perf_counter() - begin, show_progress=show_progress)

    def stream(self, sentences: Iterable[Sentence], *, options: StreamOptions | None = None) -> Iterator[TagPrediction]:
        """Tag any number of sentences in constant memory.

        The answers are those of `predict`, but that a router sees a buffer at a time.

        Args:
            sentences: any iterable of lists of words.
            options: how much is held back and for how long; buffers of 1024 sentences if left out.

        Yields:
            The tags of one sentence each, in order.

        Raises:
            InputError: a sentence that cannot be read, named by its number in the stream.
        """
        check_sentences(sentences)
        return self._stream(self._words, sentences, options, "sentence")

    def stream_texts(self, texts: Iterable[str], *, options: StreamOptions | None = None) -> Iterator[TagPrediction]:
        """Tag any number of texts in constant memory: to `predict_texts` what `stream` is to `predict`.

        Args:
            texts: any iterable of strings.
            options: as in `stream`.

        Raises:
            InputError: a text that is no string, named by its number in the stream.
        """
        check_texts(texts)
        return self._stream(self._texts, texts, options, "text")

    def with_windows(self, windows: WindowPolicy) -> Tagger:
        """A copy whose tier 2 reads these windows: `cascade.policies.Windows`, or a function of a `WindowState`.

        Raises:
            OptionError: the windows do not fit the exits of this bundle.
        """
        check_windows(windows, self.model)
        return replace(self, windows=windows)

    def with_settings(self, settings: Settings) -> Tagger:
        """A copy with these policies, blend and temperatures, in the form of `settings`; what is left out stays.

        Raises:
            OptionError: an unknown name, a policy that cannot be read or does not fit this bundle.
        """
        copy = super().with_settings(settings)
        if "windows" in settings:
            copy = copy.with_windows(windows.from_json(settings["windows"]))
        if "decoding" in settings:
            copy = copy.with_decoding(decoding.from_json(settings["decoding"]))
        return copy

    def with_decoding(self, decoder: Decoder) -> Tagger:
        """A copy that makes labels of probabilities like this: any of `cascade.policies`, or a function.

        Raises:
            OptionError: the decoder was made for other labels.
        """
        decoding.check(decoder, self.model)
        return replace(self, decoding=decoder)

    def _words(self, sentences: list[Sentence]) -> Inputs:
        return Inputs.of(sentences, WordEncoder(self.tokenizer))

    def _texts(self, texts: Iterable[str]) -> Inputs:
        found = encode_texts(self.tokenizer, texts, per_piece=False)
        return Inputs.encoded(found.words, extra=found)

    def _stream(
        self, encode: Callable[[Any], Inputs], items: Iterable[Any], options: StreamOptions | None, what: str
    ) -> Iterator[TagPrediction]:
        for outcome in stream(self.cascade, encode, items, options=options or STREAM, what=what):
            yield from self._named(outcome)

    def _tagged(self, inputs: Inputs, tokenize: float, *, show_progress: bool) -> TagPredictions:
        outcome = self.cascade.run(inputs, show_progress=show_progress)
        seconds = {"tokenize": tokenize, **outcome.stats.seconds}
        return self._named(replace(outcome, stats=replace(outcome.stats, seconds=seconds)))

    def _named(self, outcome: Outcome) -> TagPredictions:
        begin = time.perf_counter()
        offsets, found = outcome.inputs.offsets, outcome.inputs.extra
        numbers = chosen(self.decoding, outcome.probabilities, offsets)
        tags = np.array(self.labels, dtype=object)[numbers].tolist()
        sentences = [tags[start:stop] for start, stop in pairwise(offsets.tolist())]
        stats = replace(outcome.stats, seconds={**outcome.stats.seconds, "decode": time.perf_counter() - begin})
        spans = np.stack((found.begins, found.ends), axis=1) if isinstance(found, TextWords) else None
        return TagPredictions(sentences, outcome.probabilities, SentenceRoutes(outcome.routes, offsets), stats, spans)

    def _saved(self) -> dict[str, Any]:
        settings, (stored_windows, stored_decoding) = self.settings, _stored(self.bundle)
        # What a bundle leaves to the defaults stays left to them.
        if self.windows == stored_windows:
            del settings["windows"]
        if self.decoding == stored_decoding:
            del settings["decoding"]
        return settings


def _stored(bundle: Bundle) -> tuple[WindowPolicy, Decoder]:
    written_windows, written_decoding = bundle.manifest.windows, bundle.manifest.decoding
    with readable():
        return (
            Windows() if written_windows is None else windows.from_json(written_windows),
            decoding.argmax if written_decoding is None else decoding.from_json(written_decoding),
        )

"""Sentences of a tagger, their right tags, and what a setting really answers on them.

What tier 2 says of a word depends on the window it reads and on who has left before, so unlike a classifier's settings
(`replay`) those of a tagger are run, not replayed. Tags are those of the decoder, wherever a word was answered.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from cascade.calibration.replay import Setting
from cascade.core.rows import BoolArray, IntArray, Units, ranges
from cascade.engine.word_cascade import WordCascade
from cascade.engine.word_tiers import WordMultiExit, WordSingleExit
from cascade.exceptions import DataError
from cascade.pipelines.tagger import Tagger
from cascade.policies.decoding import Decoder
from cascade.policies.exits import never
from cascade.policies.routing import defer_all
from cascade.policies.windows import whole_sentences
from cascade.text.entities import chosen
from cascade.text.word_encoding import encode_words

__all__ = ["WordAnswers", "WordRun", "truth_of"]


@dataclass(frozen=True, eq=False)
class WordRun:
    """What a setting answered.

    Attributes:
        tags: number of each word's label, as decoded. Shape `(words,)`.
        deferred: whether tier 2 answered. Shape `(words,)`.
        layers: after which a word left tier 2; 0 where tier 1 answered. Shape `(words,)`.
        seconds: wall-clock time, encoding and decoding included.
    """

    tags: IntArray
    deferred: BoolArray
    layers: IntArray
    seconds: float


@dataclass(frozen=True, eq=False)
class WordAnswers:
    """Encoded sentences, and what tier 2 alone at full depth answers. Make them with `WordAnswers.observe`.

    Attributes:
        tier1, tier2: of the tagger.
        decoding: its decoder, which every setting has.
        words: the sentences, each with a word at least, however long.
        truth: number of each word's right label; `None` without labels. Shape `(words,)`.
        full: the answers at full depth.
        encode_seconds: what making `words` took; everyone pays it.
    """

    tier1: WordSingleExit
    tier2: WordMultiExit
    decoding: Decoder
    words: Units
    truth: IntArray | None
    full: WordRun
    encode_seconds: float = 0.0

    @classmethod
    def observe(cls, tagger: Tagger, sentences: Sequence[Sequence[str]], truth: IntArray | None) -> WordAnswers:
        """Encode sentences and run tier 2 on them at full depth.

        Args:
            tagger: whose tiers and decoder these are; its other policies do not count.
            sentences: lists of words, none of them empty.
            truth: see above.
        """
        begin = time.perf_counter()
        words = encode_words(tagger.tokenizer, sentences)
        seconds = time.perf_counter() - begin
        return cls.of(tagger.tier1, tagger.tier2, words, truth, decoding=tagger.decoding, encode_seconds=seconds)

    @classmethod
    def of(
        cls,
        tier1: WordSingleExit,
        tier2: WordMultiExit,
        words: Units,
        truth: IntArray | None,
        *,
        decoding: Decoder,
        encode_seconds: float = 0.0,
    ) -> WordAnswers:
        """The same of sentences that are encoded already."""
        nothing = np.zeros(0, dtype=np.int64)
        unknown = WordRun(nothing, nothing > 0, nothing, 0.0)
        blank = cls(tier1, tier2, decoding, words, truth, unknown, encode_seconds)
        return replace(blank, full=blank.really(blank.at_full_depth))

    def __len__(self) -> int:
        return self.words.n_rows

    @property
    def at_full_depth(self) -> Setting:
        """Tier 2 alone."""
        return Setting(defer_all, never, windows=whole_sentences, decoding=self.decoding)

    @property
    def right(self) -> BoolArray:
        """Where full depth is right; everywhere, as far as anyone knows, without labels. Shape `(words,)`."""
        if self.truth is None:
            return np.ones(len(self.words), dtype=np.bool_)
        right: BoolArray = self.full.tags == self.truth
        return right

    def really(self, setting: Setting) -> WordRun:
        """Run a setting on all sentences, as `Tagger.predict` would."""
        begin = time.perf_counter()
        tier2 = replace(self.tier2, exit_policy=setting.exit_policy)
        windows = whole_sentences if setting.windows is None else setting.windows
        cascade = WordCascade(self.tier1, tier2, setting.router, windows, blend=setting.blend)
        outcome = cascade.score(self.words)
        decoder = self.decoding if setting.decoding is None else setting.decoding
        tags = chosen(decoder, outcome.probabilities, self.words.offsets)
        seconds = time.perf_counter() - begin + self.encode_seconds
        return WordRun(tags, outcome.routes.tier == 2, outcome.routes.exit_layer, seconds)

    def select(self, sentences: IntArray) -> WordAnswers:
        """Of these sentences, in this order; nothing runs. Shape `(chosen,)`."""
        words = self.words.select(sentences)
        places = ranges(self.words.offsets[sentences], words.counts)
        share = words.rows.tokens / max(self.words.rows.tokens, 1)
        full = WordRun(
            self.full.tags[places], self.full.deferred[places], self.full.layers[places], self.full.seconds * share
        )
        truth = None if self.truth is None else self.truth[places]
        return replace(self, words=words, truth=truth, full=full, encode_seconds=self.encode_seconds * share)

    def fitting(self) -> WordAnswers:
        """Of the sentences that neither tier has to cut."""
        longest = min(self.tier1.max_length, self.tier2.max_length)
        fits = self.words.rows.lengths <= longest
        return self if fits.all() else self.select(np.flatnonzero(fits))


def truth_of(sentences: Sequence[Sequence[str]], tags: Sequence[Sequence[str]], labels: Sequence[str]) -> IntArray:
    """The numbers of tags among a model's labels, all sentences one after the other. Shape `(words,)`.

    Args:
        sentences: lists of words.
        tags: as many for each.
        labels: of the model.

    Raises:
        DataError: a sentence whose tags are not one per word, or a tag that the model does not know; sentences are
            numbered from 1.
    """
    if len(sentences) != len(tags):
        raise DataError(
            f"every sentence must have its tags, were: {len(sentences)} sentences and tags for {len(tags)}; "
            "leave the tags out, or give them for all"
        )
    for number, (words, own) in enumerate(zip(sentences, tags, strict=True), start=1):
        if len(words) != len(own):
            raise DataError(
                f"there must be one tag per word, sentence {number} had {len(words)} words and {len(own)} tags; "
                "correct it or drop it"
            )
    numbers = {label: number for number, label in enumerate(labels)}
    unknown = next(((number, tag) for number, own in enumerate(tags, 1) for tag in own if tag not in numbers), None)
    if unknown is not None:
        known = ", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")
        raise DataError(
            f"tags must be the model's ({known}), sentence {unknown[0]} had: {unknown[1]!r}; rename it or drop it"
        )
    return np.fromiter(map(numbers.__getitem__, chain.from_iterable(tags)), dtype=np.int64)

"""Sentences of a tagger, their right tags, and what settings really answer on them.

What tier 2 says of a word depends on the window it reads and on who has left before, so a tagger's settings are run,
not replayed; words as items that leave one by one (`as_items`) are near. Tags are those of the decoder, wherever a word
was answered.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from cascade.calibration.costs import Costs, TierCosts
from cascade.calibration.runs import Run, Sample, Stages, no_progress
from cascade.calibration.temperature import Temperatures
from cascade.calibration.texts import TextAnswers, TierAnswers, leave
from cascade.core.rows import BoolArray, FloatArray, IntArray, Units, ranges, read_only
from cascade.engine.cascade import Cascade
from cascade.engine.multi_exit import MultiExit
from cascade.engine.single_exit import SingleExit
from cascade.engine.tier import Progress, Readable, Tier, as_inputs
from cascade.exceptions import OptionError
from cascade.pipelines.parts import with_options
from cascade.policies import windows as windowing
from cascade.policies.decoding import Decoder
from cascade.policies.exits import never
from cascade.policies.routing import defer_all
from cascade.policies.settings import Policies
from cascade.policies.windows import WindowPolicy, Windows, WindowState, whole_sentences
from cascade.text.entities import chosen

TIMED = 500  # sentences that a setting and full depth are timed on, at most
TURNS = 3
USUAL = Windows(2), 0.15
"""Windows, and a share of deferred words, for which it is counted what is read around them."""


@dataclass(frozen=True, eq=False)
class WordAnswers(Sample):
    """Encoded sentences and the tiers that answer them; a `Sample` whose answers are words and examples sentences.

    `tiers` of the tagger, two, and its decoder, which every setting has; `words`: the sentences, each with a word at
    least, however long; `truth`: number of each word's right label, shape `(words,)`, `None` without labels; `costs`:
    of a token, `None` where they were not measured; `encode_seconds`: what making `words` took; every setting pays it.
    `original`: see `Sample`, shape `(words, 1)`. Where they ran already: `at_full`, what full depth answers, and
    `at_every_exit`, what tier 2 says of whole sentences, shape `(words, exits, labels)`.
    """

    tiers: tuple[SingleExit, MultiExit | SingleExit]
    decoding: Decoder
    words: Units
    truth: IntArray | None
    costs: Costs | None = None
    encode_seconds: float = 0.0
    at_full: Run | None = field(default=None, repr=False)
    original: IntArray | None = field(default=None, repr=False)
    at_every_exit: FloatArray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return self.words.n_rows

    @property
    def temperatures(self) -> Temperatures:
        """Those of the tagger, which are not fitted."""
        first, second = self.tiers
        own = (second.temperature,) if isinstance(second, SingleExit) else tuple(second.temperatures)
        return (first.temperature,), own

    @property
    def layers(self) -> tuple[int, ...]:
        """Below each exit of tier 2; a tier without exits counts as one layer."""
        second = self.tiers[1]
        return (1,) if isinstance(second, SingleExit) else tuple(second.layers)

    @property
    def at_full_depth(self) -> Policies:
        exits = never, never
        return Policies((defer_all,), exits, self.temperatures, windows=whole_sentences, decoding=self.decoding)

    @cached_property
    def full(self) -> Run:
        return self.run(self.at_full_depth) if self.at_full is None else self.at_full

    def run(self, policies: Policies) -> Run:
        """Run a setting on all sentences, as `Tagger.predict` would."""
        begin = time.perf_counter()
        tier2 = with_options(self.tiers[1], {"exit_policy": policies.exits[-1]})
        windows = whole_sentences if policies.windows is None else policies.windows
        cascade = Cascade(self.tiers[0], tier2, policies.routers[0], windows=windows, blend=policies.blend[0])
        scores = cascade.score(self.words)
        decoder = self.decoding if policies.decoding is None else policies.decoding
        tags = chosen(decoder, scores.probabilities, self.words.offsets)
        seconds = time.perf_counter() - begin + self.encode_seconds
        return Run(tags[:, None], scores.tier, scores.exit_layer, seconds)

    def read_whole(self, progress: Stages = no_progress) -> WordAnswers:
        """The same, with what tier 2 says at every exit."""
        if self.at_every_exit is not None:
            return self
        with progress("whole sentences", len(self.words)) as ahead:
            return replace(self, at_every_exit=all_exits(self.tiers[1], self.words, ahead))

    def as_items(self) -> TextAnswers:
        """What both tiers say of each word, tier 2 having read whole sentences: words as texts that leave one by one.

        Of sentences that were read whole, and have costs.
        """
        costs, first, second = self._known()
        words, places = self.words, np.arange(len(self.words), dtype=np.int64)
        scores = self.tiers[0].score(words)
        windows, share = USUAL
        unsure = scores.confidence <= np.quantile(scores.confidence, share)
        read = self._read(windows, unsure)[0]
        around = read.rows.tokens / max(int(words.n_tokens[unsure].sum()), 1)
        tiers = (
            TierAnswers(scores.probabilities[:, None], places, words.n_tokens),
            TierAnswers(second, places, words.n_tokens, () if second.shape[1] == 1 else self.layers),
        )
        return TextAnswers(
            tiers=tiers,
            lengths=words.n_tokens,
            truth=self.truth,
            temperatures=self.temperatures,
            costs=replace(costs, tiers=(first, replace(costs.tiers[-1], around=around))),
            original=self.original,
            words=words,
        )

    def cost(self, policies: Policies, run: Run) -> float:
        """Words around deferred ones leave as in a whole sentence. For what must be known see `as_items`."""
        costs, first, second = self._known()
        words, last = self.words, len(self.layers) - 1
        read, numbers = self._read(policies.windows or whole_sentences, run.deferred)
        taken = leave(policies.exits[-1], second, self.layers, words=words)
        taken = np.where(run.deferred, np.searchsorted(self.layers, run.layers), taken)
        always = costs.always * words.rows.tokens
        before = 0.0 if policies.routers[0] == defer_all else first.full * words.rows.tokens
        own = costs.tiers[-1].of(taken[numbers], read, run.deferred[numbers])
        return (always + before + own) / (always + costs.tiers[-1].of(np.full(len(words), last), words))

    def _known(self) -> tuple[Costs, TierCosts, FloatArray]:
        assert self.costs is not None and self.at_every_exit is not None  # noqa: S101, PT018  # the caller has looked
        return self.costs, self.costs.tiers[0], self.at_every_exit

    def _read(self, windows: WindowPolicy, deferred: BoolArray) -> tuple[Units, IntArray]:
        """What tier 2 reads, and which of the words those are."""
        words = self.words
        state = WindowState(read_only(deferred), read_only(words.offsets), read_only(words.n_tokens))
        spans = windowing.decide(windows, state)
        numbers = ranges(spans.starts, spans.stops - spans.starts)
        return words.spans(spans.rows, spans.starts, spans.stops), numbers

    def timed(self, policies: Policies) -> tuple[float, float]:
        """Seconds per sentence of a setting and of full depth, measured in turns on 500 sentences: medians."""
        some = self.select(np.arange(min(TIMED, len(self))))
        taken = [(some.run(policies).seconds, some.run(some.at_full_depth).seconds) for _ in range(TURNS)]
        own, full = np.median(taken, axis=0) / len(some)
        return float(own), float(full)

    def events(self, mask: BoolArray) -> BoolArray:
        return np.bincount(self.words.row_of[mask], minlength=len(self)) > 0

    def classes(self, answers: IntArray) -> BoolArray:
        raise OptionError("a bound for every label separately must be about texts, got sentences; leave per_class out")

    def select(self, examples: IntArray) -> WordAnswers:
        words = self.words.select(examples)
        places = ranges(self.words.offsets[examples], words.counts)
        share = words.rows.tokens / max(self.words.rows.tokens, 1)
        truth, full = None if self.truth is None else self.truth[places], self.full
        at_full = Run(full.answers[places], full.tier[places], full.layers[places], full.seconds * share)
        return replace(
            self,
            words=words,
            truth=truth,
            encode_seconds=self.encode_seconds * share,
            at_full=at_full,
            original=None if self.original is None else self.original[places],
            at_every_exit=None if self.at_every_exit is None else self.at_every_exit[places],
        )

    def fitting(self) -> WordAnswers:
        """The sentences that neither tier has to cut."""
        fits = self.words.rows.lengths <= min(tier.max_length for tier in self.tiers)
        return self if fits.all() else self.select(np.flatnonzero(fits))


def all_exits(tier: Tier, given: Readable, progress: Progress | None = None) -> FloatArray:
    """Probabilities at every exit, of which a tier without exits has one. Shape `(row units, exits, labels)`."""
    if isinstance(tier, MultiExit):
        return tier.all_exits(given, progress=progress)
    scores = tier.score(as_inputs(given), progress=progress)
    if scores.failed.any():
        raise OptionError(
            f"a tier must answer all that it is calibrated on, got no answer for {int((scores.failed > 0).sum())} of "
            f"{len(scores)}; try again, or leave these out"
        )
    return scores.probabilities[:, None]

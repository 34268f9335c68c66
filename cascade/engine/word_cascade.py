"""The two tiers of a tagger together: tag with the first, send windows of unsure words to the second, paste back.

Rows that are longer than a tier takes are cut into overlapping ones, and probabilities averaged where they overlap.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from tqdm import tqdm

from cascade.core.checks import check_whole
from cascade.core.confidence import evidence, max_probability
from cascade.core.results import Routes, Stats
from cascade.core.rows import BoolArray, FloatArray, IntArray, Units, ranges
from cascade.engine.cascade import Clock, stats_of
from cascade.engine.tiers import Scores
from cascade.engine.word_tiers import WordTier
from cascade.exceptions import OptionError
from cascade.policies import routing, windows
from cascade.policies.routing import DeferAll, DeferNone, Router, RoutingState
from cascade.policies.windows import WindowPolicy, Windows, WindowState

__all__ = ["WordCascade", "WordOutcome", "cut"]


@dataclass(frozen=True, eq=False)
class WordOutcome:
    """What a cascade says about words, in their order.

    Attributes:
        probabilities: shape `(words, labels)`.
        routes: one per word.
        stats: of the whole call; `texts` are sentences, `rows`, `deferred` and `exits` count words.
    """

    probabilities: FloatArray
    routes: Routes
    stats: Stats


@dataclass(frozen=True, eq=False)
class WordCascade:
    """Two tiers of a tagger, the router between them, and what tier 2 reads around an unsure word.

    Attributes:
        tier1: the cheap tier. Not run if `router` is `defer_all`.
        tier2: the accurate tier. Not run if nothing is deferred.
        router: which words tier 2 answers; its rows are words. With `defer_all` tier 2 reads whole sentences.
        windows: which runs of words tier 2 reads for that.
        overlap: tokens that two rows of a sentence that is too long share at most.
        blend: how much tier 1's answer counts beside that of each of tier 2's exits, where both were asked
            (`confidence.evidence`); at 0 it is forgotten.
    """

    tier1: WordTier
    tier2: WordTier
    router: Router
    windows: WindowPolicy = field(default_factory=Windows)
    overlap: int = field(default=64, kw_only=True)
    blend: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        check_whole("overlap", self.overlap, "0 cuts long sentences without an overlap", least=0)

    def score(self, words: Units, *, show_progress: bool = False) -> WordOutcome:
        """Answer all words.

        Args:
            words: may be empty; sentences may be of any length.
            show_progress: draw a bar per tier on standard error.

        Raises:
            OptionError: the router, the windows or the exit policy returned something other than what they must.
        """
        clock = Clock()
        if isinstance(self.router, DeferAll):
            with clock("tier2"):
                scores = self._second(words, None, None, None, show_progress)
            tier = np.full(len(words), 2, dtype=np.int64)
        else:
            with clock("tier1"):
                scores = _run(self.tier1, words, self.overlap, "tier 1", show_progress)
            tier = np.ones(len(words), dtype=np.int64)
            if not isinstance(self.router, DeferNone):
                with clock("route"):
                    state = RoutingState(scores.probabilities, scores.confidence, words.n_tokens)
                    unsure = routing.decide(self.router, state)
                    spans = windows.decide(self.windows, WindowState(unsure, words.offsets, words.n_tokens))
                if len(spans):
                    with clock("tier2"):
                        part = words.spans(spans.rows, spans.starts, spans.stops)
                        numbers = ranges(spans.starts, spans.stops - spans.starts)
                        layers = getattr(self.windows, "context_layers", None)
                        prior = evidence(scores.probabilities[numbers], weight=self.blend) if self.blend else None
                        second = self._second(part, unsure[numbers], layers, prior, show_progress)
                    with clock("merge"):
                        scores = _paste(scores, second, numbers, unsure)
                        tier[unsure] = 2
        routes = Routes(tier, scores.exit_layer, scores.confidence)
        stats = replace(stats_of(routes, tokens=words.rows.tokens, seconds=clock.seconds), texts=words.n_rows)
        return WordOutcome(scores.probabilities, routes, stats)

    def _second(
        self,
        words: Units,
        targets: BoolArray | None,
        context_layers: int | None,
        prior: FloatArray | None,
        show_progress: bool,
    ) -> Scores:
        return _run(
            self.tier2,
            words,
            self.overlap,
            "tier 2",
            show_progress,
            targets=targets,
            context_layers=context_layers,
            prior=prior,
        )


def cut(words: Units, max_length: int, overlap: int) -> tuple[Units, IntArray]:
    """Rows that are too long as several rows of whole words, between the same special tokens; the others as they are.

    Args:
        words: a word with more pieces than a row has room for keeps its first ones.
        max_length: tokens of a row at most.
        overlap: tokens that two rows of one sentence share at most; lowered to half of a row's room.

    Returns:
        The new rows, and the number in `words` of each of their words, where none is missing. Shape `(new words,)`.

    Raises:
        OptionError: `max_length` leaves no room for a word.
    """
    long = np.flatnonzero((words.rows.lengths > max_length) & (words.counts > 0))
    if not len(long):
        return words, np.arange(len(words), dtype=np.int64)
    prefixes, suffixes = words.special(long)
    rooms = max_length - prefixes - suffixes
    if rooms.min() < 1:
        raise OptionError(
            f"max_length must leave room for a word, was: {max_length} for {max_length - rooms.min()} special tokens; "
            "raise it"
        )
    most = np.full(len(words), max_length, dtype=np.int64)
    most[ranges(words.offsets[long], words.counts[long])] = np.repeat(rooms, words.counts[long])
    words = words.shorten(most)
    begins, ends, last = words.first_token, words.first_token + words.n_tokens, words.offsets[long + 1]
    starts = words.offsets[long]
    found = []  # of each long row its first span, then of each that goes on its second, ...
    while len(long):
        stops = np.minimum(np.searchsorted(ends, begins[starts] + rooms, side="right"), last)
        found.append((long, starts, stops))
        more = stops < last
        long, last, rooms = long[more], last[more], rooms[more]
        stops = stops[more]
        # What is shared leaves room for the word after it, so that every row has a word that the one before lacks.
        shared_from = np.maximum(ends[stops - 1] - np.minimum(overlap, rooms // 2), ends[stops] - rooms)
        starts = np.searchsorted(begins, shared_from)
    whole = np.ones(words.n_rows, dtype=np.bool_)
    whole[found[0][0]] = False
    found.append((np.flatnonzero(whole), words.offsets[:-1][whole], words.offsets[1:][whole]))
    rows, starts, stops = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((starts, rows))
    rows, starts, stops = rows[order], starts[order], stops[order]
    return words.spans(rows, starts, stops), ranges(starts, stops - starts)


def _run(
    tier: WordTier,
    words: Units,
    overlap: int,
    name: str,
    show_progress: bool,
    *,
    targets: BoolArray | None = None,
    context_layers: int | None = None,
    prior: FloatArray | None = None,
) -> Scores:
    rows, numbers = cut(words, tier.max_length, overlap)
    wanted = None if targets is None else targets[numbers]
    known = None if prior is None else prior[numbers]
    if show_progress:
        total = len(rows) if wanted is None else int(wanted.sum())
        with tqdm(total=total, desc=name, unit="word") as bar:
            scores = tier.score(rows, targets=wanted, context_layers=context_layers, prior=known, progress=bar.update)
    else:
        scores = tier.score(rows, targets=wanted, context_layers=context_layers, prior=known)
    return scores if rows is words else _average(scores, numbers, len(words))


def _average(scores: Scores, numbers: IntArray, words: int) -> Scores:
    """One answer per word from those in all rows that it is in; its exit is the deepest of them."""
    order = np.argsort(numbers, kind="stable")
    times = np.bincount(numbers, minlength=words)
    starts = np.cumsum(times) - times
    summed = np.add.reduceat(scores.probabilities[order], starts, axis=0)
    probabilities: FloatArray = (summed / times[:, None]).astype(np.float32)
    return Scores(probabilities, max_probability(probabilities), np.maximum.reduceat(scores.exit_layer[order], starts))


def _paste(first: Scores, second: Scores, numbers: IntArray, unsure: BoolArray) -> Scores:
    """Tier 2's answers for the unsure words, tier 1's for the others. `numbers`: of the words in `second`."""
    probabilities, confidence, exits = first.probabilities.copy(), first.confidence.copy(), first.exit_layer.copy()
    targets = unsure[numbers]
    places = numbers[targets]
    probabilities[places] = second.probabilities[targets]
    confidence[places] = second.confidence[targets]
    exits[places] = second.exit_layer[targets]
    return Scores(probabilities, confidence, exits)

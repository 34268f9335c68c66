"""Rivals of token exit at equal accuracy: sentence exit (SENTEE), and exits fixed per token id (HashEE).

A rival's threshold and its cap on depth are the cheapest that are at least as accurate as token exit on the very
sentences that are measured. That favours the rival: it is chosen in hindsight. Candidates are replayed from the answers
of all exits, then really run, until one keeps the accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cascade.calibration import WordCosts, WordPoint, choose_words, leave
from cascade.core.rows import BoolArray, FloatArray, IntArray, Units
from cascade.exceptions import DataError
from cascade.pipelines.tagger import Tagger
from cascade.policies.exits import AtExit, ExitPolicy, any_of
from cascade.policies.routing import defer_all
from cascade.policies.unit_exits import Aggregate, ExitByToken, SentenceExit
from cascade.policies.windows import whole_sentences
from cascade.text.word_encoding import encode_words
from cascade_bench.tag_data import Tagged
from cascade_bench.taggers import BY_TOKEN, SENTENCE, runner

__all__ = ["Seen", "chosen", "rivals", "see"]

# Both begin or end with what goes to full depth, so that there always is a rival that is as accurate as that.
THRESHOLDS = (0.0, *np.geomspace(0.003, 0.9, 24).round(4).tolist())
SHARES = (0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.975, 0.98, 0.985, 0.99, 0.993, 0.996, 0.998, 1.0, 1.01)

Progress = Callable[[str], object]


@dataclass(frozen=True, eq=False)
class Seen:
    """What every exit of tier 2 says about sentences that fit it.

    Attributes:
        words: the sentences.
        probabilities: shape `(words, exits, labels)`.
        right: whether each exit is right. Shape `(words, exits)`.
        layers: of the exits.
    """

    words: Units
    probabilities: FloatArray
    right: BoolArray
    layers: tuple[int, ...]


def see(tagger: Tagger, data: Tagged) -> Seen:
    """Run tier 2 once, nobody leaving.

    Raises:
        DataError: no sentence fits it.
    """
    words, targets = fitting(tagger, encode_words(tagger.tokenizer, data.sentences), data.targets)
    probabilities = tagger.tier2.all_exits(words)
    right: BoolArray = probabilities.argmax(axis=2) == targets[:, None]
    return Seen(words, probabilities, right, tuple(tagger.tier2.layers))


def fitting(tagger: Tagger, words: Units, targets: IntArray) -> tuple[Units, IntArray]:
    """The sentences that both tiers read whole, and their words' targets.

    Raises:
        DataError: there is none.
    """
    most = min(tagger.tier1.max_length, tagger.tier2.max_length)
    fits = words.rows.lengths <= most
    if not words.counts[fits].any():
        raise DataError(f"there must be a sentence with words of at most {most} tokens, was none; give shorter ones")
    return words.select(np.flatnonzero(fits)), targets[np.repeat(fits, words.counts)]


def rivals(
    tagger: Tagger, data: Tagged, *, table_data: Tagged | None = None, progress: Progress | None = None
) -> dict[str, ExitPolicy]:
    """Exit policies by key, each at least as accurate as the tagger's in tier 2 alone, or as accurate as it can be.

    Args:
        tagger: whose exit policy they are to match.
        data: the sentences that are measured.
        table_data: other sentences, from which exits per token id are learned; without them there is no `by-token`.
        progress: called with what is done now.

    Raises:
        DataError: no sentence fits tier 2.
    """
    say = progress or (lambda _name: None)
    alone = tagger.with_router(defer_all)
    say("tier 2, all exits")
    seen = see(tagger, data)
    say("tier 2 with exits")
    target = _accuracy(alone, data)
    kinds: dict[str, Iterable[ExitPolicy]] = {SENTENCE: _sentence_exits()}
    if table_data is not None:
        say("tier 2, all exits, for the table")
        kinds[BY_TOKEN] = exits_by_token(see(tagger, table_data), seen.words)
    found: dict[str, ExitPolicy] = {}
    for key, policies in kinds.items():

        def run(point: WordPoint, key: str = key) -> tuple[float, float]:
            say(f"choosing {key}")
            return _accuracy(alone.with_exit_policy(point.exit_policy), data), 1.0

        found[key] = chosen(points(policies, seen), target, run)
    return found


def points(policies: Iterable[ExitPolicy], seen: Seen) -> list[WordPoint]:
    """Each policy, and each with every cap on depth, replayed in tier 2 alone; costs count layers."""
    costs = WordCosts.by_layers(seen.layers, tier1=0)
    whole, last = costs.full(seen.words), len(seen.layers) - 1
    numbers = np.arange(len(seen.words))
    full = float(seen.right[:, -1].mean())
    depths, caps = np.asarray(seen.layers, dtype=np.float64), np.arange(last + 1)
    made = []
    for policy in policies:
        each = np.minimum(leave(policy, seen.probabilities, seen.words, seen.layers), caps[:, None])
        right = seen.right[numbers, each].mean(axis=1).tolist()
        depth = depths[each].mean(axis=1).tolist()
        shares = (costs.tier2(each, seen.words) / whole).tolist()
        for cap in caps.tolist():
            capped = policy if cap == last else any_of(policy, AtExit(seen.layers[cap]))
            made.append(
                WordPoint(
                    router=defer_all,
                    windows=whole_sentences,
                    exit_policy=capped,
                    accuracy=right[cap],
                    drop=full - right[cap],
                    deferred=1.0,
                    mean_layer=depth[cap],
                    cost=shares[cap],
                )
            )
    return made


def chosen(
    candidates: Sequence[WordPoint], target: float, run: Callable[[WordPoint], tuple[float, float]]
) -> ExitPolicy:
    """The cheapest candidate that really is as accurate as the target; the most accurate one if none is.

    Args:
        candidates: replayed.
        target: an accuracy.
        run: accuracy and seconds of a candidate.
    """
    against = [replace(point, drop=target - point.accuracy) for point in candidates]
    tried = choose_words(against, run, full=target, max_drop=0.0, enough=1)
    within = [one.point for one in tried if one.within]
    best = within[0] if within else max(candidates, key=lambda point: (point.accuracy, -point.cost))
    return best.exit_policy


def exits_by_token(seen: Seen, words: Units) -> Iterator[ExitByToken]:
    """Tables of ever deeper exits: each token id's shallowest one at which so large a share of its words is right.

    Ids that were never seen leave where those do that were seen once, taken together.

    Args:
        seen: answers from which shares are learned.
        words: the words that the tables have to know, by their first pieces.
    """
    size = 1 + int(max(seen.words.first_ids.max(), words.first_ids.max()))
    ids = seen.words.first_ids
    counts = np.bincount(ids, minlength=size)
    right = np.stack([np.bincount(ids, weights=column, minlength=size) for column in seen.right.T], axis=1)
    shares = right / np.maximum(counts, 1)[:, None]
    rare = counts == 1
    shares[counts == 0] = shares[rare].mean(axis=0) if rare.any() else seen.right.mean(axis=0)
    layers = np.asarray(seen.layers)
    for share in SHARES:
        enough = shares >= share - 1e-9
        exits = np.where(enough.any(axis=1), enough.argmax(axis=1), len(layers) - 1)
        yield ExitByToken(tuple(layers[exits].tolist()))


def _sentence_exits() -> Iterator[SentenceExit]:
    for aggregate in Aggregate:
        for threshold in THRESHOLDS:
            yield SentenceExit(threshold, aggregate=aggregate)


def _accuracy(tagger: Tagger, data: Tagged) -> float:
    return data.right(runner(tagger)(data.sentences).labels) / len(data)

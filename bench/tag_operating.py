"""A tagger's operating point: replayed on labelled sentences, really run, written into the bundle."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cascade.bundle.opening import Bundle
from cascade.bundle.writing import copy_bundle
from cascade.calibration import Tried, WordCosts, WordGrid, WordPoint, choose_words, observe_costs, replay_words
from cascade.exceptions import OptionError
from cascade.pipelines.tagger import Tagger
from cascade.policies import exits, routing, windows
from cascade.policies.exits import AtExit, Never, never
from cascade.policies.routing import DeferAll, defer_all
from cascade.policies.windows import whole_sentences
from cascade.text.word_encoding import encode_words
from cascade_bench.rivals import fitting
from cascade_bench.tag_data import Tagged, entity_f1

__all__ = ["Operating", "cheapest", "kinds", "operate", "write"]

RUNS = 2  # of each point; the faster one counts
WIDEST = 0.02  # points that lose more are of no interest

Progress = Callable[[str], object]


@dataclass(frozen=True)
class Operating:
    """What was found.

    Attributes:
        points: replayed, cheapest first.
        full: what tier 2 at full depth scores: word accuracy, or entity F1.
        full_seconds: how long it took.
        tried: points that were really run, in order.
    """

    points: Sequence[WordPoint]
    full: float
    full_seconds: float
    tried: Sequence[Tried]

    @property
    def best(self) -> Tried:
        """The fastest that kept the bound; tier 2 at full depth where none did."""
        within = [one for one in self.tried if one.within and one.seconds < self.full_seconds]
        if within:
            return min(within, key=lambda one: one.seconds)
        whole = WordPoint(defer_all, whole_sentences, never, self.full, 0.0, 1.0, 0.0, 1.0)
        return Tried(whole, self.full, self.full_seconds, True)


def operate(
    tagger: Tagger,
    data: Tagged,
    *,
    max_drop: float,
    f1: bool = False,
    grid: WordGrid | None = None,
    tier1_share: float | None = None,
    progress: Progress | None = None,
) -> Operating:
    """Choose a router, windows and an exit policy.

    Args:
        tagger: whose tiers run, with its decoding.
        data: labelled sentences; those too long for a tier are left out of the replay, not of what is really run.
        max_drop: what may be lost against tier 2 at full depth.
        f1: of entity F1, not of word accuracy. The replay knows accuracy only; points are really run on F1.
        grid: `WordGrid()` if left out.
        tier1_share: cost of tier 1 as a share of tier 2; then layers are counted and nothing is timed.
        progress: called with what is done now.

    Raises:
        OptionError: entity F1 of tags that are not BIO.
        MissingExtraError: entity F1 without the `bench` extra.
    """
    if f1 and not data.entities:
        raise OptionError("entity F1 needs BIO tags, the bundle's are none; leave out --f1")
    say = progress or (lambda _name: None)

    def run(point: WordPoint) -> tuple[float, float]:
        say("really running points")
        some = tagger.with_router(point.router).with_windows(point.windows).with_exit_policy(point.exit_policy)
        some = some.with_blend(point.blend)
        taken = []
        for _ in range(RUNS):
            begin = time.perf_counter()
            made = some.predict(data.sentences)
            taken.append(time.perf_counter() - begin)
        score = entity_f1(data.tags, made.tags) if f1 else data.right(made.tags) / len(data)
        return score, min(taken)

    say("both tiers")
    begin = time.perf_counter()
    encoded = encode_words(tagger.tokenizer, data.sentences)
    seconds = time.perf_counter() - begin
    words, targets = fitting(tagger, encoded, data.targets)
    if tier1_share is None:
        seconds *= words.rows.tokens / encoded.rows.tokens
        costs = observe_costs(tagger.tier1, tagger.tier2, words, encode_seconds=seconds)
    else:
        costs = WordCosts.by_layers(tagger.tier2.layers, tier1=tier1_share)
    points = replay_words(
        tagger.tier1,
        tagger.tier2,
        words,
        targets,
        costs,
        max_drop=max(max_drop, WIDEST),
        grid=grid,
        progress=lambda _count: say("tier 2 on windows"),
    )
    full, full_seconds = run(WordPoint(defer_all, whole_sentences, never, 0.0, 0.0, 1.0, 0.0, 1.0))
    tried = choose_words(points, run, full=full, max_drop=max_drop)
    return Operating(points, full, full_seconds, tried)


def cheapest(points: Sequence[WordPoint], max_drop: float) -> WordPoint:
    """The cheapest replayed point within a bound: tier 2 at full depth is among them. `points`: cheapest first."""
    return next(point for point in points if point.drop <= max_drop + 1e-9)


def kinds(points: Sequence[WordPoint], max_drop: float) -> dict[str, WordPoint]:
    """The cheapest replayed point within a bound of each kind: what windows and exits bring beside a fixed depth."""
    alone = [point for point in points if isinstance(point.router, DeferAll)]
    cut = [point for point in alone if isinstance(point.exit_policy, AtExit | Never)]
    return {
        "tier 2 cut": cheapest(cut, max_drop),
        "tier 2 with exits": cheapest(alone, max_drop),
        "cascade": cheapest(points, max_drop),
    }


def write(tagger: Tagger, found: Operating, *, model: str, data: str, max_drop: float, f1: bool) -> None:
    """Make the best point the default of a bundle on this disk, whole or not at all.

    Args:
        tagger: loaded from the bundle.
        found: what was found.
        model: the bundle's folder, as the user named it.
        data: the file of sentences, for the figures.
        max_drop: the bound, for the figures.
        f1: what it bounds, for the figures.

    Raises:
        OptionError: the bundle is not a folder of this disk.
    """
    if not Path(model).expanduser().is_dir():
        raise OptionError(f"--write needs a bundle in a folder, was: {model}; download it, or use save_pretrained")
    best = found.best
    policies: dict[str, Any] = {
        "router": routing.to_json(best.point.router),
        "exit_policy": exits.to_json(best.point.exit_policy),
        "windows": windows.to_json(best.point.windows),
    }
    chosen: dict[str, Any] = {
        **policies,
        "blend": best.point.blend,
        "data": Path(data).name,
        "metric": "entity F1" if f1 else "word accuracy",
        "max_drop": max_drop,
        "score": best.score,
        "drop": found.full - best.score,
        "deferred": best.point.deferred,
        "mean_layer": best.point.mean_layer,
        "speed_up": found.full_seconds / best.seconds,
    }
    bundle = tagger.bundle
    manifest = replace(bundle.manifest, figures={**bundle.manifest.figures, "operating_point": chosen})
    copy_bundle(Bundle(bundle.folder, manifest), bundle.folder, **policies, blend=best.point.blend, overwrite=True)

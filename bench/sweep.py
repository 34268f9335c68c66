"""A bundle's whole plane of settings, placed without running them: accuracy beside estimated seconds.

Both tiers run once on the data; deferral and exit thresholds are replayed on what they said, and each setting is paid
for with costs per token that were measured here. So accuracies of texts are exact but for rounding, those of words
nearly, and **seconds are estimates**, tied to a few settings that ran (`anchors`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from cascade.calibration import (
    Costs,
    Examples,
    Grid,
    OperatingPoint,
    WordGrid,
    WordPoint,
    observe,
    observe_costs,
    replay,
    replay_words,
)
from cascade.core.rows import BoolArray
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.policies.batching import BatchingPolicy
from cascade.policies.exits import never
from cascade.policies.routing import defer_all
from cascade.policies.windows import WindowPolicy, whole_sentences
from cascade.text.word_encoding import encode_words
from cascade_bench.anchors import anchored
from cascade_bench.data import Labelled
from cascade_bench.plane import Axes, Bounds, Estimate, Setting, Sweep, configured, fixed, is_fixed
from cascade_bench.rivals import fitting, see
from cascade_bench.tag_data import Tagged

__all__ = ["sweep"]

PASSES = 2  # in which costs are measured; the cheaper one counts

Progress: TypeAlias = Callable[[str], object]


def sweep(
    model: Classifier | Tagger, data: Labelled | Tagged, axes: Axes, *, progress: Progress | None = None
) -> Sweep:
    """Place all settings.

    Args:
        model: a bundle of the same task as the data.
        data: what is answered, and what is right about it.
        axes: which settings. The first batching policy is that of tier 2 at full depth, the base of speed-ups.
        progress: called with what is done now.
    """
    say = progress or (lambda _name: None)
    made = []
    for batching in axes.batching:
        one = model if batching is None else model.with_batching(batching)
        if isinstance(one, Tagger):
            assert isinstance(data, Tagged)  # noqa: S101  # the caller reads the file for this bundle
            placed = _words(one, data, axes, batching, say)
        else:
            assert isinstance(data, Labelled)  # noqa: S101
            placed = _texts(one, data, axes, batching, say)
        made.append(anchored(placed, _clocked(model, data, say)))
    first = made[0]
    base = next(point.seconds for point in first.points if point.kind == "full")
    points = [replace(point, speed_up=base / point.seconds) for some in made for point in some.points]
    return replace(first, points=tuple(points), costs=tuple(some.costs[0] for some in made))


def _clocked(model: Classifier | Tagger, data: Labelled | Tagged, say: Progress) -> Callable[[Setting], float]:
    """Seconds of one pass with a setting."""

    def run(setting: Setting) -> float:
        say("anchors of the estimate")
        made = configured(model, setting)
        begin = time.perf_counter()
        made.predict(data.inputs)
        return time.perf_counter() - begin

    return run


def _texts(classifier: Classifier, data: Labelled, axes: Axes, batching: BatchingPolicy | None, say: Progress) -> Sweep:
    found: list[Costs] = []
    examples: Examples | None = None
    for number in range(PASSES):
        say(f"both tiers, all exits, {number + 1} of {PASSES}")
        classifier.tokenizer.encode(
            data.texts
        )  # chunks that were seen before are cheap, as they are in every later run
        begin = time.perf_counter()
        encoded = classifier.tokenizer.encode(data.texts)
        seconds = time.perf_counter() - begin
        seen, costs = observe(
            classifier.tier1,
            classifier.tier2,
            encoded.units.rows,
            data.targets[encoded.numbers],
            tokenize_seconds=seconds,
        )
        examples = examples or seen
        found.append(costs)
    assert examples is not None  # noqa: S101  # there is at least one pass
    cheapest = Costs(
        tier1=min(costs.tier1 for costs in found),
        stages=tuple(map(min, zip(*(costs.stages for costs in found), strict=True))),
        always=min(costs.always for costs in found),
    )
    lengths = examples.lengths.astype(np.float64)
    bounds = Bounds(
        right1=examples.right1,
        right2=examples.right2[:, -1],
        rows=np.arange(len(examples)),
        before=lengths * (cheapest.always + cheapest.tier1),
        deep=lengths * sum(cheapest.stages),
        always=cheapest.always * float(lengths.sum()),
        layer=examples.layers[-1],
    )
    grid = Grid(axes.deferral, axes.exits, axes.caps)
    made: list[OperatingPoint] = [*replay(examples.with_blend(classifier.blend), cheapest, grid=grid)]
    if classifier.blend:  # where tier 1 is not run there is nothing to blend with
        made += [point for point in replay(examples, cheapest, grid=grid) if point.router == defer_all]
    points = [_placed(point, None, batching, bounds) for point in made if _adaptive(point)]
    paid = bounds.always + np.cumsum(cheapest.stages) * float(lengths.sum())
    points += fixed(
        bounds, examples.right2.mean(axis=0), paid, examples.layers, Setting(defer_all, never, None, batching)
    )
    return Sweep(
        tuple(points), bounds.oracle(), bounds.lots(), encoded.units.rows.tokens, len(encoded.units.rows), (cheapest,)
    )


def _words(tagger: Tagger, data: Tagged, axes: Axes, batching: BatchingPolicy | None, say: Progress) -> Sweep:
    say("both tiers, halted words")
    encode_words(tagger.tokenizer, data.sentences)
    begin = time.perf_counter()
    encoded = encode_words(tagger.tokenizer, data.sentences)
    seconds = time.perf_counter() - begin
    words, targets = fitting(tagger, encoded, data.targets)
    tokens = words.rows.tokens
    more = (
        encoded.rows.tokens / tokens
    )  # sentences that do not fit are cut when they run; here they count as the others
    costs = observe_costs(tagger.tier1, tagger.tier2, words, encode_seconds=seconds / more)
    say("tier 2, all exits")
    seen = see(tagger, data)
    right1: BoolArray = tagger.tier1.score(words).probabilities.argmax(axis=1) == targets
    lengths = words.rows.lengths.astype(np.float64) * more
    deep = sum(costs.active) + sum(costs.live) + costs.embed
    bounds = Bounds(
        right1=right1,
        right2=seen.right[:, -1],
        rows=words.row_of,
        before=lengths * (costs.always + costs.tier1),
        deep=lengths * deep,
        always=costs.always * float(lengths.sum()),
        layer=seen.layers[-1],
    )
    windows: tuple[WindowPolicy, ...] = tuple(dict.fromkeys((tagger.windows, whole_sentences)))
    shares = tuple(np.geomspace(0.015, 0.5, axes.deferral).round(4).tolist())
    thresholds = tuple(np.geomspace(0.005, 0.55, axes.exits).round(4).tolist())
    grid = WordGrid(deferred=shares, windows=windows, thresholds=thresholds, caps=axes.caps, blends=(tagger.blend,))
    made = replay_words(
        tagger.tier1,
        tagger.tier2,
        words,
        targets,
        costs,
        max_drop=1.0,
        grid=grid,
        progress=lambda _count: say("tier 2 on windows"),
    )
    points = [_placed(point, point.windows, batching, bounds) for point in made if _adaptive(point)]
    everybody = np.repeat(np.arange(len(seen.layers))[:, None], len(words), axis=1)
    paid = bounds.always + costs.tier2(everybody, words) * more
    base = Setting(defer_all, never, whole_sentences, batching)
    points += fixed(bounds, seen.right.mean(axis=0), paid, seen.layers, base)
    return Sweep(tuple(points), bounds.oracle(), bounds.lots(), encoded.rows.tokens, encoded.n_rows, (costs,))


def _adaptive(point: OperatingPoint | WordPoint) -> bool:
    return not is_fixed(point.router, point.exit_policy)


def _placed(
    point: OperatingPoint | WordPoint, windows: WindowPolicy | None, batching: BatchingPolicy | None, bounds: Bounds
) -> Estimate:
    return Estimate(
        kind="setting",
        setting=Setting(point.router, point.exit_policy, windows, batching),
        accuracy=point.accuracy,
        deferred=point.deferred,
        mean_layer=point.mean_layer,
        seconds=point.cost * bounds.full,
        speed_up=point.predicted_speed_up,
    )

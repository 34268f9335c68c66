"""What each tier and stage costs on this host: milliseconds over a grid of batches, where they go, and the ceiling.

Every part of a bundle runs at every point of the grid, beside bare matrix products of its own shapes and two large
ones, all in turns; so a share of the ceiling is a ratio of seconds of one run. Graphs run as they do alone, on all
threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from cascade.exceptions import OptionError
from cascade_bench.ceiling import LARGE, Product, runner
from cascade_bench.cost_model import CostModel, fit
from cascade_bench.interleaving import Turns, interleave
from cascade_bench.operators import Operators, look
from cascade_bench.parts import Part, Point
from cascade_bench.statistics import Interval, median_interval

__all__ = ["Profile", "Share", "measure"]

SMALLEST_PART = 0.01  # products that are a smaller part of a stage's operations are not run by themselves


@dataclass(frozen=True)
class Share:
    """A part against the ceiling, at one point.

    Attributes:
        operations: of its matrix products, by precision.
        products: share of its time that its products take when they run alone, in their own shapes.
        ceiling: share of its time that its operations would take at the rate of the large products.
    """

    operations: Mapping[str, int]
    products: Interval
    ceiling: Interval


@dataclass(frozen=True)
class Profile:
    """What was measured.

    Attributes:
        points: of the grid.
        keys: the parts' keys and names.
        seconds: by part and point, of one run, by repeat.
        models: by part.
        operators: by part, at the reference point.
        reference: the point with most tokens, where operators and shares were taken.
        rates: operations per second by product.
        shares: by part; parts without matrix products have none.
        turns: who ran when.
    """

    points: tuple[Point, ...]
    keys: Mapping[str, str]
    seconds: Mapping[tuple[str, Point], list[float]]
    models: Mapping[str, CostModel]
    operators: Mapping[str, Operators]
    reference: Point
    rates: Mapping[Product, Interval]
    shares: Mapping[str, Share]
    turns: Turns


def measure(
    found: Sequence[Part],
    grid: Sequence[Point],
    *,
    threads: int,
    repeats: int = 5,
    progress: Callable[[str], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Profile:
    """Time every part at every point, and the products inside.

    Args:
        found: see `parts.parts`.
        grid: see `parts.points`.
        threads: of products that run alone; those of the parts' own sessions.
        repeats: turns of each.
        progress: called before each turn with its name.
        clock: gives seconds.

    Raises:
        OptionError: fewer points than a cost model needs.
    """
    reference = max(grid, key=lambda point: (point.size.tokens, -point.size.longest), default=None)
    if reference is None:
        raise OptionError("the grid must have points, had none; give rows and lengths")
    operators = {part.key: look(part.backend, part.feeds(np.array(reference.lengths))) for part in found}
    products = {product for seen in operators.values() for product, _ in _large(seen)} | set(LARGE.values())
    runs: dict[str, Callable[[], object]] = {product.name: runner(product, threads=threads) for product in products}
    for part in found:
        for point in grid:
            runs[f"{part.key} {point.name}"] = _bound(part, point)
    warm_up = {}
    for name, run in runs.items():
        run()
        begin = clock()
        run()
        warm_up[name] = clock() - begin
    turns = interleave(runs, repeats=repeats, warm_up=warm_up, progress=progress, clock=clock)
    seconds = {
        (part.key, point): list(_there(turns.seconds[f"{part.key} {point.name}"])) for part in found for point in grid
    }
    sizes = [point.size for point in grid]
    return Profile(
        points=tuple(grid),
        keys={part.key: part.name for part in found},
        seconds=seconds,
        models={part.key: fit(sizes, [median(seconds[part.key, point]) for point in grid]) for part in found},
        operators=operators,
        reference=reference,
        rates={
            product: median_interval([product.operations / taken for taken in _there(turns.seconds[product.name])])
            for product in sorted(products, key=lambda product: product.name)
        },
        shares={
            part.key: _share(operators[part.key], turns.seconds[f"{part.key} {reference.name}"], turns)
            for part in found
            if operators[part.key].products
        },
        turns=turns,
    )


def _share(seen: Operators, taken: Sequence[float | None], turns: Turns) -> Share:
    alone, ceiling = [], []
    for repeat, own in enumerate(taken):
        if own is None:
            continue
        parted = {kind: turns.seconds[large.name][repeat] for kind, large in LARGE.items()}
        large = {kind: value / LARGE[kind].operations for kind, value in parted.items() if value is not None}
        single = [(turns.seconds[product.name][repeat], count) for product, count in _large(seen)]
        if len(large) == len(LARGE) and all(value is not None for value, _ in single):
            alone.append(sum(value * count for value, count in single if value is not None) / own)
            ceiling.append(sum(p.operations * count * large[p.precision] for p, count in seen.products.items()) / own)
    operations: dict[str, int] = {}
    for product, count in seen.products.items():
        operations[product.precision] = operations.get(product.precision, 0) + product.operations * count
    return Share(operations, median_interval(alone), median_interval(ceiling))


def _large(seen: Operators) -> Iterator[tuple[Product, int]]:
    """Products that matter."""
    whole = sum(product.operations * count for product, count in seen.products.items())
    for product, count in seen.products.items():
        if product.operations * count >= SMALLEST_PART * whole:
            yield product, count


def _there(values: Sequence[float | None]) -> Iterator[float]:
    return (value for value in values if value is not None)


def _bound(part: Part, point: Point) -> Callable[[], object]:
    feeds = part.feeds(np.array(point.lengths))
    return lambda: part.backend.run(feeds)

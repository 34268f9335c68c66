"""The curve as a picture: accuracy over speed-up, what was timed drawn solid, what was estimated drawn light or dashed.

Kinds differ in marker and in lightness, so a greyscale print shows them too; names are moved until none covers another
or a marker.
 Needs the extra `bench`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cascade.core.files import write
from cascade.exceptions import MissingExtraError
from cascade_bench.curve import Curve, Timed
from cascade_bench.plane import Estimate, front

try:
    from matplotlib import rc_context
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patheffects import Normal, Stroke
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
    from matplotlib.transforms import Bbox
except ImportError as error:
    raise MissingExtraError(
        f"a picture needs the bench extra, but {error.name} is missing; "
        'pip install "cascade-encoder[bench]", or leave out --png and --html'
    ) from error

__all__ = ["draw", "svg", "write_png"]

SIZE, DPI = (8.0, 5.6), 150
CLOUD, LINE, DARK, MIDDLE, LIGHT = "#c4c4c4", "#8a8a8a", "#12304f", "#c7522a", "#e8b04a"
TICKS = (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024)
AROUND = tuple((x, y) for reach in (11, 18, 26) for x, y in ((0, reach), (reach, 0), (0, -reach), (-reach, 0)))
DIAGONAL = tuple((x * reach, y * reach) for reach in (9, 14) for x in (1, -1) for y in (1, -1))


def draw(curve: Curve) -> Figure:
    """The picture."""
    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    sweep, timed = curve.sweep, curve.timed
    _cloud(axes, sweep.points)
    _bounds(axes, sweep.oracle, sweep.random)
    markers = [
        _timed(axes, [one for one in timed if one.letter], "o", DARK, "front, timed"),
        _timed(axes, [one for one in timed if one.row.cut is not None], "s", MIDDLE, "tier 2 cut after an exit, timed"),
        _timed(axes, [one for one in timed if one.row.key == "tier1"], "^", LIGHT, "tier 1 alone, timed"),
    ]
    _frame(axes, curve)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, frameon=False, fontsize=9)
    figure.draw_without_rendering()  # settles the layout, on which free places depend
    _label(figure, axes, [one for some in markers for one in some], sweep.oracle)
    return figure


def write_png(curve: Curve, file: Path) -> None:
    """Write the picture, whole or not at all."""
    made = io.BytesIO()
    draw(curve).savefig(made, format="png", metadata={"Software": None})
    write(file, made.getvalue())


def svg(curve: Curve) -> str:
    """The picture as an element for a page; its letters are outlines, so it needs no font."""
    made = io.StringIO()
    with rc_context({"svg.hashsalt": "cascade", "svg.fonttype": "path"}):
        draw(curve).savefig(made, format="svg", metadata={"Date": None, "Creator": None})
    element = made.getvalue()
    element = re.sub(r"<metadata>.*?</metadata>", "", element[element.index("<svg") :], flags=re.DOTALL)
    return re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", element))


def _cloud(axes: Axes, points: Sequence[Estimate]) -> None:
    axes.scatter(
        [point.speed_up for point in points],
        [point.accuracy for point in points],
        s=5,
        color=CLOUD,
        linewidths=0,
        label="every setting, estimated",
    )
    best = front(points)
    axes.plot(
        [point.speed_up for point in best],
        [point.accuracy for point in best],
        color=LINE,
        linewidth=1.2,
        label="front, estimated",
    )


def _bounds(axes: Axes, oracle: Estimate, random: Sequence[Estimate]) -> None:
    across, up = [point.speed_up for point in random], [point.accuracy for point in random]
    axes.plot(across, up, color="black", linestyle=":", linewidth=1.2, label="random deferral, estimated")
    axes.scatter([oracle.speed_up], [oracle.accuracy], marker="*", s=150, facecolor="white", edgecolor="black")
    axes.scatter([], [], marker="*", s=90, facecolor="white", edgecolor="black", label="oracle router, estimated")


def _timed(axes: Axes, timed: Sequence[Timed], marker: str, colour: str, name: str) -> list[tuple[Timed, float, float]]:
    """Points with their intervals; gives them back with where they are."""
    if not timed:
        return []
    ratios = [one.row.over_full for one in timed]
    across, up = [ratio.median for ratio in ratios], [one.row.accuracy for one in timed]
    axes.errorbar(
        across,
        up,
        xerr=[[ratio.median - ratio.low for ratio in ratios], [ratio.high - ratio.median for ratio in ratios]],
        fmt=marker,
        color=colour,
        markersize=7,
        markeredgecolor="black",
        markeredgewidth=0.7,
        elinewidth=1.2,
        capsize=3,
        label=name,
        zorder=3,
    )
    return list(zip(timed, across, up, strict=True))


def _frame(axes: Axes, curve: Curve) -> None:
    """Axes with units, and a window that shows all that was timed."""
    ratios = [one.row.over_full for one in curve.timed]
    fastest, slowest = max(ratio.high for ratio in ratios), min(ratio.low for ratio in ratios)
    axes.set_xscale("log")
    axes.set_xlim(min(slowest, 1) / 1.15, max(fastest, curve.sweep.oracle.speed_up, 1.2) * 1.15)
    ups = [*(one.row.accuracy for one in curve.timed), curve.sweep.oracle.accuracy]
    margin = max((max(ups) - min(ups)) * 0.08, 0.004)
    axes.set_ylim(min(ups) - margin, max(ups) + margin)
    low, high = axes.get_xlim()
    there = [tick for tick in TICKS if low <= tick <= high]
    axes.xaxis.set_major_locator(FixedLocator(there[:: -(-len(there) // 9) or 1]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _place: f"{tick:g}×"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda tick, _place: f"{tick * 100:g}"))
    unit, metric = curve.table.unit, curve.given.metric
    axes.set_xlabel("speed-up over tier 2 at full depth (ratio of seconds, log scale)")
    what = metric if curve.given.labelled else "agreement with tier 2 at full depth"
    axes.set_ylabel(f"{what} (% of {curve.table.count:,} {unit})")
    axes.grid(visible=True, color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _label(figure: Figure, axes: Axes, markers: Sequence[tuple[Timed, float, float]], oracle: Estimate) -> None:
    """Names beside markers, each where it covers no other name and no marker."""
    renderer: Any = figure.canvas.get_renderer()  # type: ignore[attr-defined]  # Agg's has one
    point = figure.dpi / 72
    window = axes.get_window_extent(renderer)
    places = [axes.transData.transform((x, y)) for _, x, y in markers]
    places.append(axes.transData.transform((oracle.speed_up, oracle.accuracy)))
    taken = [Bbox.from_bounds(x - 5 * point, y - 5 * point, 10 * point, 10 * point) for x, y in places]
    for one, _, y in markers:
        ends = axes.transData.transform([(one.row.over_full.low, y), (one.row.over_full.high, y)])
        taken.append(Bbox(ends).padded(3 * point))
    for (one, x, y), place in zip(markers, places, strict=False):
        text = axes.annotate(
            _short(one),
            (x, y),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=9,
            zorder=4,
            path_effects=[Stroke(linewidth=2.5, foreground="white"), Normal()],
        )
        size = text.get_window_extent(renderer)
        boxes = list(_boxes(place, size.width, size.height, point))
        free = [box for box in boxes if not any(box[1].overlaps(other) for other in taken) and _inside(box[1], window)]
        offset, box = (free or boxes)[0]
        text.set_position(offset)
        if not free:  # better no name than two on top of each other; the table has it
            text.remove()
            continue
        taken.append(box)


def _boxes(place: Any, width: float, height: float, point: float) -> Iterator[tuple[tuple[float, float], Bbox]]:
    """Where a text may go, with the box it would fill: offsets in points, boxes in pixels."""
    for across, up in (*AROUND, *DIAGONAL):
        # Beside a marker a long name begins at the distance, it is not centred there.
        beside = (across > 0) - (across < 0)
        x = across + beside * max(width / 2 / point - 5, 0)
        left, bottom = place[0] + x * point - width / 2, place[1] + up * point - height / 2
        yield (x, float(up)), Bbox.from_bounds(left, bottom, width, height)


def _inside(box: Bbox, window: Bbox) -> bool:
    return bool(window.x0 <= box.x0 and box.x1 <= window.x1 and window.y0 <= box.y0 and box.y1 <= window.y1)


def _short(one: Timed) -> str:
    if one.row.key == "tier1":
        return "tier 1"
    return one.letter or ("full" if one.row.key == "full" else f"{one.row.cut}")

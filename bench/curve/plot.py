"""The curve as a picture: accuracy over speed-up, everything in it timed.

Kinds differ in marker and in lightness, so a greyscale print shows them too. Needs the extra `bench`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from cascade.core.files import write
from cascade.exceptions import MissingExtraError
from cascade_bench.curve.cli import Curve, Timed
from cascade_bench.systems.local import CASCADE

try:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
except ImportError as error:
    raise MissingExtraError(
        f"a picture needs the bench extra, but {error.name} is missing; "
        'pip install "cascade-encoder[bench]", or leave out --png'
    ) from error


SIZE, DPI = (8.0, 5.6), 150
LINE, DARK, MIDDLE, LIGHT = "#8a8a8a", "#12304f", "#c7522a", "#e8b04a"
TICKS = (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024)


def draw(curve: Curve) -> Figure:
    """The picture."""
    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    best = sorted((one.row.over_full.median, one.row.accuracy) for one in curve.timed if one.ahead)
    axes.plot([x for x, _ in best], [y for _, y in best], color=LINE, linewidth=1.2, label="front")
    _points(axes, [one for one in curve.timed if one.letter], "o", DARK, "settings of the front")
    _points(
        axes, [one for one in curve.timed if one.row.cut is not None], "s", MIDDLE, "the last tier cut after an exit"
    )
    _points(axes, [one for one in curve.timed if one.row.key == "tier1"], "^", LIGHT, "tier 1 alone")
    between = [one for one in curve.timed if one.row.key.startswith("tier") and one.row.key != "tier1"]
    _points(axes, between, "v", LIGHT, "other tiers alone, pairs of tiers")
    _points(axes, [one for one in curve.timed if one.row.key == CASCADE], "D", "white", "the bundle as configured")
    _frame(axes, curve)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, frameon=False, fontsize=9)
    return figure


def write_png(curve: Curve, file: Path) -> None:
    """Write the picture, whole or not at all."""
    made = io.BytesIO()
    draw(curve).savefig(made, format="png", metadata={"Software": None})
    write(file, made.getvalue())


def _points(axes: Axes, timed: Sequence[Timed], marker: str, colour: str, name: str) -> None:
    """Points with their intervals and names."""
    if not timed:
        return
    ratios, up = [one.row.over_full for one in timed], [one.row.accuracy for one in timed]
    axes.errorbar(
        [ratio.median for ratio in ratios],
        up,
        xerr=[[ratio.median - ratio.low for ratio in ratios], [ratio.high - ratio.median for ratio in ratios]],
        fmt=marker,
        color=colour,
        ecolor="black",
        markersize=7,
        markeredgecolor="black",
        markeredgewidth=0.7,
        elinewidth=1.2,
        capsize=3,
        label=name,
        zorder=3,
    )
    for one in timed:
        said = one.letter or ("" if one.row.cut is None else str(one.row.cut))
        place = one.row.over_full.median, one.row.accuracy
        axes.annotate(said, place, xytext=(0, 8), textcoords="offset points", ha="center", fontsize=9, zorder=4)


def _frame(axes: Axes, curve: Curve) -> None:
    """Axes with units."""
    axes.set_xscale("log")
    axes.margins(0.08)
    low, high = axes.get_xlim()
    there = [tick for tick in TICKS if low <= tick <= high]
    axes.set_xticks(there[:: -(-len(there) // 9) or 1])
    axes.minorticks_off()
    axes.xaxis.set_major_formatter("{x:g}×")
    axes.yaxis.set_major_formatter(lambda tick, _place: f"{tick * 100:g}")
    data = curve.table.data
    axes.set_xlabel("speed-up over full depth (ratio of seconds, log scale)")
    what = "accuracy" if data.labelled else "agreement with full depth"
    axes.set_ylabel(f"{what} (% of {len(data):,} {data.unit})")
    axes.grid(visible=True, color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)

"""The curve as a picture: accuracy over speed-up, everything in it timed.

Kinds differ in marker and in lightness, so a greyscale print shows them too. Needs the extra `bench`.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from cascade.core.files import write
from cascade.exceptions import MissingExtraError
from cascade_bench.curve import ahead
from cascade_bench.systems.local import CASCADE
from cascade_bench.table.measuring import Table

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
except ImportError as error:
    raise MissingExtraError(
        f"a picture needs the bench extra, but {error.name} is missing; "
        'pip install "cascade-encoder[bench]", or leave out --png'
    ) from error


SIZE, DPI = (8.0, 5.6), 150
TICKS = (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024)


def draw(table: Table) -> Figure:
    """The picture: points with their intervals and names, axes with units."""
    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes, rows = figure.add_subplot(), table.rows
    best = sorted((row.speed, row.accuracy) for row in ahead(table))
    axes.plot([x for x, _ in best], [y for _, y in best], color="#8a8a8a", linewidth=1.2, label="front")
    others = [row for row in rows if row.key.startswith("tier") and row.key != "tier1"]
    for some, name, marker, colour in (
        ([row for row in rows if len(row.key) == 1], "settings of the front", "o", "#12304f"),
        ([row for row in rows if row.cut is not None], "the last tier cut after an exit", "s", "#c7522a"),
        ([row for row in rows if row.key == "tier1"], "tier 1 alone", "^", "#e8b04a"),
        (others, "other tiers alone, pairs of tiers", "v", "#e8b04a"),
        ([row for row in rows if row.key == CASCADE], "the bundle as configured", "D", "white"),
    ):
        if not some:
            continue
        ratios, up = [row.over_full for row in some if row.over_full], [row.accuracy for row in some]
        across = [ratio.median for ratio in ratios]
        sides = [[one.median - one.low for one in ratios], [one.high - one.median for one in ratios]]
        edges: dict[str, Any] = {"ecolor": "black", "markeredgecolor": "black", "capsize": 3, "zorder": 3}
        axes.errorbar(across, up, xerr=sides, fmt=marker, color=colour, label=name, **edges)
        for x, y, row in zip(across, up, some, strict=True):
            said = row.key if len(row.key) == 1 else "" if row.cut is None else str(row.cut)
            axes.annotate(said, (x, y), xytext=(0, 8), textcoords="offset points", ha="center", fontsize=9, zorder=4)
    axes.set_xscale("log")
    axes.margins(0.08)
    low, high = axes.get_xlim()
    there = [tick for tick in TICKS if low <= tick <= high]
    axes.set_xticks(there[:: -(-len(there) // 9) or 1])
    axes.minorticks_off()
    axes.xaxis.set_major_formatter("{x:g}×")
    axes.yaxis.set_major_formatter(lambda tick, _place: f"{tick * 100:g}")
    axes.set_xlabel("speed-up over full depth (ratio of seconds, log scale)")
    data = table.data
    what = "accuracy" if data.labelled else "agreement with full depth"
    axes.set_ylabel(f"{what} (% of {len(data):,} {data.unit})")
    axes.grid(visible=True, color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, frameon=False, fontsize=9)
    return figure


def write_png(table: Table, file: Path) -> None:
    """Write the picture, whole or not at all."""
    made = io.BytesIO()
    draw(table).savefig(made, format="png", metadata={"Software": None})
    write(file, made.getvalue())

"""The single charts of a report, drawn on axes that are given.

Kinds differ in marker and in lightness, so a greyscale print shows them too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from cascade.calibration.reliability import RiskCoverage
from cascade.calibration.report import Fate, Head, Report, Trial, Trials

__all__ = ["draw_path", "draw_reliability", "draw_risk", "drawable", "grid"]

Values = npt.NDArray[np.floating]

LETTERS, SMALL = 9, 8  # sizes in points
DARK, MIDDLE, LIGHT, GREY, RULE = "#12304f", "#c7522a", "#e8b04a", "#b4b4b4", "#e4e4e4"
TICKS = (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024)
Z95 = 1.96


def grid(panels: int) -> tuple[int, int]:
    """Rows and columns for the panels of the reliability diagram."""
    columns = 5 if panels > 8 else 4 if panels > 3 else 3
    return -(-panels // columns), columns


def drawable(tested: Trials) -> list[Trial]:
    """Settings that have a place in the chart."""
    return [trial for trial in tested.trials if math.isfinite(trial.speed_up) and math.isfinite(trial.value)]


def draw_path(axes: Axes, report: Report) -> None:
    """What each setting did, as seen and at most, over its speed-up; the claim as a line."""
    tested, trials = report.tested, drawable(report.tested)
    scale = 1000 if tested.seconds else 100
    looks = (
        (Fate.UNTESTED, "o", 3.0, GREY, "white", "not tested"),
        (Fate.CERTIFIED, "o", 4.0, DARK, DARK, "certified"),
        (Fate.CHOSEN, "*", 13.0, "black", LIGHT, "certified and chosen"),
        (Fate.FAILED, "X", 7.5, "black", MIDDLE, "first that failed"),
    )
    ends = [end for one in trials if one.fate is not Fate.UNTESTED for end in (one.value, one.upper)]
    top = max([2 * tested.bound, *(end for end in ends if math.isfinite(end))]) * scale * 1.12
    for depth, (fate, marker, size, edge, face, name) in enumerate(looks):
        some = [trial for trial in trials if trial.fate is fate]
        if not some:
            continue
        values = np.array([trial.value for trial in some]) * scale
        uppers = np.array([trial.upper for trial in some]) * scale
        above = int((values > top).sum())
        axes.errorbar(
            [trial.speed_up for trial in some],
            values,
            yerr=[np.zeros(len(some)), np.nan_to_num(np.maximum(uppers - values, 0))],
            fmt=marker,
            markersize=size,
            color=edge,
            markerfacecolor=face,
            markeredgewidth=0.8,
            ecolor=GREY if fate is Fate.UNTESTED else DARK if fate is Fate.CERTIFIED else "black",
            elinewidth=0.6 if fate is Fate.UNTESTED else 1.0,
            capsize=0 if fate is Fate.UNTESTED else 2,
            label=f"{name} ({above} of them higher)" if above else name,
            zorder=3 + depth,
        )
    bound = f"{tested.bound * scale:.3g} {'ms' if tested.seconds else '%'}"
    axes.axhline(tested.bound * scale, color="black", linestyle="--", linewidth=1.2, label=f"claimed: at most {bound}")
    axes.set_ylim(-0.02 * top, top)
    _speed_ups(axes, [trial.speed_up for trial in trials])
    # Class by class what is shown of a setting is its worst class, of whatever size.
    examples = f"{report.unit} of the worst class" if report.classes else f"{report.examples:,} {report.unit}"
    of = "ms" if tested.seconds else f"% of {examples}"
    axes.set_ylabel(f"{tested.quantity}\n({of})", fontsize=LETTERS)
    _frame(axes, f"settings of the path: seen, and bound at {tested.confidence * 100:.4g} % confidence")


def _speed_ups(axes: Axes, speed_ups: Sequence[float]) -> None:
    """A logarithmic axis of ratios, wide enough for its ticks."""
    low, high = min(speed_ups) / 1.08, max(speed_ups) * 1.08
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    there = [tick for tick in TICKS if low <= tick <= high]
    few = len(there) < 3  # a narrow range has room for any number
    axes.xaxis.set_major_locator(MaxNLocator(5) if few else FixedLocator(there[:: -(-len(there) // 8)]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _place: f"{tick:g}×"))
    axes.set_xlabel("predicted speed-up over tier 2 at full depth (log scale)", fontsize=LETTERS)


def draw_risk(axes: Axes, curve: RiskCoverage, report: Report) -> None:
    """How wrong tier 1 is on what it accepts, beside a random order and one that knows (an oracle's)."""
    coverage, risk = np.array(curve.coverage), np.array(curve.risk)
    error = risk[-1]
    fine = np.linspace(0.005, 1, 200)
    axes.plot(coverage * 100, risk * 100, color=DARK, linewidth=1.8, label="by confidence")
    axes.axhline(error * 100, color="black", linestyle=":", linewidth=1.2, label="random order")
    least = np.maximum(fine - (1 - error), 0) / fine
    axes.plot(fine * 100, least * 100, color="#6a6a6a", linestyle="--", linewidth=1.2, label="oracle")
    axes.set_xlim(0, 100)
    axes.set_ylim(bottom=0, top=max(float(risk.max()), float(error), 0.005) * 112)
    axes.set_xlabel(f"answered by tier 1 (% of {report.unit})", fontsize=LETTERS)
    axes.set_ylabel("wrong among these (%)" if report.labelled else "differing from tier 2 (%)", fontsize=LETTERS)
    told = "" if curve.auroc is None else f"AUROC {curve.auroc:.3f}, "
    _frame(axes, f"tier 1: {told}AURC {curve.aurc * 100:.2f} %")


def draw_reliability(place: Figure | SubFigure, report: Report) -> None:
    """A panel per head, all of one scale."""
    heads = report.heads
    rows, columns = grid(len(heads))
    panels = place.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    ends = [end for head in heads for part in head.reliability.bins for end in (part.confidence, part.accuracy)]
    low = min(math.floor(min(ends) * 10) / 10, 0.9)
    for number, axes in enumerate(panels.flat):
        if number >= len(heads):
            axes.set_visible(False)
            continue
        _panel(axes, heads[number])
        axes.set_xlim(low, 1.0 + (1 - low) * 0.03)
        axes.set_ylim(low, 1.0 + (1 - low) * 0.03)
        # Below the last panel of a column there may be an empty place: its numbers belong here then.
        axes.tick_params(labelsize=SMALL, labelbottom=number + columns >= len(heads))
    what = "share right" if report.labelled else "share that agrees with tier 2"
    place.supylabel(f"{what}, with 95 % interval", fontsize=LETTERS)
    place.supxlabel(f"mean confidence of a bin ({report.unit} by confidence, bins of equal mass)", fontsize=LETTERS)


def _panel(axes: Axes, head: Head) -> None:
    """One head: its bins, and the diagonal on which confidence says exactly how often it is right."""
    bins = head.reliability.bins
    confidence, accuracy = np.array([one.confidence for one in bins]), np.array([one.accuracy for one in bins])
    counts = np.array([one.examples for one in bins])
    low, high = _wilson(accuracy, counts)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1.0, zorder=1)
    axes.errorbar(
        confidence,
        accuracy,
        yerr=[np.maximum(accuracy - low, 0), np.maximum(high - accuracy, 0)],
        fmt="o-",
        markersize=3,
        linewidth=0.8,
        color=DARK,
        ecolor="#6f86a0",
        elinewidth=0.8,
        zorder=2,
    )
    least, most = counts.min(), counts.max()
    each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    axes.text(
        0.97, 0.05, f"{len(bins)} bins\nof {each}", transform=axes.transAxes, ha="right", va="bottom", fontsize=7.5
    )
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    _frame(axes, f"{head.name}: ECE {head.reliability.ece * 100:.1f} %")


def _wilson(share: Values, counts: npt.NDArray[np.integer]) -> tuple[Values, Values]:
    """Wilson's interval (1927) of a share, at 95 %."""
    spread = Z95**2 / counts
    middle = (share + spread / 2) / (1 + spread)
    half = Z95 * np.sqrt(share * (1 - share) / counts + spread / counts / 4) / (1 + spread)
    return middle - half, middle + half


def _frame(axes: Axes, title: str) -> None:
    """Title, grid, letters; a legend below where something has a name."""
    axes.set_title(title, fontsize=LETTERS)
    axes.tick_params(labelsize=SMALL)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2, frameon=False, fontsize=SMALL)
    axes.grid(visible=True, color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)

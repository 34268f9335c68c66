"""Pictures of a report: what the tested settings cost and harmed, how reliable confidence is, risk against coverage.

Needs matplotlib, of the extra `calibrate`.
"""

from __future__ import annotations

import io
import re
from enum import Enum
from pathlib import Path

from cascade.calibration.report import Report
from cascade.core.files import write
from cascade.exceptions import MissingExtraError, OptionError

try:
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure, SubFigure

    from cascade.calibration.charts import draw_path, draw_reliability, draw_risk, drawable, grid
except ImportError as error:  # pragma: no cover - exercised in a subprocess by the tests
    raise MissingExtraError(
        f"a picture needs the calibrate extra, but {error.name} is missing; "
        'pip install "cascade-encoder[calibrate]", or leave out --png and --html'
    ) from error

__all__ = ["Chart", "charts", "draw", "figure", "save_png", "svg"]

WIDTH, DPI = 8.0, 150


class Chart(Enum):
    """The charts, each with what it shows in words."""

    PATH = "what the settings of the path were seen to do, over their predicted speed-up"
    RELIABILITY = "share of right answers over confidence, for tier 1 and each exit"
    RISK = "share of wrong answers of tier 1 over the share that it answers"


def charts(report: Report) -> list[Chart]:
    """Those for which this report has figures, in the order of reading."""
    there = {
        Chart.PATH: bool(drawable(report.tested)),
        Chart.RELIABILITY: bool(report.heads),
        Chart.RISK: report.risk is not None,
    }
    return [chart for chart, has in there.items() if has]


def figure(report: Report, chart: Chart) -> Figure:
    """One chart, to be changed or saved in another form.

    Raises:
        OptionError: the report has no figures for it.
    """
    if chart not in charts(report):
        there = ", ".join(one.name for one in charts(report)) or "none"
        raise OptionError(f"a chart needs figures, and this report has none for {chart.name}; it has: {there}")
    rows, _ = grid(len(report.heads))
    made = _figure({Chart.PATH: 4.4, Chart.RISK: 4.0, Chart.RELIABILITY: 0.7 + 1.9 * rows}[chart])
    _fill(made, report, chart)
    return made


def draw(report: Report) -> bytes:
    """All charts as one PNG, 1,200 pixels wide."""
    shown = charts(report)
    rows, _ = grid(len(report.heads))
    upper = 3.7 if Chart.PATH in shown or Chart.RISK in shown else 0.0
    lower = 0.7 + 1.7 * rows if rows else 0.0
    whole = _figure(max(upper + lower, 1.0))
    parts = [height for height in (upper, lower) if height]
    stacked = list(whole.subfigures(len(parts), 1, height_ratios=parts, squeeze=False).flat) if parts else []
    beside = [chart for chart in shown if chart is not Chart.RELIABILITY]
    if beside:
        widths = {Chart.PATH: 1.7, Chart.RISK: 1.0}
        places = stacked[0].subfigures(1, len(beside), width_ratios=[widths[one] for one in beside], squeeze=False)
        for place, chart in zip(places.flat, beside, strict=True):
            _fill(place, report, chart)
    if rows:
        _fill(stacked[-1], report, Chart.RELIABILITY)
    if not shown:
        whole.text(0.5, 0.5, "nothing was tested", ha="center", va="center")
    made = io.BytesIO()
    whole.savefig(made, format="png", metadata={"Software": None})
    return made.getvalue()


def save_png(report: Report, path: Path) -> None:
    """Write all charts as a PNG, whole or not at all.

    Raises:
        OptionError: the file cannot be written.
    """
    write(path, draw(report))


def svg(report: Report, chart: Chart) -> str:
    """One chart as an element for a page; its letters are outlines, so it needs no font. Errors: those of `figure`."""
    made = io.StringIO()
    with rc_context({"svg.hashsalt": "cascade", "svg.fonttype": "path"}):
        figure(report, chart).savefig(made, format="svg", metadata={"Date": None, "Creator": None})
    element = made.getvalue()
    element = re.sub(r"<metadata>.*?</metadata>", "", element[element.index("<svg") :], flags=re.DOTALL)
    element = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", element))
    # A page has several pictures, but every id once.
    return re.sub(r'((?:id="|href="#|url\(#))', rf"\1{chart.name.lower()}-", element)


def _figure(height: float) -> Figure:
    made = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(made)
    return made


def _fill(place: Figure | SubFigure, report: Report, chart: Chart) -> None:
    if chart is Chart.PATH:
        draw_path(place.add_subplot(), report)
    elif chart is Chart.RISK and report.risk is not None:
        draw_risk(place.add_subplot(), report.risk, report)
    else:
        draw_reliability(place, report)

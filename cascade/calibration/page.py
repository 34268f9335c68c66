"""The report as one self-contained page: outcome, charts, tables, certificate, machine, command. It loads nothing.

Needs jinja2, of the extra `calibrate`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from cascade.calibration import plots
from cascade.calibration.reliability import RiskCoverage
from cascade.calibration.report import Fate, Report, Trial, Trials
from cascade.core.files import write
from cascade.exceptions import MissingExtraError

try:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup
except ImportError as error:  # pragma: no cover - exercised in a subprocess by the tests
    raise MissingExtraError(
        f"a page needs the calibrate extra, but {error.name} is missing; "
        'pip install "cascade-encoder[calibrate]", or leave out --html'
    ) from error

__all__ = ["page", "save_html"]

LAST = 3  # certified settings that the page shows without being asked
TEMPLATE = "report.html.j2"


@dataclass(frozen=True)
class _Line:
    cells: Sequence[str]
    chosen: bool = False
    code: str = ""  # a last cell, in the letters of code


@dataclass(frozen=True)
class _Rows:
    head: Sequence[str]
    lines: Sequence[_Line]


def page(report: Report) -> str:
    """The page, as HTML."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("cascade.calibration").joinpath(TEMPLATE).read_text(encoding="utf-8"))
    tested = report.tested
    return template.render(
        report=report,
        Chart=plots.Chart,
        # matplotlib's own; texts in it are outlines
        pictures={chart: Markup(plots.svg(report, chart)) for chart in plots.charts(report)},  # noqa: S704
        ends=_path(tested, _ends(tested.trials)),
        path=_path(tested, tested.trials),
        classes=_classes(report),
        heads=_heads(report),
        risk=[] if report.risk is None else _risk(report.risk, report.labelled),
    )


def save_html(report: Report, path: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        OptionError: the file cannot be written.
    """
    write(path, page(report))


def _ends(trials: Sequence[Trial]) -> list[Trial]:
    """Those around the end of the certified part; the whole path is long."""
    certified = [number for number, trial in enumerate(trials) if trial.fate is Fate.CERTIFIED][-LAST:]
    marked = [number for number, trial in enumerate(trials) if trial.fate in {Fate.CHOSEN, Fate.FAILED}]
    return [trials[number] for number in sorted({*certified, *marked})]


def _path(tested: Trials, trials: Iterable[Trial]) -> _Rows:
    """A line for each; columns in which nobody has anything are left out."""
    upper = f"upper bound ({tested.confidence * 100:.4g} %)"
    head = ["", "predicted speed-up", "deferred", "events", tested.quantity, upper]
    lines = []
    for trial in trials:
        # Where deferral is what is bounded it has its column already.
        deferred = "" if trial.deferred is None or tested.quantity == head[2] else f"{trial.deferred * 100:.1f} %"
        events = "" if trial.events is None else f"{trial.events:,}"
        seen = [_value(value, tested) for value in (trial.value, trial.upper)]
        cells = [trial.fate.value, f"{trial.speed_up:.2f}×", deferred, events, *seen]
        lines.append(_Line(cells, trial.fate is Fate.CHOSEN, trial.setting))
    kept = [column for column in range(len(head)) if any(line.cells[column] for line in lines)]
    short = [replace(line, cells=[line.cells[column] for column in kept]) for line in lines]
    return _Rows([*(head[column] for column in kept), "setting"], short)


def _value(value: float, tested: Trials) -> str:
    if math.isnan(value):
        return ""
    # Three digits, so that what is just below a bound does not look as if it were on it.
    return f"{value * 1000:.4g} ms" if tested.seconds else f"{value * 100:.{3 if value < 0.1 else 2}f} %"


def _classes(report: Report) -> _Rows:
    lines = [
        _Line([one.label, f"{one.examples:,}", f"{one.events:,}", f"{one.upper * 100:.3f} %"]) for one in report.classes
    ]
    upper = f"upper bound ({report.tested.confidence * 100:.4g} %)"
    return _Rows(["class", report.unit, "events", upper], lines)


def _heads(report: Report) -> _Rows:
    lines = []
    for head in report.heads:
        of = head.reliability
        temperature = "" if head.temperature is None else f"{head.temperature:.3g}"
        shares = [f"{share * 100:.2f} %" for share in (of.accuracy, of.confidence, of.ece)]
        lines.append(_Line([head.name, temperature, *shares, f"{len(of.bins)}", f"{of.examples:,}"]))
    right = "right" if report.labelled else "as tier 2"
    return _Rows(["", "temperature", right, "mean confidence", "ECE", "bins", report.unit], lines)


def _risk(risk: RiskCoverage, labelled: bool) -> list[str]:
    """What the curve says, in words."""
    wrong = "wrong" if labelled else "different from tier 2's"
    said = [f"Alone, tier 1's answers are {wrong} in {risk.risk[-1] * 100:.2f} % of the cases."]
    if risk.auroc is not None:
        said.append(
            f"An answer that is {wrong} has a lower confidence than one that is not in {risk.auroc * 100:.1f} % of all "
            "pairs of the two (AUROC; 50 % is chance)."
        )
    said.append(
        f"Over all shares that tier 1 might answer, {risk.aurc * 100:.2f} % are {wrong} on average (AURC); "
        f"that is {risk.excess * 100:.2f} points more than an order that knows would have."
    )
    return said

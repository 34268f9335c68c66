"""One figure of a calibration: what the settings of the path were seen to do, over their predicted speed-up.

Needs matplotlib, of the extra `calibrate`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cascade.calibration.certify.outcomes import Certified, Outcome
from cascade.core.files import staged
from cascade.exceptions import MissingExtraError, OptionError

try:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
except ImportError as error:  # pragma: no cover - exercised in a subprocess by the tests
    raise MissingExtraError(
        f"a picture needs the calibrate extra, but {error.name} is missing; "
        'pip install "cascade-encoder[calibrate]", or leave out --png'
    ) from error


SIZE, DPI = (8.0, 4.6), 150
HIGHEST = 3.0  # of the axis, as a multiple of the bound
KINDS: dict[str, dict[str, Any]] = {
    "certified": {"marker": "o", "color": "#2b5d8c"},
    "chosen": {"marker": "*", "markersize": 15, "color": "#b3261e"},
    "first that failed": {"marker": "X", "markersize": 8, "color": "#444444"},
    "not tested, guessed": {"marker": "o", "color": "#b8b8b8", "markerfacecolor": "white"},
}
"""What became of a setting, and how it is drawn."""


def draw(outcome: Outcome, *, title: str = "") -> Figure:
    """The figure, 1,200 pixels wide, to be saved in any form. `title`: a line above it."""
    whole = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    FigureCanvasAgg(whole)
    if not outcome.steps:
        whole.text(0.5, 0.5, "nothing was tested", ha="center", va="center")
        return whole
    axes, claim = whole.add_subplot(), outcome.claim
    for kind, numbers in _kinds(outcome).items():
        _plot(axes, outcome, kind, numbers)
    bound = 100 * claim.ask.bound
    axes.axhline(bound, color="black", linestyle="--", linewidth=1.2, label=f"claimed: at most {bound:.3g} %")
    axes.set_ylim(-0.03 * bound, HIGHEST * bound)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _place: f"{tick:g}×"))
    axes.set_xlabel("predicted speed-up over the last tier at full depth (log scale)")
    worst = " of the worst class" if claim.ask.per_class else ""
    axes.set_ylabel(f"{claim.counted}\n(% of {claim.unit.value}s{worst})")
    axes.set_title(title or claim.describe(), fontsize=9)
    limits = f"bars: estimated upper limits at {100 * claim.confidence:.4g} %"
    axes.legend(frameon=False, fontsize=8, title_fontsize=8, title=limits)
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    return whole


def save_png(outcome: Outcome, path: Path, *, title: str = "") -> None:
    """Write the figure as a PNG, whole or not at all; an `OptionError` if it cannot be written."""
    try:
        with staged(path) as file:
            draw(outcome, title=title).savefig(file, format="png", metadata={"Software": None})
    except OSError as error:
        raise OptionError(f"--png must be a file that can be written, got {path} ({error.strerror})") from error


def _kinds(outcome: Outcome) -> dict[str, list[int]]:
    """Numbers of the steps by what became of them."""
    taken = outcome.number if isinstance(outcome, Certified) else -1
    found: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for number in range(len(outcome.steps)):
        tested = number < len(outcome.tested)
        kind = "certified" if number < taken else "first that failed" if tested else "not tested, guessed"
        found["chosen" if number == taken else kind].append(number)
    return {kind: numbers for kind, numbers in found.items() if numbers}


def _plot(axes: Axes, outcome: Outcome, kind: str, numbers: list[int]) -> None:
    steps, tested = [outcome.steps[number] for number in numbers], outcome.tested
    seen = [tested[number].rate if number < len(tested) else outcome.steps[number].risk for number in numbers]
    upper = [tested[number].upper if number < len(tested) else outcome.steps[number].risk for number in numbers]
    values, most = 100 * np.array(seen), HIGHEST * 100 * outcome.claim.ask.bound
    above = int((values > most).sum())
    axes.errorbar(
        [1 / step.cost for step in steps],
        values,
        yerr=[np.zeros(len(steps)), np.maximum(100 * np.array(upper) - values, 0)],
        linestyle="none",
        elinewidth=0.8,
        label=f"{kind} ({above} of them higher)" if above else kind,
        zorder=4 if kind == "chosen" else 3,
        **{"markersize": 4, **KINDS[kind]},
    )

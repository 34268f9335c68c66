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
    "chosen": {"marker": "*", "markersize": 15, "color": "#b3261e", "zorder": 4},
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
    axes, claim, tested = whole.add_subplot(), outcome.claim, len(outcome.tested)
    bound = 100 * claim.ask.bound
    numbers = np.arange(len(outcome.steps))
    speed_up = np.array([1 / step.cost for step in outcome.steps])
    guessed = [step.risk for step in outcome.steps[tested:]]
    seen = 100 * np.array([*(one.rate for one in outcome.tested), *guessed])
    upper = 100 * np.array([*(one.upper for one in outcome.tested), *guessed])
    taken = outcome.number if isinstance(outcome, Certified) else -1
    kinds = (numbers < taken, numbers == taken, (numbers > taken) & (numbers < tested), numbers >= tested)
    for (kind, style), own in zip(KINDS.items(), kinds, strict=True):
        above = int((seen[own] > HIGHEST * bound).sum())
        bars = [np.zeros(own.sum()), np.maximum(upper - seen, 0)[own]]
        label = f"{kind} ({above} of them higher)" if above else kind
        if own.any():
            axes.errorbar(
                *(speed_up[own], seen[own], bars),
                **{"linestyle": "none", "elinewidth": 0.8, "label": label, "zorder": 3, "markersize": 4, **style},
            )
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

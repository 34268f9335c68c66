"""The charts of a calibration's report: what they hold, that nothing in them is cut off, when they are left out."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from cascade.calibration import page as pages
from cascade.calibration import plots
from cascade.calibration.plots import Chart
from cascade.calibration.reliability import reliability, risk_coverage
from cascade.calibration.report import Fate, Head, PerClass
from cascade.exceptions import OptionError
from tests.models.toy_reports import FATES, REPORTS, floats, heads, path, points, report, size, trial


@pytest.fixture
def outlined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without their pictures, which take a second each."""
    monkeypatch.setattr(plots, "svg", lambda _report, chart: f"<svg>{chart.name}</svg>")


def legend(axes: Axes) -> list[Text]:
    made = axes.get_legend()
    return [] if made is None else list(made.get_texts())


def names(figure: Figure) -> list[str]:
    """Of the legend."""
    return [text.get_text() for text in legend(figure.axes[0])]


@pytest.mark.parametrize("name", REPORTS)
def test_no_letter_is_cut_off_or_covered(name: str) -> None:
    for chart in plots.charts(REPORTS[name]):
        figure = plots.figure(REPORTS[name], chart)
        figure.draw_without_rendering()
        width, height = figure.canvas.get_width_height()
        for axes in figure.axes:
            written = [axes.xaxis.label, axes.yaxis.label, axes.title, *legend(axes), *axes.texts]
            boxes = [text.get_window_extent() for text in written if text.get_text()]
            for number, box in enumerate(boxes):
                assert box.x0 >= 0, written[number]
                assert box.y0 >= 0, written[number]
                assert box.x1 <= width, written[number]
                assert box.y1 <= height, written[number]
                assert not any(box.overlaps(other) for other in boxes[number + 1 :]), written[number]


def test_path_shows_every_setting_with_its_fate() -> None:
    figure = plots.figure(report(), Chart.PATH)
    axes = figure.axes[0]
    found = points(figure)
    assert {name: len(places) for name, places in found.items()} == {
        "certified": 5,
        "certified and chosen": 1,
        "first that failed": 1,
        "not tested": 3,
    }
    ((across, up),) = found["certified and chosen"]
    assert (across, up) == pytest.approx((0.9 * 1.25**5, 0.5))
    assert "claimed: at most 1 %" in names(figure)
    assert axes.get_xlabel() == "predicted speed-up over tier 2 at full depth (log scale)"
    assert axes.get_ylabel() == "harm\n(% of 1,000 texts)"
    assert "95 % confidence" in axes.get_title()


def test_bars_reach_from_what_was_seen_to_the_bound() -> None:
    (failed,) = [
        one for one in plots.figure(report(), Chart.PATH).axes[0].containers if "failed" in str(one.get_label())
    ]
    _, _, (bar,) = failed
    assert bar.get_segments()[0][:, 1].tolist() == pytest.approx([0.6, 1.0])


def test_settings_far_above_the_bound_do_not_squash_the_others() -> None:
    fates = (*FATES, Fate.UNTESTED)
    trials = [trial(number, fate) for number, fate in enumerate(fates)]
    trials[-1] = trial(len(trials), Fate.UNTESTED, value=0.4, upper=math.nan)
    figure = plots.figure(report(tested=path(trials=tuple(trials))), Chart.PATH)
    assert figure.axes[0].get_ylim()[1] < 3
    assert "not tested (1 of them higher)" in names(figure)


def test_the_top_shows_bounds_of_what_was_tested() -> None:
    trials = (trial(0, Fate.FAILED, value=0.02, upper=0.11),)
    assert plots.figure(report(tested=path(trials=trials)), Chart.PATH).axes[0].get_ylim()[1] > 11


def test_seconds_are_shown_in_milliseconds() -> None:
    figure = plots.figure(REPORTS["seconds"], Chart.PATH)
    assert figure.axes[0].get_ylabel() == "mean cost of a sentence\n(ms)"
    assert "claimed: at most 5 ms" in names(figure)
    assert points(figure)["certified and chosen"][0][1] == pytest.approx(5)


def test_reliability_has_a_panel_per_head_with_its_counts() -> None:
    figure = plots.figure(report(), Chart.RELIABILITY)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title().split(":")[0] for axes in panels] == ["tier 1", "exit 1", "exit 2", "exit 3"]
    first = report().heads[0].reliability
    drawn = panels[0].containers[0][0].get_data()
    assert np.asarray(drawn[0]).tolist() == pytest.approx([part.confidence for part in first.bins])
    assert np.asarray(drawn[1]).tolist() == pytest.approx([part.accuracy for part in first.bins])
    assert f"ECE {first.ece * 100:.1f} %" in panels[0].get_title()
    assert [text.get_text() for text in panels[0].texts] == ["15 bins\nof 20"]


def test_bins_of_several_sizes_are_told() -> None:
    head = Head(name="tier 1", reliability=reliability(floats(np.linspace(0.5, 1, 31)), np.ones(31), bins=15))
    figure = plots.figure(report(heads=(head,)), Chart.RELIABILITY)
    assert "2 to 3" in figure.axes[0].texts[0].get_text()


@pytest.mark.parametrize(("exits", "grid"), [(0, (1, 3)), (3, (1, 4)), (7, (2, 4)), (12, (3, 5))])
def test_panels_fill_rows_and_lowest_ones_have_numbers(exits: int, grid: tuple[int, int]) -> None:
    figure = plots.figure(report(heads=heads(exits)), Chart.RELIABILITY)
    assert len(figure.axes) == grid[0] * grid[1]
    seen = [axes for axes in figure.axes if axes.get_visible()]
    numbered = [axes.xaxis.get_tick_params()["labelbottom"] for axes in seen]
    assert len(seen) == exits + 1
    assert numbered == [number + grid[1] >= len(seen) for number in range(len(seen))]


def test_intervals_are_wilsons() -> None:
    # Worked example: 8 of 10, z = 1.96: Newcombe (1998), method 3, gives 0.490 to 0.943.
    head = Head(name="tier 1", reliability=reliability(floats(np.full(10, 0.9)), np.arange(10) < 8))
    (panel, *_) = plots.figure(report(heads=(head,)), Chart.RELIABILITY).axes
    _, _, (bar,) = panel.containers[0]
    assert bar.get_segments()[0][:, 1].tolist() == pytest.approx([0.490, 0.943], abs=5e-4)


def test_risk_has_random_and_oracle_for_reference() -> None:
    sure = floats(np.linspace(0.01, 1, 100))
    curve = risk_coverage(sure, sure <= 0.25)  # the order is an oracle's: the least sure quarter is wrong
    figure = plots.figure(report(risk=curve), Chart.RISK)
    lines = {str(one.get_label()): [np.asarray(side) for side in one.get_data()] for one in figure.axes[0].get_lines()}
    assert set(lines) == {"by confidence", "random order", "oracle"}
    assert lines["random order"][1] == pytest.approx(25)
    across, up = lines["by confidence"]
    fine, least = lines["oracle"]
    assert up == pytest.approx(np.interp(across, fine, least), abs=0.3)
    assert figure.axes[0].get_title().startswith("tier 1: AUROC 1.000, AURC ")


def test_risk_without_a_wrong_answer_has_no_auroc() -> None:
    figure = plots.figure(REPORTS["nobody wrong"], Chart.RISK)
    assert figure.axes[0].get_title() == "tier 1: AURC 0.00 %"
    assert figure.axes[0].get_ylim()[1] > 0


def test_without_labels_right_is_what_tier_2_says() -> None:
    given = REPORTS["no labels"]
    assert plots.figure(given, Chart.RISK).axes[0].get_ylabel() == "differing from tier 2 (%)"
    assert plots.figure(given, Chart.RELIABILITY).get_supylabel() == "share that agrees with tier 2, with 95 % interval"


def test_narrow_ranges_of_speed_have_ticks() -> None:
    trials = (trial(0, Fate.CHOSEN, speed_up=1.02), trial(1, Fate.FAILED, speed_up=1.08))
    axes = plots.figure(report(tested=path(trials=trials)), Chart.PATH).axes[0]
    low, high = axes.get_xlim()
    assert sum(low <= tick <= high for tick in axes.get_xticks()) >= 3


@pytest.mark.usefixtures("outlined")
def test_infinite_speed_ups_are_left_out() -> None:
    trials = (trial(0, Fate.CERTIFIED), trial(1, Fate.CHOSEN, speed_up=math.inf))
    given = report(tested=path(trials=trials))
    assert points(plots.figure(given, Chart.PATH)) == {"certified": [(0.9, 0.0)]}
    assert "inf" in pages.page(given)  # the table has it


def test_png_is_as_wide_as_said_and_the_same_again() -> None:
    made = plots.draw(report())
    assert size(made) == (1200, 915)
    assert made == plots.draw(report())


def test_png_of_nothing_says_so() -> None:
    empty = report(tested=path(trials=()), heads=(), risk=None)
    assert plots.charts(empty) == []
    assert size(plots.draw(empty)) == (1200, 150)


@pytest.mark.parametrize(
    ("changes", "left", "height"),
    [
        ({"tested": path(trials=()), "heads": heads(0)}, [Chart.RELIABILITY, Chart.RISK], 915),
        ({"heads": ()}, [Chart.PATH, Chart.RISK], 555),
        ({"risk": None, "heads": ()}, [Chart.PATH], 555),
        ({"risk": None, "heads": heads(0), "tested": path(trials=())}, [Chart.RELIABILITY], 360),
    ],
)
@pytest.mark.usefixtures("outlined")
def test_charts_without_figures_are_left_out(changes: dict[str, Any], left: list[Chart], height: int) -> None:
    given = report(**changes)
    assert plots.charts(given) == left
    assert size(plots.draw(given)) == (1200, height)
    assert re.findall(r"<svg>(\w+)</svg>", pages.page(given)) == [chart.name for chart in left]


def test_a_chart_without_figures_is_refused() -> None:
    given = report(tested=path(trials=()), heads=())
    with pytest.raises(OptionError, match=r"this report has none for PATH; it has: RISK$"):
        plots.figure(given, Chart.PATH)
    with pytest.raises(OptionError, match=r"it has: none$"):
        plots.svg(replace(given, risk=None), Chart.RISK)


def test_class_by_class_the_worst_one_is_shown() -> None:
    classes = (PerClass(label="positive", events=3, examples=1500, upper=0.00512),)
    figure = plots.figure(report(classes=classes), Chart.PATH)
    assert figure.axes[0].get_ylabel() == "harm\n(% of texts of the worst class)"

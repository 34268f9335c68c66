"""The report of a calibration: what the charts hold, that nothing in them is cut off, the page, files and faults."""

from __future__ import annotations

import math
import re
import struct
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from cascade.certification import page as pages
from cascade.certification import plots
from cascade.certification.plots import Chart
from cascade.certification.reliability import reliability, risk_coverage
from cascade.certification.report import Fate, Head, PerClass, Report, Trial, Trials, machine, now, write
from cascade.exceptions import OptionError

FATES = (*(Fate.CERTIFIED,) * 5, Fate.CHOSEN, Fate.FAILED, *(Fate.UNTESTED,) * 3)


def trial(number: int, fate: Fate, **changes: Any) -> Trial:
    given: dict[str, Any] = {
        "setting": f"Threshold(threshold=0.{99 - number}), never",
        "speed_up": 0.9 * 1.25**number,
        "value": 0.001 * number,
        "upper": 0.001 * number + 0.004,
        "fate": fate,
        "events": number,
        "deferred": 1 - number / 10,
    }
    return Trial(**(given | changes))


def path(*fates: Fate, **changes: Any) -> Trials:
    trials = tuple(trial(number, fate) for number, fate in enumerate(fates or FATES))
    given: dict[str, Any] = {"quantity": "harm", "bound": 0.01, "trials": trials, "confidence": 0.95}
    return Trials(**(given | changes))


def floats(values: Any) -> npt.NDArray[np.float32]:
    return np.asarray(values, dtype=np.float32)


def heads(exits: int, labels: int = 2) -> tuple[Head, ...]:
    random = np.random.default_rng(0)
    made = []
    for number in range(exits + 1):
        sure = 1 / labels + (1 - 1 / labels) * random.beta(3 + number, 1, size=300)
        name = f"exit {number}" if number else "tier 1"
        made.append(Head(name=name, reliability=reliability(floats(sure), random.random(300) < sure), temperature=1.25))
    return tuple(made)


def report(**changes: Any) -> Report:
    random = np.random.default_rng(1)
    sure = floats(random.random(300))
    given: dict[str, Any] = {
        "model": "models/sentiment",
        "data": "calibration.jsonl",
        "claim": "harm of at most 1 % of the texts",
        "certified": True,
        "outcome": "Certified: 5 of 1,000 texts were harmed.",
        "unit": "texts",
        "examples": 1000,
        "labelled": True,
        "tested": path(),
        "machine": {"CPU": "Abacus", "Threads": "2"},
        "command": "cascade calibrate models/sentiment --data 'a file.jsonl' --max-drop 0.01",
        "made": "2026-01-31 12:00 UTC",
        "certificate": {"Library": "0.1.0"},
        "warnings": ("12 rows occur more than once",),
        "method": ("Harm of a text: a wrong answer where tier 2 is right.",),
        "heads": heads(3),
        "risk": risk_coverage(sure, random.random(300) > sure),
    }
    return Report(**(given | changes))


REPORTS = {
    "certified": report(),
    "refused": report(
        certified=False, certificate={}, tested=path(Fate.FAILED, Fate.UNTESTED, Fate.UNTESTED), heads=(), risk=None
    ),
    "one setting": report(tested=path(Fate.CHOSEN), heads=heads(0)),
    "no labels": report(labelled=False, tested=path(quantity="disagreement with tier 2 at full depth"), heads=heads(0)),
    "seconds": report(
        tested=path(quantity="mean cost of a sentence", bound=0.005, seconds=True), unit="sentences", heads=()
    ),
    "twelve exits": report(heads=heads(12, labels=150), tested=path(trials=()), risk=None),
    "no bounds": report(
        tested=path(trials=tuple(trial(n, fate, upper=math.nan) for n, fate in enumerate(FATES))), heads=()
    ),
    "nobody wrong": report(
        risk=risk_coverage(floats(np.linspace(0.1, 1, 50)), np.zeros(50)), heads=(), tested=path(trials=())
    ),
}


@pytest.fixture
def outlined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without their pictures, which take a second each."""
    monkeypatch.setattr(plots, "svg", lambda _report, chart: f"<svg>{chart.name}</svg>")


# --- charts ---


def legend(axes: Axes) -> list[Text]:
    made = axes.get_legend()
    return [] if made is None else list(made.get_texts())


def names(figure: Figure) -> list[str]:
    """Of the legend."""
    return [text.get_text() for text in legend(figure.axes[0])]


def points(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    """Markers by the name in the legend."""
    return {
        str(one.get_label()): list(zip(*(np.asarray(side).tolist() for side in one[0].get_data()), strict=True))
        for one in figure.axes[0].containers
    }


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


def size(png: bytes) -> tuple[int, int]:
    """Width and height in pixels."""
    assert png.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


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


# --- page ---


class Reader(HTMLParser):
    """What a browser would load, ids, texts; and that every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in {"src", "href", "xlink:href", "data"}:
                (self.links if (value or "").startswith("#") else self.loads).append(value or "")
            if name == "id":
                self.ids.append(value or "")
        assert tag not in {"script", "link", "iframe", "img"}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.mark.parametrize("name", ["certified", "seconds"])
def test_page_loads_nothing_and_every_id_is_there_once(name: str) -> None:
    made = pages.page(REPORTS[name])
    read = Reader(made)
    assert read.loads == []
    assert read.open == []
    assert [each for each, count in Counter(read.ids).items() if count > 1] == []
    used = {link[1:] for link in read.links} | set(re.findall(r"url\(#([^)]+)\)", made))
    assert used - set(read.ids) == set()
    assert "@import" not in made


@pytest.mark.usefixtures("outlined")
def test_page_says_what_was_asked_found_and_run() -> None:
    read = Reader(pages.page(report())).text
    for part in (
        "models/sentiment calibrated on calibration.jsonl",
        "Asked for: harm of at most 1 % of the texts.",
        "Certified: 5 of 1,000 texts were harmed.",
        "Warning: 12 rows occur more than once.",
        "Harm of a text: a wrong answer where tier 2 is right.",
        "Certificate Library 0.1.0",
        "CPU Abacus",
        "cascade calibrate models/sentiment --data 'a file.jsonl' --max-drop 0.01",
        "Made 2026-01-31 12:00 UTC.",
    ):
        assert part in read


def rows(made: str, name: str) -> list[list[list[str]]]:
    """Cells of every table of a class, head included."""
    tables = re.findall(rf'<table class="{name}">(.*?)</table>', made, flags=re.DOTALL)
    cell = re.compile(r"<t[hd][^>]*>(.*?)</t[hd]>", flags=re.DOTALL)
    return [[cell.findall(row) for row in re.findall(r"<tr.*?</tr>", table, flags=re.DOTALL)] for table in tables]


@pytest.mark.usefixtures("outlined")
def test_page_shows_the_end_of_the_certified_part_and_the_rest_when_asked() -> None:
    ends, path = rows(pages.page(report()), "path")
    assert ends[0] == ["", "predicted speed-up", "deferred", "events", "harm", "upper bound (95 %)", "setting"]
    assert [row[0] for row in ends[1:]] == ["certified"] * 3 + ["chosen", "first that failed"]
    assert [row[0] for row in path[1:]] == [fate.value for fate in FATES]
    code = "<code>Threshold(threshold=0.94), never</code>"
    assert ends[4] == ["chosen", "2.75×", "50.0 %", "5", "0.500 %", "0.900 %", code]


@pytest.mark.usefixtures("outlined")
def test_cells_without_a_figure_are_empty() -> None:
    trials = (trial(2, Fate.CHOSEN, upper=math.nan, events=None, deferred=None),)
    given = report(tested=path(quantity="mean cost", bound=0.005, trials=trials, seconds=True))
    ((head, row),) = rows(pages.page(given), "path")  # a short path is shown once
    assert head == ["", "predicted speed-up", "mean cost", "setting"]
    assert row[:3] == ["chosen", "1.41×", "2 ms"]
    some = replace(given, tested=replace(given.tested, trials=(*trials, trial(3, Fate.FAILED))))
    (_, chosen, failed), *_ = rows(pages.page(some), "path")
    assert chosen[1:6] == ["1.41×", "", "", "2 ms", ""]
    assert failed[1:6] == ["1.76×", "70.0 %", "3", "3 ms", "7 ms"]


@pytest.mark.usefixtures("outlined")
def test_a_setting_at_which_nobody_looked_is_in_the_table_only() -> None:
    trials = (trial(0, Fate.FAILED), trial(1, Fate.UNTESTED, value=math.nan, upper=math.nan, events=None))
    given = report(tested=path(trials=trials))
    assert set(points(plots.figure(given, Chart.PATH))) == {"first that failed"}
    _, (_, _, row) = rows(pages.page(given), "path")
    assert row[:6] == ["not tested", "1.12×", "90.0 %", "", "", ""]


@pytest.mark.usefixtures("outlined")
def test_deferral_has_one_column() -> None:
    (head, *_), *_ = rows(pages.page(report(tested=path(quantity="deferred", bound=0.2))), "path")
    assert head.count("deferred") == 1


def test_class_by_class_the_worst_one_is_shown() -> None:
    classes = (PerClass(label="positive", events=3, examples=1500, upper=0.00512),)
    figure = plots.figure(report(classes=classes), Chart.PATH)
    assert figure.axes[0].get_ylabel() == "harm\n(% of texts of the worst class)"


@pytest.mark.usefixtures("outlined")
def test_page_of_a_refusal_has_no_certificate() -> None:
    made = pages.page(REPORTS["refused"])
    assert '<p class="outcome">' in made
    assert "<h2>Certificate</h2>" not in made
    assert '<p class="outcome certified">' in pages.page(report())


@pytest.mark.usefixtures("outlined")
def test_page_of_an_empty_path_says_so() -> None:
    assert "No setting was tested." in Reader(pages.page(report(certified=False, tested=path(trials=())))).text


@pytest.mark.usefixtures("outlined")
def test_page_lists_classes_and_heads() -> None:
    classes = (PerClass(label="positive", events=3, examples=1500, upper=0.00512),)
    made = pages.page(report(classes=classes))
    assert rows(made, "classes") == [
        [["class", "texts", "events", "upper bound (95 %)"], ["positive", "1,500", "3", "0.512 %"]]
    ]
    ((head, first, *others),) = rows(made, "heads")
    assert head == ["", "temperature", "right", "mean confidence", "ECE", "bins", "texts"]
    assert first[:2] == ["tier 1", "1.25"]
    assert first[5:] == ["15", "300"]
    assert [row[0] for row in others] == ["exit 1", "exit 2", "exit 3"]
    assert "Class by class" not in pages.page(report())


@pytest.mark.usefixtures("outlined")
def test_page_explains_risk_in_words() -> None:
    sure = floats(np.linspace(0.01, 1, 100))
    read = Reader(pages.page(report(risk=risk_coverage(sure, sure <= 0.25), labelled=False))).text
    assert "Alone, tier 1's answers are different from tier 2's in 25.00 % of the cases." in read
    assert "in 100.0 % of all pairs" in read
    assert "0.00 points more than an order that knows" in read
    assert "AUROC;" not in pages.page(REPORTS["nobody wrong"])


@pytest.mark.usefixtures("outlined")
def test_page_escapes_what_users_named() -> None:
    made = pages.page(report(model="<script>alert(1)</script>", data="a&b", command="x < y", warnings=("<b>",)))
    assert "<script>" not in made
    assert "&lt;script&gt;" in made
    assert "a&amp;b" in made
    assert "x &lt; y" in made
    assert "&lt;b&gt;" in made


# --- values and files ---


@pytest.mark.usefixtures("outlined")
def test_files_are_written_whole(tmp_path: Path) -> None:
    given = report(heads=(), risk=None)
    plots.save_png(given, tmp_path / "report.png")
    pages.save_html(given, tmp_path / "report.html")
    assert size((tmp_path / "report.png").read_bytes()) == (1200, 555)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == pages.page(given)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "report.png"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    file = tmp_path / "missing" / "report.png"
    with pytest.raises(OptionError, match=rf"can be written, was: {re.escape(str(file))} \(No such file.*name another"):
        write(b"", file)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OptionError, match="can be written"):
        write(b"", tmp_path / "folder")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]  # nothing half-written is left


def test_a_path_has_one_chosen_setting_at_the_most() -> None:
    assert path(Fate.FAILED).chosen is None
    assert path().chosen == path().trials[5]
    with pytest.raises(OptionError, match="one chosen setting at the most, were: 2; mark the others CERTIFIED"):
        path(Fate.CHOSEN, Fate.CHOSEN)


def test_machine_is_named(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nmodel name\t: Abacus 3\nmodel name\t: other\n")
    facts = machine(threads=3, root=tmp_path)
    assert facts["CPU"] == "Abacus 3"
    assert facts["Threads"] == "3"
    assert "may be used" in facts["CPUs"]
    assert re.search(r"Python \d.*, cascade \d.*, numpy \d.*, scikit-learn \d", facts["Versions"])
    assert machine(threads=1, root=tmp_path / "nowhere")["CPU"]


def test_now_is_a_minute_in_utc() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", now())


def test_a_missing_library_is_named_with_its_extra() -> None:
    code = """
import sys
for name, library in (("plots", "matplotlib"), ("page", "jinja2")):
    sys.modules[library] = None
    try:
        __import__(f"cascade.certification.{name}")
    except ImportError as error:
        print(error)
    del sys.modules[library]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    remedy = 'pip install "cascade-encoder[calibrate]", or leave out'
    assert done.stdout.splitlines() == [
        f"a picture needs the calibrate extra, but matplotlib is missing; {remedy} --png and --html",
        f"a page needs the calibrate extra, but jinja2 is missing; {remedy} --html",
    ]

"""The page of a calibration's report: it loads nothing, says what was asked and found, and escapes what users named."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

from cascade.calibration import page as pages
from cascade.calibration import plots
from cascade.calibration.plots import Chart
from cascade.calibration.reliability import risk_coverage
from cascade.calibration.report import Fate, PerClass
from tests.models.toy_reports import FATES, REPORTS, floats, path, points, report, trial


@pytest.fixture
def outlined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without their pictures, which take a second each."""
    monkeypatch.setattr(plots, "svg", lambda _report, chart: f"<svg>{chart.name}</svg>")


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

"""The values of a calibration's report, its files and their faults."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

from cascade.calibration import page as pages
from cascade.calibration import plots
from cascade.calibration.report import Fate, machine, now
from cascade.exceptions import OptionError
from tests.models.toy_reports import path, report, size


@pytest.fixture
def outlined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without their pictures, which take a second each."""
    monkeypatch.setattr(plots, "svg", lambda _report, chart: f"<svg>{chart.name}</svg>")


@pytest.mark.usefixtures("outlined")
def test_files_are_written_whole(tmp_path: Path) -> None:
    given = report(heads=(), risk=None)
    plots.save_png(given, tmp_path / "report.png")
    pages.save_html(given, tmp_path / "report.html")
    assert size((tmp_path / "report.png").read_bytes()) == (1200, 555)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == pages.page(given)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "report.png"]


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
        __import__(f"cascade.calibration.{name}")
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

"""What `cascade-bench curve` leaves behind: the table, JSON in pytest-benchmark's shape, a picture, a page."""

from __future__ import annotations

import builtins
import itertools
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib.text
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.image import imread
from matplotlib.transforms import Bbox

from cascade.pipelines.classifier import Classifier
from cascade.policies.exits import AtExit, ExitPolicy, MaxProbability, never
from cascade.policies.routing import Router, Threshold, defer_all, defer_none
from cascade_bench import anchors, interleaving, machine, page, plot
from cascade_bench.curve import Curve, Timed
from cascade_bench.curve_data import Given
from cascade_bench.data import Labelled
from cascade_bench.interleaving import Plan, Turns
from cascade_bench.plane import Estimate, Kind, Setting, Sweep
from cascade_bench.report_json import stats
from cascade_bench.statistics import Interval
from cascade_bench.table import Row, Table
from tests.bench.test_cli import Run, data, model, run  # noqa: F401  # fixtures are found by their names
from tests.models.tagged import sentences
from tests.models.toy_tags import tag_bundle

STATS = {
    *("min", "max", "mean", "stddev", "rounds", "median", "iqr", "q1", "q3", "iqr_outliers", "stddev_outliers"),
    *("outliers", "ld15iqr", "hd15iqr", "ops", "total", "iterations", "data"),
}


@pytest.fixture(autouse=True)
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interleaving, "SHORTEST", 1e-9)
    monkeypatch.setattr(anchors, "TURNS", 1)


SMALL = ("--deferrals", 3, "--exits", 2, "--points", 2, "--repeats", 2, "--threads", 1)


def test_everything_at_once(run: Run, model: Path, data: Path, tmp_path: Path) -> None:  # noqa: F811
    files = {name: tmp_path / f"curve.{name}" for name in ("json", "png", "html")}
    outputs = [part for name, file in files.items() for part in (f"--{name}", file)]
    done = run("curve", model, "--data", data, *SMALL, "--no-caps", *outputs)
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert re.match(r"front +setting +accuracy +points +deferred +mean exit +seconds +texts/s +tokens/s", lines[0])
    assert [line[7:].split("  ")[0] for line in lines[1:5]] == [
        "tier 2, full depth",
        "tier 2 cut after layer 2",
        "tier 2 cut after layer 1",
        "tier 1 alone",
    ]
    for word in ("Timed: ", "Estimated: ", "Bounds, estimated: ", "the replay is off by"):
        assert word in done.out
    made = json.loads(files["json"].read_text())
    names = [entry["name"] for entry in made["benchmarks"]]
    assert names[:4] == ["full", "cut-2", "cut-1", "tier1"]
    # Whether an adaptive setting is on the front depends on the seconds of this run.
    assert bool(re.search(r"^A: (Threshold|defer_all)", done.out, flags=re.MULTILINE)) == (len(names) > 4)
    for entry in made["benchmarks"]:
        assert set(entry["stats"]) == STATS
        assert len(entry["stats"]["data"]) == entry["stats"]["rounds"] == 2
        assert entry["fullname"] == f"curve/{entry['name']}"
    assert made["machine_info"]["threads"] == 1
    assert made["commit_info"] == {"id": made["machine_info"]["git"]}
    extra = made["extra"]
    ahead = [point for point in extra["curve"] if point["front"]]
    assert 1 <= len(ahead) < len(extra["curve"])
    best = max(point["accuracy"] for point in extra["curve"])
    assert max(point["accuracy"] for point in ahead) == best
    assert extra["bounds"]["oracle"]["kind"] == "oracle"
    assert len(extra["bounds"]["random"]) == 21
    assert extra["replay_error"]["median"] <= extra["replay_error"]["largest"]
    command = extra["details"]["command"]
    assert command.startswith(f"cascade-bench curve {model} --data {data} --deferrals 3 --exits 2 --no-caps --points 2")
    assert command in files["html"].read_text().replace("&#39;", "'")
    assert imread(files["png"]).shape[:2] == (840, 1200)
    assert sorted(path.name for path in tmp_path.iterdir() if "partial" in path.name) == []


def test_the_file_compares_with_itself(run: Run, model: Path, data: Path, tmp_path: Path) -> None:  # noqa: F811
    file = tmp_path / "curve.json"
    assert run("curve", model, "--data", data, *SMALL, "--json", file).status == 0
    done = run("compare", file, file, "--at-least", 1)
    assert done.status == 0, done.err
    assert "1.000" in done.out


def test_the_same_settings_again(run: Run, model: Path, data: Path, tmp_path: Path) -> None:  # noqa: F811
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    assert run("curve", model, "--data", data, *SMALL, "--json", first).status == 0
    made = json.loads(first.read_text())
    made["benchmarks"].append({**made["benchmarks"][-1], "name": "Threshold(threshold=2.0), never"})
    first.write_text(json.dumps(made))
    done = run("curve", model, "--data", data, *SMALL, "--like", first, "--json", second)
    assert done.status == 0, done.err
    assert "Not timed, for this sweep does not have them: Threshold(threshold=2.0), never." in done.out
    names = [{entry["name"] for entry in json.loads(file.read_text())["benchmarks"]} for file in (first, second)]
    assert names[0] - names[1] == {"Threshold(threshold=2.0), never"}
    assert names[1] - names[0] == set()
    bad = run("curve", model, "--data", data, "--like", data)
    assert bad.status == 2
    assert "must be JSON" in bad.err


def test_a_single_row(run: Run, model: Path, tmp_path: Path) -> None:  # noqa: F811
    file = tmp_path / "one.jsonl"
    file.write_text('{"text": "good film", "label": "positive"}\n')
    done = run("curve", model, "--data", file, *SMALL, "--png", tmp_path / "one.png")
    assert done.status == 0, done.err
    assert "Only 1 rows" in done.out


def test_windows_of_long_texts_count_by_themselves(run: Run, model: Path, tmp_path: Path) -> None:  # noqa: F811
    file = tmp_path / "long.jsonl"
    file.write_text("".join(json.dumps({"text": " ".join(["good film"] * count)}) + "\n" for count in range(1, 60)))
    done = run("curve", model, "--data", file, *SMALL)
    assert done.status == 0, done.err
    assert re.search(r"In the replay each of \d+ windows of the texts counts by itself", done.out)


def test_without_labels(run: Run, model: Path, data: Path) -> None:  # noqa: F811
    plain = data.with_name("plain.jsonl")
    texts = [json.loads(line)["text"] for line in data.read_text().splitlines()]
    plain.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[:20]))
    done = run("curve", model, "--data", plain, *SMALL)
    assert done.status == 0, done.err
    assert re.match(r"front +setting +agreement", done.out)
    assert "The file has no labels: agreement with tier 2 at full depth is reported, not accuracy." in done.out
    assert "Only 20 rows: an accuracy of 90 % would be known to ± 13 points" in done.out


def test_a_tagger(run: Run, tmp_path: Path) -> None:  # noqa: F811
    folder = tag_bundle(tmp_path / "tags", max_length=128).folder
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps({"tokens": some}) + "\n" for some in sentences(40)))
    done = run("curve", folder, "--data", file, *SMALL, "--json", tmp_path / "c.json", "--html", tmp_path / "c.html")
    assert done.status == 0, done.err
    assert "words/s" in done.out
    made = json.loads((tmp_path / "c.json").read_text())
    windows = {json.dumps(point["setting"]["windows"]) for point in made["extra"]["curve"]}
    assert len(windows) == 2  # the bundle's own, and whole sentences


@pytest.mark.parametrize("option", ["--json", "--png", "--html"])
def test_files_that_cannot_be_written_are_said_first(
    run: Run,  # noqa: F811
    model: Path,  # noqa: F811
    tmp_path: Path,
    option: str,
) -> None:
    done = run("curve", model, "--data", tmp_path / "missing.jsonl", option, tmp_path / "none" / "file")
    assert done.status == 2
    assert f"{option} must be a file in a folder that is there" in done.err


@pytest.mark.parametrize(("option", "module"), [("--png", "matplotlib"), ("--html", "jinja2")])
def test_a_missing_package_is_said_first(
    run: Run,  # noqa: F811
    model: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    module: str,
) -> None:
    there = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.split(".", maxsplit=1)[0] == module:
            raise ImportError(f"No module named {module!r}", name=module)
        return there(name, *rest, **named)

    for name in ("plot", "page"):
        monkeypatch.delitem(sys.modules, f"cascade_bench.{name}", raising=False)
        monkeypatch.delattr(sys.modules["cascade_bench"], name, raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    done = run("curve", model, "--data", tmp_path / "missing.jsonl", option, tmp_path / "file")
    assert done.status == 2
    assert f"needs the bench extra, but {module} is missing" in done.err


def test_help_has_an_example(run: Run) -> None:  # noqa: F811
    for command in ("curve", "compare"):
        done = run(command, "--help")
        assert done.status == 0
        assert f"cascade-bench {command}" in done.out.split("Example:")[1]


def test_a_curve_loads_no_picture_library_unasked(model: Path, data: Path) -> None:  # noqa: F811
    import subprocess

    code = (
        "import sys\nfrom cascade_bench import cli, curve_cli, curve_report\n"
        "print([name for name in ('matplotlib', 'jinja2', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def crowded() -> Curve:
    """Markers on top of each other, as a front beside truncations may have them."""
    places: list[tuple[Kind, str, Router, ExitPolicy, float, float]] = [
        ("full", "full", defer_all, never, 1.0, 0.92),
        ("cut", "cut-5", defer_all, AtExit(5), 1.2, 0.92),
        ("cut", "cut-4", defer_all, AtExit(4), 1.25, 0.918),
        ("cut", "cut-3", defer_all, AtExit(3), 1.9, 0.90),
        ("tier1", "tier1", defer_none, never, 2.2, 0.899),
        *(
            ("setting", f"point-{number}", Threshold(0.5 + number / 100), MaxProbability(0.9), speed, accuracy)
            for number, (speed, accuracy) in enumerate([(1.21, 0.921), (1.22, 0.9205), (1.9, 0.901), (1.95, 0.9)])
        ),
    ]
    timed, rows, letters = [], [], itertools.chain([""] * 5, "ABCD")
    for kind, key, router, policy, speed, accuracy in places:
        cut = {"full": 6, "cut-5": 5, "cut-4": 4, "cut-3": 3}.get(key)
        over = Interval(speed, speed * 0.98, speed * 1.02, 0.98, 7)
        row = Row(key, key, cut, accuracy, accuracy - 0.92, 0.5, 3.0, (1 / speed,), over, None)
        point = Estimate(kind, Setting(router, policy), accuracy, 0.5, 3.0, 1 / speed, speed * 1.03)
        rows.append(row)
        timed.append(Timed(row, point, next(letters), True))
    oracle = Estimate("oracle", None, 0.95, 0.1, 6, 0.5, 1.95)
    lots = tuple(Estimate("random", None, 0.9 + share / 50, share, 6, 1.0, 2.2 - share) for share in (0.0, 0.5, 1.0))
    sweep = Sweep(tuple(one.estimate for one in timed), oracle, lots, 1000, 40, ())
    turns = Turns({}, {row.key: Plan((0,), 1) for row in rows}, [[row.key for row in rows]])
    given = Given(Labelled.of(["good"], [("yes",)], ["yes"]), True, ("<b>A note</b>",), None)
    return Curve(given, sweep, Table(tuple(rows), 40, turns), tuple(timed))


def test_no_text_in_the_picture_covers_another() -> None:
    figure = plot.draw(crowded())
    figure.draw_without_rendering()
    (axes,) = figure.axes
    legend = axes.get_legend()
    assert legend is not None
    texts: list[matplotlib.text.Text] = figure.findobj(matplotlib.text.Text)
    shown = [text for text in texts if text.get_text() and text.get_visible()]
    window = axes.get_window_extent()
    boxes: list[tuple[str, Bbox]] = []
    for text in shown:
        box = text.get_window_extent()
        # Ticks outside of the window are made, but not drawn.
        middle = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
        if text in axes.get_xticklabels() and not window.x0 <= middle[0] <= window.x1:
            continue
        if text in axes.get_yticklabels() and not window.y0 <= middle[1] <= window.y1:
            continue
        boxes.append((text.get_text(), box))
    covering = [(one, two) for (one, a), (two, b) in itertools.combinations(boxes, 2) if a.overlaps(b)]
    assert covering == []
    named = {text for text, _ in boxes}
    assert {"full", "3", "tier 1", "C", "D"} <= named
    width, height = figure.canvas.get_width_height()
    assert all(b.x0 >= 0 and b.x1 <= width and b.y0 >= 0 and b.y1 <= height for _, b in boxes)


def test_axes_have_units_and_kinds_have_markers() -> None:
    (axes,) = plot.draw(crowded()).axes
    assert axes.get_xlabel() == "speed-up over tier 2 at full depth (ratio of seconds, log scale)"
    assert axes.get_ylabel() == "accuracy (% of 40 texts)"
    legend = axes.get_legend()
    assert legend is not None
    names = [text.get_text() for text in legend.get_texts()]
    assert len(names) == len(set(names)) == 7
    assert all(name.endswith(("timed", "estimated")) for name in names)
    drawn = [container for container in axes.containers if isinstance(container, ErrorbarContainer)]
    markers = [container.lines[0].get_marker() for container in drawn]
    assert markers == ["o", "s", "^"]


def test_colours_survive_greyscale() -> None:
    def grey(colour: str) -> float:
        red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
        return 0.299 * red + 0.587 * green + 0.114 * blue

    shades = sorted(map(grey, (plot.DARK, plot.MIDDLE, plot.LIGHT)))
    assert all(high - low > 50 for low, high in itertools.pairwise(shades))


class Loads(HTMLParser):
    """Whatever a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in {"src", "href", "xlink:href", "data", "action"} and not (value or "").startswith("#"):
                self.found.append(f"{tag} {name}={value}")


def test_the_page_stands_alone() -> None:
    text = page.render(crowded(), machine.facts(threads=1), model="<models>", data="dev.jsonl", command="a 'b c'")
    seen = Loads()
    seen.feed(text)
    assert seen.found == []
    assert {"svg", "table", "pre"} <= set(seen.tags)
    assert not {"script", "link", "img", "iframe", "b"} & set(seen.tags)
    assert "@import" not in text
    assert "url(http" not in text
    assert text.count("<svg") == 1
    assert "&lt;models&gt;" in text
    assert "&lt;b&gt;A note&lt;/b&gt;" in text
    assert "read from a stream" in text


def test_the_same_curve_is_the_same_picture() -> None:
    assert plot.svg(crowded()) == plot.svg(crowded())


def test_statistics_of_one_sample() -> None:
    made = stats([2.0])
    assert (made["median"], made["iqr"], made["stddev"], made["outliers"], made["ops"]) == (2.0, 0.0, 0.0, "0;0", 0.5)


def test_bundles_as_configured_keep_their_sessions(model: Path) -> None:  # noqa: F811
    from cascade_bench.plane import configured

    classifier = Classifier.from_pretrained(model, threads=1)
    made = configured(classifier, Setting(defer_all, never))
    assert isinstance(made, Classifier)
    assert made.tier1.backend is classifier.tier1.backend
    assert (made.router, made.exit_policy) == (defer_all, never)

"""The curve of a bundle: places against real runs, bounds against their definitions, the front, files with faults."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascade.core.results import Predictions, TagPredictions
from cascade.exceptions import DataError, OptionError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.policies.batching import FixedSize, SortedByLength, TokenBudget
from cascade.policies.exits import AtExit, MaxProbability, never
from cascade.policies.routing import Threshold, defer_all, defer_none
from cascade.policies.windows import whole_sentences
from cascade.text.reading import read_examples
from cascade_bench import anchors, curve_data, interleaving
from cascade_bench.anchors import Anchors, anchored
from cascade_bench.curve import curve, spread
from cascade_bench.curve_cli import batching_policy
from cascade_bench.curve_data import Given, read_for_curve
from cascade_bench.data import Columns, Labelled
from cascade_bench.plane import Axes, Estimate, Kind, Setting, Sweep, configured, front
from cascade_bench.sweep import sweep
from cascade_bench.tag_data import TagColumns, Tagged
from tests.bench.test_cli import Run, run, texts  # noqa: F401  # a fixture is found by its name
from tests.models.tagged import sentences
from tests.models.toy import toy_bundle
from tests.models.toy_tags import tag_bundle

AXES = Axes(deferral=4, exits=3)
Lines = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass per turn: these tests look at places, not at seconds."""
    monkeypatch.setattr(interleaving, "SHORTEST", 1e-9)
    monkeypatch.setattr(anchors, "TURNS", 1)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return Classifier.from_pretrained(toy_bundle(tmp_path_factory.mktemp("toy") / "bundle").folder, threads=1)


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Tagger:
    policy = {"policy": "TokenExit", "threshold": 0.3, "window": 3}
    folder = tmp_path_factory.mktemp("toy") / "tags"
    return Tagger.from_pretrained(tag_bundle(folder, exit_policy=policy, max_length=128).folder, threads=1)


def labelled(classifier: Classifier, count: int = 40) -> Lines:
    """By full-depth tier 2, every ninth wrongly."""
    some = texts(count)
    labels = list(classifier.with_router(defer_all).with_exit_policy(never).predict(some).labels)
    labels[::9] = ["neutral"] * len(labels[::9])
    return [{"text": text, "label": label} for text, label in zip(some, labels, strict=True)]


def tagged(tagger: Tagger, count: int = 40) -> Lines:
    some = sentences(count)
    tags = tagger.with_router(defer_all).with_exit_policy(never).predict(some).tags
    for own in tags[::4]:
        own[0] = "B-LOC"
    return [{"tokens": words, "tags": own} for words, own in zip(some, tags, strict=True)]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Lines], Path]:
    def write(lines: Lines) -> Path:
        file = tmp_path / "data.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return file

    return write


Write = Callable[[Lines], Path]


def read(file: Path, model: Classifier | Tagger) -> Given:
    return read_for_curve(str(file), model, columns=Columns(), tag_columns=TagColumns())


@pytest.mark.parametrize("blend", [0.0, 0.6])
def test_places_of_texts_are_those_of_real_runs(classifier: Classifier, write: Write, blend: float) -> None:
    given = read(write(labelled(classifier)), classifier)
    classifier = classifier.with_blend(blend)
    data = given.data
    assert isinstance(data, Labelled)
    placed = sweep(classifier, data, AXES)
    assert len({str(point.setting) for point in placed.points}) == len(placed.points)
    kinds = [point.kind for point in placed.points if point.kind != "setting"]
    assert kinds == ["full", "cut", "cut", "tier1"]
    for point in placed.points:
        assert point.setting is not None
        made = configured(classifier, point.setting).predict(data.texts)
        assert isinstance(made, Predictions)
        assert data.right(made.labels) / len(data) == pytest.approx(point.accuracy)
        second = made.routes.tier == 2
        assert second.mean() == pytest.approx(point.deferred)
        if second.any():
            assert made.routes.exit_layer[second].mean() == pytest.approx(point.mean_layer)


@pytest.mark.parametrize("blend", [0.0, 0.6])
def test_places_of_words_with_whole_sentences_are_those_of_real_runs(
    tagger: Tagger, write: Write, blend: float
) -> None:
    given = read(write(tagged(tagger)), tagger)
    tagger = tagger.with_blend(blend)
    data = given.data
    assert isinstance(data, Tagged)
    placed = sweep(tagger, data, Axes(deferral=2, exits=2))
    assert [point.kind for point in placed.fixed] == ["full", "cut", "cut", "tier1"]
    whole = [
        point
        for point in placed.points
        if point.setting is not None
        and point.setting.windows == whole_sentences
        and (point.setting.exit_policy == never or isinstance(point.setting.exit_policy, AtExit))
    ]
    assert len(whole) > len(placed.fixed)
    for point in whole:  # where words leave one by one the replay is near, not exact
        assert point.setting is not None
        made = configured(tagger, point.setting).predict(data.sentences)
        assert isinstance(made, TagPredictions)
        assert data.right(made.tags) / len(data) == pytest.approx(point.accuracy)
    assert {point.setting.windows for point in placed.points if point.setting} >= {tagger.windows}


def test_the_oracle_defers_what_pays(classifier: Classifier, write: Write) -> None:
    data = read(write(labelled(classifier)), classifier).data
    assert isinstance(data, Labelled)
    first = classifier.with_router(defer_none).predict(data.texts).labels
    second = classifier.with_router(defer_all).with_exit_policy(never).predict(data.texts).labels
    right1 = np.array([one == label for one, label in zip(first, data.labels, strict=True)])
    right2 = np.array([one == label for one, label in zip(second, data.labels, strict=True)])
    placed = sweep(classifier, data, AXES)
    assert placed.oracle.accuracy == pytest.approx((right1 | right2).mean())
    assert placed.oracle.deferred == pytest.approx((~right1 & right2).mean())
    assert 0 < placed.oracle.deferred < 1
    assert placed.random[0].accuracy == pytest.approx(right1.mean())
    assert placed.random[-1].accuracy == pytest.approx(right2.mean())
    middle = placed.random[len(placed.random) // 2]
    assert middle.accuracy == pytest.approx((right1.mean() + right2.mean()) / 2)
    assert middle.seconds == pytest.approx((placed.random[0].seconds + placed.random[-1].seconds) / 2)
    assert not any(point.accuracy > placed.oracle.accuracy for point in placed.random)


def place(kind: Kind, seconds: float, accuracy: float, threshold: float = 0.5) -> Estimate:
    settings = {
        "full": Setting(defer_all, never),
        "cut": Setting(defer_all, AtExit(1)),
        "tier1": Setting(defer_none, never),
        "setting": Setting(Threshold(threshold), MaxProbability(0.9)),
    }
    return Estimate(kind, settings.get(kind), accuracy, 0.5, 1, seconds, 10 / seconds)


def test_the_front() -> None:
    slow, fast = place("setting", 4, 0.9), place("setting", 1, 0.7)
    beaten, twin, middle = place("setting", 2, 0.7), place("setting", 4, 0.8), place("setting", 3, 0.8)
    assert front([slow, beaten, twin, fast, middle]) == [fast, middle, slow]


def test_a_handful_is_spread_from_end_to_end() -> None:
    seconds = [1.0, 1.01, 1.02, 3.0, 3.01, 9.0, 9.01]
    points = [place("setting", one, 0.5 + 0.05 * number) for number, one in enumerate(seconds)]
    assert [points.index(point) for point in spread(points, 3)] in ([0, 3, 6], [0, 4, 6])
    assert spread(points, 7) == points
    assert spread(points, 1) == [points[-1]]
    assert spread([], 3) == []


def test_anchors_move_estimates_onto_what_ran() -> None:
    """A second tier that takes a tenth of a second per call and 1.5 times what was estimated."""
    points = (
        place("full", 10, 0.9),
        place("cut", 5, 0.8),
        place("tier1", 1, 0.6),
        *(place("setting", 1 + share, 0.7, threshold=share / 10) for share in (0.8, 2.0, 4.5, 8.0)),
    )
    before = Sweep(points, place("oracle", 3, 1.0), (place("random", 1, 0.6), place("random", 11, 0.9)), 1, 1, ())

    def seconds(setting: Setting) -> float:
        if setting.router == defer_all:
            return 12.0
        if setting.router == defer_none:
            return 2.0
        assert isinstance(setting.router, Threshold)
        return 2.0 + 0.1 + 1.5 * 10 * setting.router.threshold

    after = anchored(before, seconds)
    found = [point.seconds for point in after.points]
    assert found == pytest.approx([12, 6, 2, 3.3, 5.1, 8.85, 2 + 8 * 6.85 / 4.5])
    assert [point.speed_up for point in after.points] == pytest.approx([12 / one for one in found])
    assert [point.accuracy for point in after.points] == [point.accuracy for point in points]
    assert after.oracle.seconds == pytest.approx(2 + 2 * 1.2)
    assert [point.seconds for point in after.random] == pytest.approx([2, 14])


def test_noisy_anchors_never_promise_what_costs_nothing() -> None:
    points = (place("full", 10, 0.9), place("tier1", 1, 0.6), place("setting", 2, 0.7), place("setting", 6, 0.8, 0.6))
    before = Sweep(points, place("oracle", 3, 1.0), (place("random", 1, 0.6),), 1, 1, ())
    after = anchored(before, lambda setting: {0.5: 4.0, 0.6: 3.0}.get(getattr(setting.router, "threshold", 0), 2.0))
    light, heavy = after.points[2:]
    assert (light.seconds, heavy.seconds) == (4.0, 4.0)
    quick = anchored(before, lambda setting: {0.5: 1.5, 0.6: 3.0}.get(getattr(setting.router, "threshold", 0), 2.0))
    assert [point.seconds for point in quick.points[2:]] == pytest.approx([2 + 1 * 2 / 10, 3])


def test_exits_without_a_router_have_no_first_tier() -> None:
    found = Anchors(full=2.0, first=3.0, guess=1.0, guesses=(2.0, 6.0), taken=(3.0, 7.0))
    alone = Estimate("setting", Setting(defer_all, MaxProbability(0.9)), 0.9, 1.0, 2, 4.0, 1.0)
    assert found.seconds(alone) == 5.0
    assert [found.second(guess) for guess in (1.0, 2.0, 4.0, 6.0, 12.0)] == [1.5, 3.0, 5.0, 7.0, 14.0]
    assert Anchors(full=2.0, first=3.0, guess=1.0, guesses=(), taken=()).second(1.5) == 3.0


def test_what_is_timed(classifier: Classifier, write: Write) -> None:
    given = read(write(labelled(classifier)), classifier)
    settings = [str(point.setting) for point in sweep(classifier, given.data, AXES).points if point.kind == "setting"]
    # Named, because what is on the front depends on the seconds of a run.
    found = curve(classifier, given, axes=AXES, count=0, repeats=2, like=settings[:2])
    keys = [one.row.key for one in found.timed]
    assert keys[:4] == ["full", "cut-2", "cut-1", "tier1"]
    assert sorted(keys[4:]) == sorted(settings[:2])
    assert [one.letter for one in found.timed] == ["", "", "", "", "A", "B"]
    for one in found.timed:
        assert one.row.accuracy == pytest.approx(one.estimate.accuracy)
        assert one.error == pytest.approx(one.estimate.speed_up / one.row.over_full.median - 1)
        assert len(one.row.seconds) == 2
    assert any(one.ahead for one in found.timed)
    middle, most = found.errors
    assert 0 <= middle <= most
    free = [one.row.key for one in curve(classifier, given, axes=AXES, count=2, repeats=1).timed]
    assert free[:4] == keys[:4]
    assert len(free) <= 6
    assert set(free[4:]) <= set(settings)


def test_batching_is_an_axis_and_speed_ups_share_a_base(classifier: Classifier, write: Write) -> None:
    given = read(write(labelled(classifier)), classifier)
    policies = (TokenBudget(64), FixedSize(1))
    placed = sweep(classifier, given.data, Axes(2, 2, False, policies))
    base = next(point for point in placed.points if point.kind == "full")
    assert {point.setting.batching for point in placed.points if point.setting} == set(policies)
    assert base.setting is not None
    assert base.setting.batching == policies[0]
    assert all(point.speed_up == pytest.approx(base.seconds / point.seconds) for point in placed.points)
    assert [point.kind for point in placed.fixed].count("full") == 2
    found = curve(classifier, given, axes=Axes(2, 2, False, policies), count=1, repeats=1)
    assert [one.row.key for one in found.timed].count("full") == 1


@pytest.mark.parametrize(
    ("said", "policy"),
    [("tokens:2048", TokenBudget(2048)), ("sorted:8", SortedByLength(8)), ("fixed:1", FixedSize(1))],
)
def test_batching_by_name(said: str, policy: object) -> None:
    assert batching_policy(said) == policy


@pytest.mark.parametrize("said", ["tokens", "tokens:", "tokens:-1", "tokens:0", "random:3", "fixed:²", ""])
def test_batching_that_is_none(said: str) -> None:
    with pytest.raises(OptionError, match="must be"):
        batching_policy(said)


def test_without_labels_agreement_takes_their_place(classifier: Classifier, tagger: Tagger, write: Write) -> None:
    given = read(write([{"text": text} for text in texts()]), classifier)
    assert (given.labelled, given.metric) == (False, "agreement")
    assert given.notes == ("The file has no labels: agreement with tier 2 at full depth is reported, not accuracy.",)
    placed = sweep(classifier, given.data, AXES)
    assert placed.points[-1].kind == "tier1"
    assert placed.fixed[0].accuracy == 1
    assert placed.fixed[-1].accuracy < 1
    words = read(write([{"tokens": some} for some in sentences(40)]), tagger)
    assert not words.labelled
    assert isinstance(words.data, Tagged)
    assert words.data.tags == tagger.with_router(defer_all).with_exit_policy(never).predict(sentences(40)).tags


def test_labels_that_the_bundle_does_not_know_are_left_out(classifier: Classifier, write: Write) -> None:
    lines = labelled(classifier)
    lines[3]["label"], lines[5]["label"] = "sarcastic", "sarcastic"
    del lines[7]["label"]
    given = read(write(lines), classifier)
    assert len(given.data) == 37
    assert given.labelled
    (note,) = given.notes
    assert note.startswith("3 of 40 rows are left out: labels that the bundle does not know ('sarcastic').")


def test_no_known_label_at_all(classifier: Classifier, write: Write) -> None:
    given = read(write([{"text": text, "label": number} for number, text in enumerate(texts())]), classifier)
    assert not given.labelled
    assert "No row has a label that the bundle knows ('0', '1', '2', ...): agreement" in given.notes[0]


def test_tags_that_do_not_fit_their_words(tagger: Tagger, write: Write) -> None:
    lines = [{"tokens": [], "tags": []}, *tagged(tagger)]
    lines[1]["tags"] = lines[1]["tags"][1:]
    lines[2]["tags"][0] = "B-XYZ"
    given = read(write(lines), tagger)
    assert isinstance(given.data, Tagged)
    assert len(given.data.sentences) == 38
    assert "2 of 40 rows are left out: labels that the bundle does not know ('B-XYZ')" in given.notes[0]


def test_one_class_only(classifier: Classifier, tagger: Tagger, write: Write) -> None:
    given = read(write([{"text": text, "label": "positive"} for text in texts()]), classifier)
    assert given.notes == ("Every row is labelled positive: whoever always says so is right on 100 %.",)
    words = read(write([{"tokens": some, "tags": ["O"] * len(some)} for some in sentences(40)]), tagger)
    assert words.notes == ("Every word is labelled O: whoever always says so is right on 100 %.",)


@pytest.mark.parametrize(("count", "said"), [(29, True), (30, False)])
def test_few_rows(classifier: Classifier, write: Write, count: int, said: bool) -> None:
    given = read(write(labelled(classifier, count)), classifier)
    assert any("too wide to tell settings apart" in note for note in given.notes) == said


def test_a_file_that_changes_while_it_is_read(
    classifier: Classifier, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(labelled(classifier))

    def reading(*arguments: Any, **options: Any) -> Iterator[Any]:
        yield from read_examples(*arguments, **options)
        with file.open("a") as stream:
            stream.write('{"text": "late", "label": "positive"}\n')

    monkeypatch.setattr(curve_data, "read_examples", reading)
    given = read(file, classifier)
    assert given.notes == ("data.jsonl changed while it was read: measure it again.",)
    assert len(given.data) == 40


def test_files_that_hold_nothing(classifier: Classifier, tagger: Tagger, write: Write, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least one example"):
        read(write([]), classifier)
    with pytest.raises(DataError, match="at least one word"):
        read(write([{"tokens": [], "tags": []}]), tagger)
    with pytest.raises(DataError, match="it is missing"):
        read(tmp_path / "none.jsonl", classifier)
    with pytest.raises(DataError, match="line 1: there must be a column 'text'"):
        read(write([{"sentence": "good"}]), classifier)

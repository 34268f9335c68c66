"""Texts of another kind are reported soon, texts of the same kind hardly ever, and old bundles work as before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascade.bundle.opening import open_bundle
from cascade.bundle.profile import DEPTH, Profile
from cascade.bundle.writing import copy_bundle
from cascade.exceptions import OptionError
from cascade.monitoring.monitor import EVERY, Monitor
from cascade.monitoring.shift import ShiftDetector
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.loading import load
from cascade.pipelines.profiling import cuts, profile_of
from cascade.pipelines.tagger import Tagger
from cascade.policies.routing import Threshold
from tests.models.toy import SENTENCES, random_texts

SAME = random_texts(600, seed=11)
OTHER = [" ".join(["unheard"] * 12 + SENTENCES[1].split()[: 1 + number % 3]) for number in range(400)]
SLOTS = "A" * 5462 + "=="
EDGES = tuple(np.linspace(0, 1, 17)[1:-1].tolist())


def profiled(pipeline: Any, folder: Path, items: list[Any]) -> Any:
    """The same pipeline, of a bundle with a profile."""
    manifest = replace(pipeline.bundle.manifest, profile=profile_of(pipeline, items))
    copy_bundle(replace(pipeline.bundle, manifest=manifest), folder, policies=pipeline.policies)
    return load(folder, threads=1)


@pytest.fixture(scope="module")
def known(clf: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    made: Classifier = profiled(clf, tmp_path_factory.mktemp("profiles") / "texts", SAME)
    return made


def uniform(rng: np.random.Generator, streams: int, texts: int, calibration: int) -> list[int | None]:
    """Alarms of streams that come as their own calibration did."""
    found = []
    for _ in range(streams):
        edges = tuple(np.sort(rng.random(calibration))[cuts(calibration) - 1].tolist())
        detector = ShiftDetector(profile=Profile(calibration, {"a": edges}, SLOTS))
        found.append(detector.after({"a": rng.random(texts)}).alarm_at)
    return found


@pytest.mark.parametrize("calibration", [50, 1000])
def test_false_alarms_are_rare_whatever_the_sample_of_the_calibration(calibration: int) -> None:
    found = uniform(np.random.default_rng(3), 200, 3000, calibration)
    assert sum(alarm is not None for alarm in found) <= 10


def test_a_detector_is_a_value_and_parts_are_as_the_whole() -> None:
    rng = np.random.default_rng(0)
    values = {"a": rng.random(300), "b": rng.random(300) ** 3}
    begun = ShiftDetector(profile=Profile(999, {"a": EDGES, "b": EDGES}, SLOTS))
    whole, parts = begun.after(values), begun
    for start in range(0, 300, 7):
        parts = parts.after({name: own[start : start + 7] for name, own in values.items()})
    assert 0 < whole.alarm_at == parts.alarm_at < 100  # type: ignore[operator]  # there is one
    assert whole.feature == parts.feature == "b"
    assert (begun.alarm_at, begun.process.outcomes) == (None, 0)
    assert whole.after(values) is whole
    assert sum(begun.balls["a"]) == 1000


@pytest.mark.parametrize("mean", [0.45, 0.55])
def test_small_differences_are_no_shift(mean: float) -> None:
    ranks = np.random.default_rng(1).random(20_000) ** (1 / mean - 1)
    detector = ShiftDetector(profile=Profile(1000, {"a": EDGES}, SLOTS))
    assert detector.after({"a": ranks}).alarm_at is None


@pytest.mark.parametrize("ask", ["predict", "stream"])
def test_texts_of_another_kind(known: Classifier, ask: str) -> None:
    told: list[Monitor[Classifier]] = []
    monitor = Monitor(known, share=0.01, on_shift=told.append)
    assert monitor.report().shift is not None
    texts = random_texts(2000, seed=12)
    list(getattr(monitor, ask)(texts))
    assert monitor.report().shifted_at is None
    list(getattr(monitor, ask)(OTHER))
    report = monitor.report()
    assert 2000 < report.shifted_at <= 2000 + 50 * EVERY  # type: ignore[operator]  # there is one
    assert report.shift is not None
    assert report.shift.feature in {"new", "length", DEPTH}
    assert told == [monitor]
    assert monitor.safer()
    assert monitor.report().shifted_at == report.shifted_at


def test_the_stream_looks_at_what_a_list_shows(known: Classifier) -> None:
    texts = [*random_texts(300, seed=4), *OTHER]
    whole, stream = Monitor(known), Monitor(known)
    whole.predict(texts)
    list(stream.stream(texts))
    one, other = whole.report(), stream.report()
    assert one.shifted_at is not None
    assert one.shifted_at % EVERY == 1
    assert one.shifted_at == other.shifted_at


def test_taggers(tagger: Tagger, tmp_path: Path) -> None:
    words = [text.split() for text in SAME]
    asked: tuple[tuple[list[Any], str], ...] = ((SAME, "predict_texts"), (words, "predict"))
    for number, (items, ask) in enumerate(asked):
        some = profiled(tagger, tmp_path / str(number), items)
        monitor: Monitor[Any] = Monitor(some)
        getattr(monitor, ask)(items + items)
        assert monitor.report().shifted_at is None
        getattr(monitor, ask)(OTHER if ask == "predict_texts" else [text.split() for text in OTHER])
        assert monitor.report().shifted_at is not None


def test_old_bundles_and_other_policies(clf: Classifier, known: Classifier, tmp_path: Path) -> None:
    assert Monitor(clf).report().shift is None
    assert profile_of(clf, SAME[:99]) is None
    other = known.with_router(Threshold(0.123))
    for pipeline, features in ((known, {DEPTH, "length", "new"}), (other, {"length", "new"})):
        shift = Monitor(pipeline).report().shift
        assert shift is not None
        assert set(shift.balls) == features
    other.save_pretrained(tmp_path / "other")
    profile = open_bundle(tmp_path / "other").manifest.profile
    assert profile is not None
    assert set(profile.edges) == {"length", "new"}
    assert profile == other.bundle.manifest.profile.of_texts()  # type: ignore[union-attr]  # it has one
    safer = Monitor(known)
    assert safer.safer()
    assert set(safer.report().shift.balls) == {"length", "new"}  # type: ignore[union-attr]


def test_an_impossible_confidence() -> None:
    with pytest.raises(OptionError, match="confidence must be above 0 and below 1, got 1"):
        ShiftDetector(profile=Profile(99, {"a": EDGES}, SLOTS), confidence=1)

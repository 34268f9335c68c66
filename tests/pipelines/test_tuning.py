"""Tuning measures with the clock that it is given: here a fake one, which a fake pipeline moves on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tqdm import tqdm

from cascade.core.results import Predictions, Routes, Stats
from cascade.exceptions import InputError, OptionError
from cascade.pipelines import tuning
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.pipelines.tuning import Tuned, cache_file, tune
from cascade.policies import (
    MaxProbability,
    TokenBudget,
    defer_all,
    defer_none,
)
from tests.models.batching import FixedSize
from tests.models.toy import Toy, toy_bundle
from tests.models.toy_tagging import ToyTagger
from tests.models.toy_tags import tag_bundle

TEXTS = ["good film", "bad", "", "a very dull plot it was", "not good not bad"] * 4
SENTENCES = [["the", "film", "is", "good", "but", "long"], [], ["warm"], ["a", "goodfilm", ",", "don't"]]


@dataclass
class FakeClock:
    now: float = 0.0
    runs: int = 0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class FakePipeline:
    """Takes `seconds` for two texts with each pair of budgets, times the noise of the run.

    `other` budgets change a bit; `fixed`: any number of texts takes as long.
    """

    clock: FakeClock
    seconds: Callable[[tuple[int, ...]], float] = lambda budgets: 1.0
    noise: Callable[[int], float] = lambda run: 1.0
    max_tokens: tuple[int, ...] = (1024, 1024)
    other: tuple[int, ...] = ()
    fixed: bool = True
    tried: list[tuple[int, ...]] = field(default_factory=list)

    def with_max_tokens(self, *max_tokens: int) -> FakePipeline:
        return replace(self, max_tokens=max_tokens)

    def predict(self, texts: Sequence[str]) -> Predictions:
        self.tried.append(self.max_tokens)
        self.clock.runs += 1
        size = 1 if self.fixed else len(texts) / 2
        self.clock.now += self.seconds(self.max_tokens) * self.noise(self.clock.runs) * size
        chance = np.float32(0.5)
        if set(self.other) & set(self.max_tokens):
            chance = np.nextafter(chance, np.float32(1))
        ones = np.ones(len(texts), dtype=np.int64)
        routes = Routes(ones, 0 * ones, np.full(len(texts), chance))
        return Predictions(["x"] * len(texts), np.full((len(texts), 1), chance), routes, Stats())


def run(pipeline: FakePipeline, **options: Any) -> Tuned:
    return tune(pipeline, ["a", "b"], clock=pipeline.clock, **{"minutes": 60, **options})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_keeps_what_is_faster_of_each_tier() -> None:
    best: dict[tuple[int, ...], float] = {(512, 1024): 0.8, (1024, 2048): 0.9, (512, 2048): 0.7}
    assert run(FakePipeline(FakeClock(), lambda budgets: best.get(budgets, 1.0))).max_tokens == (512, 2048)


def test_says_how_much_faster() -> None:
    found = run(FakePipeline(FakeClock(), lambda budgets: 0.8 if budgets[0] == 512 else 1.0))
    decided = [one for one in found.budgets if one.name == "512, 1024"]
    assert len(decided) == 2  # among the others, and again
    assert all(one.speed_up.median == pytest.approx(1.25) and one.seconds == pytest.approx(0.8) for one in decided)
    assert found.budgets[-1] is decided[-1]
    assert decided[-1].speed_up.coverage > 0.95


def test_luck_does_not_repeat_itself() -> None:
    """One budget is fastest in all of the turns among the others, and as fast as the default in those that decide."""
    pipeline = FakePipeline(FakeClock())
    lucky = replace(pipeline, seconds=lambda budgets: 0.7 if budgets[0] == 256 and pipeline.clock.runs <= 57 else 1.0)
    found = run(lucky)
    assert found.max_tokens == (1024, 1024)
    assert [one.seconds for one in found.budgets if one.name == "256, 1024"] == pytest.approx([0.7, 1])


def test_a_gain_within_noise_is_not_kept() -> None:
    """3 % in the median, while every third run takes half as long again."""
    pipeline = FakePipeline(
        FakeClock(), lambda budgets: 0.97 if 256 in budgets else 1.0, lambda number: 1.5 if number % 3 == 0 else 1.0
    )
    assert run(pipeline).max_tokens == (1024, 1024)


@pytest.mark.parametrize("drift", [1.01, 0.99])
def test_a_machine_that_slows_down_or_speeds_up_is_no_gain(drift: float) -> None:
    assert run(FakePipeline(FakeClock(), noise=lambda number: drift**number)).max_tokens == (1024, 1024)


def test_a_machine_that_is_slow_for_a_while_hides_no_gain() -> None:
    pipeline = FakePipeline(
        FakeClock(), lambda budgets: 0.8 if budgets[1] == 256 else 1.0, lambda number: 10.0 if number > 40 else 1.0
    )
    assert run(pipeline).max_tokens == (1024, 256)


def test_what_changes_a_bit_is_left_out() -> None:
    pipeline = FakePipeline(FakeClock(), lambda budgets: 0.5 if 512 in budgets else 1.0, other=(512,))
    found = run(pipeline)
    assert found.max_tokens == (1024, 1024)
    assert not [one for one in found.budgets if "512" in one.name]
    assert sum(512 in budgets for budgets in pipeline.tried) == 2  # once per tier, to compare its answers


@pytest.mark.parametrize(("minutes", "texts"), [(1, 1), (2, 2)])
def test_texts_are_cut_to_what_fits_the_time(minutes: float, texts: int) -> None:
    pipeline = FakePipeline(FakeClock(), lambda budgets: 0.9 if budgets[1] == 256 else 1.0, fixed=False)
    found = run(pipeline, minutes=minutes)
    assert (found.texts, found.max_tokens) == (texts, (1024, 256))
    assert 30 * minutes < pipeline.clock.now <= 60 * minutes
    many = FakePipeline(FakeClock(), fixed=False)
    assert 70 < tune(many, ["a"] * 1000, clock=many.clock, minutes=60).texts < 96
    assert 2400 < many.clock.now <= 3600


@pytest.mark.parametrize("gain", [0.8, 1.0])
def test_the_bar_knows_its_end(gain: float, monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[Any] = []

    def bar(**options: Any) -> Any:
        bars.append(tqdm(**options))
        return bars[-1]

    monkeypatch.setattr(tuning, "tqdm", bar)
    run(FakePipeline(FakeClock(), lambda budgets: gain if 256 in budgets else 1.0), show_progress=True)
    assert bars[0].n == bars[0].total


def test_too_little_time_for_a_text() -> None:
    with pytest.raises(OptionError, match=r"minutes must be at least 0.62 for one of these texts, got 0.5; give"):
        run(FakePipeline(FakeClock(), fixed=False), minutes=0.5)


@pytest.mark.parametrize(
    ("texts", "options", "error", "message"),
    [
        ([], {}, InputError, "texts must be at least one"),
        (["a"], {"minutes": 0}, OptionError, "minutes must be above 0 and finite, got 0; 2 are usual"),
        (["a"], {"minutes": float("nan")}, OptionError, "minutes must be above 0 and finite, got nan"),
        (["a"], {"repeats": 4}, OptionError, "repeats must be a whole number of at least 5"),
    ],
)
def test_refuses(texts: list[str], options: dict[str, Any], error: type[Exception], message: str) -> None:
    pipeline = FakePipeline(FakeClock())
    with pytest.raises(error, match=message):
        tune(pipeline, texts, clock=pipeline.clock, **options)
    assert pipeline.tried == []


@pytest.fixture(scope="module")
def clf(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    folder = tmp_path_factory.mktemp("bundles") / "toy"
    return Classifier.from_pretrained(toy_bundle(folder).folder, threads=2, tuned=False)


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Tagger:
    folder = tmp_path_factory.mktemp("bundles") / "tags"
    return Tagger.from_pretrained(tag_bundle(folder).folder, threads=2, tuned=False)


def ticks() -> Callable[[], float]:
    numbers = count()
    return lambda: float(next(numbers))


def test_real_pipelines(clf: Classifier, tagger: Tagger) -> None:
    for pipeline, given in ((clf, TEXTS), (tagger, SENTENCES), (tagger, TEXTS)):
        found = tune(pipeline, given, clock=ticks(), minutes=60)
        assert found == Tuned((1024, 1024))
        assert "1024, 4096" in [one.name for one in found.budgets]
    with pytest.raises(OptionError, match="one per tier that has a token budget"):
        tune(clf.with_batching(FixedSize(2)), TEXTS)


@pytest.mark.parametrize("budgets", [(1, 1), (7, 100), (100, 7), (4096, 4096)])
def test_no_budget_changes_an_answer(clf: Classifier, tagger: Tagger, budgets: tuple[int, int]) -> None:
    """Bit for bit, with tiers whose sums do not depend on the number of rows that are multiplied."""
    toy, tags = Toy(exits=3), ToyTagger(labels=len(tagger.labels), exits=3)
    tags.table = np.concatenate((tags.table,) * 4)  # the bundle's tokenizer knows more tokens
    exact = replace(clf, tiers=(toy.tier1(threads=2), toy.tier2(threads=2))).with_exit_policy(MaxProbability(0.7))
    words = replace(tagger, tiers=(tags.tier1(threads=2), tags.tier2(threads=2))).with_exit_policy(MaxProbability(0.7))
    pairs: list[tuple[Any, Any]] = [(exact, TEXTS), (words, SENTENCES)]
    for pipeline, given in pairs:
        for own in (pipeline, pipeline.with_router(defer_all), pipeline.with_router(defer_none)):
            expected, found = own.predict(given), own.with_max_tokens(*budgets).predict(given)
            assert np.array_equal(found.probabilities, expected.probabilities)
            assert [repr(route) for route in found.routes] == [repr(route) for route in expected.routes]


def test_loading_uses_what_was_kept(clf: Classifier, tagger: Tagger) -> None:
    pairs: list[tuple[Any, Any]] = [(clf, TEXTS), (tagger, SENTENCES)]
    for pipeline, given in pairs:
        Tuned((7, 9)).write(pipeline.bundle, threads=2)

        def load(pipeline: Any = pipeline, **options: Any) -> Any:
            return type(pipeline).from_pretrained(pipeline.bundle.folder, **{"threads": 2, **options})

        assert load().max_tokens == (7, 9)
        assert "max_tokens=(7, 9)" in repr(load())
        assert np.allclose(load().predict(given).probabilities, pipeline.predict(given).probabilities, atol=1e-6)
        assert load(tuned=False).max_tokens == (1024, 1024)
        assert load(threads=1).max_tokens == (1024, 1024)
        assert load(batching=TokenBudget(32)).max_tokens == (32, 32)


def test_written_form(clf: Classifier) -> None:
    tuned = Tuned((256, 2048))
    file = tuned.write(clf.bundle, threads=3)
    assert Tuned.read(clf.bundle, threads=3) == tuned
    written = json.loads(file.read_text())
    assert written["max_tokens"] == [256, 2048]
    assert written["host"]["cores"] == os.cpu_count()
    assert [path.name for path in file.parent.iterdir()] == [file.name]  # no temporary file stays


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"max_tokens": [0, 1]},
        {"max_tokens": [1.5, 1]},
        {"max_tokens": [True, 1]},
        {"max_tokens": 3},
        *("", "[]", "3", "{}", '{"format": 1', "\udcff"),
    ],
)
def test_a_file_that_is_not_right_is_as_none(clf: Classifier, change: dict[str, Any] | str) -> None:
    file = Tuned((7, 9)).write(clf.bundle, threads=2)
    text = change if isinstance(change, str) else json.dumps(json.loads(file.read_text()) | change)
    file.write_text(text, errors="surrogateescape")
    assert Tuned.read(clf.bundle, threads=2) is None
    assert clf.with_tuned() is clf
    Tuned((7, 8, 9)).write(clf.bundle, threads=2)  # for another number of tiers
    assert clf.with_tuned() is clf


def test_the_file_is_another_one_for_another_host_or_bundle(
    clf: Classifier, tagger: Tagger, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {cache_file(clf.bundle, threads=2), cache_file(clf.bundle, threads=1), cache_file(tagger.bundle, threads=2)}
    for name, value in (("cpu", "Abacus 3"), ("cores", 1000), ("onnxruntime", "0.1")):
        monkeypatch.setattr(tuning, "host", lambda name=name, value=value: {"cpu": "x", "cores": 1} | {name: value})
        names.add(cache_file(clf.bundle, threads=2))
    assert len(names) == 6


def test_a_cache_that_cannot_be_written(clf: Classifier, cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(OptionError, match="the cache must be a folder"):
        Tuned((7, 9)).write(clf.bundle, threads=2)
    assert Tuned.read(clf.bundle, threads=2) is None

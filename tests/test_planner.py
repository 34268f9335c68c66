"""Plans from costs that are known; and of a real bundle, whose answers no plan may change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade import planner as planner_module
from cascade.batching import POOL_FROM, EvenBudget, TokenBudget, for_tier2
from cascade.classifier import Classifier
from cascade.cost_cache import CostKey, read_costs
from cascade.exceptions import OptionError
from cascade.exits import MaxProbability
from cascade.observed import observe
from cascade.plan import Plan, Verdict
from cascade.planner import Planner
from cascade.routing import Threshold, defer_none
from cascade.streaming import StreamOptions
from cascade.workload import Workload
from tests.costs import costs
from tests.toy import WORDS, toy_bundle

LENGTHS = np.full(1000, 20, dtype=np.int64)


def plan(
    lengths: Any = LENGTHS, deferred: Any = 0.2, exits: Any = (0.5, 0.3, 0.2), call: Any = None, **of: Any
) -> Plan:
    return Planner(costs(**of)).plan(np.asarray(lengths), deferred=deferred, exits=exits, call=call)


def test_seconds_that_can_be_worked_out() -> None:
    made = plan(threads=1, fixed=0, tier1=1e-6, stage=1e-5)
    assert made.is_default  # without fixed costs every way takes as long
    assert made.predicted == made.default
    assert made.predicted.tokenize == pytest.approx(20_000 * 1e-7)
    assert made.predicted.call == pytest.approx(1e-5)
    assert made.predicted.tier1 == pytest.approx(20_000 * 1e-6)
    assert made.predicted.tier2 == pytest.approx(4_000 * (1 + 0.5 + 0.2) * 1e-5)
    assert made.exits.total == pytest.approx(2e-3 + 20_000 * 1.7e-5)
    assert made.full.total == pytest.approx(2e-3 + 20_000 * 3e-5)
    total = 2e-3 + 1e-5 + 20e-3 + 68e-3
    assert made.predicted.total == pytest.approx(total)
    assert made.verdict is Verdict.CASCADE
    assert made.pays
    assert made.reason == (
        "the cascade is predicted to be 3.80 times as fast as tier 2 alone "
        "(cascade 0.09 s, tier 2 with exits 0.342 s, tier 2 at full depth 0.602 s)"
    )


def test_a_cascade_that_does_not_pay() -> None:
    made = plan(threads=1, fixed=0, tier1=1e-5, stage=1e-5, deferred=0.9)
    assert not made.pays
    assert made.verdict is Verdict.EXITS
    assert made.reason == (
        "a cascade does not pay here: tier 1 takes 0.2 s and still defers 90% of the rows "
        "(cascade 0.508 s, tier 2 with exits 0.342 s, tier 2 at full depth 0.602 s); use with_router(defer_all)"
    )


def test_stops_that_cost_more_than_they_save() -> None:
    made = plan(threads=1, fixed=0, tier1=1e-5, stage=1e-6, stop=1e-2, deferred=1.0, exits=(0.01, 0.01, 0.98))
    assert made.verdict is Verdict.FULL
    assert [stop.layer for stop in made.stops] == [1, 2]
    assert [stop.leaving for stop in made.stops] == pytest.approx([0.01, 0.01 / 0.99])
    assert made.stops[0].costs == pytest.approx(1e-2)
    assert made.stops[0].saves == pytest.approx(0.01 * 4096 * 1e-6)
    assert not made.stops[0].pays


def test_batches_are_evened_out() -> None:
    # 150 rows of 20 tokens: of three batches of about 1020 tokens one keeps one thread waiting.
    made = plan(np.full(150, 20), deferred=1.0, exits=None, fixed=1e-3, tier1=1e-5, stage=1e-5)
    assert isinstance(made.tier1, EvenBudget)
    assert made.tier1.ways == 2
    assert made.predicted.tier1 < 0.8 * made.default.tier1


def test_large_batches_where_a_run_costs_much_and_small_ones_beyond_a_knee() -> None:
    large = plan(fixed=1e-2, threads=1, deferred=1.0, exits=None)
    assert large.tier2.max_tokens == 4096  # type: ignore[attr-defined]
    small = plan(fixed=1e-6, threads=1, deferred=1.0, exits=None, knee=256)
    assert small.tier2.max_tokens == 256  # type: ignore[attr-defined]


def test_merging_where_little_remains() -> None:
    made = plan(threads=1, fixed=1e-3, stage=1e-6, deferred=1.0, exits=(0.9, 0.05, 0.05))
    assert made.together > 1
    assert made.merging_saves > 0.2 * made.predicted.tier2


def test_a_small_batch_that_runs_alone_has_all_threads_where_that_pays() -> None:
    waking = costs(threads=2, fixed=1e-3)
    quick = costs(threads=2, fixed=1e-5)
    slow_alone = [replace(stage, lone=other.lone)
                  for stage, other in zip(quick.stages, waking.stages, strict=True)]  # fmt: skip
    here = replace(quick, stages=tuple(slow_alone))
    made = Planner(here).plan(np.full(50, 20), deferred=1.0, call=1)
    assert made.pool_from[1] <= 20 < POOL_FROM[1]
    assert made.predicted.tier2 < 0.5 * made.default.tier2


def test_a_fit_that_is_off_decides_nothing() -> None:
    assert not plan(fixed=1e-2, threads=1, deferred=1.0, exits=None).is_default
    saves = plan(fixed=1e-2, threads=1, deferred=1.0, exits=None, error=0.2)
    assert saves.predicted.tier2 < 0.8 * saves.default.tier2
    assert plan(fixed=5e-4, threads=1, deferred=1.0, exits=None, error=0.2).tier2 == for_tier2(1)  # less than a fifth
    assert plan(fixed=1e-2, threads=1, deferred=1.0, exits=None, error=0.26).is_default


def test_calls() -> None:
    work = Workload.of(np.arange(1, 11), 0.5, 4)
    assert [lengths.tolist() for lengths in work.calls] == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
    assert [lengths.tolist() for lengths in work.deferred] == [[2, 4], [6, 8], [10]]
    assert (work.scale, work.share) == (1, 0.5)
    many = Workload.of(np.ones(1000, dtype=np.int64), 0.1, 1)
    assert len(many.calls) == 32
    assert many.scale == 1000 / 32
    large = Workload.of(np.ones(100_000, dtype=np.int64), 1 / 13, None)
    assert len(large.calls[0]) == 8192
    assert large.scale * len(large.calls[0]) == pytest.approx(100_000)
    assert len(large.deferred[0]) == pytest.approx(8192 / 13, rel=0.1)


def test_what_a_stream_holds_back() -> None:
    made = plan(threads=1, fixed=1e-3, tier1=1e-6, stage=1e-5, deferred=0.1)
    cheap = plan(threads=1, fixed=1e-6, tier1=1e-6, stage=1e-5, deferred=0.1)
    assert made.stream.pool_tokens > cheap.stream.pool_tokens
    assert made.stream.buffer_size > cheap.stream.buffer_size
    assert made.stream.look_ahead * 0.1 * 20 >= made.stream.pool_tokens  # so many texts fill the pool
    assert made.stream.max_age == 1.0
    assert Planner(costs()).plan(LENGTHS, deferred=0.1, max_age=None).stream.max_age is None


def test_nothing_deferred() -> None:
    made = plan(deferred=0.0, exits=(0, 0, 1))
    assert made.predicted.tier2 == 0
    assert made.pays
    assert made.stream.pool_tokens > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lengths": []}, r"lengths must be the tokens of at least one row, each at least 1, were: array\(\[\]"),
        ({"lengths": [0]}, "lengths must be the tokens of at least one row, each at least 1"),
        ({"deferred": 1.5}, r"deferred must be in \[0, 1\], was: 1.5; observe\(\) finds it"),
        (
            {"deferred": np.ones(3)},
            r"deferred must be a share or bools of shape \(1000,\), was: float64 of shape \(3,\)",
        ),
        ({"exits": (1, 0)}, r"exits must be 3 shares that add up to 1, one per exit, were: \(1, 0\)"),
        ({"exits": (0.5, 0.5, 0.5)}, "exits must be 3 shares that add up to 1"),
        ({"exits": (1.5, 0, -0.5)}, "exits must be 3 shares that add up to 1"),
        ({"call": 0}, "call must be a whole number of at least 1, was: 0; leave it out for all rows at once"),
    ],
)
def test_what_cannot_be_planned(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        plan(**options)


def texts(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS[4:], rng.integers(0, 12))) for _ in range(count)]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    folder = toy_bundle(tmp_path_factory.mktemp("bundles") / "bundle").folder
    made = Classifier.from_pretrained(folder, threads=2, router=Threshold(0.8), exit_policy=MaxProbability(0.8))
    return made.with_blend(0.3)


def test_what_is_observed(classifier: Classifier) -> None:
    some = texts(60)
    seen = observe(classifier, some)
    answers = classifier.predict(some)
    assert seen.deferred.tolist() == [route.tier == 2 for route in answers.routes]
    left = answers.routes.exit[answers.routes.tier == 2]
    assert seen.exits == tuple(float(np.mean(left == layer)) for layer in (1, 2, 3))
    assert sum(seen.exits_alone) == pytest.approx(1)
    assert observe(classifier.with_router(defer_none), some).exits == (0, 0, 1)


WAYS = st.builds(
    lambda one, two, together, pool_from: (one, two, together, pool_from),
    st.one_of(st.builds(TokenBudget, st.integers(1, 99)), st.builds(EvenBudget, st.integers(1, 99), st.integers(1, 3))),
    st.one_of(st.builds(TokenBudget, st.integers(1, 99)), st.builds(EvenBudget, st.integers(1, 99), st.integers(1, 3))),
    st.sampled_from([1, 4, 64]),
    st.tuples(st.sampled_from([0, 64]), st.sampled_from([0, 64])),
)


@settings(max_examples=25, deadline=None)
@given(WAYS, st.integers(1, 40))
def test_a_plan_changes_no_answer(
    classifier: Classifier, way: tuple[Any, Any, int, tuple[int, int]], count: int
) -> None:
    one, two, together, pool_from = way
    base = plan()
    made = replace(base, tier1=one, tier2=two, together=together, pool_from=pool_from)
    some = texts(count, seed=count)
    expected, planned = classifier.predict(some), classifier.with_plan(made).predict(some)
    np.testing.assert_allclose(planned.probabilities, expected.probabilities, atol=1e-6)
    assert planned.labels == expected.labels
    assert planned.routes.tier.tolist() == expected.routes.tier.tolist()
    assert planned.routes.exit.tolist() == expected.routes.exit.tolist()
    streamed = list(classifier.with_plan(made).stream(some, options=StreamOptions(buffer_size=7, pool_tokens=50)))
    assert [answer.label for answer in streamed] == expected.labels


def test_a_plan_is_a_value(classifier: Classifier) -> None:
    made = plan(fixed=1e-2)
    assert made == plan(fixed=1e-2)
    assert repr(made).startswith("Plan(tier1=")
    planned = classifier.with_plan(made)
    assert (planned.tier1.batching, planned.tier2.batching) == (made.tier1, made.tier2)
    assert planned.tier2.together == made.together
    assert classifier.tier2.batching == for_tier2(2)


def test_measured_once(classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = CostKey.of(classifier.bundle.manifest, threads=2)
    asked = []

    def measure(*arguments: Any, **options: Any) -> Any:
        asked.append(options["max_length"])
        return costs(error=0.01 if len(asked) != 2 else 0.9)

    monkeypatch.setattr(planner_module, "measure", measure)
    first = Planner.measure(classifier, folder=tmp_path)
    assert Planner.measure(classifier, folder=tmp_path) == first
    assert asked == [16]
    noisy = Planner.measure(classifier, folder=tmp_path, again=True)
    assert noisy.costs.error == 0.9
    assert read_costs(tmp_path, key) == first.costs  # what was measured while something else ran is not kept
    Planner.measure(classifier, folder=tmp_path, again=True)
    assert len(asked) == 3
    (tmp_path / key.name).write_text("{")
    Planner.measure(classifier, folder=tmp_path)
    assert len(asked) == 4
    assert read_costs(tmp_path, key) == first.costs


def test_costs_go_to_the_users_cache_folder(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(planner_module, "measure", lambda *_, **__: costs())
    Planner.measure(classifier)
    assert [file.suffix for file in (tmp_path / "cascade" / "costs").iterdir()] == [".json"]
    assert not any(file.suffix == ".json" and "costs" in file.name for file in classifier.bundle.folder.iterdir())


def test_from_a_bundle_to_a_plan(classifier: Classifier, tmp_path: Path) -> None:
    planner = Planner.measure(classifier, folder=tmp_path)
    seen = observe(classifier, texts(40))
    made = planner.plan(seen.lengths, deferred=seen.deferred, exits=seen.exits, exits_alone=seen.exits_alone)
    assert made.predicted.total > 0
    assert len(made.stops) == 2
    assert classifier.with_plan(made).predict(texts(5)).labels == classifier.predict(texts(5)).labels

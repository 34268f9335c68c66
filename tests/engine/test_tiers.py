"""What single tiers of all kinds have in common, and what they refuse."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cascade.core.confidence import probabilities
from cascade.core.rows import BoolArray, IntArray
from cascade.engine.inputs import Inputs
from cascade.engine.tier import CallableTier
from cascade.exceptions import BundleError, CascadeWarning, OptionError
from cascade.policies import AtExit, MaxProbability, TokenExit
from cascade.policies.batching import TokenBudget
from cascade.policies.exits import ExitState
from cascade.policies.unit_exits import UnitState
from cascade.runtime.backend import FunctionBackend
from tests.models.batching import FixedSize
from tests.models.by_token import ExitByToken
from tests.models.kinds import BOTH, SENTENCES, TEXTS, WORDS, Kind, Lengths, Pooled, arrays_of, assert_equal
from tests.models.toy import Toy, batch_of
from tests.models.toy_tagging import ToyTagger, sentences_of

SEVERAL = sentences_of(SENTENCES)


def test_sentences_without_words_or_targets_are_not_run() -> None:
    for make in (ToyTagger.tier1, ToyTagger.tier2):
        seen: list[int] = []

        def batching(lengths: IntArray, seen: list[int] = seen) -> Any:
            seen.extend(lengths.tolist())
            return FixedSize(2)(lengths)

        make(ToyTagger(), batching=batching).score(SEVERAL)
        assert seen == [6, 6, 10, 3, 9, 6]
        seen.clear()
        make(ToyTagger(), batching=batching).score(Inputs.encoded(SEVERAL).asking(np.isin(SEVERAL.row_of, [2, 5])))
        assert seen == [6, 9]


@BOTH
def test_policies_see_arrays_that_cannot_be_written(kind: Kind) -> None:
    asked = []

    def spoil(state: ExitState) -> BoolArray:
        asked.append(state.exit_layer)
        assert not state.last
        assert state.history.shape == (len(state.probabilities), state.exit_index + 1, 3)
        np.testing.assert_array_equal(state.probabilities, state.history[:, -1])
        arrays: list[Any] = [state.probabilities, state.history]
        arrays += [state.sentences, state.places, state.ids] if isinstance(state, UnitState) else []
        for array in arrays:
            with pytest.raises(ValueError, match="read-only"):
                array[:] = 0
        return np.zeros(len(state.probabilities), dtype=np.bool_)

    units = kind.units(SENTENCES)
    assert_equal(kind.toy().tier2(exit_policy=spoil).score(units), kind.toy().tier2().score(units))
    assert asked == [2, 4, 5]  # not after the last stage


@BOTH
def test_progress_counts_every_target_once(kind: Kind) -> None:
    units = kind.units(SENTENCES)
    targets = np.arange(len(units)) % 3 == 0
    for tier in (
        kind.toy().tier1(batching=FixedSize(2)),
        kind.toy().tier2(batching=FixedSize(2), exit_policy=kind.adaptive),
        kind.toy().tier2(batching=FixedSize(2)),
    ):
        done: list[int] = []
        tier.score(units, progress=done.append)
        assert sum(done) == len(units)
        done.clear()
        tier.score(Inputs.encoded(units).asking(targets), progress=done.append)
        assert sum(done) == targets.sum()
        assert all(done)
    done = []
    kind.toy().tier2(batching=FixedSize(7)).all_exits(units, progress=done.append)
    assert done == [len(units)]


def test_single_exit_worked_example() -> None:
    toy, units = Toy(), batch_of([4])
    logits = (toy.table[units.rows.ids] + toy.types[units.rows.types]).mean(axis=0) @ toy.heads[-1]
    scores = toy.tier1(temperature=2.0).score(units)
    np.testing.assert_allclose(scores.probabilities[0], probabilities(logits.astype(np.float32) / 2), atol=1e-5)
    np.testing.assert_array_equal(scores.exit_layer, [0])


def test_single_exit_reads_first_pieces() -> None:
    toy, words = ToyTagger(), sentences_of([[3, 1, 2]])
    hidden = toy.table[words.rows.ids] + toy.types[words.rows.types]
    logits = ((hidden + hidden.mean(axis=0)) @ toy.heads[-1])[[1, 4, 5]]
    scores = toy.tier1(temperature=2.0).score(words)
    np.testing.assert_allclose(scores.probabilities, probabilities(logits.astype(np.float32) / 2), atol=1e-4)
    np.testing.assert_array_equal(scores.exit_layer, [0, 0, 0])


def test_a_graph_without_token_types() -> None:
    def padded(feeds: dict[str, Any]) -> dict[str, Any]:
        assert set(feeds) == {"input_ids", "attention_mask"}
        return {"logits": np.zeros((len(feeds["input_ids"]), 3), dtype=np.float32)}

    tier = Toy().tier1(backend=FunctionBackend(padded, ("input_ids", "attention_mask"), ("logits",)))
    np.testing.assert_allclose(tier.score(batch_of([2, 3])).probabilities, np.full((2, 3), 1 / 3), rtol=1e-6)


@BOTH
def test_a_prior_is_added_to_every_exits_logits(kind: Kind) -> None:
    units = kind.units(SENTENCES)
    prior = np.random.default_rng(1).normal(size=(len(units), 3)).astype(np.float32)
    blended = Inputs.encoded(units).asking(prior=prior)
    for tier in (kind.toy().tier1(), kind.toy().tier2()):
        plain = np.log(tier.score(units).probabilities)
        found = tier.score(blended).probabilities
        np.testing.assert_allclose(found, probabilities(plain + prior), atol=2e-4)
    every, found = kind.toy().tier2().all_exits(units), kind.toy().tier2().all_exits(blended)
    np.testing.assert_allclose(found, probabilities(np.log(every) + prior[:, None]), atol=2e-4)


@BOTH
def test_graphs_with_other_names_are_refused(kind: Kind) -> None:
    strange = FunctionBackend(dict, ("pixels",), ("logits",))
    with pytest.raises(BundleError, match=r"tier 1 must have inputs among .*\['pixels'\] and \['logits'\]; export"):
        kind.toy().tier1(backend=strange)
    with pytest.raises(BundleError, match=r"tier 2's embed must have inputs among"):
        kind.toy().tier2(embed=strange)
    good = kind.toy().tier2()
    first = "'active', " if kind.words else "'bias', .*'counts', "
    with pytest.raises(BundleError, match=rf"layer 4 must have inputs among \[{first}.*\['hidden_out', 'logits'\]"):
        kind.toy().tier2(stages=[good.stages[0], strange, *good.stages[2:]])


@BOTH
def test_the_last_stage_needs_no_hidden_states(kind: Kind) -> None:
    full = kind.toy().tier2(exit_policy=kind.adaptive)
    last = full.stages[-1]
    bare = FunctionBackend(lambda feeds: {"logits": last.run(feeds)["logits"]}, last.inputs, ("logits",))
    units = kind.units(SENTENCES)
    assert_equal(replace(full, stages=[*full.stages[:-1], bare]).score(units), full.score(units))


@BOTH
def test_logits_of_another_shape_are_refused(kind: Kind) -> None:
    units = kind.units([[1, 2, 1]])
    grid = r"\(1, 6, 5\), got \(1, 6, 3\)" if kind.words else r"\(1, 5\), got \(1, 3\)"
    with pytest.raises(BundleError, match=rf"tier 1 must return logits of shape {grid}; its labels"):
        replace(kind.toy().tier1(), labels=5).score(units)
    with pytest.raises(BundleError, match=r"stage of layer \d must return logits of shape \(\d, 5\)"):
        replace(kind.toy().tier2(), labels=5).score(units)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (TEXTS, {"temperatures": (1.0, 2.0)}, "stages, layers and temperatures must be equally many .*got 4, 4 and 2"),
        (TEXTS, {"temperatures": (1.0, 1.0, 0.0, 1.0)}, "temperature must be above 0 and finite, .* 0.0; 1 changes"),
        (TEXTS, {"stages": (), "layers": ()}, "got 0, 0 and 0; give one of each per exit"),
        (TEXTS, {"heads": 0}, "heads must be a whole number of at least 1, .* 0; give as many as the stages were"),
        (TEXTS, {"together": 0}, "together must be a whole number of at least 1, .* 0; 1 merges nothing"),
        (WORDS, {"overlap": -1}, "overlap must be a whole number of at least 0, .* -1; 0 cuts long"),
        (TEXTS, {"exit_policy": MaxProbability((0.5,))}, "threshold must be one number or one per exit"),
        (TEXTS, {"exit_policy": AtExit(3)}, "AtExit must name a layer with an exit, .* 3"),
        (WORDS, {"exit_policy": TokenExit((0.5,))}, "threshold must be one number or one per exit"),
        (WORDS, {"exit_policy": ExitByToken((3,))}, "ExitByToken must name layers with an exit of words, got .*3"),
    ],
)
def test_impossible_options(kind: Kind, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        kind.toy().tier2(**options)


@BOTH
def test_impossible_calls(kind: Kind) -> None:
    units = kind.units(SENTENCES)
    with pytest.raises(OptionError, match=r"temperature must be above 0 and finite, got nan"):
        kind.toy().tier1(temperature=float("nan"))
    with pytest.raises(OptionError, match=rf"targets must be bools of shape \({len(units)},\)"):
        Inputs.encoded(units).asking(np.zeros(3, dtype=np.bool_))
    tier = kind.toy().tier2(exit_policy=lambda state: state.probabilities[:, 0])
    with pytest.raises(OptionError, match=r"the exit policy .* must return bools of shape \(\d+,\), got float32"):
        tier.score(units)


@BOTH
def test_nothing_of_the_callers_is_changed(kind: Kind) -> None:
    units = kind.units([[1, 2], [3], [1, 1, 1]])
    targets = np.arange(len(units)) % 2 == 0
    arrays = arrays_of(units)
    before = [array.copy() for array in arrays]
    for array in (*arrays, targets):
        array.setflags(write=False)
    policy = TokenExit(0.02, 3) if kind.words else MaxProbability(0.7)
    kind.toy().tier2(exit_policy=policy).score(Inputs.encoded(units).asking(targets))
    kind.toy().tier1().score(Inputs.encoded(units).asking(targets))
    for array, old in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, old)


@BOTH
@pytest.mark.parametrize(
    ("pool_from", "budget", "threads", "pooled"),
    [(0, 99, 2, True), (20, 99, 2, True), (21, 99, 2, False), (0, 10, 2, False), (21, 99, 1, True)],
)
def test_a_batch_alone_gets_all_threads_if_it_is_large_enough(
    kind: Kind, pool_from: int, budget: int, threads: int, pooled: bool
) -> None:
    runs: list[bool] = []
    options: dict[str, Any] = {"pool_from": pool_from, "batching": TokenBudget(budget), "threads": threads}
    tier1, tier2 = kind.toy().tier1(**options), kind.toy().tier2(**options)
    units = kind.units([[1] * 8] * 2)
    replace(tier1, backend=Pooled(tier1.backend, runs)).score(units)
    replace(tier2, stages=[Pooled(stage, runs) for stage in tier2.stages]).score(units)
    assert set(runs) == {pooled}


def test_any_function_is_a_tier() -> None:
    """Texts are asked one by one, sentences word by word; those without a target are not asked."""
    asked: list[Any] = []

    def rule(items: list[Any]) -> list[list[float]]:
        asked.extend(items)
        units = [word for item in items for word in (item if isinstance(item, list) else [item])]
        return [[0.8, 0.2] if len(unit) > 3 else [0.3, 0.7] for unit in units]

    tier = CallableTier(rule, price=2.0, labels=2)
    assert tier.leaves == (tier,)
    texts = Inputs.of(["good film", "bad"], Lengths(words=False))
    scores = tier.score(texts)
    np.testing.assert_allclose(scores.probabilities, [[0.8, 0.2], [0.3, 0.7]], rtol=1e-6)
    np.testing.assert_array_equal(scores.exit_layer, [0, 0])
    prior = np.array([[0.0, np.log(4)], [0.0, 0.0]], dtype=np.float32)
    np.testing.assert_allclose(tier.score(texts.asking(prior=prior)).probabilities[0], [0.5, 0.5], rtol=1e-5)
    asked.clear()
    words = Inputs.of([["a", "plot"], [], ["they"], ["we"]], Lengths(words=True))
    done: list[int] = []
    scores = tier.score(words.asking(np.array([True, False, False, True])), progress=done.append)
    assert asked == [["a", "plot"], ["we"]]
    assert done == [2]
    np.testing.assert_allclose(scores.probabilities[[0, 3]], [[0.3, 0.7], [0.3, 0.7]], rtol=1e-6)
    with pytest.raises(OptionError, match=r"items must be known, got rows only; make the inputs with Inputs.of"):
        tier.score(Inputs.encoded(batch_of([3])))


def slow(items: list[str]) -> list[list[float]]:
    threading.Event().wait(60)
    return [[0.5, 0.5]] * len(items)


def odd(items: list[str]) -> list[list[float]]:
    return [[math.nan, 0.5] if item == "odd" else [0.25, 0.75] for item in items]


def strict(items: list[str]) -> list[list[float]]:
    if "odd" in items:
        raise ConnectionError("the other side\nis gone")
    return [[0.25, 0.75]] * len(items)


@pytest.mark.parametrize(
    ("options", "failed", "why"),
    [
        ({"function": odd}, [False, True, False], "answers that are no probabilities"),
        ({"function": strict}, [True] * 3, "ConnectionError: the other side is gone"),
        ({"function": strict, "at_once": 1}, [False, True, False], "ConnectionError: the other side is gone"),
        ({"function": lambda items: [[1, 0, 0]] * len(items)}, [True] * 3, r"shape \(3, 2\), got shape \(3, 3\)"),
        ({"function": lambda _items: "no"}, [True] * 3, "ValueError: could not convert"),
        ({"function": lambda items: [[2.0, -1.0]] * len(items)}, [True] * 3, "answers that are no probabilities"),
        ({"function": slow, "timeout": 0.05}, [True] * 3, r"TimeoutError: no answer in 0\.05 s"),
    ],
)
def test_a_function_that_fails_leaves_its_items_unanswered(
    options: dict[str, Any], failed: list[bool], why: str
) -> None:
    tier, inputs = CallableTier(price=0, labels=2, **options), Inputs.of(["one", "odd", "two"], Lengths(words=False))
    with pytest.warns(CascadeWarning, match=rf"could not answer {sum(failed)} of 3 units, which keep .*{why}"):
        scores = tier.score(inputs)
    assert (scores.tier == 0).tolist() == (scores.failed == 1).tolist() == failed
    assert np.isnan(scores.confidence).tolist() == failed
    assert np.isfinite(scores.probabilities).all()


def test_a_function_in_time_is_as_one_without_a_limit() -> None:
    inputs = Inputs.of(["one", "two"], Lengths(words=False))
    plain, timed = (CallableTier(odd, price=0, labels=2, timeout=timeout).score(inputs) for timeout in (None, 60.0))
    np.testing.assert_array_equal(plain.probabilities, timed.probabilities)
    assert not timed.failed.any()
    for options in ({"timeout": 0}, {"timeout": True}, {"at_once": 0}):
        with pytest.raises(OptionError, match=r"timeout must be above 0 seconds|at_once must be a whole number"):
            CallableTier(odd, price=0, labels=2, **options)

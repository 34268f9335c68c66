from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.core.confidence import max_probability, probabilities
from cascade.core.rows import BoolArray, Rows
from cascade.engine.tiers import MultiExit, Scores, Tier
from cascade.exceptions import BundleError, OptionError
from cascade.policies.batching import BatchingPolicy, FixedSize, SortedByLength, TokenBudget
from cascade.policies.exits import (
    AtExit,
    Entropy,
    ExitPolicy,
    ExitState,
    Margin,
    MaxProbability,
    Patience,
    all_of,
    any_of,
    never,
)
from cascade.runtime.backend import Array, Backend, FunctionBackend
from tests.models.toy import HEADS, LAYERS, Toy, batch_of

LENGTHS = st.lists(st.integers(1, 20), max_size=25)
BATCHING = st.one_of(
    st.builds(TokenBudget, st.integers(1, 90)),
    st.builds(SortedByLength, st.integers(1, 7)),
    st.builds(FixedSize, st.integers(1, 7)),
)
POLICIES = st.sampled_from(
    [
        never,
        AtExit(4),
        MaxProbability(0.8),
        MaxProbability((0.95, 0.8, 0.6)),
        Margin(0.5),
        Entropy(0.4),
        Patience(1),
        Patience(2),
        any_of(MaxProbability(0.9), Patience(1), AtExit(5)),
        all_of(MaxProbability(0.5), Patience(1)),
    ]
)


def one_by_one(tier: Tier, batch: Rows) -> Scores:
    """The same rows, each alone."""
    parts = [tier.score(batch.select(np.array([row]))) for row in range(len(batch))]
    return Scores(
        np.concatenate([part.probabilities for part in parts]),
        np.concatenate([part.confidence for part in parts]),
        np.concatenate([part.exit_layer for part in parts]),
    )


def assert_equal(left: Scores, right: Scores) -> None:
    np.testing.assert_array_equal(left.exit_layer, right.exit_layer)
    np.testing.assert_allclose(left.probabilities, right.probabilities, atol=1e-5)
    np.testing.assert_allclose(left.confidence, right.confidence, atol=1e-5)


@settings(deadline=None)
@given(LENGTHS.filter(bool), BATCHING, POLICIES, st.integers(1, 5), st.booleans(), st.integers(0, 3))
def test_neighbours_change_nothing(
    lengths: list[int],
    batching: BatchingPolicy,
    policy: ExitPolicy,
    together: int,
    multi_label: bool,
    seed: int,
) -> None:
    tier = Toy(seed=seed).tier2(
        batching=batching, exit_policy=policy, together=together, multi_label=multi_label, position_offset=2
    )
    batch = batch_of(lengths, seed)
    assert_equal(tier.score(batch), one_by_one(tier, batch))


@settings(deadline=None)
@given(LENGTHS.filter(bool), BATCHING, POLICIES, st.randoms(use_true_random=False))
def test_order_changes_nothing(lengths: list[int], batching: BatchingPolicy, policy: ExitPolicy, random: Any) -> None:
    tier = Toy().tier2(batching=batching, exit_policy=policy)
    batch = batch_of(lengths)
    order = np.array(random.sample(range(len(lengths)), len(lengths)))
    here, there = tier.score(batch), tier.score(batch.select(order))
    assert_equal(Scores(here.probabilities[order], here.confidence[order], here.exit_layer[order]), there)


@settings(deadline=None)
@given(LENGTHS, BATCHING, st.booleans(), POLICIES)
def test_a_policy_replayed_over_all_exits(
    lengths: list[int], batching: BatchingPolicy, multi_label: bool, policy: ExitPolicy
) -> None:
    temperatures = (0.5, 1.0, 2.0, 1.5)
    tier = Toy().tier2(batching=batching, exit_policy=policy, multi_label=multi_label, temperatures=temperatures)
    batch = batch_of(lengths)
    every = tier.all_exits(batch)
    assert every.shape == (len(batch), 4, 3)
    index = np.full(len(batch), 3)
    for number in reversed(range(3)):
        now = ExitState(number, LAYERS[number], False, every[:, number], every[:, : number + 1], multi_label)
        index[policy(now)] = number
    scores = tier.score(batch)
    np.testing.assert_array_equal(scores.exit_layer, np.array(LAYERS)[index])
    np.testing.assert_allclose(scores.probabilities, every[np.arange(len(batch)), index], atol=1e-5)


def test_full_depth_equals_a_padded_chain() -> None:
    """Each stage by hand on a grid without packing."""
    toy = Toy()
    batch = batch_of([3, 1, 5])
    expected = []
    for begin, end in zip(batch.offsets[:-1], batch.offsets[1:], strict=True):
        length = int(end - begin)
        token_ids, types = batch.ids[begin:end], batch.types[begin:end]
        feeds = {"input_ids": token_ids, "token_type_ids": types, "position_ids": np.arange(length)}
        hidden = toy.embed(feeds)["hidden"].astype(np.float64)
        for index in range(4):
            hidden = np.tanh(hidden @ toy.own[index] + hidden.mean(axis=0) @ toy.others[index])
        expected.append(probabilities((hidden.mean(axis=0) @ toy.heads[3])[None].astype(np.float32))[0])
    scores = toy.tier2().score(batch)
    np.testing.assert_allclose(scores.probabilities, expected, atol=1e-4)
    np.testing.assert_array_equal(scores.exit_layer, [6, 6, 6])
    np.testing.assert_array_equal(scores.confidence, max_probability(scores.probabilities))


def test_who_left_costs_nothing_more() -> None:
    toy, batch = Toy(), batch_of([4] * 10)
    toy.tier2(exit_policy=AtExit(2)).score(batch)
    assert (toy.calls, toy.tokens) == (1, 40)
    full = Toy()
    full.tier2().score(batch)
    assert (full.calls, full.tokens) == (4, 160)
    some = Toy()
    exits = some.tier2(exit_policy=MaxProbability(0.8)).score(batch).exit_layer
    assert len(set(exits.tolist())) > 1
    assert some.tokens == 4 * sum(LAYERS.index(layer) + 1 for layer in exits.tolist())


def test_what_remains_of_batches_goes_on_together() -> None:
    def leave_most(state: ExitState) -> BoolArray:
        return np.arange(len(state.probabilities)) > 0

    batch = batch_of([5] * 16)
    apart, merged = Toy(), Toy()
    apart.tier2(exit_policy=leave_most, batching=FixedSize(4), together=1).score(batch)
    merged.tier2(exit_policy=leave_most, batching=FixedSize(4), together=4).score(batch)
    assert apart.calls == 4 * 4  # four batches, each through four stages
    assert merged.calls == 4 + 1 + 1 + 1  # one row of each batch is left, and they fit one batch


def test_merging_never_exceeds_the_largest_batch() -> None:
    seen: list[tuple[int, int]] = []

    def watch(state: ExitState) -> BoolArray:
        seen.append((state.exit_index, len(state.probabilities)))
        mask: BoolArray = np.arange(len(state.probabilities)) % 3 == 0
        return mask

    Toy().tier2(exit_policy=watch, batching=FixedSize(4), together=8).score(batch_of([5] * 30))
    assert max(rows for _, rows in seen) == 4
    # Of seven batches of 4 and one of 2 there remain 2, 2, 2, 2, 2, 2, 2 and 1, then of those 2, 2, 2 and 2.
    assert [rows for exit_, rows in seen if exit_ == 0] == [4] * 7 + [2]
    assert [rows for exit_, rows in seen if exit_ == 1] == [4, 4, 4, 3]
    assert [rows for exit_, rows in seen if exit_ == 2] == [4, 4]


def test_the_policy_is_not_asked_after_the_last_stage() -> None:
    asked: list[int] = []

    def watch(state: ExitState) -> BoolArray:
        asked.append(state.exit_layer)
        assert not state.last
        assert state.history.shape == (len(state.probabilities), state.exit_index + 1, 3)
        return np.zeros(len(state.probabilities), dtype=np.bool_)

    Toy().tier2(exit_policy=watch).score(batch_of([3, 4]))
    assert asked == [2, 4, 5]


def test_no_rows() -> None:
    empty = batch_of([])
    for tier in (Toy().tier1(), Toy().tier2(), Toy().tier2(exit_policy=MaxProbability(0.5))):
        scores = tier.score(empty)
        assert scores.probabilities.shape == (0, 3)
        assert scores.confidence.shape == scores.exit_layer.shape == (0,)
    assert Toy().tier2().all_exits(empty).shape == (0, 4, 3)


def test_progress_counts_every_row_once() -> None:
    batch = batch_of([3, 9, 4, 6, 2, 8, 3])
    for tier in (
        Toy().tier1(batching=FixedSize(2)),
        Toy().tier2(batching=FixedSize(2), exit_policy=MaxProbability(0.7)),
    ):
        done: list[int] = []
        tier.score(batch, progress=done.append)
        assert sum(done) == 7
        assert all(done)
    done = []
    Toy().tier2(batching=FixedSize(2)).all_exits(batch, progress=done.append)
    assert done == [2, 2, 2, 1]


@settings(deadline=None)
@given(LENGTHS.filter(bool), BATCHING, st.booleans())
def test_single_exit_neighbours_change_nothing(lengths: list[int], batching: BatchingPolicy, multi_label: bool) -> None:
    tier = Toy().tier1(batching=batching, multi_label=multi_label, temperature=1.5)
    batch = batch_of(lengths)
    assert_equal(tier.score(batch), one_by_one(tier, batch))


def test_single_exit_worked_example() -> None:
    toy = Toy()
    batch = batch_of([4])
    logits = (toy.table[batch.ids] + toy.types[batch.types]).mean(axis=0) @ toy.heads[-1]
    scores = toy.tier1(temperature=2.0).score(batch)
    np.testing.assert_allclose(scores.probabilities[0], probabilities(logits.astype(np.float32) / 2), atol=1e-5)
    np.testing.assert_array_equal(scores.exit_layer, [0])


def test_single_exit_keeps_the_ends_of_long_rows() -> None:
    tier, batch = Toy().tier1(max_length=3), batch_of([6])
    short = batch.select(np.array([0]))
    kept = np.array([0, 1, 5])
    expected = tier.score(Rows(ids=short.ids[kept], types=short.types[kept], offsets=np.array([0, 3])))
    assert_equal(tier.score(batch), expected)


def test_a_graph_without_token_types() -> None:
    def padded(feeds: dict[str, Any]) -> dict[str, Any]:
        assert set(feeds) == {"input_ids", "attention_mask"}
        return {"logits": np.zeros((len(feeds["input_ids"]), 3), dtype=np.float32)}

    toy = Toy()
    tier = toy.tier1(backend=FunctionBackend(padded, ("input_ids", "attention_mask"), ("logits",)))
    np.testing.assert_allclose(tier.score(batch_of([2, 3])).probabilities, np.full((2, 3), 1 / 3), rtol=1e-6)


def test_graphs_with_other_names_are_refused() -> None:
    strange = FunctionBackend(dict, ("pixels",), ("logits",))
    with pytest.raises(
        BundleError, match=r"tier 1 must have inputs among .*had: \['pixels'\] and \['logits'\]; export"
    ):
        Toy().tier1(backend=strange)
    good = Toy().tier2()
    with pytest.raises(BundleError, match=r"tier 2's embed must have inputs among"):
        MultiExit(embed=strange, stages=good.stages, layers=good.layers, labels=3, heads=HEADS)
    with pytest.raises(
        BundleError, match=r"tier 2's stage of layer 4 must have .*the outputs \['hidden_out', 'logits'\]"
    ):
        MultiExit(
            embed=good.embed, stages=[good.stages[0], strange, good.stages[2]], layers=(2, 4, 5), labels=3, heads=HEADS
        )


def test_the_last_stage_needs_no_hidden_states() -> None:
    full = Toy().tier2()
    last = full.stages[-1]
    bare = FunctionBackend(lambda feeds: {"logits": last.run(feeds)["logits"]}, last.inputs, ("logits",))
    tier = MultiExit(embed=full.embed, stages=[*full.stages[:-1], bare], layers=LAYERS, labels=3, heads=HEADS)
    batch = batch_of([3, 4, 8])
    assert_equal(tier.score(batch), full.score(batch))


def test_logits_of_another_shape_are_refused() -> None:
    with pytest.raises(
        BundleError, match=r"tier 1 must return logits of shape \(2, 5\), returned: \(2, 3\); its labels"
    ):
        replace(Toy().tier1(), labels=5).score(batch_of([2, 3]))
    with pytest.raises(BundleError, match=r"tier 2's stage of layer 2 must return logits of shape \(2, 5\)"):
        replace(Toy().tier2(), labels=5).score(batch_of([2, 3]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperatures": (1.0, 2.0)}, "stages, layers and temperatures must be equally many .*were: 4, 4 and 2"),
        ({"temperatures": (1.0, 1.0, 0.0, 1.0)}, "temperature must be above 0 and finite, was: 0.0; 1 changes nothing"),
        ({"heads": 0}, "heads must be a whole number of at least 1, was: 0; give as many as the stages were exported"),
        ({"together": 0}, "together must be at least 1, was: 0; 1 merges nothing"),
        ({"exit_policy": MaxProbability((0.5,))}, "threshold must be one number or one per exit"),
        ({"exit_policy": AtExit(3)}, "AtExit must name a layer with an exit, got 3"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Toy().tier2(**options)


def test_more_impossible_options() -> None:
    with pytest.raises(OptionError, match="temperature must be above 0 and finite, was: nan"):
        Toy().tier1(temperature=float("nan"))
    with pytest.raises(OptionError, match="were: 0, 0 and 0; give one of each per exit"):
        MultiExit(embed=Toy().tier2().embed, stages=(), layers=(), labels=3, heads=HEADS)


def test_a_policy_that_returns_no_mask() -> None:
    tier = Toy().tier2(exit_policy=lambda state: state.probabilities[:, 0])
    with pytest.raises(OptionError, match=r"the exit policy .* must return bools of shape \(2,\), returned: float32"):
        tier.score(batch_of([3, 3]))


def test_nothing_of_the_callers_is_changed() -> None:
    batch = batch_of([3, 5, 2, 9])
    before = batch.ids.copy(), batch.types.copy(), batch.offsets.copy()
    for array in (batch.ids, batch.types, batch.offsets):
        array.setflags(write=False)
    Toy().tier2(exit_policy=MaxProbability(0.7)).score(batch)
    Toy().tier1().score(batch)
    for array, old in zip((batch.ids, batch.types, batch.offsets), before, strict=True):
        np.testing.assert_array_equal(array, old)


@dataclass(frozen=True)
class Pooled:
    """A graph that notes whether it ran on all threads (True) or on the calling one."""

    inner: Backend
    runs: list[bool]
    pooled: bool = True

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self.inner.inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(self.inner.outputs)

    @property
    def serial(self) -> Pooled:
        return replace(self, pooled=False)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self.runs.append(self.pooled)
        return self.inner.run(feeds)


@pytest.mark.parametrize(
    ("pool_from", "budget", "threads", "pooled"),
    [(0, 99, 2, True), (20, 99, 2, True), (21, 99, 2, False), (0, 10, 2, False), (21, 99, 1, True)],
)
def test_a_batch_alone_gets_all_threads_if_it_is_large_enough(
    pool_from: int, budget: int, threads: int, pooled: bool
) -> None:
    runs: list[bool] = []
    options = {"pool_from": pool_from, "batching": TokenBudget(budget), "threads": threads}
    tier1, tier2 = Toy().tier1(**options), Toy().tier2(**options)
    batch = batch_of([10, 10])
    replace(tier1, backend=Pooled(tier1.backend, runs)).score(batch)
    replace(tier2, stages=[Pooled(stage, runs) for stage in tier2.stages]).score(batch)
    assert set(runs) == {pooled}

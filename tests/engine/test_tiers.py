from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.core.confidence import max_probability, probabilities
from cascade.core.rows import BoolArray, Encoded, FloatArray, IntArray, Rows, Units
from cascade.engine.inputs import Inputs
from cascade.engine.tier import CallableTier
from cascade.exceptions import BundleError, OptionError
from cascade.policies import exits
from cascade.policies.batching import BatchingPolicy, FixedSize, TokenBudget
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
from cascade.policies.unit_exits import Aggregate, SentenceExit, TokenExit, UnitState
from cascade.runtime.backend import FunctionBackend
from tests.models import kinds
from tests.models.by_token import ExitByToken
from tests.models.kinds import BATCHING, KINDS, PIECES, TEXTS, WORDS, Kind, Pooled, arrays_of, assert_equal, one_by_one
from tests.models.toy import LAYERS, Toy, batch_of
from tests.models.toy_tagging import VOCABULARY, ToyTagger, sentences_of

BOTH = pytest.mark.parametrize("kind", KINDS)
# fmt: off
OF_TEXTS = [
    never, AtExit(4), MaxProbability(0.8), MaxProbability((0.95, 0.8, 0.6)), Margin(0.5), Entropy(0.4), Patience(1),
    Patience(2), any_of(MaxProbability(0.9), Patience(1), AtExit(5)), all_of(MaxProbability(0.5), Patience(1)),
]
ADAPTIVE = [
    MaxProbability(0.99), Patience(1), TokenExit(0.01), TokenExit((0.02, 0.05, 0.1), window=3),
    TokenExit(0.1, window=5), SentenceExit(0.2), SentenceExit(0.05, Aggregate.MEAN),
    all_of(TokenExit(0.1), Patience(1)), any_of(TokenExit(0.02, window=3), SentenceExit(0.02, Aggregate.MEAN)),
]
# fmt: on
BY_TOKEN = st.builds(
    lambda layers: ExitByToken(tuple(layers)),
    st.lists(st.sampled_from(LAYERS), min_size=VOCABULARY, max_size=VOCABULARY),
)
OF_WORDS = st.one_of(st.sampled_from([never, AtExit(4), any_of(TokenExit(0.01), AtExit(5)), *ADAPTIVE]), BY_TOKEN)
WITH_POLICY = st.one_of(
    st.tuples(st.just(TEXTS), st.sampled_from(OF_TEXTS)), st.tuples(st.just(WORDS), OF_WORDS)
)  # fmt: skip
SENTENCES = [[1, 2, 1], [], [3, 1], [1] * 8, [1], [2, 2, 1, 1, 1], [1, 1, 1, 1]]
SEVERAL = sentences_of(SENTENCES)


@given(PIECES.filter(bool), BATCHING, WITH_POLICY, st.integers(1, 5), st.booleans(), st.integers(0, 3))
def test_neighbours_change_nothing(
    pieces: list[list[int]],
    batching: BatchingPolicy,
    chosen: tuple[Kind, ExitPolicy],
    together: int,
    multi_label: bool,
    seed: int,
) -> None:
    kind, policy = chosen
    units = kind.units(pieces, seed)
    options: dict[str, Any] = {"batching": batching, "multi_label": multi_label and not kind.words}
    tier1 = kind.toy(seed).tier1(temperature=1.5, **options)
    tier2 = kind.toy(seed).tier2(exit_policy=policy, together=together, position_offset=2, **options)
    for tier in (tier1, tier2):
        assert_equal(tier.score(units), one_by_one(tier, units))


@given(PIECES, BATCHING, st.booleans(), st.sampled_from(OF_TEXTS))
def test_a_policy_of_texts_replayed_over_all_exits(
    pieces: list[list[int]], batching: BatchingPolicy, multi_label: bool, policy: ExitPolicy
) -> None:
    temperatures = (0.5, 1.0, 2.0, 1.5)
    tier = Toy().tier2(batching=batching, exit_policy=policy, multi_label=multi_label, temperatures=temperatures)
    units = TEXTS.units(pieces)
    every = tier.all_exits(units)
    assert every.shape == (len(units), 4, 3)
    index = np.full(len(units), 3)
    for number in reversed(range(3)):
        now = ExitState(number, LAYERS[number], False, every[:, number], every[:, : number + 1], multi_label)
        index[policy(now)] = number
    scores = tier.score(units)
    np.testing.assert_array_equal(scores.exit_layer, np.array(LAYERS)[index])
    np.testing.assert_allclose(scores.probabilities, every[np.arange(len(units)), index], atol=1e-5)


def test_full_depth_equals_a_padded_chain() -> None:
    """Each stage by hand on a grid without packing."""
    toy, units = Toy(), batch_of([3, 1, 5])
    rows, expected = units.rows, []
    for begin, end in zip(rows.offsets[:-1], rows.offsets[1:], strict=True):
        length = int(end - begin)
        token_ids, types = rows.ids[begin:end], rows.types[begin:end]
        feeds = {"input_ids": token_ids, "token_type_ids": types, "position_ids": np.arange(length)}
        hidden = toy.embed(feeds)["hidden"].astype(np.float64)
        for index in range(4):
            hidden = np.tanh(hidden @ toy.own[index] + hidden.mean(axis=0) @ toy.others[index])
        expected.append(probabilities((hidden.mean(axis=0) @ toy.heads[3])[None].astype(np.float32))[0])
    scores = toy.tier2().score(units)
    np.testing.assert_allclose(scores.probabilities, expected, atol=1e-4)
    np.testing.assert_array_equal(scores.exit_layer, [6, 6, 6])
    np.testing.assert_array_equal(scores.tier, [1, 1, 1])
    np.testing.assert_array_equal(scores.confidence, max_probability(scores.probabilities))


def replayed(toy: ToyTagger, words: Units, policy: ExitPolicy) -> IntArray:
    """Exits by the masked oracle, a sentence and a stage at a time; everything is computed again for each."""
    layers = np.full(len(words), LAYERS[-1])
    for row in range(words.n_rows):
        one = words.select(np.array([row]))
        mine = np.full(len(one), LAYERS[-1])
        for index in range(len(LAYERS) - 1):
            inside = np.flatnonzero(mine >= LAYERS[index])
            every = toy.oracle(one, mine)
            if len(inside):
                now = UnitState(
                    exit_index=index,
                    exit_layer=LAYERS[index],
                    last=False,
                    probabilities=every[inside, index],
                    history=every[inside, : index + 1],
                    sentences=np.zeros(len(one), dtype=np.int64),
                    places=inside,
                    ids=one.first_ids[inside],
                )
                mine[inside[policy(now)]] = LAYERS[index]
        layers[words.offsets[row] : words.offsets[row + 1]] = mine
    return layers


@given(PIECES, BATCHING, OF_WORDS, st.integers(1, 4), st.integers(0, 3))
def test_packed_stages_equal_the_masked_oracle(
    pieces: list[list[int]], batching: BatchingPolicy, policy: ExitPolicy, together: int, seed: int
) -> None:
    toy, words = ToyTagger(seed=seed), sentences_of(pieces, seed)
    scores = toy.tier2(exit_policy=policy, batching=batching, together=together).score(words)
    every = toy.oracle(words, scores.exit_layer)
    expected = every[np.arange(len(words)), np.searchsorted(LAYERS, scores.exit_layer)]
    np.testing.assert_allclose(scores.probabilities, expected, atol=2e-4)
    np.testing.assert_array_equal(scores.exit_layer, replayed(toy, words, policy))


def test_words_do_leave_at_every_exit() -> None:
    """Otherwise the test above would compare nothing."""
    words = sentences_of([[1, 2, 1, 1, 3, 1]] * 24)
    for policy in (*ADAPTIVE, ExitByToken(LAYERS * 15)):
        found = set(ToyTagger().tier2(exit_policy=policy).score(words).exit_layer.tolist())
        assert found == set(LAYERS) - ({2} if "Patience" in repr(policy) else set())


@given(PIECES, BATCHING, st.integers(1, 4))
def test_all_exits_of_words(pieces: list[list[int]], batching: BatchingPolicy, together: int) -> None:
    toy, words = ToyTagger(), sentences_of(pieces)
    tier = toy.tier2(exit_policy=TokenExit(0.9), batching=batching, together=together, temperatures=(0.5, 1, 2, 1.5))
    every = tier.all_exits(words)
    assert every.shape == (len(words), 4, 3)
    plain = toy.tier2().all_exits(words)
    np.testing.assert_allclose(plain, toy.oracle(words, np.full(len(words), 6)), atol=2e-4)
    for index, temperature in enumerate(tier.temperatures):
        expected = probabilities(np.log(plain[:, index]), temperature=temperature)
        np.testing.assert_allclose(every[:, index], expected, atol=2e-4)


@given(PIECES, BATCHING, OF_WORDS, st.sampled_from([None, *LAYERS]), st.data())
def test_targets_and_context(
    pieces: list[list[int]], batching: BatchingPolicy, policy: ExitPolicy, context_layers: int | None, data: Any
) -> None:
    """Context halts at `context_layers` at the latest; a sentence goes when its last target has its answer."""
    toy, words = ToyTagger(), sentences_of(pieces)
    targets = np.array(data.draw(st.lists(st.booleans(), min_size=len(words), max_size=len(words))), dtype=np.bool_)
    tier = toy.tier2(batching=batching, exit_policy=policy)
    scores = tier.score(words, targets=targets, context_layers=context_layers)

    def with_context(now: ExitState) -> BoolArray:
        assert isinstance(now, UnitState)
        mask = exits.decide(policy, now)
        stops = context_layers is not None and now.exit_layer >= context_layers
        return mask | (~own[now.places] & stops)

    for row in range(words.n_rows):
        mine = slice(words.offsets[row], words.offsets[row + 1])
        own = targets[mine]
        if not own.any():
            assert not scores.probabilities[mine].any()
            assert not scores.exit_layer[mine].any()
            continue
        one = words.select(np.array([row]))
        layers = replayed(toy, one, with_context)
        np.testing.assert_array_equal(scores.exit_layer[mine][own], layers[own])
        np.testing.assert_array_equal(scores.exit_layer[mine], np.minimum(layers, layers[own].max()))
        every = toy.oracle(one, layers)
        expected = every[np.arange(len(one)), np.searchsorted(LAYERS, scores.exit_layer[mine])]
        np.testing.assert_allclose(scores.probabilities[mine], expected, atol=2e-4)


def test_what_exits_costs_nothing_more() -> None:
    toy, units = Toy(), batch_of([4] * 10)
    toy.tier2(exit_policy=AtExit(2)).score(units)
    assert (toy.calls, toy.tokens) == (1, 40)
    full = Toy()
    full.tier2().score(units)
    assert (full.calls, full.tokens) == (4, 160)
    some = Toy()
    layers = some.tier2(exit_policy=MaxProbability(0.8)).score(units).exit_layer
    assert len(set(layers.tolist())) > 1
    assert some.tokens == 4 * sum(LAYERS.index(layer) + 1 for layer in layers.tolist())


def test_halted_tokens_are_keys_and_values_only() -> None:
    """Three words of two pieces; by their ids they exit after layers 2, 4 and 6."""
    words = sentences_of([[2, 2, 2]])
    table = np.full(VOCABULARY, 6)
    words.rows.ids[words.first_token] = [0, 1, 2]
    table[:2] = [2, 4]
    toy = ToyTagger()
    scores = toy.tier2(exit_policy=ExitByToken(tuple(table.tolist()))).score(words)
    np.testing.assert_array_equal(scores.exit_layer, [2, 4, 6])
    assert (toy.calls, toy.tokens) == (4, 4 * 8)
    assert toy.actives == 8 + 6 + 4 + 4  # [CLS] and [SEP] go on as long as the sentence does


def test_a_finished_sentence_leaves_with_all_its_tokens() -> None:
    toy, words = ToyTagger(), sentences_of([[1] * 4] * 5)
    toy.tier2(exit_policy=AtExit(2)).score(words)
    assert (toy.calls, toy.tokens, toy.actives) == (1, 30, 30)
    toy = ToyTagger()
    toy.tier2().score(words, targets=words.row_of == 3, context_layers=2)
    assert (toy.calls, toy.tokens, toy.actives) == (4, 24, 24)
    toy = ToyTagger()
    toy.tier2().score(words, targets=np.arange(20) == 13, context_layers=4)
    assert (toy.calls, toy.tokens, toy.actives) == (4, 24, 6 + 6 + 3 + 3)


@BOTH
def test_what_remains_of_batches_goes_on_together(kind: Kind) -> None:
    """One row of each batch is left after the first exit, and they fit one batch."""

    def one_of_four(now: ExitState) -> BoolArray:
        rows = now.sentences[now.places] if isinstance(now, UnitState) else np.arange(len(now.probabilities))
        mask: BoolArray = (rows % 4 > 0) | (now.exit_index > 0)
        return mask

    units = kind.units([[1] * 4] * 16)
    merged, apart = kind.toy(), kind.toy()
    merged.tier2(exit_policy=one_of_four, batching=FixedSize(4)).score(units)
    apart.tier2(exit_policy=one_of_four, batching=FixedSize(4), together=1).score(units)
    assert merged.calls == 4 + 1
    assert apart.calls == 4 + 4
    assert merged.tokens == apart.tokens


def test_merging_never_exceeds_the_largest_batch() -> None:
    seen: list[tuple[int, int]] = []

    def watch(state: ExitState) -> BoolArray:
        seen.append((state.exit_index, len(state.probabilities)))
        mask: BoolArray = np.arange(len(state.probabilities)) % 3 == 0
        return mask

    Toy().tier2(exit_policy=watch, batching=FixedSize(4), together=8).score(batch_of([5] * 30))
    # Of seven batches of 4 and one of 2 there remain 2, 2, 2, 2, 2, 2, 2 and 1, then of those 2, 2, 2 and 2.
    assert [rows for exit_, rows in seen if exit_ == 0] == [4] * 7 + [2]
    assert [rows for exit_, rows in seen if exit_ == 1] == [4, 4, 4, 3]
    assert [rows for exit_, rows in seen if exit_ == 2] == [4, 4]


def test_halted_tokens_count_a_quarter_when_batches_are_merged() -> None:
    def all_but_one(now: ExitState) -> BoolArray:
        assert isinstance(now, UnitState)
        mask: BoolArray = now.places % 10 > 0
        return mask

    toy = ToyTagger()
    words = sentences_of([[1] * 10] * 8)  # 12 tokens each, of which 3 stay active
    toy.tier2(exit_policy=all_but_one, batching=FixedSize(1)).score(words)
    # Each costs 3 + 9 // 4 = 5 of the 12 that the largest batch had: two go together.
    assert toy.calls == 8 + 4 + 4 + 4


def test_the_embedding_is_not_written_to() -> None:
    """The published code aliases it."""
    toy, made = ToyTagger(), []

    def embed(feeds: dict[str, Any]) -> dict[str, FloatArray]:
        made.append(toy.embed(feeds)["hidden"])
        made.append(made[-1].copy())
        return {"hidden": made[-2]}

    plain = toy.tier2(exit_policy=TokenExit(0.02), together=1)
    replace(plain, embed=FunctionBackend(embed, plain.embed.inputs, ("hidden",))).score(SEVERAL)
    np.testing.assert_array_equal(made[0], made[1])


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


def test_the_policy_sees_words_and_their_sentences() -> None:
    asked = []

    def watch(now: ExitState) -> BoolArray:
        assert isinstance(now, UnitState)
        asked.append((now.exit_layer, now.sentences.tolist(), now.places.tolist(), now.ids.tolist()))
        mask: BoolArray = now.places == (0 if now.exit_index == 0 else 3)
        return mask

    words = sentences_of([[1, 2], [1, 3]])
    ids = words.first_ids.tolist()
    ToyTagger().tier2(exit_policy=watch, batching=FixedSize(2)).score(words)
    assert asked == [
        (2, [0, 0, 1, 1], [0, 1, 2, 3], ids),
        (4, [0, 0, 1, 1], [1, 2, 3], ids[1:]),
        (5, [0, 0, 1, 1], [1, 2], ids[1:3]),
    ]


def test_sentences_without_words_or_targets_are_not_run() -> None:
    for make in (ToyTagger.tier1, ToyTagger.tier2):
        seen: list[int] = []

        def batching(lengths: IntArray, seen: list[int] = seen) -> Any:
            seen.extend(lengths.tolist())
            return FixedSize(2)(lengths)

        make(ToyTagger(), batching=batching).score(SEVERAL)
        assert seen == [6, 6, 10, 3, 9, 6]
        seen.clear()
        make(ToyTagger(), batching=batching).score(SEVERAL, targets=np.isin(SEVERAL.row_of, [2, 5]))
        assert seen == [6, 9]


def test_rows_without_special_tokens() -> None:
    words = sentences_of([[1, 2], [1], [2, 2, 1]], prefix=0, suffix=0)
    toy = ToyTagger()
    scores = toy.tier2(exit_policy=TokenExit(0.02)).score(words)
    np.testing.assert_array_equal(scores.exit_layer, replayed(toy, words, TokenExit(0.02)))


@BOTH
def test_progress_counts_every_target_once(kind: Kind) -> None:
    units = kind.units(SENTENCES)
    targets = np.arange(len(units)) % 3 == 0
    adaptive = TokenExit(0.02) if kind.words else MaxProbability(0.7)
    for tier in (
        kind.toy().tier1(batching=FixedSize(2)),
        kind.toy().tier2(batching=FixedSize(2), exit_policy=adaptive),
        kind.toy().tier2(batching=FixedSize(2)),
    ):
        done: list[int] = []
        tier.score(units, progress=done.append)
        assert sum(done) == len(units)
        done.clear()
        tier.score(units, targets=targets, progress=done.append)
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


def test_single_exit_keeps_the_ends_of_long_rows() -> None:
    tier, units = Toy().tier1(max_length=3), batch_of([6])
    kept = np.array([0, 1, 5])
    short = Rows(ids=units.rows.ids[kept], types=units.rows.types[kept], offsets=np.array([0, 3]))
    assert_equal(tier.score(units), tier.score(Units.whole(short)))


def test_a_graph_without_token_types() -> None:
    def padded(feeds: dict[str, Any]) -> dict[str, Any]:
        assert set(feeds) == {"input_ids", "attention_mask"}
        return {"logits": np.zeros((len(feeds["input_ids"]), 3), dtype=np.float32)}

    tier = Toy().tier1(backend=FunctionBackend(padded, ("input_ids", "attention_mask"), ("logits",)))
    np.testing.assert_allclose(tier.score(batch_of([2, 3])).probabilities, np.full((2, 3), 1 / 3), rtol=1e-6)


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=3), min_size=1, max_size=6), st.booleans())
def test_long_texts_are_averaged_and_exit_at_the_deepest_row(rows: list[list[int]], multi_label: bool) -> None:
    units = batch_of([length for own in rows for length in own])
    numbers = np.repeat(np.arange(len(rows)), [len(own) for own in rows])
    long = Inputs.encoded(Encoded(units, numbers))
    assert (long.n_units, long.n_items) == (len(rows), len(rows))
    assert long.lengths.tolist() == [sum(own) for own in rows]
    policy = MaxProbability(0.7)
    for tier in (
        Toy().tier1(multi_label=multi_label),
        Toy().tier2(exit_policy=policy, multi_label=multi_label, batching=FixedSize(2)),
    ):
        done: list[int] = []
        apart, scores = tier.score(units), tier.score(long, progress=done.append)
        assert sum(done) == len(rows)
        for number in range(len(rows)):
            own = numbers == number
            np.testing.assert_allclose(scores.probabilities[number], apart.probabilities[own].mean(axis=0), atol=1e-5)
            assert scores.exit_layer[number] == apart.exit_layer[own].max()
        sure = max_probability(scores.probabilities, multi_label=multi_label)
        np.testing.assert_array_equal(scores.confidence, sure)


@BOTH
def test_a_prior_is_added_to_every_exits_logits(kind: Kind) -> None:
    units = kind.units(SENTENCES)
    prior = np.random.default_rng(1).normal(size=(len(units), 3)).astype(np.float32)
    for tier in (kind.toy().tier1(), kind.toy().tier2()):
        plain = np.log(tier.score(units).probabilities)
        np.testing.assert_allclose(
            tier.score(units, prior=prior).probabilities, probabilities(plain + prior), atol=2e-4
        )
    every = kind.toy().tier2().all_exits(units)
    found = kind.toy().tier2().all_exits(units, prior=prior)
    np.testing.assert_allclose(found, probabilities(np.log(every) + prior[:, None]), atol=2e-4)


@BOTH
def test_graphs_with_other_names_are_refused(kind: Kind) -> None:
    strange = FunctionBackend(dict, ("pixels",), ("logits",))
    with pytest.raises(BundleError, match=r"tier 1 must have inputs among .*\['pixels'\] and \['logits'\]; export"):
        kind.toy().tier1(backend=strange)
    with pytest.raises(BundleError, match=r"tier 2's embed must have inputs among"):
        kind.toy().tier2(embed=strange)
    good = kind.toy().tier2()
    first = "'active', 'bias'" if kind.words else "'bias', 'counts'"
    with pytest.raises(BundleError, match=rf"layer 4 must have inputs among \[{first}, .*\['hidden_out', 'logits'\]"):
        kind.toy().tier2(stages=[good.stages[0], strange, *good.stages[2:]])


@BOTH
def test_the_last_stage_needs_no_hidden_states(kind: Kind) -> None:
    full = kind.toy().tier2(exit_policy=TokenExit(0.02) if kind.words else MaxProbability(0.7))
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
    with pytest.raises(BundleError, match=r"stage of layer 2 must return logits of shape \(\d, 5\)"):
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
    for tier in (kind.toy().tier1(), kind.toy().tier2()):
        with pytest.raises(OptionError, match=rf"targets must be bools of shape \({len(units)},\)"):
            tier.score(units, targets=np.zeros(3, dtype=np.bool_))
    with pytest.raises(OptionError, match="context_layers must be a layer with an exit, got 3; choose from 2, 4, 5, 6"):
        kind.toy().tier2().score(units, context_layers=3)
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
    kind.toy().tier2(exit_policy=policy).score(units, targets=targets, context_layers=2)
    kind.toy().tier1().score(units, targets=targets)
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
    texts = Inputs.of(["good film", "bad"], kinds.Lengths(words=False))
    scores = tier.score(texts)
    np.testing.assert_allclose(scores.probabilities, [[0.8, 0.2], [0.3, 0.7]], rtol=1e-6)
    np.testing.assert_array_equal(scores.exit_layer, [0, 0])
    prior = np.array([[0.0, np.log(4)], [0.0, 0.0]], dtype=np.float32)
    np.testing.assert_allclose(tier.score(texts, prior=prior).probabilities[0], [0.5, 0.5], rtol=1e-5)
    asked.clear()
    words = Inputs.of([["a", "plot"], [], ["they"], ["we"]], kinds.Lengths(words=True))
    done: list[int] = []
    scores = tier.score(words, targets=np.array([True, False, False, True]), progress=done.append)
    assert asked == [["a", "plot"], ["we"]]
    assert done == [2]
    np.testing.assert_allclose(scores.probabilities[[0, 3]], [[0.3, 0.7], [0.3, 0.7]], rtol=1e-6)
    with pytest.raises(OptionError, match=r"must return probabilities of shape \(2, 3\), got shape \(2, 2\)"):
        CallableTier(rule, price=0, labels=3).score(texts)
    with pytest.raises(OptionError, match=r"items must be known, got rows only; make the inputs with Inputs.of"):
        tier.score(Inputs.encoded(batch_of([3])))

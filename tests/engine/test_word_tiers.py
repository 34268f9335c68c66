from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.core.confidence import probabilities
from cascade.core.rows import BoolArray, FloatArray, IntArray, Units
from cascade.engine.tiers import Scores
from cascade.engine.word_tiers import WordMultiExit, WordTier
from cascade.exceptions import BundleError, InputError, OptionError
from cascade.policies import exits
from cascade.policies.batching import BatchingPolicy, FixedSize, SortedByLength, TokenBudget
from cascade.policies.exits import AtExit, ExitPolicy, ExitState, MaxProbability, Patience, all_of, any_of, never
from cascade.policies.unit_exits import Aggregate, ExitByToken, SentenceExit, TokenExit, UnitState
from cascade.runtime.backend import FunctionBackend
from tests.engine.test_tiers import Pooled
from tests.models.toy_tagging import LAYERS, VOCABULARY, ToyTagger, sentences_of

PIECES = st.lists(st.lists(st.integers(1, 3), max_size=6), max_size=10)
BATCHING = st.one_of(
    st.builds(TokenBudget, st.integers(1, 90)),
    st.builds(SortedByLength, st.integers(1, 7)),
    st.builds(FixedSize, st.integers(1, 7)),
)
BY_TOKEN = st.builds(
    lambda layers: ExitByToken(tuple(layers)),
    st.lists(st.sampled_from(LAYERS), min_size=VOCABULARY, max_size=VOCABULARY),
)
ADAPTIVE = [
    MaxProbability(0.99),
    Patience(1),
    TokenExit(0.01),
    TokenExit((0.02, 0.05, 0.1), window=3),
    TokenExit(0.1, window=5),
    SentenceExit(0.2),
    SentenceExit(0.05, Aggregate.MEAN),
    all_of(TokenExit(0.1), Patience(1)),
    any_of(TokenExit(0.02, window=3), SentenceExit(0.02, Aggregate.MEAN)),
]
POLICIES = st.one_of(st.sampled_from([never, AtExit(4), any_of(TokenExit(0.01), AtExit(5)), *ADAPTIVE]), BY_TOKEN)
WORDS = sentences_of([[1, 2, 1], [], [3, 1], [1] * 8, [1], [2, 2, 1, 1, 1], [1, 1, 1, 1]])


def join(parts: list[Scores], order: IntArray | None = None) -> Scores:
    columns = [
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("probabilities", "confidence", "exit_layer")
    ]
    return Scores(*(column if order is None else column[order] for column in columns))


def assert_equal(left: Scores, right: Scores) -> None:
    np.testing.assert_array_equal(left.exit_layer, right.exit_layer)
    np.testing.assert_allclose(left.probabilities, right.probabilities, atol=2e-4)
    np.testing.assert_allclose(left.confidence, right.confidence, atol=2e-4)


def one_by_one(tier: WordTier, words: Units) -> Scores:
    """The same sentences, each alone."""
    return join([tier.score(words.select(np.array([row]))) for row in range(words.n_rows)])


def replayed(toy: ToyTagger, words: Units, policy: ExitPolicy) -> IntArray:
    """Exits by the masked oracle, a sentence and a stage at a time; everything is computed anew for each."""
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


@settings(deadline=None)
@given(PIECES, BATCHING, POLICIES, st.integers(1, 4), st.integers(0, 3))
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


@settings(deadline=None)
@given(PIECES.filter(bool), BATCHING, POLICIES, st.integers(1, 4), st.integers(0, 3))
def test_neighbours_change_nothing(
    pieces: list[list[int]], batching: BatchingPolicy, policy: ExitPolicy, together: int, seed: int
) -> None:
    tier = ToyTagger(seed=seed).tier2(batching=batching, exit_policy=policy, together=together, position_offset=2)
    words = sentences_of(pieces, seed)
    assert_equal(tier.score(words), one_by_one(tier, words))


@settings(deadline=None)
@given(PIECES, BATCHING, POLICIES, st.randoms(use_true_random=False))
def test_order_changes_nothing(
    pieces: list[list[int]], batching: BatchingPolicy, policy: ExitPolicy, random: Any
) -> None:
    words = sentences_of(pieces)
    order = np.array(random.sample(range(len(pieces)), len(pieces)), dtype=np.int64)
    moved = words.select(order)
    places = [np.arange(words.offsets[row], words.offsets[row + 1]) for row in order]
    numbers = np.concatenate([np.empty(0, dtype=np.int64), *places])
    for tier in (ToyTagger().tier1(batching=batching), ToyTagger().tier2(batching=batching, exit_policy=policy)):
        assert_equal(join([tier.score(words)], numbers), tier.score(moved))


@settings(deadline=None)
@given(PIECES, BATCHING, st.sampled_from([never, AtExit(6)]))
def test_full_depth(pieces: list[list[int]], batching: BatchingPolicy, policy: ExitPolicy) -> None:
    toy, words = ToyTagger(), sentences_of(pieces)
    scores = toy.tier2(exit_policy=policy, batching=batching).score(words)
    full = np.full(len(words), 6)
    np.testing.assert_array_equal(scores.exit_layer, full)
    np.testing.assert_allclose(scores.probabilities, toy.oracle(words, full)[:, -1], atol=2e-4)


@settings(deadline=None)
@given(PIECES, BATCHING, st.integers(1, 4))
def test_all_exits(pieces: list[list[int]], batching: BatchingPolicy, together: int) -> None:
    toy, words = ToyTagger(), sentences_of(pieces)
    tier = toy.tier2(exit_policy=TokenExit(0.9), batching=batching, together=together, temperatures=(0.5, 1, 2, 1.5))
    every = tier.all_exits(words)
    assert every.shape == (len(words), 4, 3)
    plain = toy.tier2().all_exits(words)
    np.testing.assert_allclose(plain, toy.oracle(words, np.full(len(words), 6)), atol=2e-4)
    logits = np.log(plain)
    for index, temperature in enumerate(tier.temperatures):
        np.testing.assert_allclose(every[:, index], probabilities(logits[:, index], temperature=temperature), atol=2e-4)


@settings(deadline=None)
@given(PIECES, BATCHING, POLICIES, st.sampled_from([None, *LAYERS]), st.data())
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


def test_halted_tokens_are_keys_and_values_only() -> None:
    """Three words of two pieces; by their ids they leave after layers 2, 4 and 6."""
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
    targets = words.row_of == 3
    toy = ToyTagger()
    toy.tier2().score(words, targets=targets, context_layers=2)
    assert (toy.calls, toy.tokens, toy.actives) == (4, 24, 24)
    toy = ToyTagger()
    toy.tier2().score(words, targets=np.arange(20) == 13, context_layers=4)
    assert (toy.calls, toy.tokens, toy.actives) == (4, 24, 6 + 6 + 3 + 3)


def test_what_remains_of_batches_goes_on_together() -> None:
    def one_of_four(now: ExitState) -> BoolArray:
        assert isinstance(now, UnitState)
        mask: BoolArray = (now.sentences[now.places] % 4 > 0) | (now.exit_index > 0)
        return mask

    words = sentences_of([[1] * 4] * 16)
    merged, apart = ToyTagger(), ToyTagger()
    merged.tier2(exit_policy=one_of_four, batching=FixedSize(4)).score(words)
    apart.tier2(exit_policy=one_of_four, batching=FixedSize(4), together=1).score(words)
    assert merged.calls == 4 + 1
    assert apart.calls == 4 + 4
    assert merged.tokens == apart.tokens


def test_halted_tokens_count_a_quarter_when_batches_are_merged() -> None:

    def all_but_one(now: ExitState) -> BoolArray:
        assert isinstance(now, UnitState)
        mask: BoolArray = now.places % 10 > 0
        return mask

    words = sentences_of([[1] * 10] * 8)  # 12 tokens each, of which 3 stay active
    toy = ToyTagger()
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

    plain = toy.tier2()
    tier = replace(
        plain, embed=FunctionBackend(embed, plain.embed.inputs, ("hidden",)), exit_policy=TokenExit(0.02), together=1
    )
    tier.score(WORDS)
    np.testing.assert_array_equal(made[0], made[1])


def test_the_policy_sees_words_and_their_sentences() -> None:
    asked = []

    def watch(now: ExitState) -> BoolArray:
        assert isinstance(now, UnitState)
        assert not now.last
        assert now.history.shape == (len(now.places), now.exit_index + 1, 3)
        np.testing.assert_array_equal(now.probabilities, now.history[:, -1])
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


@pytest.mark.parametrize("pieces", [[], [[]], [[], []]])
def test_no_words(pieces: list[list[int]]) -> None:
    words = sentences_of(pieces)
    for tier in (ToyTagger().tier1(), ToyTagger().tier2(), ToyTagger().tier2(exit_policy=TokenExit(0.02))):
        scores = tier.score(words)
        assert scores.probabilities.shape == (0, 3)
        assert scores.confidence.shape == scores.exit_layer.shape == (0,)
    assert ToyTagger().tier2().all_exits(words).shape == (0, 4, 3)


def test_sentences_without_words_or_targets_are_not_run() -> None:
    for make in (ToyTagger.tier1, ToyTagger.tier2):
        seen: list[int] = []
        toy = ToyTagger()

        def batching(lengths: IntArray, seen: list[int] = seen) -> Any:
            seen.extend(lengths.tolist())
            return FixedSize(2)(lengths)

        make(toy, batching=batching).score(WORDS)
        assert seen == [6, 6, 10, 3, 9, 6]
        seen.clear()
        make(toy, batching=batching).score(WORDS, targets=np.isin(WORDS.row_of, [2, 5]))
        assert seen == [6, 9]


def test_rows_without_special_tokens() -> None:
    words = sentences_of([[1, 2], [1], [2, 2, 1]], prefix=0, suffix=0)
    toy = ToyTagger()
    scores = toy.tier2(exit_policy=TokenExit(0.02)).score(words)
    np.testing.assert_array_equal(scores.exit_layer, replayed(toy, words, TokenExit(0.02)))


def test_progress_counts_every_target_once() -> None:
    targets = np.arange(len(WORDS)) % 3 == 0
    for tier in (
        ToyTagger().tier1(batching=FixedSize(2)),
        ToyTagger().tier2(batching=FixedSize(2), exit_policy=TokenExit(0.02)),
        ToyTagger().tier2(batching=FixedSize(2)),
    ):
        done: list[int] = []
        tier.score(WORDS, progress=done.append)
        assert sum(done) == len(WORDS)
        done.clear()
        tier.score(WORDS, targets=targets, progress=done.append)
        assert sum(done) == targets.sum()
        assert all(done)
    done = []
    ToyTagger().tier2().all_exits(WORDS, progress=done.append)
    assert done == [len(WORDS)]


@settings(deadline=None)
@given(PIECES.filter(bool), BATCHING)
def test_single_exit_neighbours_change_nothing(pieces: list[list[int]], batching: BatchingPolicy) -> None:
    tier = ToyTagger().tier1(batching=batching, temperature=1.5)
    words = sentences_of(pieces)
    assert_equal(tier.score(words), one_by_one(tier, words))


def test_single_exit_reads_first_pieces() -> None:
    toy, words = ToyTagger(), sentences_of([[3, 1, 2]])
    hidden = toy.table[words.rows.ids] + toy.types[words.rows.types]
    logits = ((hidden + hidden.mean(axis=0)) @ toy.heads[-1])[[1, 4, 5]]
    scores = toy.tier1(temperature=2.0).score(words)
    np.testing.assert_allclose(scores.probabilities, probabilities(logits.astype(np.float32) / 2), atol=1e-4)
    np.testing.assert_array_equal(scores.exit_layer, [0, 0, 0])


def test_rows_that_are_too_long_are_refused() -> None:
    for tier in (ToyTagger().tier1(max_length=9), ToyTagger().tier2(max_length=9)):
        with pytest.raises(
            InputError, match=r"each row must have at most 9 tokens, row 3 had 10; cut it with word_engine"
        ):
            tier.score(WORDS)
        assert tier.score(WORDS.select(np.array([0, 5]))).exit_layer.shape == (8,)


def test_graphs_with_other_names_are_refused() -> None:
    strange = FunctionBackend(dict, ("pixels",), ("logits",))
    with pytest.raises(
        BundleError, match=r"tier 1 must have inputs among .*had: \['pixels'\] and \['logits'\]; export"
    ):
        ToyTagger().tier1(backend=strange)
    good = ToyTagger().tier2()
    with pytest.raises(BundleError, match=r"tier 2's embed must have inputs among"):
        ToyTagger().tier2(embed=strange)
    with pytest.raises(
        BundleError, match=r"layer 4 must have inputs among \['active', 'bias', .*\['hidden_out', 'logits'"
    ):
        ToyTagger().tier2(stages=[good.stages[0], strange, *good.stages[2:]])


def test_the_last_stage_needs_no_hidden_states() -> None:
    full = ToyTagger().tier2(exit_policy=TokenExit(0.02))
    last = full.stages[-1]
    bare = FunctionBackend(lambda feeds: {"logits": last.run(feeds)["logits"]}, last.inputs, ("logits",))
    tier = replace(full, stages=[*full.stages[:-1], bare])
    assert_equal(tier.score(WORDS), full.score(WORDS))


def test_logits_of_another_shape_are_refused() -> None:
    with pytest.raises(
        BundleError, match=r"tier 1 must return logits of shape \(1, 6, 5\), returned: \(1, 6, 3\); its labels"
    ):
        replace(ToyTagger().tier1(), labels=5).score(WORDS.select(np.array([0])))
    with pytest.raises(BundleError, match=r"stage of layer 2 must return logits of shape \(3, 5\), returned: \(3, 3\)"):
        replace(ToyTagger().tier2(), labels=5).score(WORDS.select(np.array([0])))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperatures": (1.0, 2.0)}, "stages, layers and temperatures must be equally many .*were: 4, 4 and 2"),
        ({"together": 0}, "together must be at least 1, was: 0; 1 merges nothing"),
        ({"exit_policy": TokenExit((0.5,))}, "threshold must be one number or one per exit"),
        ({"exit_policy": ExitByToken((3,))}, "ExitByToken must name layers with an exit, got .3"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ToyTagger().tier2(**options)


def test_impossible_calls() -> None:
    with pytest.raises(OptionError, match="temperature must be above 0 and finite, was: -1; 1 changes nothing"):
        ToyTagger().tier1(temperature=-1)
    for tier in (ToyTagger().tier1(), ToyTagger().tier2()):
        with pytest.raises(OptionError, match=r"targets must be bools of shape \(23,\)"):
            tier.score(WORDS, targets=np.zeros(3, dtype=np.bool_))
    with pytest.raises(
        OptionError, match="context_layers must be a layer with an exit, was: 3; choose from 2, 4, 5, 6"
    ):
        ToyTagger().tier2().score(WORDS, context_layers=3)


def test_a_policy_that_returns_no_mask() -> None:
    tier = ToyTagger().tier2(exit_policy=lambda state: state.probabilities[:, 0])
    with pytest.raises(OptionError, match=r"the exit policy .* must return bools of shape \(3,\), returned: float32"):
        tier.score(WORDS.select(np.array([0])))


def test_nothing_of_the_callers_is_changed() -> None:
    words = sentences_of([[1, 2], [3], [1, 1, 1]])
    arrays = (words.first_token, words.n_tokens, words.offsets, words.rows.ids, words.rows.types, words.rows.offsets)
    before = [array.copy() for array in arrays]
    for array in arrays:
        array.setflags(write=False)
    targets = np.array([True, False, True, True, False, False])
    targets.setflags(write=False)
    tier: WordMultiExit = ToyTagger().tier2(exit_policy=TokenExit(0.02, 3))
    tier.score(words, targets=targets, context_layers=2)
    ToyTagger().tier1().score(words, targets=targets)
    for array, old in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize(("pool_from", "threads", "pooled"), [(1, 2, True), (9999, 2, False), (9999, 1, True)])
def test_a_batch_alone_gets_all_threads_if_it_is_large_enough(pool_from: int, threads: int, pooled: bool) -> None:
    runs: list[bool] = []
    options = {"pool_from": pool_from, "threads": threads}
    tier1, tier2 = ToyTagger().tier1(**options), ToyTagger().tier2(**options)
    replace(tier1, backend=Pooled(tier1.backend, runs)).score(WORDS)
    replace(tier2, stages=[Pooled(stage, runs) for stage in tier2.stages]).score(WORDS)
    assert set(runs) == {pooled}
    runs.clear()
    replace(tier1, backend=Pooled(tier1.backend, runs), batching=FixedSize(1)).score(WORDS)
    assert set(runs) == {threads == 1}

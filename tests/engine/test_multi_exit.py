"""Stages that units leave: what they answer, against oracles that compute everything, and what they run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cascade.core.confidence import max_probability, probabilities
from cascade.core.rows import BoolArray, FloatArray, IntArray, Units
from cascade.engine.inputs import Inputs
from cascade.policies import (
    AtExit,
    Entropy,
    Margin,
    MaxProbability,
    Patience,
    SentenceExit,
    TokenExit,
    any_of,
    never,
)
from cascade.policies.batching import BatchingPolicy
from cascade.policies.exits import ExitPolicy, ExitState
from cascade.policies.unit_exits import UnitState
from cascade.runtime.backend import FunctionBackend
from tests.models.batching import FixedSize
from tests.models.by_token import ExitByToken
from tests.models.kinds import BATCHING, BOTH, PIECES, SENTENCES, TEXTS, WORDS, Kind, assert_equal, one_by_one
from tests.models.toy import LAYERS, Toy, batch_of
from tests.models.toy_tagging import VOCABULARY, ToyTagger, sentences_of

# fmt: off
OF_TEXTS = [
    never, AtExit(4), MaxProbability(0.8), MaxProbability((0.95, 0.8, 0.6)), Margin(0.5), Entropy(0.4), Patience(1),
    Patience(2), any_of(MaxProbability(0.9), Patience(1), AtExit(5)),
]
ADAPTIVE = [
    MaxProbability(0.99), Patience(1), TokenExit(0.01), TokenExit((0.02, 0.05, 0.1), window=3),
    TokenExit(0.1, window=5), SentenceExit(0.2), SentenceExit(0.05),
    any_of(TokenExit(0.02, window=3), SentenceExit(0.02)),
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


@given(PIECES, BATCHING, OF_WORDS, st.data())
def test_targets_and_context(pieces: list[list[int]], batching: BatchingPolicy, policy: ExitPolicy, data: Any) -> None:
    """A sentence goes when its last target has its answer."""
    toy, words = ToyTagger(), sentences_of(pieces)
    targets = np.array(data.draw(st.lists(st.booleans(), min_size=len(words), max_size=len(words))), dtype=np.bool_)
    tier = toy.tier2(batching=batching, exit_policy=policy)
    scores = tier.score(Inputs.encoded(words).asking(targets))

    for row in range(words.n_rows):
        mine = slice(words.offsets[row], words.offsets[row + 1])
        own = targets[mine]
        if not own.any():
            assert not scores.probabilities[mine].any()
            assert not scores.exit_layer[mine].any()
            continue
        one = words.select(np.array([row]))
        layers = replayed(toy, one, policy)
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
    toy.tier2().score(Inputs.encoded(words).asking(words.row_of == 3))
    assert (toy.calls, toy.tokens, toy.actives) == (4, 24, 24)


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


def test_rows_without_special_tokens() -> None:
    words = sentences_of([[1, 2], [1], [2, 2, 1]], prefix=0, suffix=0)
    toy = ToyTagger()
    scores = toy.tier2(exit_policy=TokenExit(0.02)).score(words)
    np.testing.assert_array_equal(scores.exit_layer, replayed(toy, words, TokenExit(0.02)))

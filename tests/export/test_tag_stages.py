"""A tagger's packed ONNX chain answers as the torch model does, whoever has left, for every family."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.core.rows import IntArray, Units
from cascade.engine.packing import Packing
from cascade.training.models.multi_exit import MultiExitTagger
from cascade_export.int8.quantise import quantise_linears
from cascade_export.int8.rewriting import linears
from cascade_export.packed.chain import chain_logits, chain_ranges, session
from cascade_export.packed.stages import PackedModel, TierGraphs, export_tier2, pack
from cascade_export.texts import Sample
from cascade_export.verify import random_exits, torch_logits
from tests.models import tiny
from tests.models.graphs import axes, operators, quantised, scaled
from tests.models.tiny_tagging import random_words, words_of

Tier = tuple[MultiExitTagger, PackedModel, TierGraphs]
Case = tuple[Units, IntArray]


def tier(folder: Path, family: str = "bert", *, layers: tuple[int, ...] | None = None, width: int = 16) -> Tier:
    model = tiny.tagger(folder, family, layers=layers, width=width)
    packed = pack(model)
    return model, packed, export_tier2(packed)


@pytest.fixture(scope="module")
def every_layer(tmp_path_factory: pytest.TempPathFactory) -> Tier:
    """Three stages of one layer."""
    return tier(tmp_path_factory.mktemp("every"))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Tier:
    """Wide enough for int8 to be near fp32; exits after layers 2 and 3 only, so that the first stage has two layers."""
    return tier(tmp_path_factory.mktemp("wide"), layers=(2, 3), width=32)


def agree(made: Tier, words: Units, exits: IntArray | None) -> None:
    """The packed chain equals the masked torch form wherever a word still is."""
    model, _, graphs = made
    found = chain_logits(graphs, words, exits=exits)
    expected = torch_logits(model, words, exits=exits)
    inside = np.ones(found.shape[:2], bool)
    if exits is not None:
        inside = exits[:, None] >= np.arange(found.shape[1])
    assert not np.isnan(found[inside]).any()
    assert np.isnan(found[~inside]).all()
    np.testing.assert_allclose(found[inside], expected[inside], atol=2e-5, rtol=0)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("layers", [None, (2, 3)])
def test_packed_chain_equals_torch(tmp_path: Path, family: str, layers: tuple[int, ...] | None) -> None:
    made = tier(tmp_path, family, layers=layers)
    words = random_words([3, 0, 9, 1, 5, 5], seed=3)  # no unknown tokens: their id is tiny RoBERTa's padding
    agree(made, words, None)
    agree(made, words, random_exits(words, len(made[2].stages)))
    assert [len(stage.layers) for stage in made[1].stages] == ([1, 1, 1] if layers is None else [2, 1])
    assert {stage.pooling for stage in made[1].stages} == {"words"}


@st.composite
def leaving(draw: st.DrawFn) -> Case:
    """Rows of words (one has none, perhaps), and one of three exits for each word."""
    counts = draw(st.lists(st.integers(0, 6), min_size=1, max_size=5).filter(any))
    words = random_words(counts, draw(st.integers(0, 1000)))
    chosen = draw(st.lists(st.integers(0, 2), min_size=len(words), max_size=len(words)))
    return words, np.array(chosen, np.int64)


@pytest.mark.parametrize("kind", ["every_layer", "wide"])
@settings(deadline=None, max_examples=30)
@given(case=leaving())
def test_words_leave_as_in_the_masked_form(
    every_layer: Tier, wide: Tier, kind: str, case: tuple[Units, IntArray]
) -> None:
    """From stages of one layer, and of several."""
    made = {"every_layer": every_layer, "wide": wide}[kind]
    agree(made, case[0], np.minimum(case[1], len(made[1].stages) - 1))


def test_leaving_changes_what_the_others_see(every_layer: Tier) -> None:
    """The oracle is no constant: a word that stays reads the old states of those that have left."""
    graphs = every_layer[2]
    words = words_of((("a", "very", "good", "film"),))
    exits = np.array([0, 0, 0, 2])
    halted = chain_logits(graphs, words, exits=exits)
    full = chain_logits(graphs, words)
    np.testing.assert_array_equal(halted[:, 0], full[:, 0])
    assert np.abs(halted[3, 1:] - full[3, 1:]).max() > 1e-3


# -------------------------------------------------------------------------------------------------------- graphs


def test_inputs_and_outputs(every_layer: Tier) -> None:
    for stage in every_layer[2].stages:
        assert axes(stage) == {
            "hidden": ["tokens", 16],
            "head_gather": ["rows", 2, "longest"],
            "bias": ["rows", 1, 1, "longest"],
            "active": ["actives"],
            "query_head_gather": ["rows", 2, "longest_active"],
            "head_scatter": ["actives", 2],
            "words": ["words"],
            "hidden_out": ["actives", 16],
            "logits": ["words", 3],
        }


def test_the_graph_is_small(every_layer: Tier) -> None:
    assert Counter(operators(every_layer[2].stages[0])) == {
        "Gemm": 7,  # six of the layer, and the head
        "Gather": 6,  # the actives, three for attention, one back, the words
        "Reshape": 5,  # to heads, and back: no copies
        "MatMul": 2,
        "Transpose": 1,  # of the keys, which the product itself does
        "Add": 3,  # the bias, and what each half of the layer adds to
        "Softmax": 1,
        "LayerNormalization": 2,
        "Gelu": 1,
    }, "nothing is made of indices in a graph, and the engine writes the last layer's states"


def test_a_stage_without_words_runs(wide: Tier) -> None:
    """A row of special tokens alone: nothing to tag, and no error."""
    words = random_words([0, 2], seed=1)
    graphs = quantised(wide[2], words_of()).graphs
    empty = words.select(np.array([0]))
    for made in (wide[2], graphs):
        assert chain_logits(made, empty).shape == (0, 2, 3)
        alone = chain_logits(made, words.select(np.array([1])))
        np.testing.assert_allclose(chain_logits(made, words), alone, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------- int8


@pytest.mark.parametrize("leave", [False, True])
def test_int8_stages_are_near_fp32(wide: Tier, leave: bool) -> None:
    words = words_of()
    exits = random_exits(words, 2) if leave else None
    reference = chain_logits(wide[2], words, exits=exits)
    found = chain_logits(quantised(wide[2], words).graphs, words, exits=exits)
    assert 0 < np.nanmax(np.abs(found - reference)) < 0.1 * np.nanmax(np.abs(reference))


@pytest.mark.parametrize("int8", [False, True])
def test_answers_do_not_depend_on_batch_mates(wide: Tier, int8: bool) -> None:
    words = words_of()
    graphs, exits = quantised(wide[2], words).graphs, random_exits(words, 2)
    together = chain_logits(graphs, words, exits=exits)
    for row in range(words.n_rows):
        part, own = Sample(words).part(np.array([row]))
        np.testing.assert_allclose(chain_logits(graphs, part, exits=exits[own]), together[own], atol=1e-5)


def indices(going: Sequence[int], halted: Sequence[int]) -> dict[str, np.ndarray]:
    """What a stage reads beside hidden states, of rows with so many tokens of both kinds, those that go on first."""
    rows, actives = (Packing.of(np.array(lengths), heads=2) for lengths in (np.add(going, halted), going))
    live = np.concatenate([np.arange(a + b) < a for a, b in zip(going, halted, strict=True)])
    return {
        "head_gather": rows.array("head_gather"),
        "bias": rows.array("bias"),
        "active": np.flatnonzero(live),
        "query_head_gather": actives.array("head_gather"),
        "head_scatter": actives.array("head_scatter"),
        "words": np.arange(live.sum()),
    }


def test_states_are_quantised_once_and_gathered_as_bytes(wide: Tier) -> None:
    two, one = quantised(wide[2], words_of()).graphs.stages
    assert operators(one).count("MatMulIntegerToFloat") == 7, "query, key, value, output, expand, contract, the head"
    assert operators(one).count("QuantizeLinear") == 5, "the first three share one"
    assert operators(two).count("QuantizeLinear") == 9
    assert operators(one).count("MatMul") == 2, "those of attention"
    for stage in (one, two):
        made = {name: node for node in stage.graph.node for name in node.output}
        products = [node for node in stage.graph.node if node.op_type == "MatMulIntegerToFloat"]
        for layer in range(len(products) // 6):
            query, key, value = products[6 * layer : 6 * layer + 3]
            bytes_ = made[query.input[0]]
            assert (bytes_.op_type, bytes_.input[1]) == ("Gather", "active")
            assert bytes_.input[0] == key.input[0] == value.input[0]
            assert made[key.input[0]].op_type == "QuantizeLinear"
        assert not linears(stage)
    floats = [node for node in two.graph.node if node.op_type == "Gather" and node.input[1] == "active"]
    assert len(floats) == 3, "two of bytes, and one of floats: what the first layer adds to"


def test_gathered_bytes_are_the_bytes_of_what_is_gathered(wide: Tier) -> None:
    """The shared form computes exactly what quantising the gathered states would."""
    stage = wide[2].stages[1]
    spans = chain_ranges(wide[2], words_of())[2]
    shared = quantise_linears(stage, spans)
    apart = onnx.ModelProto()
    apart.CopyFrom(stage)
    place, rows = next((i, node) for i, node in enumerate(apart.graph.node) if node.input[:1] == ["hidden"])
    assert (rows.op_type, rows.input[1]) == ("Gather", "active")
    (old,) = rows.output
    rows.output[0] = "rows"  # an Identity hides from the quantiser that these are rows of `hidden`
    apart.graph.node.insert(place + 1, onnx.helper.make_node("Identity", ["rows"], [old]))
    separate = quantise_linears(apart, spans | {old: spans["hidden"]})
    assert operators(separate).count("QuantizeLinear") == operators(shared).count("QuantizeLinear") + 1
    hidden = np.random.default_rng(0).normal(size=(5, 32)).astype(np.float32)
    feeds = indices([2, 1], [1, 1]) | {"hidden": hidden, "active": np.array([0, 2, 3])}
    for first, second in zip(session(shared).run(None, feeds), session(separate).run(None, feeds), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.fixture(scope="module")
def last_stages(wide: Tier) -> dict[bool, onnx.ModelProto]:
    """The last stage, of one layer, in fp32 and in static int8."""
    return {int8: quantised(wide[2], words_of(), int8).graphs.stages[1] for int8 in (False, True)}


@pytest.mark.parametrize("int8", [False, True])
@settings(deadline=None, max_examples=30)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4)), min_size=2, max_size=5),
    seed=st.integers(0, 1000),
    factor=st.sampled_from([1.0, 100.0, 1e6]),
)
def test_masked_places_do_not_change_answers(
    last_stages: dict[bool, onnx.ModelProto], int8: bool, lengths: list[tuple[int, int]], seed: int, factor: float
) -> None:
    """Whatever a sentence's neighbours are, with tokens (going, halted) in each: equal to the last bit."""
    rng = np.random.default_rng(seed)
    feeds, chosen = indices(*zip(*lengths, strict=True)), int(rng.integers(len(lengths)))
    own = np.repeat(np.arange(len(lengths)), np.sum(lengths, axis=1)) == chosen
    hidden = 4 * rng.normal(size=(len(own), 32)).astype(np.float32)
    others = np.where(own[:, None], hidden, (factor * rng.normal(size=hidden.shape)).astype(np.float32))
    graph = session(last_stages[int8])
    first, second = (graph.run(None, {"hidden": states, **feeds}) for states in (hidden, others))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one[own[feeds["active"]]], other[own[feeds["active"]]])


def test_smoothing_keeps_one_scale_for_what_is_shared(wide: Tier) -> None:
    words = words_of()
    spans = chain_ranges(wide[2], words)[2]
    reference = chain_logits(wide[2], words)
    stage = quantise_linears(wide[2].stages[1], spans, smooth=True)
    assert scaled(stage) == operators(stage).count("QuantizeLinear") == 5
    mixed = TierGraphs(wide[2].embed, (wide[2].stages[0], stage))
    found = chain_logits(mixed, words)
    assert 0 < np.abs(found - reference).max() < 0.1 * np.abs(reference).max()

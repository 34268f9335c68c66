"""The packed ONNX chain answers as the torch model does, for every family."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.core.rows import Rows, Units, offsets_of
from cascade.engine.packing import Packing
from cascade.exceptions import OptionError
from cascade_export.packed.chain import chain_logits, session
from cascade_export.packed.stages import export_tier2, pack
from cascade_export.verify import torch_logits
from tests.models import tiny
from tests.models.graphs import Axes, axes, operators, quantised

# Ragged; with rows of one body token, and a row of nothing but special tokens.
BATCHES = {
    "ragged": [[2, 9, 11, 3], [2, 20, 3], [2, *range(130, 160), 3], [2, 3], [2, 140, 141, 142, 3]],
    "single": [[2, 100, 120, 140, 3]],
    "one token": [[2, 130, 3]],
    "equal": [[2, 7, 8, 3], [2, 9, 10, 3]],
}


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, onnx.ModelProto]:
    """The first stage, of one layer, with either way of pooling. The weights are large, so attention is sharp."""
    made = {}
    for pooling in ("mean", "first"):
        model = tiny.tier2(tmp_path_factory.mktemp(pooling), pooling=pooling)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(8)
        made[pooling] = export_tier2(pack(model)).stages[0]
    return made


def indices(rows: list[list[int]], heads: int) -> dict[str, np.ndarray]:
    """What a stage reads beside hidden states; spelled out with loops, as a reference."""
    longest, starts = max(map(len, rows)), np.cumsum([0, *map(len, rows)])
    head_gather = np.zeros((len(rows), heads, longest), np.int64)
    head_scatter = np.zeros((starts[-1], heads), np.int64)
    there = np.zeros((len(rows), longest), np.float32)
    for i, row in enumerate(rows):
        for column in range(longest):
            there[i, column] = column < len(row)
            token = starts[i] + (column if column < len(row) else 0)
            for head in range(heads):
                head_gather[i, head, column] = token * heads + head
                if column < len(row):
                    head_scatter[token, head] = (i * heads + head) * longest + column
    return {
        "head_gather": head_gather,
        "bias": -40 * (1 - there)[:, None, None],
        "head_scatter": head_scatter,
        "firsts": starts[:-1],
        "gather": head_gather[:, 0] // heads,
        "weights": there[:, None],
        "counts": there.sum(axis=1, keepdims=True),
    }


def run_stage(stage: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Hidden states and logits."""
    names = {value.name for value in stage.graph.input}
    hidden, logits = session(stage).run(
        ["hidden_out", "logits"], {name: array for name, array in feeds.items() if name in names}
    )
    return hidden, logits


def units_of(rows: list[list[int]]) -> Units:
    ids = np.concatenate(rows).astype(np.int64)
    return Units.whole(Rows(ids, np.zeros_like(ids), offsets_of(np.array([len(row) for row in rows]))))


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("pooling", ["mean", "first", ("mean", "mean", "first")])
def test_packed_chain_equals_torch_at_every_exit(tmp_path: Path, family: str, pooling: str | tuple[str, ...]) -> None:
    model = tiny.tier2(tmp_path, family, pooling=pooling)
    packed = pack(model)
    graphs = export_tier2(packed)
    for units in map(units_of, BATCHES.values()):
        np.testing.assert_allclose(chain_logits(graphs, units), torch_logits(model, units), atol=1e-5, rtol=0)
    assert len(graphs.stages) == 3
    assert graphs.heads == packed.heads == model.config.num_attention_heads == 2
    assert (packed.position_offset == 2) == (family in tiny.AFTER_PADDING)
    assert ("token_type_ids" in packed.embed.inputs) == (family in ("bert", "electra", "albert"))


def test_stage_boundaries_are_the_exits_layers(tmp_path: Path) -> None:
    model = tiny.tier2(tmp_path, layers=(2, 3))
    packed = pack(model)
    assert packed.layers == (2, 3)
    assert [len(stage.layers) for stage in packed.stages] == [2, 1]
    units = units_of(BATCHES["ragged"])
    np.testing.assert_allclose(chain_logits(export_tier2(packed), units), torch_logits(model, units), atol=1e-5)


def test_token_types_reach_the_embedding(tmp_path: Path) -> None:
    model = tiny.tier2(tmp_path)
    packed = pack(model)
    ids, types = torch.tensor([2, 9, 3, 10, 3]), torch.tensor([0, 0, 0, 1, 1])
    got = session(export_tier2(packed).parts[0]).run(
        None, {"input_ids": ids.numpy(), "token_type_ids": types.numpy(), "position_ids": np.arange(5)}
    )[0]
    with torch.no_grad():
        embeddings: Any = model.backbone.embeddings
        expected = embeddings(input_ids=ids[None], token_type_ids=types[None])[0]
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_the_graph_is_small(tmp_path: Path) -> None:
    stage = export_tier2(pack(tiny.tier2(tmp_path))).stages[0]
    assert Counter(operators(stage)) == {
        "Gemm": 8,  # six of the layer, two of the head
        "Gather": 6,  # three for attention, one back, two for pooling
        "Reshape": 5,  # to heads, and back: no copies
        "MatMul": 3,  # two of attention, one for pooling
        "Transpose": 1,  # of the keys, which the product itself does
        "Add": 3,  # the bias, and what each half of the layer adds to
        "Softmax": 1,
        "LayerNormalization": 2,
        "Gelu": 1,
        "Div": 1,
        "Tanh": 1,
    }, "nothing is made of indices in a graph"


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_inputs_and_outputs(tmp_path: Path, pooling: str) -> None:
    pooled_by: dict[str, list[str | int]] = {"firsts": ["rows"]}
    if pooling == "mean":
        pooled_by = {"gather": ["rows", "longest"], "weights": ["rows", 1, "longest"], "counts": ["rows", 1]}
    wide: Axes = {"head_scatter": ["tokens", 2], "hidden_out": ["tokens", 16]}
    *stages, last = map(axes, export_tier2(pack(tiny.tier2(tmp_path, pooling=pooling))).stages)
    expected: Axes = {
        "hidden": ["tokens", 16],
        "head_gather": ["rows", 2, "longest"],
        "bias": ["rows", 1, 1, "longest"],
        **pooled_by,
        "logits": ["rows", 2],
    }
    assert stages == [expected | wide] * 2
    assert last == (expected | wide if pooling == "mean" else expected)


@pytest.mark.parametrize("family", ["bert", "mpnet"])
@pytest.mark.parametrize("exits", [(1, 2, 3), (1, 3)])
def test_the_last_layer_computes_what_is_read(tmp_path: Path, family: str, exits: tuple[int, ...]) -> None:
    """Of a row whose first token is read: keys and values of all tokens, all else of that one, int8 or not."""
    model = tiny.tier2(tmp_path, layers=exits, pooling="first", family=family)
    graphs, units = export_tier2(pack(model)), units_of(BATCHES["ragged"])
    np.testing.assert_allclose(chain_logits(graphs, units), torch_logits(model, units), atol=1e-5)
    before = len(exits) > 1 and exits[-1] - exits[-2] > 1
    assert ("head_scatter" in axes(graphs.stages[-1])) is before
    assert "hidden_out" not in axes(graphs.stages[-1])
    small = quantised(graphs, units).graphs
    (reader,) = (node for node in small.stages[-1].graph.node if "firsts" in node.input and "int8" in node.output[0])
    assert operators(small.stages[-1]).count("QuantizeLinear") == 6 + 4 * before, f"bytes are gathered by {reader.name}"


def test_the_engines_indices_are_those_of_the_loops() -> None:
    for rows in BATCHES.values():
        expected = indices(rows, 4)
        feeds = Packing.of(np.array([len(row) for row in rows]), heads=4).feeds(expected)
        assert set(feeds) == set(expected)
        for name, array in expected.items():
            np.testing.assert_array_equal(feeds[name], array)


@pytest.mark.parametrize("pooling", ["mean", "first"])
@settings(deadline=None, max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=2, max_size=5),
    seed=st.integers(0, 1000),
    factor=st.sampled_from([1.0, 100.0, 1e6]),
)
def test_masked_places_do_not_change_answers(
    stages: dict[str, onnx.ModelProto], pooling: str, lengths: list[int], seed: int, factor: float
) -> None:
    """Whatever a row's neighbours are, even where their scores would outweigh the mask: equal to the last bit."""
    rng = np.random.default_rng(seed)
    index = indices([[0] * length for length in lengths], 2)
    hidden = 4 * rng.normal(size=(sum(lengths), 16)).astype(np.float32)
    chosen = int(rng.integers(len(lengths)))
    own = slice(sum(lengths[:chosen]), sum(lengths[: chosen + 1]))
    others = (factor * rng.normal(size=hidden.shape)).astype(np.float32)
    others[own] = hidden[own]
    first, second = (run_stage(stages[pooling], {"hidden": states, **index}) for states in (hidden, others))
    np.testing.assert_array_equal(first[0][own], second[0][own])
    np.testing.assert_array_equal(first[1][chosen], second[1][chosen])
    alone = run_stage(stages[pooling], {"hidden": hidden[own], **indices([[0] * lengths[chosen]], 2)})
    np.testing.assert_allclose(alone[1][0], first[1][chosen], atol=1e-5, rtol=1e-5)


def test_packing_leaves_the_model_alone(tmp_path: Path) -> None:
    model = tiny.tier2(tmp_path)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pack(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("family", "name", "value", "match"),
    [
        (
            "bert",
            "model_type",
            "gpt2",
            "must be one of bert, roberta, .*, got gpt2; any other encoder gets in as",
        ),
        (
            "bert",
            "position_embedding_type",
            "relative_key",
            "bert's position_embedding_type must be absolute, got",
        ),
        ("roberta", "is_decoder", True, "is_decoder must be False, got True; any other encoder gets in as a tier"),
        ("albert", "inner_group_num", 2, "inner_group_num must be 1, got 2"),
    ],
)
def test_what_cannot_be_packed(tmp_path: Path, family: str, name: str, value: object, match: str) -> None:
    model = tiny.tier2(tmp_path, family)
    setattr(model.config, name, value)
    with pytest.raises(OptionError, match=match):
        pack(model)

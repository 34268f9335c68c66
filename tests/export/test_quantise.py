"""int8 graphs: near fp32, independent of batch mates where static."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cascade.core.rows import Units
from cascade.runtime import backend
from cascade_export.int8.quantise import quantise_linears, quantise_tables
from cascade_export.int8.rewriting import Ranges, int8_weight, linears
from cascade_export.packed.chain import chain_logits, chain_ranges, session
from cascade_export.packed.stages import TierGraphs, export_tier2, pack
from tests.models import tiny
from tests.models.graphs import operators, quantised


def spread(low: float, high: float, width: int = 4) -> Ranges:
    return np.repeat(np.array([[low], [high]], np.float32), width, axis=1)


def graph_of(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], width: int) -> onnx.ModelProto:
    """A graph from `x [rows, 4]` to `y [rows, width]`."""
    made = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", width])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def test_int8_stages_are_near_fp32_and_each_other(graphs: TierGraphs, batch: Units) -> None:
    reference = chain_logits(graphs, batch)
    eight, seven = (quantised(graphs, batch, weight_bits=bits).logits for bits in (8, 7))
    assert 0 < np.abs(eight - reference).max() < 0.1 * np.abs(reference).max()
    assert 0 < np.abs(seven - reference).max() < 0.15 * np.abs(reference).max()
    assert 0 < np.abs(seven - eight).max() < 0.15 * np.abs(reference).max()


def test_static_answers_do_not_depend_on_batch_mates(graphs: TierGraphs, batch: Units) -> None:
    small = quantised(graphs, batch).graphs
    together = chain_logits(small, batch)
    order = np.random.default_rng(0).permutation(len(batch))
    shuffled = chain_logits(small, batch.select(order))
    alone = [chain_logits(small, batch.select(np.array([row]))) for row in range(len(batch))]
    np.testing.assert_allclose(shuffled, together[order], atol=1e-5)
    np.testing.assert_allclose(np.concatenate(alone), together, atol=1e-5)


def test_every_weight_becomes_int8_and_attention_stays(graphs: TierGraphs, batch: Units) -> None:
    stage = quantised(graphs, batch).graphs.stages[0]
    found = operators(stage)
    assert found.count("MatMulIntegerToFloat") == 8, "query, key, value, output, expand, contract and two of the head"
    assert found.count("QuantizeLinear") == 6, "the first three share one"
    assert found.count("MatMul") == 3, "two of attention, one of mean pooling"
    assert not linears(stage)
    large = [tensor for tensor in stage.graph.initializer if np.prod(tensor.dims) > 32 * 32]
    assert {tensor.data_type for tensor in large} == {TensorProto.INT8}
    small, full = (len(model.SerializeToString()) for model in (stage, graphs.stages[0]))
    assert small < full / 2


@pytest.mark.parametrize(("bits", "largest"), [(7, 64), (8, 127)])
@pytest.mark.parametrize("lacks", [True, False])
def test_products_are_exact_integers(bits: int, largest: int, lacks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums that saturate 16 bits: of 7 bits they cannot, and where 8 bits do ONNX Runtime is told to avoid it."""
    if not lacks and backend.lacks_vnni():
        pytest.skip("needs VNNI")
    monkeypatch.setattr(backend, "lacks_vnni", lambda: lacks)
    weight = np.array([[1, 1, -1, 0.5], [1, -1, -1, 0.25]] * 2, np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    small = quantise_linears(graph_of([node], {"w": weight}, 4), {"x": spread(0.0, 255.0)}, weight_bits=bits)
    numbers, scale = int8_weight(weight, bits=bits)
    assert (numbers.max(), numbers.min()) == (largest, -largest)
    x = np.array([[255, 255, 255, 255], [255, 0, 255, 1]], np.float32)
    found = session(small).run(None, {"x": x})[0]
    np.testing.assert_allclose(found, x.astype(np.int64) @ numbers.astype(np.int64) * scale, rtol=1e-6)


def test_one_quantised_input_serves_all_its_readers() -> None:
    rng = np.random.default_rng(0)
    constants = {name: rng.normal(size=(4, 3)).astype(np.float32) for name in ("a", "b")}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["xa"]),
        helper.make_node("MatMul", ["x", "b"], ["xb"]),
        helper.make_node("Add", ["xa", "xb"], ["y"]),
    ]
    small = quantise_linears(graph_of(nodes, constants, 3), {"x": spread(-1.0, 1.0)})
    assert operators(small) == ["QuantizeLinear", "MatMulIntegerToFloat", "MatMulIntegerToFloat", "Add"]


@pytest.mark.parametrize("filler", [[], [""], ["zero"]])
def test_copies_of_a_tensor_are_copies_of_its_bytes(filler: list[str]) -> None:
    """Each value beside its neighbours: quantised before it is copied, to the same numbers."""
    rng = np.random.default_rng(0)
    whole = {"ends": np.array([0, 1, 0, 1]), "at": np.array([0]), "left": np.array([4]), "right": np.array([2])}
    whole |= {"end": np.array([6]), "axis": np.array([1])}
    constants = {"w": rng.normal(size=(8, 3)).astype(np.float32), "zero": np.array(0, np.float32), **whole}
    nodes = [
        helper.make_node("Pad", ["x", "ends", *filler], ["p"]),
        helper.make_node("Slice", ["p", "at", "left", "axis"], ["a"]),
        helper.make_node("Slice", ["p", "right", "end", "axis"], ["b"]),
        helper.make_node("Concat", ["a", "b"], ["c"], axis=1),
        helper.make_node("MatMul", ["c", "w"], ["y"]),
    ]
    model = graph_of(nodes, constants, 3)
    small = quantise_linears(model, {"c": spread(-1.0, 2.0, 8)})
    assert operators(small) == ["QuantizeLinear", "Pad", "Slice", "Slice", "Concat", "MatMulIntegerToFloat"]
    apart = onnx.ModelProto()
    apart.CopyFrom(model)
    apart.graph.node[3].output[0] = "d"  # an Identity hides from the quantiser where the copies come from
    apart.graph.node.insert(4, helper.make_node("Identity", ["d"], ["c"]))
    late = quantise_linears(apart, {"c": spread(-1.0, 2.0, 8)})
    assert operators(late)[-2:] == ["QuantizeLinear", "MatMulIntegerToFloat"]
    x = rng.uniform(-1.5, 2.5, size=(5, 4)).astype(np.float32)
    np.testing.assert_array_equal(session(small).run(None, {"x": x})[0], session(late).run(None, {"x": x})[0])
    smooth = quantise_linears(model, {"c": spread(-1.0, 2.0, 8)}, smooth=True)
    assert operators(smooth)[-3:] == ["Mul", "QuantizeLinear", "MatMulIntegerToFloat"], "each copy has its own scales"


def test_what_is_more_than_copies_is_quantised_where_it_is() -> None:
    constants = {"w": np.ones((8, 3), np.float32), "ends": np.array([0, 1, 0, 1]), "one": np.array(1, np.float32)}
    constants |= {"at": np.array([0]), "end": np.array([4]), "axis": np.array([1])}
    other = helper.make_node("Neg", ["x"], ["n"])
    cases: list[list[onnx.NodeProto]] = [
        [other, helper.make_node("Concat", ["x", "n"], ["c"], axis=1)],
        [
            helper.make_node("Pad", ["x", "ends", "one"], ["p"]),
            helper.make_node("Slice", ["p", "at", "end", "axis"], ["s"]),
            other,
            helper.make_node("Concat", ["s", "n"], ["c"], axis=1),
        ],
        [helper.make_node("Pad", ["x", "ends"], ["p"], mode="edge"), helper.make_node("Concat", ["p", "x"], ["c"])],
        [helper.make_node("Pad", ["x", "ends"], ["c"])],
    ]
    for nodes in cases:
        model = graph_of([*nodes, helper.make_node("MatMul", ["c", "w"], ["y"])], constants, 3)
        small = quantise_linears(model, {"c": spread(-1.0, 1.0, 8)})
        assert operators(small)[-2:] == ["QuantizeLinear", "MatMulIntegerToFloat"]


def test_worked_example() -> None:
    # Range [-1, 1.55]: scale 2.55 / 255 = 0.01, zero point 100. Column scales 2 / 127 and 1 / 127.
    weight = np.array([[2, 0], [0, 1], [0, 0], [0, 0]], np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["bias", "m"], ["y"])]
    model = graph_of(nodes, {"w": weight, "bias": np.array([10, 20], np.float32)}, 2)
    (linear,) = linears(model)
    assert linear.nodes == (0, 1)
    assert linear.output == "y"
    small = quantise_linears(model, {"x": spread(-1.0, 1.55)})
    # 0.504 is rounded to 0.50; 9 is cut to 1.55; the zero of the input is exact.
    (found,) = session(small).run(None, {"x": np.array([[0.504, 9, 0, 0], [0, -5, 1, 1]], np.float32)})
    np.testing.assert_allclose(found, [[11.0, 21.55], [10.0, 19.0]], atol=1e-5)


def test_gemms_of_every_plain_form_are_found() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(3, 4)).astype(np.float32)
    bias = rng.normal(size=3).astype(np.float32)
    x = rng.uniform(-1, 1, size=(5, 4)).astype(np.float32)
    shared = [helper.make_node("Identity", ["w"], ["v"]), helper.make_node("Transpose", ["v"], ["t"], perm=[1, 0])]
    for nodes in (
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)],
        [helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)],
        [*shared, helper.make_node("MatMul", ["x", "t"], ["y"])],
    ):
        model = graph_of(nodes, {"w": weight, "b": bias}, 3)
        small = quantise_linears(model, {"x": spread(-1, 1)})
        assert operators(small) == ["QuantizeLinear", "MatMulIntegerToFloat"]
        assert {tensor.name for tensor in small.graph.initializer}.isdisjoint({"w", "b"}), "unread constants stay"
        (expected,), (found,) = session(model).run(None, {"x": x}), session(small).run(None, {"x": x})
        np.testing.assert_allclose(found, expected, atol=0.05)


def test_what_is_no_linear_layer_is_left_alone() -> None:
    weight = np.ones((4, 4), np.float32)
    for nodes in (
        [helper.make_node("Gemm", ["x", "w"], ["y"], alpha=0.5)],
        [helper.make_node("Gemm", ["w", "x"], ["y"], transB=1)],
        [helper.make_node("MatMul", ["w", "w"], ["c"]), helper.make_node("Add", ["x", "c"], ["y"])],
        [helper.make_node("Gemm", ["x", "w", "x"], ["y"])],
    ):
        assert linears(graph_of(nodes, {"w": weight}, 4)) == []


def test_tables_keep_small_tokens_precise() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(50, 16)).astype(np.float32) * np.logspace(-6, 2, 50, dtype=np.float32)[:, None]
    table[7] = 0
    few = rng.normal(size=(2, 16)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["x"], ["ids"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "ids"], ["y"]),
        helper.make_node("Gather", ["few", "ids"], ["z"]),
    ]
    model = graph_of(nodes, {"table": table, "few": few}, 16)
    model.graph.output[0].type.tensor_type.shape.CopyFrom(onnx.TensorShapeProto())
    small = quantise_tables(model)
    assert "few" in {tensor.name for tensor in model.graph.initializer}
    ids = np.arange(48, dtype=np.float32).reshape(12, 4)
    found = session(small).run(["y"], {"x": ids})[0].reshape(48, 16)
    error = np.abs(found - table[:48]).max(axis=1)
    assert (error <= np.abs(table[:48]).max(axis=1) / 253).all()
    assert (found[7] == 0).all()


def test_smoothing_saves_small_channels_from_large_ones() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(4, 3)).astype(np.float32)
    sizes = np.array([100, 1, 1, 1], np.float32)
    weight[0] /= 100
    x = (rng.uniform(-1, 1, size=(50, 4)) * sizes).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["first"]),
        helper.make_node("MatMul", ["x", "v"], ["second"]),
        helper.make_node("Add", ["first", "second"], ["y"]),
    ]
    model = graph_of(nodes, {"w": weight, "v": weight[:, ::-1].copy()}, 3)
    ranges = {"x": np.stack((x.min(axis=0), x.max(axis=0)))}
    (expected,) = session(model).run(None, {"x": x})
    errors = []
    for smooth in (False, True):
        small = quantise_linears(model, ranges, smooth=smooth)
        assert operators(small).count("Mul") == smooth
        errors.append(np.abs(session(small).run(None, {"x": x})[0] - expected).max())
    assert errors[1] < errors[0] / 5


def test_ranges_are_those_of_the_texts(graphs: TierGraphs, batch: Units) -> None:
    _, *stages = chain_ranges(graphs, batch)
    assert [set(found) for found in stages] == [{layer.input for layer in linears(stage)} for stage in graphs.stages]
    assert all((found[0] <= found[1]).all() for stage in stages for found in stage.values())
    _, *one = chain_ranges(graphs, batch.select(np.array([0])))
    for more, fewer in zip(stages, one, strict=True):
        for name, found in fewer.items():
            assert (more[name][0] <= found[0]).all()
            assert (found[1] <= more[name][1]).all()


def test_projections_of_the_embedding_become_int8(tmp_path: Path, batch: Units) -> None:
    packed = pack(tiny.tier2(tmp_path, "electra"))
    graphs = export_tier2(packed)
    embed = quantised(graphs, batch).graphs.parts[0]
    assert "MatMulIntegerToFloat" in operators(embed)
    assert operators(embed).count("Cast") == 2, "words and positions; the two types are too few"

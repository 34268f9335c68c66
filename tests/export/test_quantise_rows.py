"""int8 with a scale per row of an activation, measured while running."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from cascade.core.rows import FloatArray
from cascade_export.int8.quantise_rows import quantise_by_row
from cascade_export.packed.chain import session


def row_graph(rank: int = 2, *, gathered: bool = False) -> tuple[onnx.ModelProto, FloatArray, FloatArray]:
    """`y = x @ w + b`, of some rows of `x` also `z`; the weights and the bias."""
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(8, 3)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["xw"]), helper.make_node("Add", ["xw", "b"], ["y"])]
    axes = ["rows", "columns"][: rank - 1]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [*axes, 8])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [*axes, 3])]
    if gathered:
        nodes += [helper.make_node("Gather", ["x", "n"], ["some"]), helper.make_node("MatMul", ["some", "w"], ["z"])]
        inputs.append(helper.make_tensor_value_info("n", TensorProto.INT64, ["chosen"]))
        outputs.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["chosen", 3]))
    tensors = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")]
    graph = helper.make_graph(nodes, "test", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), weight, bias


def by_hand(x: FloatArray, weight: FloatArray, bias: FloatArray | float) -> FloatArray:
    """What a scale per row computes: whole numbers times whole numbers, scaled back."""
    row = np.maximum(np.abs(x).max(axis=-1, keepdims=True) / 127, 1e-30)
    column = np.abs(weight).max(axis=0) / 127
    product = np.rint(x / row) @ np.rint(weight / column)
    found: FloatArray = (product * row * column + bias).astype(np.float32)
    return found


@pytest.mark.parametrize("rank", [2, 3])
def test_a_scale_per_row_by_hand(rank: int) -> None:
    model, weight, bias = row_graph(rank)
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(5, 4, 8)[3 - rank :]) * np.array([1, 1e3, 1e-3, 1])[:, None]).astype(np.float32)
    found = session(quantise_by_row(model)).run(["y"], {"x": x})[0]
    np.testing.assert_allclose(found, by_hand(x, weight, bias), rtol=1e-4, atol=1e-4)
    assert np.abs(found - (x @ weight + bias)).max() < 0.02 * np.abs(x).max() * 8


@given(st.floats(1e-6, 1e6), st.integers(0, 100))
@settings(max_examples=30)
def test_a_row_does_not_see_its_neighbours(size: float, seed: int) -> None:
    model, _, bias = row_graph()
    graph = session(quantise_by_row(model))
    x = np.random.default_rng(seed).normal(size=(4, 8)).astype(np.float32)
    x[1] *= size
    x[2] = 0
    together = graph.run(["y"], {"x": x})[0]
    alone = np.concatenate([graph.run(["y"], {"x": row[None]})[0] for row in x])
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_allclose(together[2], bias, rtol=1e-6)


def test_rows_that_are_read_twice_are_quantised_once() -> None:
    model, weight, bias = row_graph(gathered=True)
    small = quantise_by_row(model)
    assert [node.op_type for node in small.graph.node].count("QuantizeLinear") == 1
    x, numbers = np.random.default_rng(2).normal(size=(4, 8)).astype(np.float32), np.array([3, 1])
    every, some = session(small).run(["y", "z"], {"x": x, "n": numbers})
    np.testing.assert_allclose(every, by_hand(x, weight, bias), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(some, by_hand(x[numbers], weight, 0.0), rtol=1e-4, atol=1e-5)


def test_a_graph_without_linear_layers_stays() -> None:
    values = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])
    graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "test", [values], [output])
    small = quantise_by_row(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9))
    assert [node.op_type for node in small.graph.node] == ["Abs"]
    assert not small.graph.initializer

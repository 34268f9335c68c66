"""The uint8 form of inputs: what is looked up in a table is rounded, and multiplied, once and beforehand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from cascade.runtime.backend import session_options
from cascade_export.int8.quantise import quantise_linears, quantise_tables
from cascade_export.int8.rewriting import Rewriting, int8_weight, linears
from cascade_export.packed.chain import session
from tests.models.graphs import operators

WIDTH, ROWS = 4, 6
TABLE = np.linspace(-2, 3, ROWS * WIDTH, dtype=np.float32).reshape(ROWS, WIDTH)
SPAN = np.repeat(np.array([[-1.5], [2.5]], np.float32), 2 * WIDTH, axis=1)
BIAS = np.array([0.5, -0.25, 3], np.float32)
SHAPE = np.array([-1, 2 * WIDTH], np.int64)


def graph_of(
    nodes: list[onnx.NodeProto], *, outputs: dict[str, list[str | int]], **constants: np.ndarray
) -> onnx.ModelProto:
    """A graph of `ids [rows, 2]`."""
    made = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["rows", 2])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def looking_up(*, others: bool = False) -> onnx.ModelProto:
    """Two rows of a table side by side, times a matrix; `others`: the rows themselves are an output, too."""
    weight = np.linspace(-1, 1, 2 * WIDTH * 3, dtype=np.float32).reshape(2 * WIDTH, 3)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Reshape", ["rows", "shape"], ["pairs"]),
        helper.make_node("MatMul", ["pairs", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["y"]),
    ]
    outputs: dict[str, list[str | int]] = {"y": ["rows", 3]}
    if others:
        nodes.append(helper.make_node("Identity", ["rows"], ["seen"]))
        outputs["seen"] = ["rows", 2, WIDTH]
    return graph_of(nodes, outputs=outputs, table=TABLE, weight=weight, bias=BIAS, shape=SHAPE)


def rounded(values: np.ndarray, low: float = -1.5, high: float = 2.5) -> np.ndarray:
    """What 8 bits keep, written out."""
    scale = np.float32((high - low) / 255)
    zero = np.rint(-low / scale)
    kept: np.ndarray = (np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale
    return kept


@given(st.lists(st.tuples(st.integers(0, ROWS - 1), st.integers(0, ROWS - 1)), min_size=1, max_size=5))
def test_products_of_a_rounded_table_are_looked_up(pairs: list[tuple[int, int]]) -> None:
    model = looking_up()
    small = quantise_linears(model, {"pairs": SPAN})
    assert operators(small) == ["QLinearMatMul", "Reshape", "Add", "Gather", "MatMulIntegerToFloat", "Squeeze"]
    assert small == quantise_linears(model, {"pairs": SPAN}, weight_bits=7), "8 bits cost no time here"
    ids = np.array(pairs, np.int64)
    (found,) = session(small).run(["y"], {"ids": ids})
    (layer,) = linears(model)
    numbers, scale = int8_weight(layer.weight, bits=8)
    products = rounded(TABLE) @ (numbers * scale).reshape(2, WIDTH, 3)
    step = np.abs(products).max() / 127
    first, second = np.rint(products / step) * step
    np.testing.assert_allclose(found, first[ids[:, 0]] + second[ids[:, 1]] + BIAS, atol=1e-4)


def test_products_are_made_when_a_graph_is_loaded(tmp_path: Path) -> None:
    """And are not in the file."""
    small = quantise_linears(looking_up(), {"pairs": SPAN})
    assert [list(tensor.dims) for tensor in small.graph.initializer].count([2 * ROWS, 3]) == 0
    options = session_options(1)
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(small.SerializeToString(), options, providers=["CPUExecutionProvider"])
    loaded = onnx.load(tmp_path / "loaded.onnx")
    assert operators(loaded) == ["Add", "Gather", "MatMulIntegerToFloat", "Squeeze"]
    assert [list(tensor.dims) for tensor in loaded.graph.initializer].count([2 * ROWS, 3]) == 1


def test_a_table_is_kept_once() -> None:
    small = quantise_tables(quantise_linears(looking_up(others=True), {"pairs": SPAN}))
    tables = [tensor for tensor in small.graph.initializer if list(tensor.dims) == [ROWS, WIDTH]]
    assert [tensor.data_type for tensor in tables] == [TensorProto.UINT8]
    ids = np.array([[0, 5], [3, 2]], np.int64)
    (seen,) = session(small).run(["seen"], {"ids": ids})
    np.testing.assert_allclose(seen, rounded(TABLE[ids]), atol=1e-6)


def test_with_smoothing_rows_are_looked_up_as_floats() -> None:
    smooth = operators(quantise_linears(looking_up(), {"pairs": SPAN}, smooth=True))
    assert smooth == ["Gather", "Reshape", "Mul", "QuantizeLinear", "MatMulIntegerToFloat"]


def other(kind: str) -> onnx.ModelProto:
    """A tensor `rows` that is not looked up in a table of floats, each in its way."""
    if kind == "no table":
        return graph_of([helper.make_node("Cast", ["ids"], ["rows"], to=1)], outputs={"rows": ["rows", 2]})
    axis = int(kind == "columns")
    table = {"columns": TABLE, "vector": TABLE[0], "doubles": TABLE.astype(np.float64)}[kind]
    nodes = [helper.make_node("Gather", ["table", "ids"], ["rows"], axis=axis)]
    return graph_of(nodes, outputs={"rows": ["rows", 2]}, table=table)


@pytest.mark.parametrize("kind", ["no table", "columns", "vector", "doubles"])
def test_what_is_no_lookup(kind: str) -> None:
    graph = Rewriting(other(kind))
    assert graph.copies("rows") == ("rows", [])
    assert graph.copies("ids") == ("ids", [])


def test_an_input_that_is_no_lookup_is_rounded() -> None:
    graph = Rewriting(other("no table"))
    (node,) = graph.rounded("rows", "x", SPAN)
    assert (node.op_type, node.output[0]) == ("QuantizeLinear", "x")
    assert sorted(graph.constants) == ["x_scale", "x_zero"]
    assert not graph.replaced

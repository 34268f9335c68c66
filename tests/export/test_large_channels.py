"""Where a few channels are much larger than all others, an int8 layer that narrows multiplies these in fp32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from cascade.core.rows import FloatArray, Units
from cascade.text.tokenizer import Tokenizer
from cascade.training.models.config import CLASSIFICATION
from cascade.training.task import BY_NAME as TASKS
from cascade_export.int8.quantise import quantise_linears
from cascade_export.int8.rewriting import Ranges, linears
from cascade_export.packed.chain import chain_logits, chain_ranges, session
from cascade_export.packed.stages import TierGraphs, export_tier2, pack
from cascade_export.texts import Sample
from cascade_export.tiers import export_tier1
from cascade_export.verify import random_exits
from tests.models import tiny
from tests.models.graphs import operators, padded_logits
from tests.models.tiny_tagging import words_of

LARGE = (5, 77)


def layer(shape: tuple[int, int], dims: Sequence[str]) -> onnx.ModelProto:
    """`y = x w + b`."""
    rng = np.random.default_rng(0)
    w, b = rng.normal(size=shape).astype(np.float32), rng.normal(size=shape[1]).astype(np.float32)
    made = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [*dims, shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [*dims, shape[1]])],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(b, "b")],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def inputs(*size: int) -> FloatArray:
    """Between -1 and 1, but for two channels that reach 100."""
    x = np.random.default_rng(1).uniform(-1, 1, size).astype(np.float32)
    x[..., LARGE] *= 100
    return x


def spans(x: FloatArray) -> dict[str, Ranges]:
    flat = x.reshape(-1, x.shape[-1])
    return {"x": np.stack((flat.min(axis=0), flat.max(axis=0)))}


@pytest.mark.parametrize("size", [(50, 192), (5, 10, 192)])
def test_large_channels_are_exact_and_spare_the_others(size: tuple[int, ...]) -> None:
    model, x = layer((192, 16), ["rows", "tokens"][: len(size) - 1]), inputs(*size)
    small = quantise_linears(model, spans(x), smooth=True)
    assert operators(small) == ["QuantizeLinear", "MatMulIntegerToFloat", "Gather", "MatMul", "Add"]
    fp32, plain, apart = map(session, (model, quantise_linears(model, spans(x)), small))

    def error(made: Any, given: FloatArray) -> float:
        (found,), (wanted,) = made.run(None, {"x": given}), fp32.run(None, {"x": given})
        return float(np.abs(found - wanted).max())

    assert 0 < error(apart, x) < error(plain, x) / 30
    only = np.zeros_like(x)
    only[..., LARGE] = 3 * x[..., LARGE]  # also outside of the ranges
    assert error(apart, only) < 1e-3
    assert error(plain, only) > 1


@pytest.mark.parametrize("shape", [(192, 192), (192, 300), (95, 16)])
def test_layers_that_do_not_narrow_are_smoothed(shape: tuple[int, int]) -> None:
    x = inputs(50, shape[0])
    small = quantise_linears(layer(shape, ["rows"]), spans(x), smooth=True)
    assert operators(small) == ["Mul", "QuantizeLinear", "MatMulIntegerToFloat"]


def test_an_input_that_any_layer_widens_is_smoothed_for_all() -> None:
    model, x = layer((192, 16), ["rows"]), inputs(50, 192)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((192, 200), np.float32), "v"))
    model.graph.node.append(helper.make_node("MatMul", ["x", "v"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["rows", 200]))
    found = operators(quantise_linears(model, spans(x), smooth=True))
    assert (found.count("Mul"), found.count("QuantizeLinear"), found.count("Gather")) == (1, 1, 0)


# ------------------------------------------------------------------------------------------------------- whole tiers


def planted(model: torch.nn.Module) -> Any:
    """The model, one channel of each FFN being about 1,000 for every token, with small weights."""
    with torch.no_grad():
        for name, values in model.named_parameters():
            if name.endswith("intermediate.dense.bias"):
                values[11] = 1000
            elif name.endswith("output.dense.weight") and values.shape == (48, 96):
                values[:, 11] /= 1000
    return model


@pytest.fixture(scope="module", params=["classifier", "tagger"])
def tier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[TierGraphs, Units]:
    """Its FFNs have 96 channels."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "tagger":
        return export_tier2(pack(planted(tiny.tagger(folder, width=48)))), words_of()
    units = Tokenizer(tiny.tokenizer(), max_length=64).encode(tiny.TEXTS).units
    return export_tier2(pack(planted(tiny.tier2(folder, width=48)))), units


def small(graphs: TierGraphs, units: Units, *, smooth: bool) -> TierGraphs:
    _, *found = chain_ranges(graphs, units)
    stages = zip(graphs.stages, found, strict=True)
    return replace(graphs, stages=tuple(quantise_linears(stage, own, smooth=smooth) for stage, own in stages))


def rms(found: FloatArray, wanted: FloatArray) -> float:
    return float(np.sqrt(np.nanmean(np.square(found - wanted))))


@pytest.mark.parametrize("leave", [False, True])
def test_a_planted_channel_costs_a_tier_little(tier: tuple[TierGraphs, Units], leave: bool) -> None:
    """With all units to the end, and with some that left before it."""
    graphs, units = tier
    tags = len(units) > units.n_rows
    exits = random_exits(units, 3) if leave and tags else None
    reference = chain_logits(graphs, units, exits=exits)
    plain, apart = (chain_logits(small(graphs, units, smooth=smooth), units, exits=exits) for smooth in (False, True))
    assert 0 < rms(apart, reference) < rms(plain, reference) / 3
    assert not linears(small(graphs, units, smooth=True).stages[0])[1:], "what is left is one product of large channels"


def test_answers_do_not_depend_on_batch_mates(tier: tuple[TierGraphs, Units]) -> None:
    graphs, units = tier
    made = small(graphs, units, smooth=True)
    together = chain_logits(made, units)
    for row in range(units.n_rows):
        part, own = Sample(units).part(np.array([row]))
        np.testing.assert_allclose(chain_logits(made, part), together[own], atol=1e-5)


def test_a_planted_channel_costs_a_padded_graph_little(tmp_path: Path) -> None:
    model = export_tier1(planted(tiny.tier1_transformer(tmp_path, width=48)), TASKS[CLASSIFICATION])
    units = Tokenizer(tiny.tokenizer(), max_length=64).encode(tiny.TEXTS).units
    (found,) = chain_ranges(TierGraphs(None, (model,), max_length=64), units)
    reference, plain, apart = (
        padded_logits(made, units, max_length=64)
        for made in (model, quantise_linears(model, found), quantise_linears(model, found, smooth=True))
    )
    assert 0 < rms(apart, reference) < rms(plain, reference) / 3

"""A bundle's second tier in every numeric form; a scale per row; ranges cut at a percentile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from cascade.bundle.opening import Bundle, open_bundle
from cascade.core.rows import FloatArray, Rows
from cascade.exceptions import BundleError, OptionError
from cascade.text.tokenizer import Tokenizer
from cascade_export import Calibration, ExportOptions, Int8, TagCalibration, export_bundle
from cascade_export.forms import write_forms
from cascade_export.forms_cli import main
from cascade_export.int8.linears import linears
from cascade_export.int8.quantise_rows import quantise_by_row
from cascade_export.packed.chain import ChainRanges, chain_logits, chain_ranges, session
from cascade_export.packed.graphs import TierTwoGraphs, export_tier2
from cascade_export.packed.stages import pack
from cascade_export.percentiles import Histogram, percentile_ranges
from tests.models import tiny, tiny_tagging

FORMS = ["fp32", "dynamic", "static", "smoothed", "percentile", "rows"]
TEXTS = Calibration(tiny.TEXTS)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> TierTwoGraphs:
    return export_tier2(pack(tiny.tier2(tmp_path_factory.mktemp("tier2"), width=32, depth=2)))


@pytest.fixture(scope="module")
def batch() -> Rows:
    return Tokenizer(tiny.tokenizer(), max_length=64).encode(tiny.TEXTS).units.rows


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints `tier2`, `tier1`, and the `bundle` of them; `tagger`, `tagger1` and `tags` of a tagger."""
    folder = tmp_path_factory.mktemp("made")
    tiny.tier2(folder / "tier2", depth=2)
    tiny.tier1_static(folder / "tier1")
    export_bundle(folder / "tier2", folder / "tier1", folder / "bundle")
    tiny.tagger(folder / "tagger", depth=2)
    tiny_tagging.tier1_static(folder / "tagger1")
    export_bundle(folder / "tagger", folder / "tagger1", folder / "tags")
    return folder


def graphs_of(bundle: Bundle) -> TierTwoGraphs:
    spec = bundle.manifest.tier2
    stages = tuple(onnx.load(bundle.path(stage.file)) for stage in spec.stages)
    return TierTwoGraphs(onnx.load(bundle.path(spec.embed)), stages)


def row_graph(rank: int = 2, *, gathered: bool = False) -> tuple[onnx.ModelProto, FloatArray, FloatArray]:
    """`y = x @ w + b`, of some rows of `x` also `z`; the weights and the bias."""
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(8, 3)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    constants = {"w": weight, "b": bias}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["xw"]), helper.make_node("Add", ["xw", "b"], ["y"])]
    axes = ["rows", "columns"][: rank - 1]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [*axes, 8])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [*axes, 3])]
    if gathered:
        nodes += [helper.make_node("Gather", ["x", "n"], ["some"]), helper.make_node("MatMul", ["some", "w"], ["z"])]
        inputs.append(helper.make_tensor_value_info("n", TensorProto.INT64, ["chosen"]))
        outputs.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["chosen", 3]))
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
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
@settings(max_examples=30, deadline=None)
def test_a_row_does_not_see_its_neighbours(size: float, seed: int) -> None:
    model, _, bias = row_graph()
    graph = session(quantise_by_row(model))
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4, 8)).astype(np.float32)
    x[1] *= size
    x[2] = 0
    together = graph.run(["y"], {"x": x})[0]
    alone = np.concatenate([graph.run(["y"], {"x": row[None]})[0] for row in x])
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_allclose(together[2], bias, rtol=1e-6)


def test_rows_that_are_looked_at_twice_are_quantised_once() -> None:
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
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    small = quantise_by_row(model)
    assert [node.op_type for node in small.graph.node] == ["Abs"]
    assert not small.graph.initializer


def test_a_histogram_by_hand() -> None:
    values = np.linspace(0, 100, 1000, endpoint=False, dtype=np.float32)
    found = Histogram.empty(0, 100, bins=1000).with_values(values[:400]).with_values(values[400:].reshape(6, 100))
    assert found.counts.sum() == 1000
    assert found.ends(98) == pytest.approx((1, 99), abs=0.11)
    assert found.ends(100) == (0, 100)
    skewed = Histogram(0, 4, np.array([1, 97, 1, 1]))
    assert skewed.ends(98) == (1, 3)
    assert skewed.ends(96) == (1, 2)


@given(st.lists(st.integers(0, 50), min_size=2, max_size=30).filter(any), st.floats(50.5, 100))
def test_a_percentile_keeps_its_share(counts: list[int], percentile: float) -> None:
    low, high = Histogram(0.0, float(len(counts)), np.array(counts)).ends(percentile)
    assert 0 <= low < high <= len(counts)
    assert sum(counts[round(low) : round(high)]) >= sum(counts) * percentile / 100 - 1e-6


def widths(ranges: ChainRanges) -> list[float]:
    return [float(own.high.max() - own.low.min()) for each in (ranges[0], *ranges[1]) for own in each.values()]


def test_ranges_are_cut_at_a_percentile(graphs: TierTwoGraphs, batch: Rows) -> None:
    ranges = chain_ranges(graphs, batch, position_offset=0)
    whole = percentile_ranges(graphs, batch, ranges, percentile=100, position_offset=0)
    assert widths(whole) == pytest.approx(widths(ranges), rel=1e-6)
    assert [list(each) for each in whole[1]] == [list(each) for each in ranges[1]]
    cut = percentile_ranges(graphs, batch, ranges, percentile=90, position_offset=0)
    assert all(narrow < wide for narrow, wide in zip(widths(cut), widths(ranges), strict=True))
    hidden = linears(graphs.stages[0])[0].input
    own = chain_ranges(graphs, batch, position_offset=0)[1][0][hidden]
    assert cut[1][0][hidden].low.min() > own.low.min()


@pytest.mark.parametrize("percentile", [50.0, 100.5, float("nan")])
def test_impossible_percentiles(graphs: TierTwoGraphs, batch: Rows, percentile: float) -> None:
    with pytest.raises(OptionError, match=r"percentile must be above 50 and at most 100, was: .*; 99\.99 is usual"):
        percentile_ranges(graphs, batch, ({}, []), percentile=percentile, position_offset=0)


def test_every_form_of_a_classifier(made: Path, tmp_path: Path) -> None:
    bundle, steps = open_bundle(made / "bundle"), list[str]()
    found = write_forms(bundle, made / "tier2", tmp_path, TEXTS, percentile=99, progress=steps.append)
    assert list(found) == FORMS
    assert steps == ["reading the checkpoint", "exporting", *(f"writing {form}" for form in FORMS)]
    batch = Tokenizer(tiny.tokenizer(), max_length=64).encode(tiny.TEXTS).units.rows
    opened = {form: open_bundle(folder) for form, folder in found.items()}
    logits = {form: chain_logits(graphs_of(own), batch, position_offset=0) for form, own in opened.items()}
    size = np.abs(logits["fp32"]).max()
    for form in FORMS[1:]:
        assert 0 < np.abs(logits[form] - logits["fp32"]).max() < 0.1 * size, form
        assert not any(linears(stage) for stage in graphs_of(opened[form]).stages)
    assert len({logits[form].tobytes() for form in FORMS}) == len(FORMS)
    for form, own in opened.items():
        assert {stage.precision for stage in own.manifest.tier2.stages} == {"fp32" if form == "fp32" else "int8"}
        first = bundle.manifest.tier1.file
        assert own.manifest.files[first] == bundle.manifest.files[first]
        assert [stage.temperature for stage in own.manifest.tier2.stages] == [
            stage.temperature for stage in bundle.manifest.tier2.stages
        ]


def test_static_is_what_the_exporter_ships(made: Path, tmp_path: Path) -> None:
    """On the same calibration texts, byte by byte."""
    export_bundle(made / "tier2", made / "tier1", tmp_path / "shipped", calibration=TEXTS)
    bundle = open_bundle(tmp_path / "shipped")
    found = write_forms(bundle, made / "tier2", tmp_path / "forms", TEXTS)
    for stage in bundle.manifest.tier2.stages:
        assert (found["static"] / stage.file).read_bytes() == bundle.path(stage.file).read_bytes()


def test_the_exporter_can_ship_a_scale_per_row(made: Path, tmp_path: Path) -> None:
    options = ExportOptions(int8=Int8.ROWS, agreement=0)
    shipped = export_bundle(made / "tier2", made / "tier1", tmp_path / "shipped", calibration=TEXTS, options=options)
    found = write_forms(shipped, made / "tier2", tmp_path / "forms", TEXTS)
    for stage in shipped.manifest.tier2.stages:
        assert (found["rows"] / stage.file).read_bytes() == shipped.path(stage.file).read_bytes()
    assert shipped.manifest.figures["int8"] == "rows"
    first = onnx.load(shipped.path(shipped.manifest.tier1.file))
    assert not linears(first)
    assert "ReduceMax" in [node.op_type for node in first.graph.node]


def test_every_form_of_a_tagger(made: Path, tmp_path: Path) -> None:
    sentences = TagCalibration(tiny_tagging.SENTENCES)
    found = write_forms(open_bundle(made / "tags"), made / "tagger", tmp_path, sentences, percentile=99.9)
    words = tiny_tagging.words_of()
    logits = {
        form: chain_logits(graphs_of(open_bundle(folder)), words, position_offset=0) for form, folder in found.items()
    }
    assert list(logits) == FORMS
    for form in FORMS[1:]:
        assert 0 < np.abs(logits[form] - logits["fp32"]).max() < 0.15 * np.abs(logits["fp32"]).max(), form


def test_another_checkpoint_is_refused(made: Path, tmp_path: Path) -> None:
    bundle = open_bundle(made / "bundle")
    tiny.tier2(tmp_path / "deeper", depth=3)
    with pytest.raises(BundleError, match=r"but they differ in layers with an exit: \[1, 2\] and \[1, 2, 3\]; give"):
        write_forms(bundle, tmp_path / "deeper", tmp_path / "out", TEXTS)
    tiny.tier2(tmp_path / "others", depth=2, width=32, labels=("no", "yes"))
    with pytest.raises(BundleError, match=r"differ in labels: .*\['no', 'yes'\]; width: 16 and 32; give"):
        write_forms(bundle, tmp_path / "others", tmp_path / "out", TEXTS)
    tiny.tier2(tmp_path / "seed", depth=2, seed=9)
    with pytest.raises(BundleError, match="but their last heads differ; give the checkpoint that"):
        write_forms(bundle, tmp_path / "seed", tmp_path / "out", TEXTS)
    assert not (tmp_path / "out").exists()


def test_the_command(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "words.jsonl"
    file.write_text('{"words": ["a", "film"]}\n{"words": ["good"]}\n')
    arguments = [made / "tags", made / "tagger", file, tmp_path / "out"]
    with pytest.raises(SystemExit) as end:
        main([*map(str, arguments), "--tokens-column", "words"])
    said = capsys.readouterr()
    assert end.value.code == 0, said.err
    assert said.out.splitlines()[0] == "reading the checkpoint"
    assert sorted(folder.name for folder in (tmp_path / "out").iterdir()) == sorted(FORMS)


def test_the_command_refuses_in_one_line(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([str(made / "bundle"), str(made / "tier2"), str(tmp_path / "none.jsonl"), str(tmp_path / "out")])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("Error: ")
    assert "none.jsonl" in said
    assert said.count("\n") == 1

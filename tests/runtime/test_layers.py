"""Layers by our own kernels, against the same stage in ONNX Runtime."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.engine.packing import ACTIVE_FEEDS, FEEDS, Actives, Packing
from cascade.exceptions import BundleError, OptionError
from cascade.runtime import kernels as kernels_room
from cascade.runtime.backend import PASSING, Array, OnnxBackend
from cascade.runtime.graph import Graph
from cascade.runtime.kernels import KINDS, SATURATES, VARIABLE
from cascade.runtime.layers import Layers, StageBackend
from cascade_export.packed.stages import TierGraphs, export_tier2, pack
from tests.models import tiny
from tests.models.graphs import quantised
from tests.models.tiny_tagging import random_words

WIDTH, HEADS = 64, 2
FOUND = kernels_room.library()
CAN = [number for number in range(1, len(KINDS)) if FOUND is not None and FOUND.cascade_can(number)]
HERE = max(CAN, default=0)
KERNELS = [
    pytest.param(name, marks=pytest.mark.skipif(number not in CAN, reason="not built, or this CPU cannot run it"))
    for number, name in enumerate(KINDS)
    if number
]
OURS = ("bert", "roberta", "electra", "distilbert", "mpnet", "albert")
LENGTHS = np.array([3, 1, 17, 40, 16, 2])
LONG = np.array([60, 300, 7, 128, 129])


def stage_file(
    folder: Path, family: str = "bert", *, form: str = "mean", number: int = 0, width: int = WIDTH, bits: int = 8
) -> Path:
    """One int8 stage of a tiny tier with exits after layers 1 and 3. `form`: its pooling, or `words`."""
    if form == "words":
        graphs = export_tier2(pack(tiny.tagger(folder, family, layers=(1, 3), width=width)))
    else:
        graphs = export_tier2(pack(tiny.tier2(folder, family, layers=(1, 3), pooling=form, width=width)))
    words = random_words([5, 3, 9, 1], seed=2)
    units = words if form == "words" else replace(words, **vars(type(words).whole(words.rows)))
    made: TierGraphs = quantised(graphs, units, weight_bits=bits).graphs
    file = folder / f"{family}-{form}-{number}-{bits}.onnx"
    file.write_bytes(made.stages[number].SerializeToString())
    return file


def both(file: Path, threads: int = 1) -> tuple[StageBackend, OnnxBackend]:
    """The stage by our kernels, and by ONNX Runtime."""
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    return StageBackend(file, threads, sha256), OnnxBackend(file, threads, sha256)


def feeds(
    lengths: Sequence[int] | npt.NDArray[np.int64], *, active: Array | None = None, seed: int = 0
) -> dict[str, Array]:
    """What a stage may read: of a tagger's, where these tokens are active."""
    grid = Packing.of(np.asarray(lengths, dtype=np.int64), heads=HEADS)
    tokens = int(grid.lengths.sum())
    found = {name: grid.array(name) for name in FEEDS if not name.startswith("local_")}
    found["hidden"] = np.random.default_rng(seed).normal(size=(tokens, WIDTH)).astype(np.float32)
    if active is not None:
        own = grid
        if len(active) < tokens:
            counts = np.bincount(np.repeat(np.arange(len(grid.lengths)), grid.lengths)[active], minlength=len(lengths))
            own = Packing.of(counts, heads=HEADS)
        actives = Actives(grid, own, active)
        found |= {name: actives.array(name) for name in ACTIVE_FEEDS if "local_" not in name and "placed" not in name}
        found["words"] = np.arange(0, len(active), 2)
    return found


def assert_near(made: dict[str, Array], expected: dict[str, Array]) -> None:
    """Equal but for float noise, which moves a rounding of int8 here and there."""
    assert made.keys() == expected.keys()
    for name, array in expected.items():
        apart = np.abs(made[name] - array)
        assert made[name].shape == array.shape
        assert apart.mean() < 1e-2, name
        assert apart.max() < 0.2, name


@pytest.fixture(params=KERNELS)
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each kind that this CPU can run, in use."""
    monkeypatch.setenv(VARIABLE, request.param)
    return str(request.param)


def bits(kernels: str) -> int:
    return 7 if kernels in SATURATES else 8


@pytest.mark.parametrize("family", OURS)
@pytest.mark.parametrize("form", ["mean", "first"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_stage_is_as_in_onnx_runtime(tmp_path: Path, kernels: str, family: str, form: str, number: int) -> None:
    file = stage_file(tmp_path, family, form=form, number=number, bits=bits(kernels))
    ours, theirs = both(file)
    assert ours.kind == kernels
    assert ours.outputs == theirs.outputs
    for lengths in (LENGTHS, LONG, [1], [33]):
        given_ = feeds(lengths)
        assert_near(ours.run({name: given_[name] for name in ours.inputs}), theirs.run(given_))


@pytest.mark.parametrize("family", ["bert", "mpnet"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_taggers_stage_with_some_words_gone(tmp_path: Path, kernels: str, family: str, number: int) -> None:
    ours, theirs = both(stage_file(tmp_path, family, form="words", number=number, bits=bits(kernels)))
    assert ours.kind == kernels
    rng = np.random.default_rng(1)
    for lengths in (LENGTHS, LONG):
        starts, tokens = np.cumsum(lengths) - lengths, int(lengths.sum())
        some = np.union1d(rng.choice(tokens, tokens // 3, replace=False), starts)
        for active in (np.arange(tokens), some, starts):
            given_ = feeds(lengths, active=active)
            before = given_["hidden"].copy()
            assert_near(ours.run({name: given_[name] for name in ours.inputs}), theirs.run(given_))
            np.testing.assert_array_equal(given_["hidden"], before)


def test_rows_do_not_depend_on_their_neighbours_nor_on_threads(tmp_path: Path, kernels: str) -> None:
    file = stage_file(tmp_path, "mpnet", bits=bits(kernels))
    alone, _ = both(file)
    given_ = feeds(LONG)
    whole = alone.run(given_)
    for threads in (2, 3, 8):
        for name, array in both(file, threads)[0].run(given_).items():
            np.testing.assert_array_equal(array, whole[name])
    for row, start in enumerate(np.cumsum(LONG) - LONG):
        own = feeds([LONG[row]]) | {"hidden": given_["hidden"][start : start + LONG[row]]}
        made = alone.run(own)
        np.testing.assert_array_equal(made["hidden_out"], whole["hidden_out"][start : start + LONG[row]])


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> tuple[StageBackend, OnnxBackend]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, KINDS[HERE])
        return both(stage_file(tmp_path_factory.mktemp("tagger"), form="words", bits=7))


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), min_size=1, max_size=9), st.integers(0, 99))
def test_any_rows_and_any_active_tokens(
    tagger: tuple[StageBackend, OnnxBackend], rows: list[tuple[int, int]], seed: int
) -> None:
    lengths = np.array([length for length, _ in rows])
    starts, rng = np.cumsum(lengths) - lengths, np.random.default_rng(seed)
    asking = [start + rng.permutation(length)[:some] for start, (length, some) in zip(starts, rows, strict=True)]
    given_ = feeds(lengths, active=np.sort(np.concatenate(asking)), seed=seed)
    ours, theirs = (graph.run(given_) for graph in tagger)
    assert_near(ours, theirs)


def test_numbers_that_are_none_stay_none(tmp_path: Path, kernels: str) -> None:
    ours, _ = both(stage_file(tmp_path, bits=bits(kernels)))
    given_ = feeds(LENGTHS)
    given_["hidden"][4, 5] = np.nan
    made = ours.run(given_)["hidden_out"]
    assert np.isnan(made[4]).all()
    assert np.isfinite(np.delete(made, np.s_[4:21], axis=0)).all()


def test_logits_are_made_where_they_are_read(tmp_path: Path, kernels: str) -> None:
    ours, _ = both(stage_file(tmp_path, bits=bits(kernels)))
    assert set(ours.run(feeds(LENGTHS), PASSING)) == {"hidden_out"}


def test_a_closed_stage_is_made_again_of_the_same_file(tmp_path: Path, kernels: str) -> None:
    file = stage_file(tmp_path, bits=bits(kernels))
    ours, _ = both(file)
    before = ours.run(feeds(LENGTHS))
    ours.close()
    np.testing.assert_array_equal(ours.run(feeds(LENGTHS))["logits"], before["logits"])
    ours.close()
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(BundleError, match="must stay as it was"):
        ours.run(feeds(LENGTHS))


@pytest.mark.parametrize(
    ("family", "options"),
    [("deberta-v2", {}), ("modernbert", {}), ("bert", {"width": 16}), ("bert", {"bits": 8})],
)
def test_other_stages_are_left_to_onnx_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, options: dict[str, Any]
) -> None:
    monkeypatch.setenv(VARIABLE, "avx2" if "bits" in options else KINDS[-1])
    ours, theirs = both(stage_file(tmp_path, family, **options))
    assert (ours.kind, ours.inputs) == (KINDS[0], theirs.inputs)


def test_a_stage_in_fp32_is_left_to_onnx_runtime(tmp_path: Path) -> None:
    (tmp_path / "stage.onnx").write_bytes(
        export_tier2(pack(tiny.tier2(tmp_path, width=WIDTH))).stages[0].SerializeToString()
    )
    ours, _ = both(tmp_path / "stage.onnx")
    assert ours.kind == KINDS[0]
    ours.run(feeds(LENGTHS))


def test_kernels_are_chosen_by_cpu_and_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = stage_file(tmp_path)
    monkeypatch.setenv(VARIABLE, "onnxruntime")
    assert both(file)[0].kind == "onnxruntime"
    monkeypatch.setenv(VARIABLE, "sse2")
    with pytest.raises(OptionError, match=r"CASCADE_KERNELS must be one of onnxruntime, .*, got 'sse2'; unset it"):
        kernels_room.kind()
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(kernels_room, "cpu_info", lambda _name: "sse2 amx_int8")
    assert kernels_room.kind() == 0
    monkeypatch.setattr(kernels_room, "cpu_info", lambda _name: "sse2")
    assert kernels_room.kind() == HERE
    lesser = SimpleNamespace(cascade_can=lambda number: number in (1, 2, 4))  # AVX512-VNNI without AVX-VNNI
    monkeypatch.setattr(kernels_room, "library", lambda: lesser)
    assert kernels_room.kind() == 4
    monkeypatch.setenv(VARIABLE, "avx_vnni")
    assert kernels_room.kind() == 2
    monkeypatch.delenv(VARIABLE)
    assert kernels_room.in_words() == "by kernels for avx512_vnni, where they know the layer"
    monkeypatch.setenv(VARIABLE, "onnxruntime")
    assert kernels_room.in_words() == "by ONNX Runtime, for AMX or by CASCADE_KERNELS"
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(kernels_room, "library", lambda: None)
    assert kernels_room.kind() == 0
    assert kernels_room.in_words().startswith("by ONNX Runtime: no kernels for this CPU")
    assert both(file)[0].kind == "onnxruntime"


def test_a_library_of_other_sources_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if not HERE:
        pytest.skip("not built, or this CPU cannot run it")
    monkeypatch.setattr(kernels_room, "_INTERFACE", 0)
    assert kernels_room.library.__wrapped__() is None
    assert "was built from other sources and is not used; install cascade again" in caplog.text


def test_states_of_another_shape_are_refused(tmp_path: Path, kernels: str) -> None:
    ours, _ = both(stage_file(tmp_path, bits=bits(kernels)))
    given_ = feeds(LENGTHS)
    for hidden in (given_["hidden"][:-1], given_["hidden"][:, :-1], given_["hidden"][0]):
        with pytest.raises(
            BundleError, match=r"must take what its bundle feeds it, but: states must have shape \(79, 64"
        ):
            ours.run(given_ | {"hidden": hidden})


def _altered(model: onnx.ModelProto, name: str, change: Callable[[Any], Any]) -> Graph:
    """The graph with a constant or an input's axis changed."""
    made = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in made.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(onnx.numpy_helper.from_array(change(onnx.numpy_helper.to_array(tensor)), name))
    for value in made.graph.input:
        if value.name == name:
            value.type.tensor_type.shape.dim[1].dim_value = change(value.type.tensor_type.shape.dim[1].dim_value)
    return Graph.of(made.SerializeToString())


def test_graphs_whose_sizes_do_not_agree_are_refused(tmp_path: Path) -> None:
    model = onnx.load(stage_file(tmp_path, "mpnet"))
    (table,) = (node.input[0] for node in model.graph.node if "buckets" in node.input)
    shorter = {
        name: (lambda array: array[:-1]) for name in ("int8_0_bias", "int8_4_weight", "int8_1_weight_scale", table)
    }
    changes: dict[str, Callable[[Any], Any]] = {
        **shorter,
        "head_gather": lambda _: 3,
        "int8_5_weight": lambda w: w[:, :-1],
    }
    Layers.of(_altered(model, "head_gather", lambda heads: heads), 4)
    for name, change in changes.items():
        with pytest.raises((ValueError, LookupError)):
            Layers.of(_altered(model, name, change), 4)


def test_a_choice_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = stage_file(tmp_path, bits=7)
    for first, then in ((KINDS[0], KINDS[-1]), (KINDS[-1], KINDS[0])):
        monkeypatch.setenv(VARIABLE, first)
        ours, theirs = both(file, 2)
        monkeypatch.setenv(VARIABLE, then)
        assert_near(ours.run(feeds(LENGTHS)), theirs.run(feeds(LENGTHS)))
        ours.close()
        assert_near(ours.run(feeds(LENGTHS)), theirs.run(feeds(LENGTHS)))


def test_a_graph_is_read_as_onnx_reads_it(tmp_path: Path) -> None:
    file = stage_file(tmp_path, "mpnet", form="first", number=1)
    model, found = onnx.load(file), Graph.of(file.read_bytes())
    assert [(node.kind, node.inputs, node.outputs) for node in found.nodes] == [
        (node.op_type, list(node.input), list(node.output)) for node in model.graph.node
    ]
    assert list(found.inputs) == [value.name for value in model.graph.input]
    assert found.outputs == [value.name for value in model.graph.output]
    assert found.inputs["head_gather"] == (0, HEADS, 0)
    for tensor in model.graph.initializer:
        np.testing.assert_array_equal(found.constants[tensor.name], onnx.numpy_helper.to_array(tensor))
    known = Layers.of(found, 4)
    rest = onnx.load_from_string(found.after(known.made, known.width, ["logits"]))
    onnx.checker.check_model(rest)
    assert [value.name for value in rest.graph.input] == [known.made]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return stage_file(tmp_path_factory.mktemp("content")).read_bytes()


@given(st.data())
def test_of_broken_files_nothing_is_made(content: bytes, data: st.DataObject) -> None:
    broken = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = Graph.of(bytes(broken[: data.draw(st.integers(len(content) // 2, len(content)))]))
        Layers.of(found, 4)
    except (ValueError, LookupError, TypeError):
        pass

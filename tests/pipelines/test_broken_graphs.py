"""Graphs that are not what their bundle says, with the right hashes: refused at load, in one line."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

import cascade
from cascade.bundle.manifest import MANIFEST_FILE
from cascade.exceptions import BundleError
from tests.pipelines.conftest import Pipeline

FIRST, EMBED, LAST = "onnx/model.onnx", "tier2/embed.onnx", "tier2/stage_02.onnx"


def repaired(folder: Path, file: str, content: bytes) -> None:
    """Write a file of a bundle, and its hash."""
    (folder / file).write_bytes(content)
    manifest = folder / MANIFEST_FILE
    raw = json.loads(manifest.read_text(encoding="utf-8"))
    raw["files"][file] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    manifest.write_text(json.dumps(raw), encoding="utf-8")


def weight(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    (found,) = (one for one in model.graph.initializer if one.name == name)
    found.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(found)), name))


def typed(model: onnx.ModelProto, name: str, kind: int) -> None:
    (found,) = (one for one in model.graph.input if one.name == name)
    found.type.tensor_type.elem_type = kind


def fixed(model: onnx.ModelProto) -> None:
    for one in model.graph.input:
        one.type.tensor_type.shape.dim[0].dim_value = 1


BROKEN: list[tuple[str, Callable[[onnx.ModelProto], object]]] = [
    (FIRST, lambda model: weight(model, "head", lambda head: head[:, :-1])),
    (FIRST, lambda model: weight(model, "head", lambda head: head * np.float32("nan"))),
    (FIRST, lambda model: weight(model, "table", lambda table: table[:, :-1])),
    (FIRST, lambda model: typed(model, "attention_mask", TensorProto.BOOL)),
    (FIRST, fixed),
    (EMBED, lambda model: typed(model, "position_ids", TensorProto.INT32)),
    (EMBED, lambda model: weight(model, "places", lambda places: places[:-1])),
    (LAST, lambda model: weight(model, "head", lambda head: head[:, :-1])),
    (LAST, lambda model: weight(model, "head", lambda head: head * np.float32("inf"))),
]


@pytest.mark.parametrize(("file", "change"), BROKEN)
def test_a_graph_that_its_manifest_contradicts(
    loaded: Pipeline,
    tmp_path: Path,
    file: str,
    change: Callable[[onnx.ModelProto], object],
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "odd"
    shutil.copytree(loaded.bundle.folder, folder)
    model = onnx.load(folder / file)
    change(model)
    repaired(folder, file, model.SerializeToString())
    with pytest.raises(BundleError, match=r"must be those of its graphs, but|must be an ONNX graph that") as caught:
        cascade.load(folder, threads=2)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("seed", range(40))
def test_damaged_graphs_load_or_are_refused(
    loaded: Pipeline, tmp_path: Path, seed: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """Flipped bytes; ONNX Runtime says nothing of its own."""
    rng = np.random.default_rng(seed)
    folder, file = tmp_path / "odd", (FIRST, EMBED, LAST)[seed % 3]
    shutil.copytree(loaded.bundle.folder, folder)
    content = bytearray((folder / file).read_bytes())
    for place in rng.integers(0, len(content), 3):
        content[place] = rng.integers(0, 256)
    repaired(folder, file, bytes(content))
    try:
        cascade.load(folder, threads=1).close()
    except BundleError as error:
        assert "\n" not in str(error)  # noqa: PT017
    assert capfd.readouterr().out == ""

"""The packed ONNX chain answers as the torch model does, for every family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from cascade.exceptions import OptionError
from cascade.training.multi_exit import MultiExitModel
from cascade_export.graphs import TierTwoGraphs, export_tier2
from cascade_export.stages import PackedModel, pack
from tests import tiny

# Ragged; with rows of one body token, and a row of nothing but special tokens.
BATCHES = {
    "ragged": [[2, 9, 11, 3], [2, 20, 3], [2, *range(130, 160), 3], [2, 3], [2, 140, 141, 142, 3]],
    "single": [[2, 100, 120, 140, 3]],
    "one token": [[2, 130, 3]],
    "equal": [[2, 7, 8, 3], [2, 9, 10, 3]],
}


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run_chain(graphs: TierTwoGraphs, packed: PackedModel, rows: list[list[int]]) -> np.ndarray:
    """Logits `(rows, exits, labels)`; the index arithmetic spelled out with loops, as a reference."""
    longest = max(map(len, rows))
    gather, mask = np.zeros((len(rows), longest), np.int64), np.zeros((len(rows), longest), bool)
    scatter: list[int] = []
    for i, row in enumerate(rows):
        gather[i, : len(row)] = len(scatter) + np.arange(len(row))
        mask[i, : len(row)] = True
        scatter += [i * longest + column for column in range(len(row))]
    positions = np.concatenate([np.arange(len(row)) for row in rows]) + packed.position_offset
    feeds = {"input_ids": np.concatenate(rows).astype(np.int64), "position_ids": positions.astype(np.int64)}
    if packed.takes_types:
        feeds["token_type_ids"] = np.zeros_like(feeds["input_ids"])
    (hidden,) = session(graphs.embed).run(["hidden"], feeds)
    index = {"gather": gather, "mask": mask, "scatter": np.array(scatter)}
    logits = []
    for stage in graphs.stages:
        hidden, found = session(stage).run(["hidden_out", "logits"], {"hidden": hidden, **index})
        logits.append(found)
    return np.stack(logits, axis=1)


def run_torch(model: MultiExitModel, rows: list[list[int]]) -> np.ndarray:
    longest = max(map(len, rows))
    pad = model.config.pad_token_id
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    with torch.no_grad():
        logits: np.ndarray = model(ids, mask)["logits"].numpy()
    return logits


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_packed_chain_equals_torch_at_every_exit(tmp_path: Path, family: str, pooling: str) -> None:
    model = tiny.tier2(tmp_path, family, pooling=pooling)
    packed = pack(model)
    graphs = export_tier2(packed)
    for rows in BATCHES.values():
        expected = run_torch(model, rows)
        np.testing.assert_allclose(run_chain(graphs, packed, rows), expected, atol=1e-5, rtol=0)
    assert len(graphs.stages) == 3
    assert packed.max_length == 64
    assert (packed.position_offset == 2) == (family == "roberta")
    assert packed.takes_types == (family in ("bert", "electra", "albert"))


def test_stage_boundaries_are_the_exits_layers(tmp_path: Path) -> None:
    model = tiny.tier2(tmp_path, layers=(2, 3))
    packed = pack(model)
    assert packed.layers == (2, 3)
    assert [len(stage.layers) for stage in packed.stages] == [2, 1]
    rows = BATCHES["ragged"]
    np.testing.assert_allclose(run_chain(export_tier2(packed), packed, rows), run_torch(model, rows), atol=1e-5)


def test_token_types_reach_the_embedding(tmp_path: Path) -> None:
    model = tiny.tier2(tmp_path)
    packed = pack(model)
    ids, types = torch.tensor([2, 9, 3, 10, 3]), torch.tensor([0, 0, 0, 1, 1])
    got = session(export_tier2(packed).embed).run(
        None, {"input_ids": ids.numpy(), "token_type_ids": types.numpy(), "position_ids": np.arange(5)}
    )[0]
    with torch.no_grad():
        embeddings: Any = model.backbone.embeddings
        expected = embeddings(input_ids=ids[None], token_type_ids=types[None])[0]
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_the_graph_is_small(tmp_path: Path) -> None:
    stage = export_tier2(pack(tiny.tier2(tmp_path))).stages[0]
    operators = [node.op_type for node in stage.graph.node if node.op_type not in ("Constant", "Identity")]
    assert operators.count("Gather") == 6, "three for attention, one back, one for pooling, one of a shape"
    assert operators.count("Gelu") == operators.count("Softmax") == 1
    assert operators.count("LayerNormalization") == 2
    assert operators.count("Transpose") == 1, "of the keys, which the product itself does"
    assert operators.count("Shape") == 1, "the longest row of the grid of queries"
    assert len(operators) < 60


def test_packing_leaves_the_model_alone(tmp_path: Path) -> None:
    model = tiny.tier2(tmp_path)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pack(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_unknown_family_names_the_supported_ones(tmp_path: Path) -> None:
    model = tiny.tier2(tmp_path)
    model.config.model_type = "deberta"
    with pytest.raises(OptionError, match="must be one of bert, roberta, electra, distilbert, albert, was: deberta"):
        pack(model)


def test_relative_positions_are_refused(tmp_path: Path) -> None:
    model = tiny.tier2(tmp_path)
    model.config.position_embedding_type = "relative_key"
    with pytest.raises(OptionError, match="position_embedding_type must be absolute, was: relative_key"):
        pack(model)


def test_nested_albert_groups_are_refused(tmp_path: Path) -> None:
    model = tiny.tier2(tmp_path, "albert")
    model.config.inner_group_num = 2
    with pytest.raises(OptionError, match="inner_group_num must be 1, was: 2"):
        pack(model)

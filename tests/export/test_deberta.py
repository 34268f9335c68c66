"""DeBERTa-v2 and -v3 in packed form: tokens near and far, against transformers' padded model."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DebertaV2Config
from transformers.models.deberta_v2.modeling_deberta_v2 import build_relative_position

from cascade.core.rows import Rows, Units, offsets_of
from cascade.engine.packing import FEEDS, Packing
from cascade.exceptions import OptionError
from cascade.training.models.multi_exit import MultiExitModel, MultiExitTagger
from cascade_export.packed.chain import chain_logits
from cascade_export.packed.deberta import rows_of
from cascade_export.packed.stages import export_tier2, pack
from cascade_export.verify import random_exits, torch_logits
from tests.export.test_stages import run_stage
from tests.export.test_tag_stages import agree
from tests.models import tiny, tiny_tagging
from tests.models.graphs import operators, quantised

LENGTHS = (1, 200, 2, 40, 131, 1)


def config(width: int = 16, **changes: Any) -> DebertaV2Config:
    """As DeBERTa-v3's, but narrow: near distances reach to 128, all of them to 511."""
    made: Any = tiny.config("deberta-v2", width=width)
    for name, value in ({"position_buckets": 256, "max_position_embeddings": 512} | changes).items():
        setattr(made, name, value)
    return tiny.named(made, tiny.LABELS, tiny.SINGLE)


def long_rows(lengths: tuple[int, ...] = LENGTHS) -> Rows:
    ids = np.random.default_rng(0).integers(5, 100, sum(lengths))
    return Rows(ids, np.zeros_like(ids), offsets_of(np.array(lengths)))


def made(kind: Any, folder: Path, **changes: Any) -> Any:
    torch.manual_seed(1)
    return tiny.kept(kind(tiny.encoder(config(**changes))), folder)


@pytest.mark.parametrize(
    ("buckets", "most", "positions"), [(256, -1, 512), (16, -1, 64), (8, 100, 64), (32, 40, 64), (-1, -1, 64)]
)
def test_rows_of_distances_are_those_of_transformers(buckets: int, most: int, positions: int) -> None:
    """All distances, those that fall on the edge of a bucket and those beyond the table among them."""
    given = config(position_buckets=buckets, max_relative_positions=most, max_position_embeddings=positions)
    most = positions if most < 0 else most
    span, tokens = most if buckets < 0 else buckets, torch.zeros(1, positions, 1)
    wanted = build_relative_position(tokens, tokens, bucket_size=buckets, max_position=most)[0]
    columns = torch.arange(positions)
    found = rows_of(columns[:, None] - columns, given)
    torch.testing.assert_close(found, (wanted + span).clamp(0, 2 * span - 1))


def test_every_stage_is_transformers_layer(tmp_path: Path) -> None:
    """Rows of 1 to 200 tokens, so that distances fall into shared rows of the table."""
    model = made(MultiExitModel, tmp_path)
    stages, rows = export_tier2(pack(model)).stages, long_rows()
    packing = Packing.of(rows.lengths, heads=2)
    ids = torch.from_numpy(np.where(packing.mask, rows.ids[packing.array("gather")], 0))
    mask = torch.from_numpy(packing.mask)
    with torch.inference_mode():
        states = [state[mask].numpy() for state in model.backbone(ids, mask, output_hidden_states=True).hidden_states]
    for stage, before, after in zip(stages, states[:-1], states[1:], strict=True):
        hidden, _ = run_stage(stage, {"hidden": before, **packing.feeds(FEEDS)})
        np.testing.assert_allclose(hidden, after, atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"position_biased_input": True, "type_vocab_size": 1},
        {"norm_rel_ebd": "none", "position_buckets": -1, "max_relative_positions": 150},
    ],
)
def test_texts_leave_early(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Also where positions count in the embeddings as well, or every distance has a row, but for those beyond 150."""
    model, units = made(MultiExitModel, tmp_path, **changes), Units.whole(long_rows())
    exits = random_exits(units, 3)
    found = chain_logits(export_tier2(pack(model)), units, exits=exits)
    inside = exits[:, None] >= np.arange(3)
    assert 0 < np.isnan(found[..., 0]).sum() == (~inside).sum()
    np.testing.assert_allclose(found[inside], torch_logits(model, units)[inside], atol=2e-5, rtol=0)


def test_words_of_long_sentences_leave_early(tmp_path: Path) -> None:
    model = made(MultiExitTagger, tmp_path)
    words = tiny_tagging.random_words([90, 1, 0, 3, 70], seed=2)
    packed = pack(model)
    graphs = export_tier2(packed)
    agree((model, packed, graphs), words, None)
    agree((model, packed, graphs), words, random_exits(words, 3))


def test_the_grid_of_a_longer_neighbour_changes_nothing(tmp_path: Path) -> None:
    graphs, rows = export_tier2(pack(made(MultiExitModel, tmp_path))), long_rows()
    together = chain_logits(graphs, Units.whole(rows))
    for number in range(len(rows)):
        alone = chain_logits(graphs, Units.whole(rows.select(np.array([number]))))
        np.testing.assert_allclose(alone[0], together[number], atol=1e-5, rtol=0)


def test_the_graph_computes_no_sizes(tmp_path: Path) -> None:
    found = Counter(operators(export_tier2(pack(made(MultiExitModel, tmp_path))).stages[0]))
    assert found["MatMul"] == 2 + 2 + 1, "attention, distances seen from queries and from keys, mean pooling"
    assert found["Slice"] == found["Split"] * 4 == 4
    assert found["Gather"] == 6 + 4, "as in BERT; rows of both tables, and vectors"
    assert not {"Shape", "Concat", "Unsqueeze", "GatherElements", "Expand", "Where"} & set(found)


def test_vectors_of_distances_stay_fp32(tmp_path: Path) -> None:
    graphs, units = export_tier2(pack(made(MultiExitModel, tmp_path, width=32))), Units.whole(long_rows())
    reference = chain_logits(graphs, units)
    small = quantised(graphs, units).graphs
    assert operators(small.stages[0]).count("MatMulIntegerToFloat") == 8, "the layer's six, and two of the head"
    assert [t for t in small.stages[0].graph.initializer if list(t.dims) == [2, 512, 16]]
    assert 0 < np.abs(chain_logits(small, units) - reference).max() < 0.1 * np.abs(reference).max()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("relative_attention", False),
        ("share_att_key", False),
        ("pos_att_type", ["c2p"]),
        ("pos_att_type", None),
        ("conv_kernel_size", 3),
        ("embedding_size", 8),
        ("attention_head_size", 4),
        ("pooler_hidden_size", 8),
    ],
)
def test_other_configurations_are_refused_before_training(tmp_path: Path, field: str, value: object) -> None:
    given = config()
    setattr(given, field, value)
    given.save_pretrained(tmp_path)  # refused by its configuration alone: there are no weights
    with pytest.raises(OptionError, match=f"deberta-v2's {field} must be .*, got .*; any other encoder gets in as"):
        MultiExitModel.from_checkpoint(tmp_path, labels=["a", "b"])

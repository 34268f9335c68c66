"""MPNet in packed form: tokens near and far, against transformers' padded model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cascade.core.rows import Rows, Units, offsets_of
from cascade.engine.multi_exit import MultiExit
from cascade.engine.packing import FEEDS, Packing
from cascade.policies.exits import MaxProbability
from cascade.runtime.backend import FunctionBackend
from cascade.training.models.multi_exit import MultiExitModel, MultiExitTagger
from cascade_export.packed.chain import chain_logits, session
from cascade_export.packed.stages import TierGraphs, export_tier2, pack
from cascade_export.verify import random_exits, torch_logits
from tests.export.test_stages import run_stage
from tests.export.test_tag_stages import agree
from tests.models import tiny, tiny_tagging
from tests.models.batching import FixedSize
from tests.models.graphs import operators, quantised

LENGTHS = (1, 200, 2, 40, 131, 1, 5, 5)


def made(kind: Any, folder: Path, *, far: float = 0.0, width: int = 16) -> Any:
    """A model whose rows may have 300 tokens; `far` is added to the learned numbers of the farthest distance."""
    torch.manual_seed(1)
    config = tiny.named(tiny.config("mpnet", width=width), tiny.LABELS, tiny.SINGLE)
    config.max_position_embeddings = 302
    model = tiny.kept(kind(tiny.encoder(config)), folder)
    with torch.no_grad():
        model.backbone.encoder.relative_attention_bias.weight.uniform_(-3, 3)[31].add_(far)
    return model


def units_of(lengths: tuple[int, ...] = LENGTHS) -> Units:
    ids = np.random.default_rng(0).integers(5, 100, sum(lengths))
    return Units.whole(Rows(ids, np.zeros_like(ids), offsets_of(np.array(lengths))))


def test_every_stage_is_transformers_layer(tmp_path: Path) -> None:
    model, rows = made(MultiExitModel, tmp_path), units_of().rows
    packing = Packing.of(rows.lengths, heads=2)
    ids = torch.from_numpy(np.where(packing.mask, rows.ids[packing.array("gather")], 1))
    mask = torch.from_numpy(packing.mask).long()
    with torch.inference_mode():
        found = model.backbone(ids, mask, output_hidden_states=True).hidden_states
    states = [state[mask.bool()].numpy() for state in found]
    for stage, before, after in zip(export_tier2(pack(model)).stages, states[:-1], states[1:], strict=True):
        hidden, _ = run_stage(stage, {"hidden": before, **packing.feeds(FEEDS)})
        np.testing.assert_allclose(hidden, after, atol=2e-5, rtol=0)


def test_the_learned_numbers_are_read_once_for_a_stages_layers(tmp_path: Path) -> None:
    one = operators(export_tier2(pack(tiny.tier2(tmp_path, "mpnet", layers=(1, 3)))).stages[1])
    assert one.count("Softmax") == 2
    assert one.count("Gather") == 2 * 4 + 3, "four of each layer, two for pooling, one of the learned numbers"
    assert not {"Shape", "Concat", "Unsqueeze", "Expand", "Where"} & set(one)


@pytest.mark.parametrize("far", [0.0, 60.0])
def test_a_longer_neighbour_changes_nothing(tmp_path: Path, far: float) -> None:
    """A padding place has the number of a far distance, which may be larger than all of its row's."""
    graphs, units = export_tier2(pack(made(MultiExitModel, tmp_path, far=far))), units_of()
    together = chain_logits(graphs, units)
    for number in range(units.n_rows):
        alone = chain_logits(graphs, units.select(np.array([number])))
        np.testing.assert_allclose(alone[0], together[number], atol=1e-5, rtol=0)


def test_texts_leave_early_in_batches_that_merge(tmp_path: Path) -> None:
    model, units = made(MultiExitModel, tmp_path), units_of(LENGTHS * 3)
    wanted = torch.from_numpy(torch_logits(model, units)).softmax(-1).numpy()
    sure = wanted.max(-1)
    between = sure[:, :2].mean(1)[sure[:, 0] + 1e-3 < sure[:, 1]]  # by any of these a row leaves after the second exit
    depths = [np.append(sure[:, :2] >= one, np.ones((len(sure), 1)), axis=1).argmax(1) for one in between]
    threshold, exits = max(zip(between, depths, strict=True), key=lambda pair: len(set(pair[1].tolist())))
    assert set(exits.tolist()) == {0, 1, 2}
    policy = MaxProbability(float(threshold))
    tier = engine(export_tier2(pack(model)), exit_policy=policy, batching=FixedSize(5))
    scores = tier.score(units)
    np.testing.assert_array_equal(scores.exit_layer, exits + 1)
    np.testing.assert_allclose(scores.probabilities, wanted[np.arange(len(exits)), exits], atol=1e-5, rtol=0)


def engine(graphs: TierGraphs, **options: Any) -> MultiExit:
    def backend(model: Any) -> FunctionBackend:
        graph, names = session(model), tuple(value.name for value in model.graph.output)
        inputs = tuple(value.name for value in model.graph.input)
        return FunctionBackend(
            lambda feeds: dict(zip(names, graph.run(list(names), feeds), strict=True)), inputs, names
        )

    return MultiExit(
        embed=backend(graphs.embed),
        stages=[backend(stage) for stage in graphs.stages],
        layers=(1, 2, 3),
        labels=graphs.labels,
        heads=graphs.heads,
        max_length=300,
        position_offset=graphs.position_offset,
        **options,
    )


def test_words_of_long_sentences_leave_early(tmp_path: Path) -> None:
    model = made(MultiExitTagger, tmp_path)
    words, packed = tiny_tagging.random_words([90, 1, 0, 3, 70], seed=2), pack(model)
    graphs = export_tier2(packed)
    agree((model, packed, graphs), words, None)
    agree((model, packed, graphs), words, random_exits(words, 3))


@pytest.mark.parametrize("kind", [MultiExitModel, MultiExitTagger])
def test_int8_is_near_fp32(tmp_path: Path, kind: Any) -> None:
    graphs = export_tier2(pack(made(kind, tmp_path, width=32)))
    units = units_of() if kind is MultiExitModel else tiny_tagging.random_words([30, 4, 1, 9], seed=1)
    reference = chain_logits(graphs, units)
    small = quantised(graphs, units).graphs
    assert operators(small.stages[0]).count("MatMulIntegerToFloat") == (8 if kind is MultiExitModel else 7)
    assert 0 < np.abs(chain_logits(small, units) - reference).max() < 0.1 * np.abs(reference).max()

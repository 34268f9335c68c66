"""Tier 1's graph answers as torch, for every kind of model that transformers can load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertForSequenceClassification,
)

from cascade.exceptions import OptionError
from cascade.training.models.config import CLASSIFICATION, TAGGING, inputs_of
from cascade.training.models.families import max_length
from cascade.training.task import BY_NAME as TASKS
from cascade_export.checkpoints import load_tier
from cascade_export.packed.chain import session
from cascade_export.tiers import export_tier1
from tests.models import tiny

POSITIONS = 20
SIZES: dict[str, Any] = {"vocab_size": 40, "num_labels": 3, "hidden_size": 16, "num_attention_heads": 2}
SIZES |= {"num_hidden_layers": 2, "intermediate_size": 24}
OWN: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 8},
    "bert": {},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0},
    "distilbert": {"dim": 16, "n_heads": 2, "n_layers": 2, "hidden_dim": 24},
    "electra": {"embedding_size": 8},
    "modernbert": {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2},
    "mpnet": {"pad_token_id": 1},
    "roberta": {"pad_token_id": 1, "type_vocab_size": 1},
    "xlm-roberta": {"pad_token_id": 1, "type_vocab_size": 1},
}
OFFSET = {"mpnet": 2, "roberta": 2, "xlm-roberta": 2}


def saved(folder: Path, family: str, task: str) -> Any:
    torch.manual_seed(0)
    positions = POSITIONS + OFFSET.get(family, 0)
    config = AutoConfig.for_model(family, **SIZES, **OWN[family], max_position_embeddings=positions)
    auto: Any = AutoModelForTokenClassification if task == TAGGING else AutoModelForSequenceClassification
    model = auto.from_config(config)
    tiny.spread(model)
    model.save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize("task", [CLASSIFICATION, TAGGING])
@pytest.mark.parametrize("family", OWN)
def test_graphs_answer_as_torch(tmp_path: Path, family: str, task: str) -> None:
    """One row as long as the model reads, one with padding, one of a single token."""
    model = saved(tmp_path, family, task)
    tier = load_tier(tmp_path, TASKS[task])
    assert max_length(tier.config) == POSITIONS
    graph = session(export_tier1(tier, TASKS[task]))
    assert [value.name for value in graph.get_inputs()] == list(inputs_of(tier))
    ids = np.random.default_rng(0).integers(5, 40, (3, POSITIONS))
    mask = (np.arange(POSITIONS) < np.array([[POSITIONS], [7], [1]])).astype(np.int64)
    ids[mask == 0] = model.config.pad_token_id or 0
    types = np.random.default_rng(1).integers(0, 2, ids.shape)
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    feeds = {name: feeds[name] for name in inputs_of(tier)}
    with torch.no_grad():
        expected = model(**{name: torch.from_numpy(array) for name, array in feeds.items()}).logits.numpy()
    (found,) = graph.run(["logits"], feeds)
    there = mask.astype(bool) if task == TAGGING else slice(None)
    np.testing.assert_allclose(found[there], expected[there], atol=1e-5, rtol=1e-5)


def test_weights_of_half_precision_become_fp32(tmp_path: Path) -> None:
    model = tiny.tier1_transformer(tmp_path)
    model.bfloat16().save_pretrained(tmp_path)
    found = load_tier(tmp_path, TASKS[CLASSIFICATION])
    assert {parameter.dtype for parameter in found.parameters()} == {torch.float32}


def test_what_cannot_be_traced_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.tier1_transformer(tmp_path)
    tier = load_tier(tmp_path, TASKS[CLASSIFICATION])

    def forward(self: Any, attention_mask: Any, **inputs: Any) -> None:
        raise RuntimeError("no such operator\nand more")

    monkeypatch.setattr(BertForSequenceClassification, "forward", forward)
    with pytest.raises(OptionError, match=r"one that torch can trace, got bert; no such operator$"):
        export_tier1(tier, TASKS[CLASSIFICATION])

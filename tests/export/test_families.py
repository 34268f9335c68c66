"""A fine-tuned checkpoint of any family becomes a bundle whose full depth answers as transformers does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cascade
from cascade.policies.exits import never
from cascade.policies.routing import defer_all
from cascade.text.tokenizer import Tokenizer
from cascade.training.models.multi_exit import MultiExitModel, MultiExitTagger
from cascade.training.models.students import Static, StaticTagger
from cascade_export import Calibration, ExportOptions, export_bundle
from tests.models import tiny, tiny_tagging
from tests.training.commands import fine_tuned

FAMILIES = ("xlm-roberta", "mpnet", "deberta-v2", "modernbert")  # those with forms of their own, and one of all others
KNOWN = tiny_tagging.SENTENCES[:-1]  # no unknown token: its id is tiny RoBERTa's padding, which has no place


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("tagging", [False, True])
def test_a_fine_tuned_checkpoint_as_a_bundle(tmp_path: Path, family: str, tagging: bool, int8: bool) -> None:
    """Its labels, its head, its answers; a static first tier that it has taught."""
    stock = fine_tuned(family, tmp_path / "own", tagging=tagging, labels=("c", "a", "b"))
    kind: Any = MultiExitTagger if tagging else MultiExitModel
    model = kind.from_checkpoint(tmp_path / "own", labels=["a"])
    for folder, part in (("tier2", model), ("tier1", (StaticTagger if tagging else Static)(width=8).build(model))):
        part.save_pretrained(tmp_path / folder)
        tiny.save_tokenizer(tmp_path / folder)
    texts: Any = list(KNOWN if tagging else tiny.TEXTS)
    options = ExportOptions(int8=int8, agreement=0)
    export_bundle(
        tmp_path / "tier2", tmp_path / "tier1", tmp_path / "out", calibration=Calibration(texts), options=options
    )
    pipeline: Any = cascade.load(tmp_path / "out", threads=1).with_router(defer_all).with_exit_policy(never)
    found = pipeline.predict(texts)
    units = tiny_tagging.words_of(KNOWN) if tagging else Tokenizer(tiny.tokenizer(), max_length=64).encode(texts).units
    wanted = []
    with torch.inference_mode():
        for row in range(units.n_rows):
            alone = units.select(np.array([row]))
            logits = stock(torch.from_numpy(alone.rows.ids[None])).logits
            wanted.append(logits[0, alone.first_token] if tagging else logits)
    expected = torch.cat(wanted).softmax(-1).numpy()
    difference = np.abs(found.probabilities - expected)
    assert difference.max() < 1e-4 if not int8 else difference.mean() < 0.05
    assert pipeline.labels == ("c", "a", "b")

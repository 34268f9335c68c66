"""Adapters learn in place of the weights, and are gone when a model is saved."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cascade.exceptions import OptionError
from cascade.training.models.multi_exit import ADAPTERS, adapt, freeze_all_but_adapters, merge
from tests.training.commands import Case, exits, refused

IDS = torch.tensor([[2, 40, 50, 60, 3]])


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model.eval()(IDS, torch.ones_like(IDS))["logits"]
    return found


@pytest.mark.parametrize("family", ["bert", "distilbert", "albert"])
@pytest.mark.parametrize("kind", ADAPTERS)
def test_adapters_change_nothing_until_they_learn_and_when_they_are_merged(
    kind: str, family: str, case: Case, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    model = case.teacher(tmp_path, family)
    before, names = logits(model), model.state_dict().keys()
    adapt(model, kind, rank=2)
    torch.testing.assert_close(logits(model), before, atol=1e-5, rtol=1e-5)
    model.configure_training(detach=False, frozen=False)
    freeze_all_but_adapters(model)
    learning = {name for name, own in model.backbone.named_parameters() if own.requires_grad}
    assert learning
    assert all("lora_" in name or "ia3_" in name for name in learning)
    with torch.no_grad():
        for own in model.backbone.parameters():
            if own.requires_grad:
                own.add_(0.1)
    changed = logits(model)
    assert not torch.allclose(changed, before, atol=1e-3)
    merge(model)
    torch.testing.assert_close(logits(model), changed, atol=1e-4, rtol=1e-4)
    assert model.state_dict().keys() == names


@pytest.mark.parametrize("kind", ADAPTERS)
def test_exits_with_adapters(kind: str, case: Case, rows: Path, backbone: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    exits(case, backbone, rows, tmp_path / "out", "--adapter", kind, "--rank", 2, "--epochs", 1, ok=True)
    case.model.from_pretrained(tmp_path / "out")  # no adapters inside
    found, old = load_file(tmp_path / "out" / "model.safetensors"), load_file(backbone / "model.safetensors")
    same = {name for name, tensor in old.items() if torch.equal(tensor, found.get(f"backbone.{name}", torch.zeros(1)))}
    changed = {name for name in old if name not in same and "pooler" not in name}
    assert changed
    assert all(
        ".layer." in name and name.endswith("weight" if kind == "lora" else ("weight", "bias")) for name in changed
    )


def test_what_is_refused(
    case: Case, rows: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = exits(case, backbone, rows, tmp_path / "out", "--adapter", "lora", "--objective", "distil")
    refused(done, "--adapter must be left out where the backbone is frozen, got lora")
    model = case.teacher(tmp_path / "teacher")
    with pytest.raises(OptionError, match="adapter must be one of lora, ia3, got prefix"):
        adapt(model, "prefix")
    monkeypatch.setitem(sys.modules, "peft", None)
    refused(
        exits(case, backbone, rows, tmp_path / "out", "--adapter", "lora"), "--adapter needs peft, which is missing"
    )
    assert not (tmp_path / "out").exists()

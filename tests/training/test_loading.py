"""Checkpoints as people have them: half precision, adapters, folders that lack something."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification

from cascade.exceptions import MissingExtraError, OptionError
from cascade.training.models.multi_exit import MultiExitModel, MultiExitTagger
from tests.models import tiny
from tests.training.commands import Case, fine_tuned

IDS = torch.tensor([[2, 40, 50, 60, 61, 3], [2, 70, 71, 3, 0, 0]])
MASK = (IDS > 0).long()


def last_logits(model: Any) -> Any:
    with torch.inference_mode():
        found = model(input_ids=IDS, attention_mask=MASK)["logits"]
    return found[:, -1] if hasattr(model, "layers") else found


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_as_fp32(case: Case, dtype: torch.dtype, tmp_path: Path) -> None:
    stock = fine_tuned("bert", tmp_path / "stock", tagging=case.name == "tagging")
    stock.to(dtype).save_pretrained(tmp_path / "stock")
    model = case.model.from_checkpoint(tmp_path / "stock", labels=[]).eval()
    torch.testing.assert_close(last_logits(model), last_logits(stock.float()), atol=1e-5, rtol=1e-5)
    model.save_pretrained(tmp_path / "exits")
    config = json.loads((tmp_path / "exits" / "config.json").read_text())
    assert (config.get("dtype") or config["torch_dtype"]) == "float32"
    # Checkpoints that were written before the type was set say that they are in half precision.
    name = "dtype" if "dtype" in config else "torch_dtype"
    (tmp_path / "exits" / "config.json").write_text(json.dumps(config | {name: str(dtype).removeprefix("torch.")}))
    again = case.model.from_pretrained(tmp_path / "exits")
    assert {parameter.dtype for parameter in again.parameters()} == {torch.float32}
    assert again.digest() == model.digest()


def adapter(folder: Path, base: Path, *, task: str = "SEQ_CLS") -> None:
    """What `peft` writes, but for the weights' values."""
    folder.mkdir()
    written = {"peft_type": "LORA", "task_type": task, "base_model_name_or_path": str(base)}
    (folder / "adapter_config.json").write_text(json.dumps(written))


def test_adapters_are_merged(backbone: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = AutoModelForSequenceClassification.from_pretrained(backbone, num_labels=3)
    given = peft.get_peft_model(base, peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"], r=2))
    tiny.spread(given)
    given.save_pretrained(tmp_path / "lora")
    wanted = last_logits(
        peft.PeftModel.from_pretrained(
            AutoModelForSequenceClassification.from_pretrained(backbone, num_labels=3), tmp_path / "lora"
        ).eval()
    )
    model = MultiExitModel.from_checkpoint(tmp_path / "lora", labels=[]).eval()
    assert model.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    torch.testing.assert_close(last_logits(model), wanted, atol=1e-5, rtol=1e-5)
    with pytest.raises(OptionError, match="must be for the chosen task, got an adapter ForSequence"):
        MultiExitTagger.from_checkpoint(tmp_path / "lora", labels=["a", "b"])


def test_without_peft_an_adapter_is_refused(backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter(tmp_path / "lora", backbone)
    save_file(
        {"base_model.model.classifier.weight": torch.zeros(3, 16)}, tmp_path / "lora" / "adapter_model.safetensors"
    )
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match="an adapter, needs peft, which is missing; pip install"):
        MultiExitModel.from_checkpoint(tmp_path / "lora", labels=[])


def test_folders_that_lack_something(tmp_path: Path, backbone: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(OptionError, match=r"empty must hold a config.json, but there is none; give the folder of"):
        MultiExitModel.from_checkpoint(tmp_path / "empty", labels=[])
    adapter(tmp_path / "lost", tmp_path / "nowhere")
    with pytest.raises(OptionError, match=r"adapter_config.json names .*nowhere as the model that it adapts: put that"):
        MultiExitModel.from_checkpoint(tmp_path / "lost", labels=[])
    adapter(tmp_path / "other", backbone, task="CAUSAL_LM")
    with pytest.raises(OptionError, match="with task_type SEQ_CLS or TOKEN_CLS, got CAUSAL_LM; merge it into its"):
        MultiExitModel.from_checkpoint(tmp_path / "other", labels=[])

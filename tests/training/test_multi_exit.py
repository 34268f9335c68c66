"""The multi-exit torch model: fine-tuned heads are kept, gradients stop where asked, checkpoints round-trip."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, GPT2Config

from cascade.exceptions import DataError, OptionError
from cascade.training.models.multi_exit import MultiExitModel, pool
from tests.models import tiny

IDS = torch.tensor([[2, 40, 50, 60, 3], [2, 70, 3, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def fine_tuned(
    family: str, folder: Path, *, labels: Sequence[str] = tiny.LABELS, problem_type: str | None = None
) -> torch.nn.Module:
    """A stock classifier of this family in `folder`."""
    torch.manual_seed(5)
    config = tiny.named(tiny.config(family), labels, problem_type)
    model: torch.nn.Module = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)
    model.eval().save_pretrained(folder)  # type: ignore[operator]  # a PreTrainedModel
    return model


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_fine_tuned_head_becomes_the_last_exit(family: str, tmp_path: Path) -> None:
    stock = fine_tuned(family, tmp_path)
    model = MultiExitModel.from_checkpoint(tmp_path, labels=tiny.LABELS).eval()
    with torch.inference_mode():
        wanted = stock(input_ids=IDS, attention_mask=MASK).logits
        found = model(IDS, MASK)["logits"]
    assert found.shape == (2, 3, 2)
    torch.testing.assert_close(found[:, -1], wanted, atol=1e-5, rtol=1e-5)
    assert model.pooling == "first"


def test_a_fine_tuned_head_of_other_labels_is_refused(tmp_path: Path) -> None:
    fine_tuned("bert", tmp_path)
    with pytest.raises(DataError, match=r"among the checkpoint's, \['negative', 'positive'\], but there was: a; ren"):
        MultiExitModel.from_checkpoint(tmp_path, labels=["positive", "a"])


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("positive", "negative", "neutral"), ("negative", "neutral")),
        (tuple(f"LABEL_{number}" for number in range(11)), ("0", "2", "10")),
        (("positive", "negative"), ()),
    ],
)
def test_a_fine_tuned_checkpoint_keeps_its_labels_in_its_order(
    names: tuple[str, ...], found: tuple[str, ...], tmp_path: Path
) -> None:
    fine_tuned("bert", tmp_path, labels=names)
    assert MultiExitModel.from_checkpoint(tmp_path, labels=found).labels == names


def test_numbers_that_are_no_default_names_are_refused(tmp_path: Path) -> None:
    fine_tuned("bert", tmp_path, labels=("LABEL_0", "LABEL_1"))
    with pytest.raises(DataError, match="there was: positive; name labels in the data by these names or their numbers"):
        MultiExitModel.from_checkpoint(tmp_path, labels=["positive"])
    with pytest.raises(DataError, match="there was: 2;"):
        MultiExitModel.from_checkpoint(tmp_path, labels=["2"])


def test_a_checkpoint_keeps_its_problem(tmp_path: Path) -> None:
    multi, single = "multi_label_classification", "single_label_classification"
    for name, problem in (("multi", multi), ("single", single), ("silent", None), ("regression", "regression")):
        fine_tuned("bert", tmp_path / name, problem_type=problem)
    for name, asked, wanted in (
        ("multi", False, multi), ("multi", True, multi), ("single", False, single), ("silent", False, single),
        ("silent", True, multi),
    ):  # fmt: skip
        model = MultiExitModel.from_checkpoint(tmp_path / name, labels=[], multi_label=asked)
        assert model.config.problem_type == wanted
    with pytest.raises(OptionError, match="--multi-label must fit the checkpoint's problem_type, which is single"):
        MultiExitModel.from_checkpoint(tmp_path / "single", labels=[], multi_label=True)
    with pytest.raises(OptionError, match="must be a classifier, was for regression"):
        MultiExitModel.from_checkpoint(tmp_path / "regression", labels=[])
    tiny.tier2(tmp_path / "exits")
    with pytest.raises(OptionError, match="--multi-label must fit the checkpoint's problem_type"):
        MultiExitModel.from_checkpoint(tmp_path / "exits", labels=[], multi_label=True)


@pytest.mark.parametrize(("found", "multi_label"), [((), False), ((), True), (("a",), False)])
def test_a_pre_trained_checkpoint_needs_labels(found: tuple[str, ...], multi_label: bool, tmp_path: Path) -> None:
    tiny.backbone(tmp_path)
    with pytest.raises(DataError, match="must have at least two labels"):
        MultiExitModel.from_checkpoint(tmp_path, labels=found, multi_label=multi_label)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_round_trip(family: str, tmp_path: Path) -> None:
    model = tiny.tier2(tmp_path, family, layers=(1, 3))
    again = MultiExitModel.from_pretrained(tmp_path)
    with torch.inference_mode():
        torch.testing.assert_close(again(IDS, MASK)["logits"], model(IDS, MASK)["logits"])
    assert (again.layers, again.pooling, again.labels) == ((1, 3), "mean", tiny.LABELS)
    assert not list(tmp_path.glob("*.part*"))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_detached_exits_teach_only_the_layers_since_the_exit_before(family: str, tmp_path: Path) -> None:
    model = tiny.tier2(tmp_path, family, layers=(1, 3))
    table: Any = model.backbone.get_input_embeddings()

    def gradient(exit_: int) -> float:
        model.zero_grad()
        model(IDS, MASK)["logits"][:, exit_].pow(2).sum().backward()
        grad = table.weight.grad
        return 0.0 if grad is None else float(grad.abs().sum())

    assert gradient(0) > 0
    assert gradient(1) > 0
    model.detach = True
    assert gradient(0) > 0
    assert gradient(1) == 0


def test_mean_pooling_ignores_padding() -> None:
    hidden = torch.tensor([[[1.0], [3.0], [100.0]]])
    mask = torch.tensor([[1, 1, 0]])
    assert pool(hidden, mask, "mean").tolist() == [[2.0]]
    assert pool(hidden, mask, "first").tolist() == [[1.0]]


@pytest.mark.parametrize("layers", [(1, 2), (3, 1), (0, 3), (), (1, 1, 3)])
def test_impossible_exits(layers: tuple[int, ...]) -> None:
    backbone = AutoModel.from_config(tiny.config("bert"), add_pooling_layer=False)
    with pytest.raises(OptionError, match="exits must rise from 1 or more and end at the last layer, 3; were"):
        MultiExitModel(backbone, layers=layers)


def test_impossible_pooling_and_family() -> None:
    backbone = AutoModel.from_config(tiny.config("bert"), add_pooling_layer=False)
    with pytest.raises(OptionError, match="pooling must be mean or first, was: max"):
        MultiExitModel(backbone, pooling="max")
    other = AutoModel.from_config(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=10))
    with pytest.raises(OptionError, match=r"model_type must be one of bert, roberta, .*, got gpt2"):
        MultiExitModel(other)


def test_a_stock_checkpoint_is_no_multi_exit_model(tmp_path: Path) -> None:
    fine_tuned("bert", tmp_path)
    with pytest.raises(OptionError, match=r"must hold a multi-exit model .* make one with cascade-train exits"):
        MultiExitModel.from_pretrained(tmp_path)


def test_going_on_from_a_multi_exit_checkpoint(tmp_path: Path) -> None:
    model = tiny.tier2(tmp_path)
    again = MultiExitModel.from_checkpoint(tmp_path, labels=tiny.LABELS, dropout=0.25).eval()
    with torch.inference_mode():
        torch.testing.assert_close(again(IDS, MASK)["logits"], model(IDS, MASK)["logits"])
    assert again.config.hidden_dropout_prob == 0.25
    with pytest.raises(DataError, match="must be among the checkpoint's"):
        MultiExitModel.from_checkpoint(tmp_path, labels=["x", "y"])


def test_config_is_plain_json(tmp_path: Path) -> None:
    tiny.tier2(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["cascade_exits"] == {"layers": [1, 2, 3], "pooling": "mean", "activation": "tanh"}

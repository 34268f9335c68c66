"""`cascade-train prune`: dead neurons go without a trace, and the weights of the others are fitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from cascade.training.models.families import FAMILIES
from cascade.training.models.multi_exit import MultiExitModel
from cascade.training.models.teacher import Teacher, teacher_of
from cascade.training.recipes.pruning import TYPES, fitted, kept
from tests.models import tiny
from tests.training.commands import CASES, Case, exits, exported, refused, report_of, train, write

TEXTS = CASES[0]
PARTS = ("expand", "contract")
WIDTH = 64  # of a model with 128 neurons in each layer


def prune(source: Path, rows: Path, output: Path, *more: object, ok: bool = False) -> Any:
    return train("prune", source, "--texts", rows, "--output", output, *more, ok=ok)


def logits(model: Teacher) -> torch.Tensor:
    """Of all exits, of a few texts."""
    ids = [torch.tensor([tiny.tokenizer().encode(row["text"]).ids]) for row in TEXTS.rows[:8]]
    with torch.no_grad():
        return torch.cat([model.eval()(own, torch.ones_like(own))["logits"] for own in ids])


@pytest.mark.parametrize("family", TYPES)
def test_dead_neurons_go_and_nothing_else_changes(family: str, tmp_path: Path) -> None:
    model = tiny.tier2(tmp_path / "whole", family, width=WIDTH)
    dead = torch.randperm(128)[:64]
    with torch.no_grad():
        layer: Any
        for layer in FAMILIES[family].layers(model.backbone):
            expand, contract = (layer.get_submodule(getattr(FAMILIES[family].parts, own)) for own in PARTS)
            expand.weight[dead], expand.bias[dead] = 0.0, 0.0  # GELU of 0 is 0
            contract.weight[:, dead] *= 0.1
    model.save_pretrained(tmp_path / "whole")
    prune(tmp_path / "whole", write(tmp_path / "rows.jsonl", TEXTS.bare()), tmp_path / "narrow", ok=True)
    report, narrow = report_of(tmp_path / "narrow"), MultiExitModel.from_pretrained(tmp_path / "narrow")
    assert report["neurons"] == 64
    assert max(layer["unfitted"] for layer in report["layers"]) < 1e-6
    torch.testing.assert_close(logits(narrow), logits(model), atol=1e-3, rtol=1e-3)


def test_the_fit_is_worth_it_and_every_command_goes_on(case: Case, rows: Path, tmp_path: Path) -> None:
    build = tiny.tier2 if case is TEXTS else tiny.tagger
    build(tmp_path / "whole", width=WIDTH)
    done = prune(tmp_path / "whole", rows, tmp_path / "tier2", "--task", case.name, ok=True)
    report = report_of(tmp_path / "tier2")
    assert [layer["layer"] for layer in report["layers"]] == [1, 2, 3]
    for layer in report["layers"]:
        assert 0 <= layer["error"] < 0.5 * layer["unfitted"]
        assert f"layer {layer['layer']}: {layer['error']:.2%} lost" in done.output
    exits(case, tmp_path / "tier2", rows, tmp_path / "on", ok=True)
    train(
        "first-tier", tmp_path / "tier2", "--task", case.name, "--train", rows, "--output", tmp_path / "tier1", ok=True
    )
    if case is TEXTS:  # the exporter compares its graphs with the checkpoint
        texts = [row["text"] for row in case.rows]
        assert len(exported(tmp_path, texts)[1].predict(texts)) == len(texts)


def test_an_ordinary_classifier_stays_one(tmp_path: Path) -> None:
    tiny.tier1_transformer(tmp_path / "whole", width=WIDTH)
    rows = write(tmp_path / "rows.jsonl", TEXTS.bare())
    prune(tmp_path / "whole", rows, tmp_path / "narrow", ok=True)
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "narrow").config.intermediate_size == 64
    before, after = (logits(teacher_of(tmp_path / name, MultiExitModel)) for name in ("whole", "narrow"))
    assert (before - after).abs().max() < 0.1 * before.abs().max()


def test_a_neuron_costs_what_is_lost_once_the_others_are_fitted() -> None:
    states, weights = torch.tensor([[1.0, 0, 2], [0, 1, 1], [1, 1, 0]]), torch.tensor([[1.0, 0], [0, 1], [1, 1]])
    # Without one of them the others miss by 1, 1.5 and 6.
    assert kept((states.T @ states).double(), weights.double(), 2).tolist() == [1, 2]
    assert kept((states.T @ states).double(), weights.double(), 1).tolist() == [2]


def test_a_neuron_that_is_there_twice_goes_and_costs_nothing() -> None:
    torch.manual_seed(0)
    neurons, weights = torch.randn(200, 8), torch.randn(8, 3)
    neurons[:, 5] = neurons[:, 2]
    keep, new, bias, errors = fitted(neurons, neurons @ weights + 1, weights, 7)
    assert {2, 5} - {*keep.tolist()}
    assert errors["error"] < 1e-6
    assert errors["unfitted"] > 0.01
    torch.testing.assert_close(neurons[:, keep] @ new + bias, neurons @ weights + 1, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("share", ["0.0", "1.0", "1.5", "-0.5", "nan"])
def test_what_is_no_share_is_refused(share: str, tmp_path: Path) -> None:
    done = prune(tmp_path / "whole", write(tmp_path / "rows.jsonl", TEXTS.bare()), tmp_path / "out", "--ffn", share)
    refused(done, f"ffn must be above 0 and below 1, got {share}; 0.5 is usual")


@pytest.mark.parametrize("share", ["0.2", "0.99"])
def test_a_share_that_leaves_nothing_or_everything_is_refused(share: str, tmp_path: Path) -> None:
    tiny.tier1_transformer(tmp_path / "whole", width=WIDTH)
    done = prune(tmp_path / "whole", write(tmp_path / "rows.jsonl", TEXTS.bare()), tmp_path / "out", "--ffn", share)
    refused(done, f"--ffn must leave a multiple of 64 of the 128 neurons of a layer, and fewer than all, got {share}")


def test_too_few_texts_are_refused(tmp_path: Path) -> None:
    tiny.tier1_transformer(tmp_path / "whole", width=WIDTH)
    done = prune(tmp_path / "whole", write(tmp_path / "few.jsonl", TEXTS.bare()[:9]), tmp_path / "out")
    refused(done, "there must be 5 tokens for each of the 64 neurons that stay, 320, got ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["albert", "modernbert", "cascade_static"])
def test_other_models_are_refused(kind: str, tmp_path: Path) -> None:
    if kind == "cascade_static":
        tiny.tier1_static(tmp_path / "whole")
    else:
        tiny.tier2(tmp_path / "whole", kind)
    done = prune(tmp_path / "whole", write(tmp_path / "rows.jsonl", TEXTS.bare()), tmp_path / "out")
    refused(done, "prune takes a model_type of bert, roberta, xlm-roberta, camembert, electra, distilbert, mpnet")
    assert f"got {kind}" in done.output

"""A bundle teaches: its answers, asked through the engine, are learned by exits and by first tiers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from cascade import Classifier
from cascade.exceptions import OptionError
from cascade.training import run as answers
from cascade.training.data import NO_LABEL, Examples
from cascade.training.models.multi_exit import MultiExitModel
from cascade.training.run import full_depth, mixed
from cascade_export import ExportOptions, export_bundle
from tests.models import tiny
from tests.training.commands import CASES, TEXTS, Case, Trained, exits, refused, report_of, train, write

CASE, GOOD = CASES[0], Examples(["good"], None, "one text")


def bundle_of(checkpoint: Path, folder: Path) -> Path:
    export_bundle(checkpoint, None, folder, options=ExportOptions(int8=False))
    return folder


@pytest.fixture(scope="session")
def bundle(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that knows the labels of `TEXTS`; read only."""
    return bundle_of(trained(CASE), tmp_path_factory.mktemp("answers") / "bundle")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """The texts of each question to a bundle."""
    parts: list[list[Any]] = []
    ask: Callable[..., Any] = answers._asked

    def spy(teacher: Classifier, part: list[Any]) -> Any:
        parts.append(part)
        return ask(teacher, part)

    monkeypatch.setattr(answers, "_asked", spy)
    return parts


def test_exits_learn_what_a_bundle_answers(
    bundle: Path, backbone: Path, tmp_path: Path, asked: list[list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file has labels; texts that two commands share are asked once, part by part."""
    monkeypatch.setattr(answers, "PART", 40)
    texts, extra = write(tmp_path / "texts.jsonl", CASE.bare()[:64]), write(tmp_path / "extra.jsonl", CASE.bare()[64:])
    right = write(tmp_path / "right.jsonl", CASE.rows)
    command = ("exits", backbone, "--train", texts, "--extra-text", extra, "--eval", right, "--answers", bundle)
    options = ("--shared", tmp_path / "shared", "--batch-size", 8, "--learning-rate", 1e-2, "--head-factor", 1)
    train(*command, *options, "--epochs", 8, "--output", tmp_path / "out", ok=True)
    report = report_of(tmp_path / "out")
    assert report["scores"]["layer_3"] >= 0.9
    assert report["rows"] == len(TEXTS)
    assert report["options"]["answers"] == "bundle"
    assert [len(part) for part in asked] == [40, 24, 32]
    train(*command, *options, "--epochs", 1, "--output", tmp_path / "again", ok=True)
    assert len(asked) == 3


def test_a_bundle_is_not_asked_where_labels_alone_count(
    bundle: Path, backbone: Path, tmp_path: Path, asked: list[list[Any]]
) -> None:
    labels, extra = write(tmp_path / "rows.jsonl", TEXTS), write(tmp_path / "extra.jsonl", CASE.bare()[:5])
    options = ("--answers", bundle, "--imitation", 0, "--extra-text", extra, "--epochs", 8)
    exits(CASE, backbone, labels, tmp_path / "out", *options, ok=True)
    assert [len(part) for part in asked] == [5]
    assert report_of(tmp_path / "out")["scores"]["layer_3"] >= 0.9


@pytest.mark.parametrize(("share", "believed"), [(0.1, "labels"), (0.9, "bundle")])
def test_labels_count_for_what_imitation_leaves(
    share: float, believed: str, bundle: Path, backbone: Path, tmp_path: Path
) -> None:
    """With labels that contradict the bundle the share of the loss decides who is believed."""
    wrong = {"positive": "negative", "negative": "positive"}
    labels = write(tmp_path / "labels.jsonl", [{**row, "label": wrong[row["label"]]} for row in TEXTS])
    wanted = labels if believed == "labels" else write(tmp_path / "right.jsonl", TEXTS)
    options = ("--eval", wanted, "--answers", bundle, "--imitation", share, "--epochs", 8)
    exits(CASE, backbone, labels, tmp_path / "out", *options, ok=True)
    assert report_of(tmp_path / "out")["scores"]["layer_3"] >= 0.9


def test_a_first_tier_learns_what_a_bundle_answers(bundle: Path, tmp_path: Path, asked: list[list[Any]]) -> None:
    """The checkpoint that gives tokenizer and embeddings knows nothing; rows made from texts are its own to answer."""
    tiny.tier2(tmp_path / "teacher")
    texts, right = write(tmp_path / "texts.jsonl", CASE.bare()), write(tmp_path / "right.jsonl", TEXTS)
    for copies, least in ((0, 0.9), (1, 0)):
        train(
            *("first-tier", tmp_path / "teacher", "--train", texts, "--eval", right, "--answers", bundle),
            *("--output", tmp_path / f"{copies}", "--copies", copies, "--width", 8, "--hidden", 8, "--epochs", 14),
            *("--batch-size", 16, "--learning-rate", 2e-2),
            ok=True,
        )
        report = report_of(tmp_path / f"{copies}")
        assert report["scores"]["accuracy"] >= least
        assert report["rows"] == (1 + copies) * len(TEXTS)
    assert [len(part) for part in asked] == [len(TEXTS)] * 2


def test_a_model_gets_the_labels_of_the_bundle_in_its_order(backbone: Path, tmp_path: Path) -> None:
    tiny.tier2(tmp_path / "tier2", labels=("positive", "negative"))
    bundle = bundle_of(tmp_path / "tier2", tmp_path / "bundle")
    rows = write(tmp_path / "rows.jsonl", TEXTS)
    exits(CASE, backbone, rows, tmp_path / "out", "--answers", bundle, "--epochs", 1, ok=True)
    assert MultiExitModel.from_pretrained(tmp_path / "out").labels == ("positive", "negative")
    # One that has its labels already reads the bundle's answers by their names.
    tiny.tier2(tmp_path / "other", labels=("negative", "positive"))
    found = answers.answers_of(full_depth(bundle), [GOOD], ("negative", "positive"), run=_run(tmp_path), resume=False)
    given = full_depth(bundle).predict(["good"]).probabilities
    np.testing.assert_array_equal(found, given[:, ::-1])


def _run(folder: Path) -> Any:
    from cascade.training.run import Run

    return Run(source=folder, train=[], output=folder / "run")


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        ([1, NO_LABEL], [[0.125, 0.875], [0.5, 0.5]]),
        ([[1.0, 0.0], [np.nan, np.nan]], [[0.625, 0.375], [0.5, 0.5]]),
    ],
)
def test_what_is_learned_is_mixed_where_there_is_a_label(labels: list[Any], wanted: list[Any]) -> None:
    said = np.array([[0.5, 0.5], [0.5, 0.5]], np.float32) * [[0.5, 1.5], [1, 1]]
    found = mixed(said.astype(np.float32), np.array(labels), 0.5)
    np.testing.assert_allclose(found, wanted)


def test_bundles_that_cannot_teach_are_refused(case: Case, rows: Path, backbone: Path, tmp_path: Path) -> None:
    case.teacher(tmp_path / "tier2")
    bundle = bundle_of(tmp_path / "tier2", tmp_path / "bundle")
    done = exits(case, backbone, rows, tmp_path / "out", "--answers", bundle)
    if case is CASE:  # a tiny model's own labels
        refused(exits(case, backbone, rows, tmp_path / "out", "--extra-text", rows), "--extra-text must come with")
        with pytest.raises(OptionError, match="--answers must have the labels x, got"):
            answers.answers_of(full_depth(bundle), [GOOD], ("x",), run=_run(tmp_path), resume=False)
    else:
        refused(done, "--answers must be left out of --task tagging, got")
        with pytest.raises(OptionError, match=r"must be a bundle that gives texts labels, got .*, a token-"):
            full_depth(bundle)


def test_lower_layers_and_embeddings_stay(case: Case, rows: Path, backbone: Path, tmp_path: Path) -> None:
    before = load_file(backbone / "model.safetensors")
    exits(case, backbone, rows, tmp_path / "out", "--frozen-layers", 2, "--bf16", "--epochs", 1, ok=True)
    after = load_file(tmp_path / "out" / "model.safetensors")
    names = {name for name in before if f"backbone.{name}" in after}  # not the pooler's
    moved = {name for name in names if (after[f"backbone.{name}"] != before[name]).any()}
    assert moved
    assert all(name.startswith("encoder.layer.2.") for name in moved)
    done = exits(case, backbone, rows, tmp_path / "all", "--frozen-layers", 3)
    refused(done, "frozen layers must be 1 to 2, got 3")

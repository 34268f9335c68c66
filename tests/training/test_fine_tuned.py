"""Fine-tuned checkpoints keep their labels, their problem and their answers when they get exits."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import pipeline

from cascade import Classifier, Monitor, OptionError
from cascade.bundle.manifest import Manifest
from cascade.calibration.observing import observe_texts
from cascade.policies import AtExit, Settled, defer_all
from cascade.training.models.config import MULTI_LABEL
from tests.models import tiny
from tests.training.commands import CASES, exported, fine_tuned, report_of, train, write

TEXTS, TAGS = CASES


def distilled(folder: Path, labels: list[Any] | None) -> tuple[Manifest, Classifier]:
    """`exits --objective distil` and `first-tier` from a fine-tuned checkpoint in `folder`, exported in fp32."""
    records: list[dict[str, Any]] = [{"text": text} for text in tiny.TEXTS]
    for record, label in zip(records, cycle(labels or ()), strict=False):
        record["label"] = label
    rows = write(folder / "own.jsonl", records)
    given = ("--train", rows, "--epochs", 1)
    measured = ("--eval", rows) if labels else ()
    train("exits", folder / "stock", "--output", folder / "tier2", "--objective", "distil", *given, *measured, ok=True)
    train("first-tier", folder / "tier2", "--output", folder / "tier1", "--width", 8, "--hidden", 8, *given, ok=True)
    return exported(folder, tiny.TEXTS)


def logits_of(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([model(torch.tensor([tiny.tokenizer().encode(text).ids])).logits for text in tiny.TEXTS])


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (("NUM", "HUM", "ABBR", "LOC"), ["HUM", "LOC", "NUM"]),
        (tuple(f"LABEL_{number}" for number in range(11)), [0, 2, 10]),
        (("10", "9", "naïve, über", "ß"), [10, "naïve, über"]),
        (("NUM", "HUM", "ABBR", "LOC"), None),
    ],
)
def test_full_depth_answers_as_the_fine_tuned_checkpoint(
    names: tuple[str, ...], labels: list[Any] | None, tmp_path: Path
) -> None:
    model = fine_tuned("bert", tmp_path / "stock", labels=names)
    manifest, full = distilled(tmp_path, labels)
    wanted = [names[number] for number in logits_of(model).argmax(-1)]
    assert len(set(wanted)) > 1
    assert manifest.labels == names
    assert list(full.predict(list(tiny.TEXTS)).labels) == wanted


@pytest.mark.parametrize("labels", [[["warm"], [], ["warm", "bad"]], None])
def test_a_multi_label_checkpoint_stays_one(labels: list[Any] | None, tmp_path: Path) -> None:
    model = fine_tuned("bert", tmp_path / "stock", labels=("warm", "bad", "long"), problem_type=MULTI_LABEL)
    manifest, full = distilled(tmp_path, labels)
    assert manifest.problem_type == MULTI_LABEL
    np.testing.assert_allclose(full.predict(list(tiny.TEXTS)).probabilities, logits_of(model).sigmoid(), atol=1e-5)


@pytest.mark.parametrize(
    ("problem", "labels"),
    [("regression", [2.5, -1, 0.25]), ("regression", None), (None, [1, 0, 0]), (None, [[], ["LABEL_0"]])],
)
def test_one_output_is_a_number_or_a_sigmoid(problem: str | None, labels: list[Any] | None, tmp_path: Path) -> None:
    fine_tuned("bert", tmp_path / "stock", labels=["LABEL_0"], problem_type=problem)
    manifest, full = distilled(tmp_path, labels)
    assert manifest.problem_type == (problem or MULTI_LABEL)
    texts = list(tiny.TEXTS)
    wanted = pipeline("text-classification", str(tmp_path / "stock"), device="cpu")(texts)
    found = full(texts)
    assert [one["label"] for one in found] == ["LABEL_0"] * len(texts)
    scores = [one["score"] for one in wanted]
    np.testing.assert_allclose([one["score"] for one in found], scores, atol=1e-5)
    answers = full.predict(texts)
    np.testing.assert_allclose(answers.probabilities[:, 0], scores, atol=1e-5)
    if problem is None:
        assert answers.labels == [("LABEL_0",) * (score >= 0.5) for score in scores]
        return
    assert answers.labels == ["LABEL_0"] * len(texts)
    np.testing.assert_array_equal(answers.routes.confidence, 1)
    one, two = (full.with_exit_policy(AtExit(layer)).predict(texts).probabilities[:, 0] for layer in (1, 2))
    moves = np.abs(two - one)
    early = full.with_exit_policy(Settled(float(np.median(moves)))).predict(texts)
    np.testing.assert_array_equal(early.routes.exit_layer, np.where(moves < np.median(moves), 2, 3))
    assert full.policies.routers == (defer_all,)
    with pytest.raises(OptionError, match="calibration must be about labels, got a regression"):
        observe_texts(full, texts, None)
    with pytest.raises(OptionError, match="a monitor must watch labels, got a regression"):
        Monitor(full)


def test_a_fine_tuned_tagger_needs_no_tags(tmp_path: Path) -> None:
    """Its labels come from its `config.json`; full depth answers as it does."""
    model = fine_tuned("bert", tmp_path / "stock", tagging=True)
    common = ("--task", "tagging", "--train", write(tmp_path / "words.jsonl", TAGS.bare()), "--epochs", 1)
    train("exits", tmp_path / "stock", *common, "--objective", "distil", "--output", tmp_path / "tier2", ok=True)
    tagger = TAGS.model.from_pretrained(tmp_path / "tier2")
    assert tagger.labels == tiny.TAGS
    ids = torch.tensor([[2, *range(131, 141), 3]])
    with torch.inference_mode():
        found = tagger(ids, torch.ones_like(ids))["logits"][:, -1]
        torch.testing.assert_close(found, model(ids).logits, atol=1e-5, rtol=1e-5)
    done = train("first-tier", tmp_path / "tier2", *common, "--output", tmp_path / "tier1", ok=True)
    assert "not every sentence has labels" in done.output


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("kind", ["texts", "pairs", "tags"])
def test_the_checkpoint_answers_where_no_file_has_labels(kind: str, family: str, tmp_path: Path) -> None:
    """Training and evaluation files without labels: exits, full depth and first tiers are measured by its answers."""
    case = TAGS if kind == "tags" else TEXTS
    fine_tuned(family, tmp_path / "stock", tagging=kind == "tags", labels=("c", "a", "b"))
    records = case.bare()
    if kind == "pairs":
        records = [{"text": row["text"], "text_pair": "a story"} for row in records]
    rows = write(tmp_path / "rows.jsonl", records)
    common = ("--task", case.name, "--train", rows, "--eval", rows, "--learning-rate", 1e-5)
    for objective in ("distil", "joint"):
        output = tmp_path / objective
        done = train(
            "exits", tmp_path / "stock", *common, "--objective", objective, "--epochs", 1, "--output", output, ok=True
        )
        assert case.model.from_pretrained(output).labels == ("c", "a", "b")
        assert ("what is learned is the checkpoint's answers alone" in done.output) == (objective == "joint")
        assert report_of(output)["scores"]["layer_3"] >= (1 if objective == "distil" else 0.8)
    for teacher in ("stock", "distil"):
        output = tmp_path / f"first-{teacher}"
        train(
            *("first-tier", tmp_path / teacher, *common, "--epochs", 12, "--width", 16, "--hidden", 16),
            *("--learning-rate", 5e-3, "--batch-size", 8, "--output", output),
            ok=True,
        )
        assert report_of(output)["scores"]["accuracy"] >= 0.75

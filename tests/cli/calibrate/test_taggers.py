"""`cascade calibrate` of taggers, with a guarantee and without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cascade import Tagger
from cascade.policies.exits import never
from cascade.policies.routing import defer_all
from cascade.policies.unit_exits import TokenExit
from tests.cli.calibrate.conftest import write
from tests.models.cli import Command
from tests.models.tagged import labelled
from tests.models.toy import random_texts
from tests.models.toy_tags import tag_bundle


def test_a_tagger(run: Command, tagger: Tagger, tmp_path: Path) -> None:
    folder, words = tagger.bundle.folder, [text.split() for text in random_texts(80, shortest=2, longest=7)]
    tags = tagger.with_router(defer_all).with_exit_policy(never).predict(words).tags
    tagged = [{"tokens": some, "tags": given} for some, given in zip(words, tags, strict=True)]
    file = write(tmp_path / "tagged.jsonl", tagged)
    done = run("calibrate", folder, "--data", file, "--max-drop", "0.01")
    assert done.status == 1
    assert "accuracy of sentences is at most 1 point below" in done.out
    assert "examples needed  about " in done.out
    bare = write(tmp_path / "bare.jsonl", [{"tokens": some} for some in words])
    said = run.refused("calibrate", folder, "--data", bare)
    assert f"--max-drop needs tags, but {bare} has none in the column 'tags'" in said
    mixed = write(tmp_path / "mixed.jsonl", [*tagged, {"tokens": ["good"]}])
    said = run("calibrate", folder, "--data", mixed).err
    assert "line 81: every sentence must have tags, or none, got 1 of 81" in said
    assert "must be used with classifiers" in run("calibrate", folder, "--data", file, "--per-class").err
    # The windows of token exits are chosen, so other ones make no other question.
    for window in (1, 3):
        tagger.with_exit_policy(TokenExit(0.2, window=window)).save_pretrained(tmp_path / f"{window}")
        done = run("calibrate", tmp_path / f"{window}", "--data", file, "--agreement", "0.5")
        assert "number 1 about these examples" in done.out


@pytest.mark.filterwarnings("ignore:. sentences are longer than a tier reads")
def test_thresholds_of_a_tagger_without_a_guarantee(run: Command, tmp_path: Path) -> None:
    folder, report = tmp_path / "tagger", tmp_path / "report.json"
    tagger = Tagger.from_pretrained(tag_bundle(folder).folder, threads=1)
    file = labelled(tagger, tmp_path, "tagged.jsonl", count=60, seed=3)
    command = ("calibrate", folder, "--data", file, "--no-guarantee", "--max-drop", "0.1", "--f1", "--write")
    done = run.well(*command, "--json", str(report))
    assert "entity F1" in done.out
    assert ", predicted by costs per token measured here\n" in done.out
    written = json.loads(report.read_text())
    again = Tagger.from_pretrained(folder, threads=1)
    assert again.policies.to_json() == written["policies"]
    assert written["metric"] == "entity F1"
    assert written["point"]["drop"] <= 0.1

"""`cascade predict --shadow`: the same lines, a summary of the shadows, a warning as it happens, a safer setting."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cascade.cli.predict.command import in_words
from cascade.monitoring.sequential import EDetector
from cascade.monitoring.state import MonitorState
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.policies.exits import never
from cascade.policies.routing import defer_all
from tests.models.cli import Command, lines
from tests.models.toy import random_texts
from tests.monitoring.test_monitor import shifting
from tests.monitoring.test_shift import OTHER, SAME, profiled

TEXTS = "\n".join(random_texts(60)) + "\n"


@pytest.fixture(scope="module")
def folder(clf: Classifier) -> str:
    return str(clf.bundle.folder)


@pytest.fixture(scope="module")
def tags(tagger: Tagger) -> str:
    return str(tagger.bundle.folder)


def labels(out: str) -> list[Any]:
    return [line["label"] for line in lines(out)]


def test_lines_stay_the_same(run: Command, folder: str) -> None:
    plain = run("predict", folder, "--routes", "--threads", "1", stdin=TEXTS)
    shadowed = run.well("predict", folder, "--routes", "--threads", "1", "--shadow", "1", stdin=TEXTS)
    assert shadowed.out == plain.out
    summary, found = shadowed.err.splitlines()
    assert summary.startswith("60 rows in ")
    assert re.fullmatch(
        r"shadowed 60, \d+ differ from tier 2 at full depth; of all answers \d+\.\d\d% to \d+\.\d\d% do; "
        r"there is no bound to watch",
        found,
    )


@pytest.mark.parametrize("form", ["jsonl", "txt"])
def test_lines_of_tags_stay_the_same(run: Command, tags: str, form: str) -> None:
    lines = "".join(json.dumps({"tokens": text.split()}) + "\n" for text in TEXTS.splitlines())
    given = lines if form == "jsonl" else TEXTS
    plain = run("predict", tags, "--format", form, "--threads", "1", stdin=given)
    shadowed = run.well("predict", tags, "--format", form, "--threads", "1", "--shadow", "0.5", stdin=given)
    assert shadowed.out == plain.out
    assert re.search(r"\nshadowed [23]\d, \d+ differs? from tier 2", shadowed.err)


def test_the_warning_comes_as_it_happens(run: Command, clf: Classifier, folder: str) -> None:
    texts = "\n".join(shifting(clf, 300, 1000)) + "\n"
    done = run.well("predict", folder, "--threads", "1", "--shadow", "1", "--max-disagreement", "0.05", stdin=texts)
    warning, summary, found = done.err.splitlines()
    told = re.fullmatch(
        r"Warning: alarm at answer (\d+): more than 5 % of all answers differ from tier 2 at full depth "
        r"\((\d+) of the (\d+) shadowed\)",
        warning,
    )
    assert told
    alarm, differ, shadowed = map(int, told.groups())
    assert 300 < alarm < 320
    assert 0 < differ < shadowed < 1100  # of 1,300: there were more buffers
    assert summary.startswith("1300 rows in ")
    assert found.startswith("shadowed 1300, 1000 differ from tier 2")
    assert found.endswith(f"; alarm at answer {alarm} (bound 5 %)")


def test_a_safer_setting(run: Command, clf: Classifier, folder: str) -> None:
    texts = shifting(clf, 100, 6000)  # more than are read ahead
    options = ("--shadow", "1", "--max-disagreement", "0.05", "--on-alarm", "safer")
    done = run("predict", folder, "--threads", "1", *options, stdin="\n".join(texts) + "\n")
    warning, _, found = done.err.splitlines()
    assert warning.endswith("; a safer setting answers from here on")
    assert re.fullmatch(
        r"shadowed \d+, 0 differ from .*, since the setting was made safer once; no alarm \(bound 5 %\)", found
    )
    full = clf.with_router(defer_all).with_exit_policy(never)
    assert labels(done.out)[:100] == clf.predict(texts[:100]).labels
    assert labels(done.out)[-500:] == full.predict(texts[-500:]).labels != clf.predict(texts[-500:]).labels


def test_texts_of_another_kind_are_told(run: Command, clf: Classifier, tmp_path: Path) -> None:
    profiled(clf, tmp_path / "profile", SAME)
    texts = "\n".join([*random_texts(500, seed=5), *OTHER]) + "\n"
    done = run.well("predict", tmp_path / "profile", "--threads", "1", "--shadow", "0.01", stdin=texts)
    warning = done.err.splitlines()[0]
    found = re.match(r"Warning: from answer (\d+) on it is shown that texts are of another kind than those of", warning)
    assert found
    assert 500 < int(found[1]) < 700
    assert warning.endswith("; what was certified is about texts like those")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--shadow", "0"), "share must be above 0, got 0.0"),
        (("--shadow", "0.1", "--max-disagreement", "1"), "bound must be above 0 and below 1, got 1.0"),
        (("--max-disagreement", "0.1"), "--max-disagreement must be used with --shadow; add --shadow 0.01 or"),
        (("--on-alarm", "warn"), "--on-alarm must be used with --shadow; add --shadow 0.01 or leave it out"),
        (("--shadow", "0.1", "--on-alarm", "safer"), "--on-alarm must have a bound, but there is no certificate; give"),
        (("--shadow", "0.1", "--on-alarm", "explode"), "--on-alarm"),
    ],
)
def test_bad_use_is_one_line(run: Command, folder: str, options: tuple[str, ...], message: str) -> None:
    assert message in run.refused("predict", folder, *options)


def test_entities_are_not_compared(run: Command, tags: str) -> None:
    said = run.refused("predict", tags, "--aggregation-strategy", "simple", "--shadow", "0.1")
    assert "--shadow and --aggregation-strategy exclude each other; words are compared" in said


SOME = "shadowed 9, 1 differs from tier 2 at full depth; of all answers 0.01% to 63.16% do"
WATCHED = MonitorState(detector=EDetector(bound=0.02), seen=900, shadowed=9, disagreements=1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, f"{SOME}; no alarm (bound 2 %)"),
        ({"alarm_at": 812}, f"{SOME}; alarm at answer 812 (bound 2 %)"),
        ({"disagreements": 0, "shadowed": 0, "detector": None}, "shadowed nothing; there is no bound to watch"),
        (
            {"shadowed": 0, "raised": 2},
            "shadowed nothing, since the setting was made safer 2 times; no alarm (bound 2 %)",
        ),
    ],
)
def test_in_words(changes: dict[str, Any], words: str) -> None:
    assert in_words(replace(WATCHED, **changes)) == words

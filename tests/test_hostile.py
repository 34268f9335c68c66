"""The command that throws hostile things: what it counts, at a small scale."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from functools import reduce
from operator import ne
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from cascade import Classifier
from cascade.core.rows import BoolArray
from cascade.policies import Policies, never
from cascade.policies.exits import ExitState
from tests.hostile import jobs
from tests.hostile.asking import WAYS, Answer, Asked, Asker
from tests.hostile.children import Tally, throw
from tests.hostile.kills import faults_of
from tests.hostile.mixing import Mix
from tests.hostile.throwing import Thrower
from tests.models.toy import random_texts, toy_bundle
from tests.models.toy_tags import tag_bundle


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    folder = tmp_path_factory.mktemp("hostile")
    return toy_bundle(folder / "texts").folder, tag_bundle(folder / "words").folder


WINDOWS = pytest.mark.filterwarnings("ignore:pairs and words must fit:cascade.exceptions.CascadeWarning")


def test_texts_like_those_of_a_file(tmp_path: Path) -> None:
    file, rng = tmp_path / "a.jsonl", Random(3)
    given = [[f"w{rng.randrange(500)}" for _ in range(rng.randrange(1, 35))] for _ in range(200)]
    file.write_text("".join(json.dumps({"text": "  ".join(words)}) + "\n" for words in given))
    mix = Mix(file)
    made = [text.split() for text in mix.texts(2000, 7).to_pylist()]
    assert made == [text.split() for text in mix.texts(2000, 7).to_pylist()]
    assert made != [text.split() for text in mix.texts(2000, 8).to_pylist()]
    by_length: dict[int, list[list[str]]] = {}
    for words in given:
        by_length.setdefault(len(words), []).append(words)
    replaced = 0
    for words in made:
        fewest = min(sum(map(ne, words, one)) for one in by_length[len(words)])
        assert fewest <= -(-len(words) // 10)
        replaced += fewest
    assert 0.05 < replaced / sum(map(len, made)) < 0.11
    mix.write(tmp_path / "a.parquet", 300, 1)
    assert pq.read_table(tmp_path / "a.parquet")["id"].to_pylist() == list(range(300))


def test_stages_of_a_job(bundles: tuple[Path, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert jobs.main([str(bundles[0]), "--rows", "5000", "--sample", "300", "--only", "stages"]) == 0
    told = capsys.readouterr().out
    for name in ("planning", "reading", "writing", "tokenize", "tier1", "tier2"):
        assert re.search(rf"\b{name} [\d,]+", told)


@WINDOWS
def test_files_and_broken_bundles(bundles: tuple[Path, ...], tmp_path: Path) -> None:
    thrower = Thrower(tmp_path, bundles)
    assert list(thrower.throw("files", Random(1), 30)) == []
    assert list(thrower.throw("bundles", Random(1), 30)) == []


@WINDOWS
def test_texts_in_every_way(bundles: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    asker, asked = Asker(bundles), set()
    together = Asked.together

    def noted(self: Asked, items: list[Any]) -> list[Answer]:
        asked.add(self.way)
        return together(self, items)

    monkeypatch.setattr(Asked, "together", noted)
    assert [fault for seed in range(16) for fault in asker.texts(Random(seed), 16, shipped=False)] == []
    assert asked == {*WAYS}


class Swapped(Asked):
    """One that streams two answers in the wrong order."""

    def streamed(self, items: list[Any]) -> list[Answer]:
        first, second, *others = super().streamed(items)
        return [second, first, *others]


class Short(Asked):
    """One that streams an answer too few."""

    def streamed(self, items: list[Any]) -> list[Answer]:
        return super().streamed(items)[1:]


@dataclass
class Wavering:
    """An exit policy that decides otherwise from call to call, as rounding might."""

    calls: int = 0

    def __call__(self, state: ExitState) -> BoolArray:
        self.calls += 1
        return np.full(len(state.probabilities), self.calls % 3 == 0)


def test_what_differs_is_judged(bundles: tuple[Path, ...]) -> None:
    """Only what full depth and the route explain is near: answers that change places are not."""
    classifier = Classifier.from_pretrained(bundles[0], threads=1)
    texts = ["good film", "bad plot", *random_texts(3)]
    assert classifier.predict(texts[:1]).labels != classifier.predict(texts[1:2]).labels
    faults = list(Swapped(classifier, "texts").faults(Random(0), texts))
    assert [fault.split(": ")[0] for fault in faults] == ["reordered", "reordered"]
    assert list(Short(classifier, "texts").faults(Random(0), texts)) == ["lost: of 5 texts"]
    policies: Policies = classifier.policies.full_depth()
    wavering = classifier.with_policies(replace(policies, exits=(never, Wavering())))
    faults = list(Asked(wavering, "texts").faults(Random(0), texts))
    assert faults
    assert {fault.split(": ")[0] for fault in faults} == {"near"}


def test_a_child_that_dies_or_hangs_is_counted(bundles: tuple[Path, ...], tmp_path: Path) -> None:
    for limit, crashes, hangs in ((60.0, 2, 0), (0.001, 0, 2)):
        folder = tmp_path / str(limit)
        folder.mkdir()
        thrown = throw("no kind", 2, seed=1, folder=folder, bundles=bundles, processes=1, limit=limit)
        found = reduce(Tally.__add__, thrown)
        assert (found.done, found.crashes, found.hangs, found.good) == (2, crashes, hangs, False)
        assert len(found.notes) == 2


def test_what_looks_whole_and_is_not(bundles: tuple[Path, ...], tmp_path: Path) -> None:
    assert list(faults_of(bundles[0])) == []
    for name in ("a.json", ".a.json.partial", "static.part/a.json", "c/model.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"a": ')
    assert sorted(fault.split(":")[0] for fault in faults_of(tmp_path)) == ["a.json", "c/model.safetensors"]

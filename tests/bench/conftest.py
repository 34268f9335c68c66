"""What several files of these tests need: the command as a user calls it, toy bundles, labelled files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from cascade.pipelines.loading import load
from cascade_bench.cli import main
from cascade_bench.systems.baselines import BASELINES, Baseline
from cascade_bench.systems.local import Model, answered, whole
from cascade_bench.systems.process import Job, WorkerProcess
from cascade_bench.table.data import Data
from cascade_bench.timing import interleaving
from tests.models.cli import Done
from tests.models.tagged import sentences
from tests.models.toy import random_texts, toy_bundle
from tests.models.toy_tags import tag_bundle

Run = Callable[..., Done]


@pytest.fixture(autouse=True)
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass per turn: these tests look at what is printed, not at seconds."""
    monkeypatch.setattr(interleaving, "SHORTEST", 1e-9)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """`cascade-bench`, whose wrong use is one line."""

    def run(*arguments: object) -> Done:
        with pytest.raises(SystemExit) as end:
            main(list(map(str, arguments)))
        seen = capsys.readouterr()
        assert isinstance(end.value.code, int)
        if end.value.code == 2:
            assert seen.out == ""
            assert len(seen.err.splitlines()) == 1
        return Done(end.value.code, seen.out, seen.err)

    return run


@dataclass(frozen=True)
class Case:
    """A toy bundle of either task, loaded too, and a labelled file for it."""

    bundle: Path
    data: Path
    model: Model
    tagging: bool


@pytest.fixture(params=["texts", "words"])
def case(request: pytest.FixtureRequest) -> Case:
    tagging = request.param == "words"
    names = ("tags_bundle", "tags_data", "tagger") if tagging else ("bundle", "data", "classifier")
    bundle, data, model = map(request.getfixturevalue, names)
    return Case(bundle, data, model, tagging)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """For systems in processes of their own that need neither a bundle nor a checkpoint."""
    folder = tmp_path / "work"
    folder.mkdir()
    return Job(model="", checkpoint="", folder=str(folder), threads=1, max_length=16)


def given(job: Job, items: Sequence[Any]) -> None:
    """Write the items that its systems answer."""
    (Path(job.folder) / "texts.json").write_text(json.dumps(list(items)))


def far_end(code: str, *, limit: float = 60.0) -> WorkerProcess:
    """A process whose far end is this code."""
    return WorkerProcess(threads=1, command=[sys.executable, "-c", code], limit=limit)


def bare(key: str, **options: Any) -> Baseline:
    """A baseline that needs nothing."""
    return replace(BASELINES[key], **{"needs": (), **options})


def numbered(*labels: str) -> Data:
    """The items text 0, text 1 and so on."""
    return Data([f"text {number}" for number in range(len(labels))], labels)


def texts(count: int = 40) -> list[str]:
    return random_texts(count, 4)


def write_lines(file: Path, lines: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def labelled_lines(model: Model, items: list[Any]) -> list[dict[str, Any]]:
    """By full-depth tier 2, every ninth wrongly."""
    right = answered(whole(model), items).labels
    if isinstance(items[0], list):
        tags = [list(own) for own in right]
        for own in tags[::9]:
            own[0] = "B-LOC"
        return [{"tokens": words, "tags": own} for words, own in zip(items, tags, strict=True)]
    labels = list(right)
    labels[::9] = ["neutral"] * len(labels[::9])
    return [{"text": text, "label": label} for text, label in zip(items, labels, strict=True)]


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier's."""
    return toy_bundle(tmp_path_factory.mktemp("toy") / "bundle").folder


@pytest.fixture(scope="session")
def tags_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tagger's."""
    policy = {"policy": "TokenExit", "threshold": 0.3, "window": 3}
    return tag_bundle(tmp_path_factory.mktemp("toy") / "tags", exit_policy=policy, max_length=128).folder


@pytest.fixture(scope="session")
def classifier(bundle: Path) -> Model:
    return load(bundle, threads=1)


@pytest.fixture(scope="session")
def tagger(tags_bundle: Path) -> Model:
    return load(tags_bundle, threads=1)


@pytest.fixture
def data(tmp_path: Path, classifier: Model) -> Path:
    """Labelled texts."""
    return write_lines(tmp_path / "data.jsonl", labelled_lines(classifier, texts()))


@pytest.fixture
def tags_data(tmp_path: Path, tagger: Model) -> Path:
    """Labelled sentences."""
    return write_lines(tmp_path / "tags.jsonl", labelled_lines(tagger, sentences(40)))

"""The command that throws hostile things: what it counts, at a small scale."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from random import Random

import pytest

from tests.hostile.children import Tally, throw
from tests.hostile.kills import faults_of
from tests.hostile.throwing import Thrower
from tests.models.toy import toy_bundle
from tests.models.toy_tags import tag_bundle


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    folder = tmp_path_factory.mktemp("hostile")
    return toy_bundle(folder / "texts").folder, tag_bundle(folder / "words").folder


@pytest.mark.filterwarnings("ignore:pairs and words must fit:cascade.exceptions.CascadeWarning")
def test_files_and_broken_bundles(bundles: tuple[Path, ...], tmp_path: Path) -> None:
    thrower = Thrower(tmp_path, bundles)
    assert list(thrower.throw("files", Random(1), 30)) == []
    assert list(thrower.throw("bundles", Random(1), 30)) == []


def test_a_child_that_dies_or_hangs_is_counted(bundles: tuple[Path, ...], tmp_path: Path) -> None:
    for limit, crashes, hangs in ((60.0, 2, 0), (0.001, 0, 2)):
        folder = tmp_path / str(limit)
        folder.mkdir()
        jobs = throw("no kind", 2, seed=1, folder=folder, bundles=bundles, processes=1, limit=limit)
        found = reduce(Tally.__add__, jobs)
        assert (found.done, found.crashes, found.hangs, found.good) == (2, crashes, hangs, False)
        assert len(found.notes) == 2


def test_what_looks_whole_and_is_not(bundles: tuple[Path, ...], tmp_path: Path) -> None:
    assert list(faults_of(bundles[0])) == []
    for name in ("a.json", ".a.json.partial", "checkpoint-3/a.json", "static.part/a.json", "c/model.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"a": ')
    assert sorted(fault.split(":")[0] for fault in faults_of(tmp_path)) == ["a.json", "c/model.safetensors"]

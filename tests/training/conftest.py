"""Fixtures that are the same for both tasks."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from tests.models import tiny
from tests.training.commands import CASES, Case, Trained, exits, write


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture
def rows(case: Case, tmp_path: Path) -> Path:
    return write(tmp_path / "rows.jsonl", case.rows)


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-trained encoder as the Hub has them; read only."""
    return tiny.backbone(tmp_path_factory.mktemp("backbone") / "backbone")


@pytest.fixture(scope="session")
def trained(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """What `exits` makes of the backbone and a case's rows, trained once; read only."""
    folder = tmp_path_factory.mktemp("trained")

    @cache
    def of(case: Case) -> Path:
        rows = write(folder / f"{case.name}.jsonl", case.rows)
        exits(case, backbone, rows, folder / case.name, "--epochs", 10, ok=True)
        return folder / case.name

    return of

"""Fixtures that are the same for both tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models import tiny
from tests.training.commands import CASES, Case, write


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture
def rows(case: Case, tmp_path: Path) -> Path:
    return write(tmp_path / "rows.jsonl", case.rows)


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    """A pre-trained encoder as the Hub has them."""
    return tiny.backbone(tmp_path / "backbone")

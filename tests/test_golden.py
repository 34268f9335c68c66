"""The shipped bundles answer on this CPU what they answered on others: the same labels, scores within a tolerance."""

from __future__ import annotations

import json

import pytest

from tests.golden import FOLDER, NAMES, TOLERANCE, answers, pipeline

pytestmark = pytest.mark.bundle


@pytest.mark.parametrize("name", NAMES)
def test_golden_answers(name: str) -> None:
    golden = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert len(golden) == 100
    found = answers(pipeline(name), [one.get("text", one.get("tokens")) for one in golden])
    differ = [
        (one, other)
        for one, other in zip(golden, found, strict=True)
        if {**one, "score": 0} != {**other, "score": 0} or abs(one["score"] - other["score"]) > TOLERANCE
    ]
    assert not differ, "another model? then: python -m tests.golden"

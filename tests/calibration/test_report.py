"""An outcome as JSON, and where it was made."""

from __future__ import annotations

import json
from importlib import metadata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.calibration.certify.bounds import upper_limit
from cascade.calibration.certify.claims import Agreement, Claim, MaxDrop
from cascade.calibration.certify.outcomes import Certified, Refused
from cascade.calibration.certify.paths import PathGrid
from cascade.calibration.certify.whole import certify_sample
from cascade.calibration.certify.written import machine, outcome_json
from cascade.core.rounding import percent, percent_up
from tests.models.recorded import COSTS, recorded

GRID = PathGrid(prices=40, steps=30, blends=(0.0,))


@pytest.fixture(scope="module")
def certified() -> Certified:
    found = certify_sample(recorded(2000), Claim(MaxDrop(0.06, per_class=True)), grid=GRID)
    assert isinstance(found, Certified)
    return found


@pytest.fixture(scope="module")
def refused() -> Refused:
    found = certify_sample(recorded(300), Claim(Agreement(0.01)), grid=GRID)
    assert isinstance(found, Refused)
    return found


def test_json_holds_all_of_an_outcome(certified: Certified, refused: Refused) -> None:
    written = outcome_json(certified, costs=COSTS, labels=("a", "b", "c"), made={"command": "cascade calibrate m"})
    assert json.loads(json.dumps(written)) == written | {"costs": json.loads(json.dumps(written["costs"]))}
    assert written["certified"] is written["guarantee"] is True
    assert written["policies"] == certified.policies.to_json()
    assert written["figures"]["speed_up"] == certified.figures.speed_up
    assert len(written["path"]) == len(certified.steps)
    tested = [step["tested"] for step in written["path"] if step["tested"] is not None]
    assert [one["events"] for one in tested] == [one.events for one in certified.tested]
    classes = [(one["label"], one["events"], one["examples"]) for one in written["classes"]]
    assert classes == [(name, *one) for name, one in zip("abc", certified.classes, strict=True)]
    assert written["classes"][0]["upper_estimate"] == upper_limit(*certified.classes[0])
    no = outcome_json(refused)
    assert (no["certified"], no["certificate"], no["path"]) == (False, None, [])
    assert no["examples_needed"] == refused.examples_needed
    assert no["why"] == refused.why


def test_a_machine_without_metadata_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime's other distributions have other names, and the work must not be lost for one."""

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("cascade.runtime.host.version", missing)
    facts = machine(threads=3)
    assert (facts["threads"], facts["onnxruntime"]) == (3, "unknown")


@given(st.floats(0, 1))
def test_an_upper_limit_is_rounded_up(share: float) -> None:
    shown = float(percent_up(share).removesuffix(" %"))
    assert shown >= share * 100 * (1 - 1e-11)
    assert shown <= share * 100 * 1.01 + 1e-9


def test_percentages() -> None:
    shares = (0.01092870480168696, 0.010049, 0.01, 0.07, 0.0, 1.0)
    assert [percent_up(share) for share in shares] == ["1.1 %", "1.01 %", "1 %", "7 %", "0 %", "100 %"]
    assert percent(10**308) == percent_up(10**308) == "inf %"  # whoever wrote that
    assert [percent(share) for share in (0.004167, 0.01)] == ["0.417 %", "1 %"]

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from cascade.exceptions import OptionError
from cascade.policies import (
    AtExit,
    InOrder,
    MaxProbability,
    ModelInfo,
    Policies,
    Threshold,
    TokenExit,
    Viterbi,
    Windows,
    argmax,
    defer_all,
    never,
)

TWO = Policies((Threshold(0.9),), (never, MaxProbability(0.8)), ((1.5,), (1, 2, 3)), blend=(0.5,))
TAGS = replace(TWO, exits=(never, TokenExit(0.1)), windows=Windows(1), decoding=argmax)
THREE = Policies((Threshold(0.9), defer_all), (never, AtExit(2), never), ((1.0,), (1.0, 1.0, 2.0), (0.5,)), (0.0, 1.0))
LAYERS = (2, 4, 6)


@pytest.mark.parametrize(
    "policies", [TWO, TAGS, THREE, replace(TWO, reading=InOrder(0.6))], ids=["two", "tags", "three", "reading"]
)
def test_round_trip(policies: Policies) -> None:
    again = Policies.from_json(json.loads(json.dumps(policies.to_json())))
    assert again == policies
    assert hash(again) == hash(policies)
    assert repr(again) == repr(policies)


def test_with_and_defaults() -> None:
    assert replace(TWO, blend=(1,)).blend == (1.0,)
    assert replace(TWO, blend=(1,)) != TWO == replace(TWO)
    assert Policies([defer_all], [never, never], [[1], [1]]).blend == (0.0,)  # type: ignore[arg-type]  # lists will do
    assert Policies((), (never,), ((1.0,),)).routers == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"routers": ()}, "routers must be 1 for 2 tiers, got 0"),
        ({"exits": ()}, "routers must be 0 for 0 tiers, got 1; "),
        ({"blend": (0.5, 2)}, r"blend must be 1 for 2 tiers, got 2; blend must be in \[0, 1\]"),
        ({"temperatures": ((0,), ())}, r"must be above 0 and finite, one per exit, got \(0,\); .* got \(\); 1 changes"),
        ({"temperatures": ((float("nan"),), ("1",))}, r"got \(nan,\); .* got \('1',\)"),
    ],
)
def test_what_does_not_fit_each_other(change: Any, message: str) -> None:
    with pytest.raises(OptionError, match=rf"policies must fit each other, but .*{message}"):
        replace(TWO, **change)


def test_check_names_all_misfits_at_once() -> None:
    first, second = ModelInfo(("a", "b")), ModelInfo(("a", "b"), LAYERS)
    TWO.check((first, second))
    tags = [ModelInfo(("O", "B-X"), layers, words=True) for layers in ((), LAYERS)]
    TAGS.check(tags)
    THREE.check((first, second, first))
    with pytest.raises(OptionError, match="there must be policies for 3 tiers, got them for 2"):
        TWO.check((first, second, second))
    with pytest.raises(OptionError) as error:
        replace(TAGS, decoding=Viterbi(("O",)), temperatures=((1, 1), (1,))).check((first, second))
    for fault in (
        "temperatures must be one per exit, got 2 for 1 of tier 1",
        "temperatures must be one per exit, got 1 for 3 of tier 2",
        "TokenExit must be asked about words",
        "Viterbi must have the model's 2 labels",
        "windows must be left out of a classifier",
    ):
        assert fault in str(error.value)
    with pytest.raises(OptionError, match="tier 1 has no exits, its exit policy must be never, got AtExit"):
        replace(THREE, exits=(AtExit(2), never, never)).check((first, second, first))
    with pytest.raises(OptionError, match="windows must be given for a tagger; decoding must be given for a tagger"):
        TWO.check(tags)
    with pytest.raises(OptionError, match=r"InOrder\(threshold=1\) must be asked about texts, got words; leave"):
        replace(TAGS, reading=InOrder(1)).check(tags)


@pytest.mark.parametrize(
    ("written", "faults"),
    [
        ([], ["policies must be an object, got"]),
        ({}, [f"{name} must be a list, got None" for name in ("routers", "exits", "blend", "temperatures")]),
        (TWO.to_json() | {"blend": 0.5, "more": 1}, ["blend must be a list, got 0.5", "more is no setting"]),
        (
            TWO.to_json() | {"routers": ["x"], "exits": [{"policy": "never"}, {"policy": "Always"}]},
            ["the router must be written", "got 'Always'"],
        ),
        (TWO.to_json() | {"temperatures": [1, 2]}, ["temperatures must be a list per tier, got"]),
        ({"router": 1}, ["routers must be a list, got None", "router is no setting"]),
        (TAGS.to_json() | {"windows": 1, "decoding": {"policy": "Crf"}}, ["windows policy must be", "'transitions'"]),
    ],
)
def test_unreadable_policies(written: Any, faults: list[str]) -> None:
    with pytest.raises(OptionError) as error:
        Policies.from_json(written)
    assert "\n" not in str(error.value)
    for fault in faults:
        assert fault in str(error.value)

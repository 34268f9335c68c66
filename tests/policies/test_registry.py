"""Written forms of all kinds of policies, what cannot be read, and what fits a model."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from cascade.exceptions import OptionError
from cascade.policies import (
    AtExit,
    Budget,
    Crf,
    Entropy,
    Margin,
    MaxProbability,
    ModelInfo,
    Patience,
    SentenceExit,
    Settled,
    Threshold,
    TokenExit,
    Viterbi,
    Windows,
    any_of,
    argmax,
    decoding,
    defer_all,
    defer_none,
    exits,
    never,
    routing,
    whole_sentences,
    windows,
)
from cascade.policies.exits import ExitState

COSTS = ((16.0, 4.0), (64.0, 4.0))
POINTS = [[16.0, 4.0], [64.0, 4.0]]
# fmt: off
WRITTEN: list[tuple[ModuleType, Any, dict[str, Any], str]] = [
    (exits, MaxProbability(0.9), {"policy": "MaxProbability", "threshold": 0.9}, "MaxProbability(threshold=0.9)"),
    (exits, Margin((0.5, 1)), {"policy": "Margin", "threshold": [0.5, 1.0]}, "Margin(threshold=(0.5, 1.0))"),
    (exits, Entropy(0), {"policy": "Entropy", "threshold": 0.0}, "Entropy(threshold=0.0)"),
    (exits, Patience(2), {"policy": "Patience", "patience": 2}, "Patience(patience=2)"),
    (exits, Settled(0.1), {"policy": "Settled", "tau": 0.1, "patience": 1}, "Settled(tau=0.1, patience=1)"),
    (exits, AtExit(4), {"policy": "AtExit", "layer": 4}, "AtExit(layer=4)"),
    (exits, never, {"policy": "never"}, "never"),
    (exits, TokenExit((0.1, 1), 5), {"policy": "TokenExit", "threshold": [0.1, 1.0], "window": 5},
     "TokenExit(threshold=(0.1, 1.0), window=5)"),
    (exits, SentenceExit(0.1), {"policy": "SentenceExit", "threshold": 0.1}, "SentenceExit(threshold=0.1)"),
    (exits, any_of(AtExit(4), any_of(Patience(1), TokenExit(0.1))),
     {"policy": "any_of", "policies": [
         {"policy": "AtExit", "layer": 4},
         {"policy": "any_of", "policies": [
             {"policy": "Patience", "patience": 1}, {"policy": "TokenExit", "threshold": 0.1, "window": 1}]}]},
     "any_of(AtExit(layer=4), any_of(Patience(patience=1), TokenExit(threshold=0.1, window=1)))"),
    (routing, Threshold(0.9), {"policy": "Threshold", "threshold": 0.9}, "Threshold(threshold=0.9)"),
    (routing, Budget(0.2), {"policy": "Budget", "max_deferred": 0.2}, "Budget(max_deferred=0.2)"),
    (routing, defer_all, {"policy": "defer_all"}, "defer_all"),
    (routing, defer_none, {"policy": "defer_none"}, "defer_none"),
    (decoding, argmax, {"policy": "argmax"}, "argmax"),
    (decoding, Viterbi(("O", "B-X")), {"policy": "Viterbi", "labels": ["O", "B-X"]}, "Viterbi(2 labels)"),
    (decoding, Crf([[0.5, -1.25], [0.0, 2.0]], [1, 2], [3, 4]),
     {"policy": "Crf", "transitions": [[0.5, -1.25], [0.0, 2.0]], "start": [1.0, 2.0], "end": [3.0, 4.0]},
     "Crf(2 labels)"),
    (windows, Windows(4, 1), {"policy": "Windows", "margin": 4, "whole": 1.0}, "Windows(margin=4, whole=1.0)"),
    (windows, whole_sentences, {"policy": "Windows", "margin": 0, "whole": 0.0}, "Windows(margin=0, whole=0.0)"),
]
UNREADABLE: list[tuple[ModuleType, Any, str]] = [
    (exits, "never", "the exit policy must be written .*got 'never'"),
    (exits, {"policy": "Maximum"}, "must be one of MaxProbability, .*got 'Maximum'; choose one of them, or import"),
    (exits, {"policy": ["never"]}, "must be one of .*TokenExit, SentenceExit"),
    (exits, {}, "must be one of .*got None"),
    (exits, {"policy": "Patience"}, r"Patience must have fields \['patience'\], got \[\]"),
    (exits, {"policy": "never", "threshold": 1}, r"never must have fields \[\], got \['threshold'\]"),
    (exits, {"policy": "Margin", "threshold": 2}, "threshold must be in"),
    (exits, {"policy": "any_of", "policies": "never"}, "any_of must have one or more exit policies, got 'never'"),
    (exits, {"policy": "any_of", "policies": 3}, "any_of must have one or more exit policies, got 3"),
    (exits, {"policy": "TokenExit", "window": 1}, r"TokenExit must have fields \['threshold'\], got \['window'\]"),
    (exits, {"policy": "SentenceExit", "threshold": 0.1, "aggregate": "mean"}, r"fields .*'threshold'\], got .*'agg"),
    (routing, "defer_all", "the router must be written .*got 'defer_all'"),
    (routing, {"policy": "Treshold"}, "the router must be one of Threshold, Budget, .*got 'Treshold'"),
    (routing, {"policy": "Threshold", "threshold": 0.5, "score": "margin"}, r"fields \['threshold'\], got .*'score'"),
    (routing, {"policy": "defer_all", "score": "margin"}, r"defer_all must have fields \[\], got \['score'\]"),
    (routing, {"policy": "Budget", "max_deferred": 2}, "max_deferred must be in"),
    (exits, {"policy": "TokenExit", "window": 3}, r"must have fields \['threshold'\], got \['window'\]"),
    (decoding, [], "the decoder must be written"),
    (decoding, {"policy": "Beam"}, "the decoder must be one of argmax, Viterbi, Crf, got 'Beam'; choose one of"),
    (decoding, {"policy": "MeanField", "transitions": [[0]]}, "got 'MeanField'; write Crf in its place, without iter"),
    (decoding, {"policy": "Viterbi", "labels": "O"}, "labels must be a list of names, got 'O'"),
    (windows, "Windows", "the windows policy must be written"),
    (windows, {"policy": "Views", "margin": 3}, "must be one of Windows, got 'Views'"),
    (windows, {"policy": "Windows", "more": 1}, r"have fields \['margin', 'whole'\], got"),
    (windows, {"policy": "Windows", "context_layers": 2}, r"have fields \['margin', 'whole'\], got"),
    (windows, {"policy": "Windows", "margin": "a"}, "margin must be a whole number"),
]
OWN: list[tuple[ModuleType, Any, str]] = [
    (exits, any_of(lambda now: now.probabilities[:, 0] > 0.5), "exit policy .*with_exit_policy, before saving"),
    (routing, lambda now: now.lengths > 8, "router can be saved, got .*with_router"),
    (decoding, lambda scores, _: scores[:, 0], "decoder .*with_decoding"),
    (windows, lambda now: now.offsets, "windows policy .*with_windows"),
]
# fmt: on


@pytest.mark.parametrize(("kind", "policy", "written", "shown"), WRITTEN, ids=lambda value: type(value).__name__)
def test_round_trip(kind: ModuleType, policy: Any, written: dict[str, Any], shown: str) -> None:
    assert kind.to_json(policy) == written
    again = kind.from_json(json.loads(json.dumps(written)))
    assert (again, hash(again), repr(policy)) == (policy, hash(policy), shown)


def test_fields_that_are_gone_are_read_where_they_say_nothing() -> None:
    assert exits.from_json({"policy": "SentenceExit", "threshold": 0.1, "aggregate": "max"}) == SentenceExit(0.1)
    assert windows.from_json({"policy": "Windows", "margin": 3, "context_layers": None}) == Windows(3)
    written = {"policy": "Threshold", "threshold": 0.5, "score": "max_probability"}
    assert routing.from_json(written) == Threshold(0.5)


@pytest.mark.parametrize(("kind", "written", "message"), UNREADABLE)
def test_unreadable_policies(kind: ModuleType, written: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        kind.from_json(written)


@pytest.mark.parametrize(("kind", "policy", "message"), OWN)
def test_own_functions_serve_but_have_no_written_form(kind: ModuleType, policy: Any, message: str) -> None:
    kind.check(policy, ModelInfo(("a", "b")))
    with pytest.raises(OptionError, match=rf"only a registered {message}"):
        kind.to_json(policy)


def test_policies_are_values() -> None:
    assert len({MaxProbability(0.9), MaxProbability(0.9), Margin(0.9), never, exits.Never(), defer_all}) == 4
    assert Crf(np.eye(2)) == Crf(np.eye(2), [0, 0], [0, 0]) != Crf(np.eye(2), [0, 1])
    assert Viterbi(("O", "B-X")) != Viterbi(("B-X", "O"))
    assert MaxProbability([0.5, 0.9]) == MaxProbability((0.5, 0.9))  # type: ignore[arg-type]  # out of JSON


def test_own_classes_are_asked_whether_they_fit() -> None:
    class Picky:
        def __call__(self, now: Any) -> Any:
            return now.lengths > 8

        def check(self, model: ModelInfo) -> None:
            raise OptionError(f"Picky dislikes {model.labels}")

    with pytest.raises(OptionError, match=r"Picky dislikes \('a', 'b'\)"):
        routing.check(Picky(), ModelInfo(("a", "b")))
    with pytest.raises(OptionError, match=r"the router must be callable, got 0.5; use one of cascade.policies"):
        routing.check(0.5, ModelInfo())  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    ("kind", "who", "meaning"), [(exits, "exit policy", "that exits"), (routing, "router", "to defer")]
)
def test_what_a_policy_returns_is_checked(kind: ModuleType, who: str, meaning: str) -> None:
    p = np.array([[0.5, 0.5]])
    state = ExitState(0, 2, False, p, p[:, None]) if kind is exits else routing.RoutingState(p, p[:, 0], np.array([7]))

    def wrong(now: Any) -> Any:
        return now.probabilities[:, 0]

    with pytest.raises(OptionError, match=rf"the {who} .*wrong.* must return bools of shape \(1,\), got .*{meaning}"):
        kind.decide(wrong, state)
    np.testing.assert_array_equal(kind.decide(lambda now: now.probabilities[:, 0] > 0.6, state), [False])

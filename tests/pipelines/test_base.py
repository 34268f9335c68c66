"""What classifiers and taggers share: loading, policies, answers in any batches and streams."""

from __future__ import annotations

import logging
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cascade
from cascade import Classifier, StreamOptions, Tagger
from cascade.exceptions import BundleError, BundleNotFoundError, OptionError, TaskError
from cascade.pipelines import parts
from cascade.policies import (
    Budget,
    MaxProbability,
    Patience,
    Threshold,
    TokenExit,
    Viterbi,
    defer_all,
    defer_none,
    whole_sentences,
)
from cascade.policies.batching import POOL_FROM, TokenBudget, for_tier2
from tests.models.batching import FixedSize
from tests.models.toy_tags import TAGS
from tests.pipelines.conftest import LONG, TEXTS, Pipeline, answers, items, rewrite


def names(found: Any) -> list[Any]:
    return [answer.tags if hasattr(answer, "tags") else answer.label for answer in found]


def routes(answer: Any) -> Any:
    return answer.routes if hasattr(answer, "routes") else [answer.route]


def test_load_makes_what_the_bundle_is_for(loaded: Pipeline) -> None:
    again = type(loaded).from_pretrained(loaded.bundle.folder, threads=1)
    assert again.policies == loaded.policies == loaded.bundle.manifest.policies
    np.testing.assert_array_equal(answers(again), answers(loaded))


def test_load_reads_each_file_once(loaded: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = Path.read_bytes

    def watched(path: Path) -> bytes:
        read.append(path.relative_to(loaded.bundle.folder).as_posix())
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", watched)
    cascade.load(loaded.bundle.folder, threads=2)
    assert sorted(read) == sorted(loaded.bundle.manifest.files)


def test_options_of_load(loaded: Pipeline, other: Pipeline) -> None:
    chosen = cascade.load(str(loaded.bundle.folder), threads=1, policies=other.policies, batching=FixedSize(4))
    assert chosen.policies == other.policies
    assert chosen.tier1.batching == chosen.tier2.batching == FixedSize(4)
    with pytest.raises(OptionError, match="temperatures must be one per exit, got 1 for 3 of tier 2"):
        cascade.load(loaded.bundle.folder, policies=replace(other.policies, temperatures=((1,), (1,))))


def test_options_of_from_pretrained(loaded: Pipeline) -> None:
    folder = str(loaded.bundle.folder)
    full = loaded.policies.full_depth()
    chosen = type(loaded).from_pretrained(folder, threads=1, policies=full, batching=FixedSize(4))
    assert (chosen.policies, chosen.tier2.batching) == (full, FixedSize(4))
    words = isinstance(loaded, Tagger)
    others = replace(loaded.policies, windows=whole_sentences, decoding=Viterbi(TAGS))
    with nullcontext() if words else pytest.raises(OptionError, match="windows must be left out of a classifier"):
        assert type(loaded).from_pretrained(folder, threads=1, policies=others).policies == others


def test_loading_faults(loaded: Pipeline, tmp_path: Path) -> None:
    with pytest.raises(BundleNotFoundError):
        cascade.load(tmp_path / "nowhere")
    for load in (cascade.load, type(loaded).from_pretrained):
        with pytest.raises(OptionError, match="threads must be a whole number of at least 1"):
            load(loaded.bundle.folder, threads=0)
    shutil.copytree(loaded.bundle.folder, tmp_path / "odd")
    rewrite(tmp_path / "odd", "policies", routers=[{"policy": "Oracle"}])
    with pytest.raises(BundleError, match=r"the router must be one of .*, got 'Oracle'"):
        cascade.load(tmp_path / "odd")


def test_a_form_that_is_slow_on_this_cpu(
    loaded: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(loaded.bundle.folder, tmp_path / "old")
    caplog.set_level(logging.INFO)
    for form, lacks, told in (("int8", False, 0), ("int8", True, 1), ("int7", True, 1)):
        rewrite(tmp_path / "old", "tiers", 0, precision=form)
        monkeypatch.setattr(parts, "lacks_vnni", lambda lacks=lacks: lacks)
        cascade.load(tmp_path / "old", threads=1)
        assert len(caplog.messages) == told
    assert caplog.messages[0].endswith(
        "old: weights of 8 bits, slow without VNNI: cascade-export --for avx2 makes faster ones"
    )


def test_altered_files_are_all_named(loaded: Pipeline, tmp_path: Path) -> None:
    shutil.copytree(loaded.bundle.folder, tmp_path / "odd")
    for file in ("tier2/stage_01.onnx", "tokenizer.json"):
        path = tmp_path / "odd" / file
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError) as caught:
        cascade.load(tmp_path / "odd")
    assert "tier2/stage_01.onnx was altered" in str(caught.value)
    assert "tokenizer.json was altered" in str(caught.value)


@pytest.mark.parametrize("change", [{"heads": 1}, {"heads": 3}, {"position_offset": 1}, {"max_length": 99}])
def test_a_manifest_that_contradicts_its_graphs(
    loaded: Pipeline, tmp_path: Path, change: dict[str, int], capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(loaded.bundle.folder, tmp_path / "odd")
    rewrite(tmp_path / "odd", "tiers", 1, **change)
    message = r"^heads, width, position_offset and max_length of tiers\[1\] of .*odd/cascade.json must be those of its"
    with pytest.raises(BundleError, match=message) as caught:
        cascade.load(tmp_path / "odd", threads=1)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_the_wrong_class(loaded: Pipeline) -> None:
    wrong, right = (Tagger, "Classifier") if isinstance(loaded, Classifier) else (Classifier, "Tagger")
    message = rf"{wrong.__name__} must have a bundle for .*, but .* is for .*; load it with {right}.from_pretrained or"
    with pytest.raises(TaskError, match=message):
        wrong.from_pretrained(loaded.bundle.folder)


def test_repr(loaded: Pipeline) -> None:
    name = f"{type(loaded).__name__}({str(loaded.bundle.folder)!r}, {len(loaded.labels)} labels, 2 tiers, Policies(rout"
    assert repr(loaded).startswith(name)


def test_copies_share_sessions_and_leave_the_original_alone(loaded: Pipeline) -> None:
    copy = loaded.with_router(defer_none).with_exit_policy(Patience(1)).with_batching(FixedSize(2))
    assert (loaded.router, loaded.exit_policy) == (Threshold(0.9), MaxProbability(0.9))
    assert (copy.router, copy.exit_policy) == (defer_none, Patience(1))
    assert copy.tier1.batching == copy.tier2.batching == FixedSize(2)
    assert loaded.tier1.batching == TokenBudget()
    assert loaded.tier2.batching == for_tier2(loaded.threads)
    assert (loaded.tier1.pool_from, loaded.tier2.pool_from) == POOL_FROM
    assert copy.tier1.backend is loaded.tier1.backend
    assert copy.tier2.stages is loaded.tier2.stages


def test_policies_go_from_one_pipeline_to_another(loaded: Pipeline, other: Pipeline) -> None:
    copy = loaded.with_policies(other.policies)
    assert (copy.router, copy.exit_policy, copy.policies.blend) == (Threshold(0.7), Patience(1), (0.25,))
    np.testing.assert_array_equal(answers(copy), answers(other))
    assert not np.array_equal(answers(copy), answers(loaded))


def test_policies_are_checked(loaded: Pipeline) -> None:
    wrong: Any = 0.9
    tagger: Any = loaded
    of_both: list[tuple[Any, str]] = [
        (lambda: loaded.with_router(wrong), "the router must be callable, got 0.9; use one of cascade.policies"),
        (lambda: loaded.with_exit_policy(wrong), "the exit policy must be callable, got 0.9; use one of cascade.pol"),
        (lambda: loaded.with_batching(wrong), "the batching policy must be callable, got 0.9; use one of"),
        (lambda: loaded.with_exit_policy(MaxProbability((0.5,))), r"one per exit \(3, after layers 1, 2, 3"),
        (lambda: loaded.with_router(defer_all, tier=2), "tier must be a number from 1 to 1, got 2; tiers are counted"),
        (
            lambda: loaded.with_exit_policy(Patience(1), tier=1),
            "tier 1 has no exits, its exit policy must be never, got",
        ),
        *((lambda one=one: loaded.with_blend(one), r"blend must be in \[0, 1\]") for one in (-0.1, 1.1, "much", True)),
        (lambda: loaded.with_temperatures(0, (1, 1, 1)), "temperatures must be above 0 and finite"),
        (lambda: loaded.with_temperatures(1, ()), "temperatures must be"),
        (lambda: loaded.with_temperatures(1, (1, 1)), "temperatures must be"),
        (lambda: loaded.with_temperatures(1), "temperatures must be"),
        (lambda: loaded.with_max_tokens(7), r"max_tokens must be one per tier .*, got \(7,\)"),
        (lambda: loaded.with_max_tokens(7, 0), "max_tokens must be a whole number"),
    ]
    of_classifiers = [
        (lambda: loaded.with_exit_policy(TokenExit(0.05)), "must be asked about words, got whole texts; use")
    ]
    of_taggers: list[tuple[Any, str]] = [
        (
            lambda: tagger.with_windows(wrong),
            "the windows policy must be callable, got 0.9; use one of cascade.policies",
        ),
        (lambda: tagger.with_decoding(wrong), "the decoder must be callable, got 0.9; use one of cascade.policies"),
        (lambda: tagger.with_decoding(Viterbi(("O", "B-X", "I-X"))), "Viterbi must have the model's 5 labels"),
    ]
    for refused, message in (*of_both, *(of_taggers if isinstance(loaded, Tagger) else of_classifiers)):
        with pytest.raises(OptionError, match=message):
            refused()


@pytest.mark.parametrize("batching", [FixedSize(1), FixedSize(3), TokenBudget(20), TokenBudget(9999)])
def test_alone_or_together_in_any_batches(loaded: Pipeline, batching: Any) -> None:
    given: list[Any] = [*items(loaded, [*TEXTS, LONG]), *([("good film", "bad plot")] * isinstance(loaded, Classifier))]
    expected: Any = loaded.predict(given)
    found = loaded.with_batching(batching).predict(given)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
    assert names(found) == names(expected)
    for item, answer in zip(given, expected, strict=True):
        np.testing.assert_allclose(loaded.predict([item])[0].probabilities, answer.probabilities, atol=1e-5)


@pytest.mark.parametrize("router", [Threshold(0.9), defer_all, defer_none])
def test_stream_equals_predict(loaded: Pipeline, router: Any) -> None:
    given = items(loaded, [*TEXTS, LONG, *TEXTS])
    chosen = loaded.with_router(router)
    expected: Any = chosen.predict(given)
    for options in (
        None,
        StreamOptions(buffer_size=3, look_ahead=5, pool_tokens=10),
        StreamOptions(buffer_size=2),
        StreamOptions(max_age=0),
        StreamOptions(max_age=None),
    ):
        found: list[Any] = list(chosen.stream(iter(given), options=options))
        assert names(found) == names(expected)
        for one, its in zip(found, expected, strict=True):
            np.testing.assert_allclose(one.probabilities, its.probabilities, atol=1e-5)
            for mine, theirs in zip(*(routes(each) for each in (one, its)), strict=True):
                assert (mine.tier, mine.exit_layer) == (theirs.tier, theirs.exit_layer)


def test_a_budget_that_can_defer_nothing_warns(loaded: Pipeline) -> None:
    small = loaded.with_router(Budget(0.25))
    one: Any = [["good"]] if isinstance(small, Tagger) else ["good"]
    with pytest.warns(UserWarning, match=r"Budget\(max_deferred=0.25\) must see 4 units together .*, got 1; use Thr"):
        assert small.predict(one).stats.deferred == 0


def test_temperatures(loaded: Pipeline) -> None:
    alone = loaded.with_router(defer_none)
    hot, cold = (answers(alone.with_temperatures(one, (1, 1, 1))) for one in (2.0, 0.5))
    assert (hot.max(axis=1) < cold.max(axis=1)).all()

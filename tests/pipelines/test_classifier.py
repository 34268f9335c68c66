from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascade.bundle.manifest import MANIFEST_FILE
from cascade.engine.streaming import StreamOptions
from cascade.exceptions import BundleError, BundleNotFoundError, CertificateWarning, InputError, OptionError
from cascade.pipelines import base as face
from cascade.pipelines.classifier import Classifier
from cascade.policies.batching import POOL_FROM, FixedSize, SortedByLength, TokenBudget, for_tier2
from cascade.policies.exits import AtExit, MaxProbability, Patience, never
from cascade.policies.routing import Budget, Threshold, defer_all, defer_none
from cascade.text.tokenizer import Text
from tests.models.certificates import certificate_of
from tests.models.toy import toy_bundle

TEXTS: list[Text] = [
    "good film",
    "bad",
    "",
    "a very dull plot it was",
    "we laugh",
    "not good not bad",
    "unheard of",
    "bright",
]
LONG = "the film was not very good " * 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_bundle(tmp_path_factory.mktemp("bundles") / "sentiment").folder


@pytest.fixture(scope="module")
def clf(folder: Path) -> Classifier:
    return Classifier.from_pretrained(folder, threads=1)


@pytest.fixture(scope="module")
def multi(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    bundle = toy_bundle(tmp_path_factory.mktemp("bundles") / "topics", labels=["a", "b", "c", "d"], multi_label=True)
    return Classifier.from_pretrained(bundle.folder, threads=1)


def test_predict(clf: Classifier) -> None:
    answers = clf.predict(TEXTS)
    assert answers.probabilities.shape == (8, 3)
    np.testing.assert_allclose(answers.probabilities.sum(axis=1), np.ones(8), rtol=1e-5)
    assert answers.labels == [clf.labels[best] for best in answers.probabilities.argmax(axis=1)]
    assert {route.tier for route in answers.routes} == {1, 2}
    assert list(answers.stats.seconds) == ["tokenize", "tier1", "route", "tier2", "merge"]
    assert (answers.stats.texts, answers.stats.units) == (8, 8)


def test_alone_or_together_in_any_batches(clf: Classifier) -> None:
    texts: list[Text] = [*TEXTS, LONG, ("good film", "bad plot")]
    expected = clf.predict(texts)
    for batching in (FixedSize(1), FixedSize(3), SortedByLength(4), TokenBudget(20), TokenBudget(9999)):
        answers = clf.with_batching(batching).predict(texts)
        np.testing.assert_allclose(answers.probabilities, expected.probabilities, atol=1e-5)
        assert answers.labels == expected.labels
    for row, text in enumerate(texts):
        np.testing.assert_allclose(clf.predict([text]).probabilities[0], expected.probabilities[row], atol=1e-5)


def test_the_forms_of_transformers(clf: Classifier) -> None:
    """As `transformers.pipeline("text-classification")` 4.57 answers."""
    best = clf.predict(["good film"])
    label, score = best.labels[0], float(best.probabilities[0].max())
    plain = {"label": label, "score": score}
    assert clf("good film") == [plain]
    assert clf(["good film"]) == [plain]
    assert clf(["good film", "good film"]) == [plain, plain]
    assert clf({"text": "good film"}) == plain
    assert clf([{"text": "good film"}]) == [plain]
    assert clf("good film", top_k=1) == [plain]
    assert clf(["good film"], top_k=1) == [[plain]]
    assert clf([]) == []
    every = clf("good film", top_k=None)
    assert sorted(row["label"] for row in every) == sorted(clf.labels)
    assert clf({"text": "good film"}, top_k=None) == every
    assert clf(["good film"], top_k=None) == [every]
    assert clf(["good film"], top_k=2) == [every[:2]]
    assert clf("good film", top_k=99) == every
    scores = [row["score"] for row in every]
    assert scores == sorted(scores, reverse=True)
    assert all(type(row["score"]) is float and type(row["label"]) is str for row in every)
    json.dumps(every)


def test_pairs(clf: Classifier) -> None:
    as_dict, as_tuple, single = clf.predict([{"text": "good", "text_pair": "bad"}, ("good", "bad"), "good bad"])
    np.testing.assert_array_equal(as_dict.probabilities, as_tuple.probabilities)
    assert not np.allclose(as_dict.probabilities, single.probabilities)
    assert clf({"text": "good", "text_pair": "bad"}) == clf([("good", "bad")])[0]


def test_long_documents_are_averaged_over_windows(clf: Classifier) -> None:
    alone = clf.with_router(defer_all).with_exit_policy(never)
    answers = alone.predict(["bad", LONG, "good"])
    encoded = alone.tokenizer.encode(["bad", LONG, "good"])
    windows = alone.cascade.score(encoded.units).probabilities
    assert len(windows) > 4
    np.testing.assert_allclose(answers.probabilities[1], windows[1:-1].mean(axis=0), rtol=1e-5)
    assert (answers.stats.texts, answers.stats.units) == (3, 3)
    assert len(answers) == 3
    assert answers.routes[1].confidence == pytest.approx(answers.probabilities[1].max())


@pytest.mark.parametrize("router", [Threshold(0.9), defer_all, defer_none])
def test_stream_equals_predict(clf: Classifier, router: Any) -> None:
    texts = [*TEXTS, LONG, *TEXTS]
    chosen = clf.with_router(router)
    expected = list(chosen.predict(texts))
    options = StreamOptions(buffer_size=3, look_ahead=5, pool_tokens=10)
    for answers in (list(chosen.stream(iter(texts))), list(chosen.stream(iter(texts), options=options))):
        assert [answer.label for answer in answers] == [answer.label for answer in expected]
        for answer, other in zip(answers, expected, strict=True):
            np.testing.assert_allclose(answer.probabilities, other.probabilities, atol=1e-5)
            assert (answer.route.tier, answer.route.exit_layer) == (other.route.tier, other.route.exit_layer)


def test_multi_label(multi: Classifier) -> None:
    answers = multi.predict(TEXTS)
    assert answers.labels == [
        tuple(label for label, p in zip("abcd", row, strict=True) if p >= 0.5) for row in answers.probabilities
    ]
    assert any(len(labels) != 1 for labels in answers.labels)
    scores = multi("good film", top_k=None)
    assert len(scores) == 4
    assert all(0 <= row["score"] <= 1 for row in scores)
    assert multi.predict([LONG]).labels[0] == next(iter(multi.stream([LONG]))).label


def test_copies_share_sessions_and_leave_the_original_alone(clf: Classifier) -> None:
    other = clf.with_router(defer_none).with_exit_policy(Patience(1)).with_batching(FixedSize(2))
    assert (clf.router, clf.exit_policy) == (Threshold(0.9), MaxProbability(0.9))
    assert (other.router, other.exit_policy) == (defer_none, Patience(1))
    assert other.tier1.batching == other.tier2.batching == FixedSize(2)
    assert clf.tier1.batching == TokenBudget()
    assert clf.tier2.batching == for_tier2(clf.tier2.executor.threads)
    assert (clf.tier1.pool_from, clf.tier2.pool_from) == POOL_FROM
    assert other.tier1.backend is clf.tier1.backend
    assert other.tier2.stages is clf.tier2.stages
    assert clf.with_budget(max_deferred=0.25).router == Budget(0.25)
    assert clf.with_budget(max_deferred=0.25).predict(TEXTS).stats.deferred == 2


def test_truncation(clf: Classifier) -> None:
    answers = clf.with_router(defer_all).with_exit_policy(AtExit(2)).predict(TEXTS)
    assert answers.stats.exits == {2: 8}


def test_options_of_from_pretrained(folder: Path) -> None:
    chosen = Classifier.from_pretrained(
        str(folder), threads=1, router=defer_all, exit_policy=never, batching=FixedSize(4)
    )
    assert (chosen.router, chosen.exit_policy, chosen.tier2.batching) == (defer_all, never, FixedSize(4))
    half = Classifier.from_pretrained(folder, threads=1, router=defer_all)
    assert (half.router, half.exit_policy) == (defer_all, MaxProbability(0.9))


def test_repr(clf: Classifier, folder: Path) -> None:
    assert repr(clf) == (
        f"Classifier({str(folder)!r}, 3 labels, 3 exits, router=Threshold(threshold=0.9), "
        "exit_policy=MaxProbability(threshold=0.9), blend=0.0, max_tokens=(1024, 1024))"
    )


@pytest.mark.parametrize("blend", [-0.1, 1.1, "much", True])
def test_blend_is_a_share(clf: Classifier, blend: Any) -> None:
    with pytest.raises(OptionError, match=r"blend must be in \[0, 1\], was: .*; 0 forgets tier 1's answer"):
        clf.with_blend(blend)


def test_save_and_load_again(clf: Classifier, tmp_path: Path) -> None:
    chosen = clf.with_budget(max_deferred=0.5).with_exit_policy(Patience(1)).with_blend(0.5)
    chosen.save_pretrained(tmp_path / "new")
    again = Classifier.from_pretrained(tmp_path / "new", threads=1)
    assert (again.router, again.exit_policy) == (Budget(0.5), Patience(1))
    np.testing.assert_array_equal(again.predict(TEXTS).probabilities, chosen.predict(TEXTS).probabilities)
    with pytest.raises(OptionError, match="the destination must not be there yet"):
        clf.save_pretrained(tmp_path / "new")
    clf.save_pretrained(tmp_path / "new", overwrite=True)
    assert Classifier.from_pretrained(tmp_path / "new", threads=1).router == clf.router


@pytest.fixture(scope="module")
def certified(clf: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    manifest = clf.bundle.manifest
    safer = tuple(clf.with_router(Threshold(share)).settings for share in (0.99, 0.95))
    folder = tmp_path_factory.mktemp("bundles") / "certified"
    clf.save_pretrained(folder, certificate=certificate_of(manifest, safer=safer))
    return Classifier.from_pretrained(folder, threads=1)


def test_a_certificate_is_about_the_very_policies_that_were_tested(clf: Classifier, certified: Classifier) -> None:
    assert clf.certificate is None
    certificate = certified.certificate
    assert certificate is not None
    assert certificate.policies == certified.settings == clf.settings
    assert certified.with_batching(FixedSize(1)).certificate == certificate
    assert certified.with_router(Threshold(0.5)).with_router(Threshold(0.9)).certificate == certificate
    for other in (
        certified.with_router(Threshold(0.5)),
        certified.with_budget(max_deferred=0.2),
        certified.with_exit_policy(never),
        certified.with_blend(0.5),
        certified.with_temperatures(1, [1, 1, 2]),
        certified.with_router(lambda state: state.lengths > 3),
        Classifier.from_pretrained(certified.bundle.folder, threads=1, router=defer_all),
    ):
        assert other.certificate is None


def test_a_certificate_is_saved_as_long_as_it_is_about_the_copy(certified: Classifier, tmp_path: Path) -> None:
    certified.save_pretrained(tmp_path / "same")
    assert Classifier.from_pretrained(tmp_path / "same", threads=1).certificate == certified.certificate
    certified.with_blend(0.5).save_pretrained(tmp_path / "other")
    assert Classifier.from_pretrained(tmp_path / "other", threads=1).bundle.manifest.certificate is None
    with pytest.raises(OptionError, match=r"must be about the bundle .* the blend is 0.5, certified: 0.0"):
        certified.with_blend(0.5).save_pretrained(tmp_path / "third", certificate=certified.certificate)


def test_a_certificate_of_other_models_warns_and_is_dropped(certified: Classifier, tmp_path: Path) -> None:
    shutil.copytree(certified.bundle.folder, tmp_path / "altered")
    file = tmp_path / "altered" / MANIFEST_FILE
    raw = json.loads(file.read_text(encoding="utf-8"))
    raw["certificate"]["models"]["tier2/embed.onnx"] = "0" * 64
    raw["tier1"]["temperature"] = 2.0
    file.write_text(json.dumps(raw), encoding="utf-8")
    message = (
        r"about its own models and policies, but in .*altered the temperatures are \[2.0, .*, certified: \[1.0, "
        r".*; tier2/embed.onnx is another than the certified one; nothing is certified of it, calibrate it again"
    )
    with pytest.warns(CertificateWarning, match=message) as caught:
        loaded = Classifier.from_pretrained(tmp_path / "altered", threads=1)
    assert [warning.filename for warning in caught] == [__file__]
    assert loaded.certificate is None
    loaded.save_pretrained(tmp_path / "again")
    assert Classifier.from_pretrained(tmp_path / "again", threads=1).certificate is None


def test_safer_settings(clf: Classifier, certified: Classifier) -> None:
    first = certified.safer()
    assert first is not None
    assert first.router == Threshold(0.95)
    second = first.safer()
    assert second is not None
    assert second.router == Threshold(0.99)
    for copy in (second, clf, certified.with_blend(0.5), certified.with_router(lambda state: state.lengths > 3)):
        full = copy.safer()
        assert full is not None
        assert (full.router, full.exit_policy) == (defer_all, never)
        assert full.safer() is None


def test_safer_settings_that_cannot_be_read_are_the_bundles_fault(clf: Classifier, tmp_path: Path) -> None:
    safer = ({**clf.settings, "router": {"policy": "unknown"}},)
    clf.save_pretrained(tmp_path / "new", certificate=certificate_of(clf.bundle.manifest, safer=safer))
    loaded = Classifier.from_pretrained(tmp_path / "new", threads=1)
    with pytest.raises(BundleError, match=r"the bundle's policies must be readable, but the router must be one of"):
        loaded.safer()


def test_settings(clf: Classifier) -> None:
    assert clf.settings == {
        "router": {"policy": "Threshold", "threshold": 0.9},
        "exit_policy": {"policy": "MaxProbability", "threshold": 0.9},
        "blend": 0.0,
        "temperatures": [1.0, [1.0, 1.0, 1.0]],
    }
    chosen = clf.with_budget(max_deferred=0.5).with_exit_policy(Patience(1)).with_blend(0.5)
    chosen = chosen.with_temperatures(0.5, (1, 2, 3))
    again = clf.with_settings(json.loads(json.dumps(chosen.settings)))
    assert again.settings == chosen.settings
    assert (again.router, again.exit_policy, again.blend) == (Budget(0.5), Patience(1), 0.5)
    np.testing.assert_array_equal(again.predict(TEXTS).probabilities, chosen.predict(TEXTS).probabilities)
    assert clf.with_settings({"blend": 0.5}).settings == {**clf.settings, "blend": 0.5}
    with pytest.raises(OptionError, match=r"settings must be among router, .*, were: windows; see settings"):
        clf.with_settings({"windows": {}})


@pytest.mark.parametrize("wrong", [1.0, [1.0, 2.0], [1.0, [1.0], 3], ["1", [1, 1, 1]]])
def test_temperatures_in_settings(clf: Classifier, wrong: object) -> None:
    with pytest.raises(OptionError, match=r"temperatures must be \[of tier 1, \[of each exit\]\], were: .*; see"):
        clf.with_settings({"temperatures": wrong})


def test_temperatures(clf: Classifier) -> None:
    alone = clf.with_router(defer_none)
    hot, cold = (alone.with_temperatures(one, (1, 1, 1)).predict(TEXTS).probabilities for one in (2.0, 0.5))
    assert (hot.max(axis=1) < cold.max(axis=1)).all()
    with pytest.raises(OptionError, match="temperature must be above 0 and finite, was: 0"):
        clf.with_temperatures(0, (1, 1, 1))
    for wrong in ((), (1, 1)):
        with pytest.raises(OptionError, match=r"temperatures must be one per exit, were: .*; give one for each of 3"):
            clf.with_temperatures(1, wrong)


def test_own_functions_cannot_be_saved(clf: Classifier, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"only a registered router or"):
        clf.with_router(lambda state: state.lengths > 3).save_pretrained(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_push_to_hub(clf: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def push(bundle: Any, repo_id: str, **options: Any) -> str:
        seen.update(options, repo_id=repo_id, router=bundle.manifest.router, there=bundle.folder.is_dir())
        return "https://example.org/commit"

    monkeypatch.setattr(face, "push_bundle", push)
    assert clf.with_router(defer_all).push_to_hub("me/sentiment", private=True) == "https://example.org/commit"
    assert seen == {
        "repo_id": "me/sentiment",
        "router": {"policy": "defer_all"},
        "there": True,
        "private": True,
        "token": None,
        "commit_message": "Upload a cascade bundle",
        "revision": None,
    }


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("good", r"texts must be a list of texts, got str; write \[text\] for one text"),
        (b"good", "texts must be a list of texts, got bytes"),
        ({"text": "good"}, "texts must be a list of texts, got dict"),
        (("good", "bad"), r"texts must be a list of texts, got tuple; write \[\(first, second\)\] for a pair"),
        ({"good", "bad"}, "texts must be a list of texts, got set"),
        (None, "texts must be a list of texts, got NoneType; put them into a list"),
        (3, "texts must be a list of texts, got int"),
    ],
)
def test_what_is_no_list_of_texts(clf: Classifier, texts: Any, message: str) -> None:
    for method in (clf.predict, clf.stream):
        with pytest.raises(InputError, match=message):
            method(texts)


def test_what_is_no_text(clf: Classifier) -> None:
    for bad in (None, 3, 2.5, ["a", "b", "c"], {"txt": "a"}, b"a"):
        with pytest.raises(InputError, match="text 1"):
            clf.predict(["good", bad])  # type: ignore[list-item]  # wrong on purpose
        with pytest.raises(InputError, match="text 1 of the stream"):
            list(clf.stream(["good", bad]))  # type: ignore[list-item]  # wrong on purpose
    with pytest.raises(InputError, match="got NoneType"):
        clf(None)  # type: ignore[arg-type]  # wrong on purpose


def test_any_text_has_an_answer(clf: Classifier) -> None:
    texts = ["", " ", "\x00\x01", "\ud800", "好电影", "𝔤𝔬𝔬𝔡", "a" * 100_000, "good " * 20_000]
    answers = clf.predict(texts)
    assert len(answers) == len(texts)
    assert np.isfinite(answers.probabilities).all()


def test_empty_list(clf: Classifier) -> None:
    for router in (Threshold(0.9), defer_all, defer_none, Budget(0.5)):
        answers = clf.with_router(router).predict([])
        assert len(answers) == 0
        assert answers.probabilities.shape == (0, 3)
    assert list(clf.stream([])) == []


@pytest.mark.parametrize("top_k", [0, -1, 1.5, True, "all"])
def test_top_k_is_checked(clf: Classifier, top_k: Any) -> None:
    with pytest.raises(
        OptionError, match=r"top_k must be a whole number of at least 1, was: .*; None gives all labels"
    ):
        clf("good", top_k=top_k)


def test_policies_are_checked(clf: Classifier) -> None:
    with pytest.raises(OptionError, match=r"the router must be callable, got 0.9; use one of cascade.policies"):
        clf.with_router(0.9)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(OptionError, match=r"the exit policy must be callable, got 0.9; use one of cascade.policies"):
        clf.with_exit_policy(0.9)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(
        OptionError, match=r"the batching policy must be callable, was: 32; use one of cascade.policies"
    ):
        clf.with_batching(32)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(OptionError, match=r"one per exit \(3, after layers 1, 2, 3"):
        clf.with_exit_policy(MaxProbability((0.5,)))


def test_loading_faults(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleNotFoundError):
        Classifier.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(OptionError, match="threads must be a whole number of at least 1, was: 0"):
        Classifier.from_pretrained(folder, threads=0)
    odd = toy_bundle(tmp_path / "odd", router={"policy": "Oracle"})
    with pytest.raises(BundleError, match="the bundle's policies must be readable, but the router must be one of"):
        Classifier.from_pretrained(odd.folder)
    assert Classifier.from_pretrained(odd.folder, threads=1, router=defer_all, exit_policy=never).router == defer_all


def test_progress(clf: Classifier, capsys: pytest.CaptureFixture[str]) -> None:
    clf.predict(TEXTS, show_progress=True)
    assert "tier 1: 100%" in capsys.readouterr().err
    clf.predict(TEXTS)
    assert capsys.readouterr().err == ""

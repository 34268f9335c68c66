"""A model in use, shadowed: the same answers, honest counts, an alarm, a safer setting."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascade.core.results import Prediction
from cascade.engine.streaming import StreamOptions
from cascade.engine.tier import CallableTier
from cascade.exceptions import InputError, OptionError
from cascade.monitoring.monitor import Monitor
from cascade.monitoring.state import Sampler
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.policies.exits import AtExit, never
from cascade.policies.routing import Threshold, defer_all, defer_none
from tests.models.certificates import certificate_of
from tests.models.toy import random_texts, toy_bundle

BUFFERS = StreamOptions(buffer_size=10, look_ahead=20)


TEXTS = random_texts(200)
SPLIT = [text.split() for text in TEXTS]


@pytest.fixture(scope="module")
def certified(clf: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """Its certificate knows one safer setting."""
    folder = tmp_path_factory.mktemp("bundles") / "certified"
    safer = clf.with_router(Threshold(0.99)).policies
    clf.save_pretrained(folder, certificate=certificate_of(clf.bundle.manifest, safer=(safer,)))
    return Classifier.from_pretrained(folder, threads=1)


def full(face: Any) -> Any:
    return face.with_router(defer_all).with_exit_policy(never)


def differing(clf: Classifier, texts: list[str]) -> list[bool]:
    pairs = zip(clf.predict(texts).labels, full(clf).predict(texts).labels, strict=True)
    return [one != other for one, other in pairs]


def shifting(clf: Classifier, quiet: int, loud: int) -> list[str]:
    """Texts on which the tiers agree, then texts on which they do not."""
    some = random_texts(600, seed=7)
    differ = differing(clf, some)
    agreed = [text for text, no in zip(some, differ, strict=True) if not no]
    disputed = [text for text, yes in zip(some, differ, strict=True) if yes]
    return [agreed[row % len(agreed)] for row in range(quiet)] + [disputed[row % len(disputed)] for row in range(loud)]


def same(answers: list[Any], others: list[Any]) -> None:
    assert len(answers) == len(others)
    for one, other in zip(answers, others, strict=True):
        assert type(one) is type(other)
        np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=1e-5)
        if isinstance(one, Prediction):
            assert one.label == other.label
            assert (one.route.tier, one.route.exit_layer) == (other.route.tier, other.route.exit_layer)
        else:
            assert one.tags == other.tags
            np.testing.assert_array_equal(one.routes.tier, other.routes.tier)
            np.testing.assert_array_equal(one.spans, other.spans)


def test_answers_stay_the_same(clf: Classifier, tagger: Tagger) -> None:
    texts, words = Monitor(clf, share=0.5, bound=0.01), Monitor(tagger, share=0.5)
    same(list(texts.predict(TEXTS)), list(clf.predict(TEXTS)))
    same(list(texts.stream(iter(TEXTS), options=BUFFERS)), list(clf.stream(TEXTS, options=BUFFERS)))
    same(list(words.predict(SPLIT)), list(tagger.predict(SPLIT)))
    same(list(words.predict_texts(TEXTS)), list(tagger.predict_texts(TEXTS)))
    same(list(words.stream(SPLIT)), list(tagger.stream(SPLIT)))
    same(list(words.stream_texts(TEXTS)), list(tagger.stream_texts(TEXTS)))
    assert (texts.report().seen, words.report().seen) == (400, 800)


def test_what_differs_is_counted(clf: Classifier) -> None:
    monitor = Monitor(clf, share=1)
    assert monitor.report().interval == (0, 1)
    monitor.predict(TEXTS)
    report = monitor.report()
    assert (report.seen, report.shadowed) == (200, 200)
    assert report.disagreements == sum(differing(clf, TEXTS)) > 0
    assert 0 < report.interval[0] < report.disagreements / 200 < report.interval[1] < 1
    assert (report.bound, report.alarm_at, report.raised) == (None, None, 0)


def test_labels_and_exits_alone_may_differ_too(clf: Classifier, tmp_path: Path) -> None:
    bundle = toy_bundle(tmp_path / "topics", labels=["a", "b", "c", "d"], multi_label=True)
    multi = Classifier.from_pretrained(bundle.folder, threads=1)
    for pipeline in (multi, clf.with_router(defer_all).with_exit_policy(AtExit(1))):
        monitor = Monitor(pipeline, share=1)
        for number, _ in enumerate(monitor.stream(TEXTS, options=BUFFERS), start=1):
            assert number - 32 < monitor.report().shadowed <= number  # constant memory: it does not wait for the end
        assert monitor.report().disagreements == sum(differing(pipeline, TEXTS)) > 0


def test_a_sentence_differs_if_a_word_does(tagger: Tagger) -> None:
    pairs = zip(tagger.predict(SPLIT).tags, full(tagger).predict(SPLIT).tags, strict=True)
    expected = sum(one != other for one, other in pairs)
    monitor = Monitor(tagger, share=1)
    monitor.predict(SPLIT)
    assert monitor.report().disagreements == expected > 0
    list(monitor.stream(SPLIT))
    assert monitor.report().disagreements == 2 * expected


def counts(monitor: Monitor[Any]) -> tuple[int, int, int]:
    report = monitor.report()
    return report.seen, report.shadowed, report.disagreements


def test_the_sample_is_the_same_however_texts_come(clf: Classifier) -> None:
    whole, parts, stream, other = (Monitor(clf, share=0.3, seed=seed) for seed in (1, 1, 1, 2))
    whole.predict(TEXTS)
    for begin in range(0, 200, 33):
        parts.predict(text for text in TEXTS[begin : begin + 33])
    list(stream.stream(TEXTS, options=BUFFERS))
    other.predict(TEXTS)
    assert counts(whole) == counts(parts) == counts(stream)
    assert counts(whole) != counts(other)
    assert 40 < whole.report().shadowed < 80


def test_a_blend_makes_other_answers_at_full_depth(clf: Classifier) -> None:
    blended = Monitor(clf.with_blend(0.5), share=1)
    blended.predict(TEXTS)
    assert blended.report().disagreements == sum(differing(clf.with_blend(0.5), TEXTS))


def test_full_depth_needs_no_shadows(clf: Classifier, tagger: Tagger) -> None:
    for face, given in ((full(clf), TEXTS), (full(tagger), SPLIT)):
        monitor: Monitor[Any] = Monitor(face, share=1, bound=0.01)
        monitor.predict(given)
        report = monitor.report()
        assert (report.shadowed, report.disagreements) == (200, 0)


def test_the_alarm_comes_soon_after_a_shift(clf: Classifier) -> None:
    texts = shifting(clf, 300, 100)
    heard: list[int] = []
    monitor = Monitor(clf, share=1, bound=0.05, on_alarm=lambda it: heard.append(it.report().seen))
    answers = 0
    for _ in monitor.stream(texts, options=BUFFERS):
        answers += 1
        if heard:
            break
    alarm = monitor.report().alarm_at
    assert alarm is not None
    assert 300 < alarm < 320
    detector = monitor.report().detector
    assert detector is not None
    assert detector.alarm_at == alarm  # all were shadowed
    assert heard == [answers]
    assert alarm <= answers < alarm + 32  # at once, but for those that were compared together
    assert monitor.pipeline is clf
    list(monitor.stream(texts, options=BUFFERS))
    assert len(heard) == 1
    assert monitor.report().alarm_at == alarm


def test_the_alarm_names_the_text_and_how_many_were_shadowed(clf: Classifier) -> None:
    texts = shifting(clf, 0, 200)
    monitor = Monitor(clf, share=0.25, bound=0.05)
    monitor.predict(texts)
    report = monitor.report()
    drawn = Sampler(share=0.25, seed=0).draw(200)
    assert report.alarm_at is not None
    assert report.detector is not None
    after = report.detector.alarm_at
    assert after is not None
    assert report.alarm_at == drawn[after - 1] + 1 > after


def test_bound_of_the_certificate(certified: Classifier) -> None:
    assert Monitor(certified).report().bound == 0.0242
    assert Monitor(certified, bound=0.5).report().bound == 0.5
    assert re.match(r"Monitor\(Classifier\(.*bound=0.5", repr(Monitor(certified, bound=0.5)))
    assert Monitor(certified.with_router(defer_none)).report().bound is None  # of which nothing is certified


def test_safer_settings_one_after_the_other(certified: Classifier) -> None:
    monitor = Monitor(certified, share=1)
    monitor.predict(shifting(certified, 0, 50))
    assert monitor.report().alarm_at is not None
    assert monitor.safer()
    assert monitor.pipeline.router == Threshold(0.99)
    assert certified.router == Threshold(0.9)
    assert counts(monitor) == (50, 0, 0)
    assert (monitor.report().alarm_at, monitor.report().bound, monitor.report().raised) == (None, 0.0242, 1)
    assert monitor.safer()
    assert monitor.pipeline.policies == full(certified).policies
    assert not monitor.safer()
    assert monitor.report().raised == 2
    monitor.predict(shifting(certified, 0, 50))
    assert counts(monitor) == (100, 50, 0)


def test_a_stream_goes_on_with_the_safer_setting(clf: Classifier) -> None:
    texts = shifting(clf, 100, 200)
    monitor = Monitor(clf, share=1, bound=0.05, on_alarm=Monitor.safer)
    answers = list(monitor.stream(texts, options=BUFFERS))
    before, after = clf.predict(texts).labels, full(clf).predict(texts).labels
    labels = [answer.label for answer in answers]
    change = next(row for row in range(300, 0, -1) if labels[row - 1] == before[row - 1] != after[row - 1])
    assert 100 < change < 170  # an alarm, and what had been read by then
    assert labels == before[:change] + after[change:]
    report = monitor.report()
    assert (report.seen, report.raised, report.alarm_at, report.disagreements) == (300, 1, None, 0)
    assert report.shadowed == 300 - change  # of the setting before, nothing is counted any more
    assert (monitor.pipeline.router, monitor.pipeline.exit_policy) == (defer_all, never)


def test_a_stream_reads_no_further_than_the_model(clf: Classifier) -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "good film"

    stream = Monitor(clf, share=0.5).stream(endless(), options=BUFFERS)
    for _ in range(100):
        next(stream)
    assert read <= 120


def test_what_an_abandoned_stream_left_is_compared_later(tagger: Tagger) -> None:
    monitor = Monitor(tagger, share=1)
    stream = monitor.stream(SPLIT[:20])
    for _ in range(10):
        next(stream)
    assert counts(monitor)[:2] == (10, 0)
    monitor.predict_texts(TEXTS[:5])
    assert counts(monitor)[:2] == (15, 15)
    other = monitor.stream_texts(TEXTS[:20])
    for _ in range(5):  # the two in turn
        next(stream)
        next(other)
    monitor.predict([])
    assert counts(monitor)[:2] == (25, 25)


@pytest.mark.parametrize("texts", ["a text", 7, {"text": "good"}, {"good"}, ("good", "bad"), [3]])
@pytest.mark.parametrize("method", ["predict", "stream"])
def test_bad_texts_are_told_as_the_model_tells_them(clf: Classifier, method: str, texts: Any) -> None:
    messages = []
    for one in (clf, Monitor(clf, share=1)):
        with pytest.raises(InputError) as told:
            list(getattr(one, method)(texts))
        messages.append(str(told.value))
    assert messages[0] == messages[1]


def test_bad_sentences_are_told_as_the_model_tells_them(tagger: Tagger) -> None:
    monitor = Monitor(tagger)
    with pytest.raises(InputError, match="sentence"):
        monitor.stream("a text")
    with pytest.raises(InputError):
        monitor.stream_texts("a text")
    assert len(monitor.predict((["good"], ["film"]))) == 2  # here a tuple is a list of sentences


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0}, "share must be above 0, got 0; 0.01 compares every hundredth answer"),
        ({"share": 1.5}, r"share must be in \[0, 1\], .*1.5; 0.01 compares every hundredth answer"),
        ({"share": True}, r"share must be in \[0, 1\], .*True; 0.01 compares every hundredth answer"),
        ({"bound": 0}, "bound must be above 0 and below 1, got 0; it is a share of all answers, such as 0.02"),
        ({"confidence": 1}, "confidence must be above 0 and below 1, got 1; 0.95 is usual"),
        ({"seed": -1}, "seed must be a whole number of at least 0, .*-1; 0 is usual"),
    ],
)
def test_impossible_options(clf: Classifier, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=f"^{message}$"):
        Monitor(clf, **options)


def test_a_certificate_about_words(tagger: Tagger, tmp_path: Path) -> None:
    tagger.save_pretrained(tmp_path / "words", certificate=certificate_of(tagger.bundle.manifest, unit="word"))
    certified = Tagger.from_pretrained(tmp_path / "words", threads=1)
    monitor = Monitor(certified, share=0.05)
    assert monitor.report().bound is None  # sentences are compared
    monitor.predict(SPLIT)
    streamed = Monitor(certified, share=0.05)
    list(streamed.stream(SPLIT))
    assert counts(streamed) == counts(monitor)


def test_full_depth_of_three_tiers_is_the_last_one(clf: Classifier) -> None:
    def answer(texts: list[str]) -> Any:
        return np.tile(np.array([[0.6, 0.3, 0.1]], dtype=np.float32), (len(texts), 1))

    three = clf.with_tier(CallableTier(answer, 1.0, 3), router=Threshold(0.7))
    monitor = Monitor(three, share=1)
    tiers = monitor.predict(TEXTS).routes.tier
    assert set(tiers.tolist()) == {1, 2, 3}
    assert monitor.report().disagreements == sum(label != three.labels[0] for label in three.predict(TEXTS).labels)
    assert monitor.safer()
    assert set(monitor.predict(TEXTS).routes.tier.tolist()) == {3}

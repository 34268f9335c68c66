"""`Monitor`: a sampled share of a pipeline's answers is compared with tier 2 at full depth.

What is watched is the share of ALL answers that differ from those of tier 2 alone at full depth: the rate that a
certificate states as its disagreement. Whether tier 2 is right is not seen, but texts of another kind are: every fourth
is compared with what the bundle knows of those of its calibration (`cascade.monitoring.shift`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar, cast, overload

import numpy as np

from cascade.core.results import Label, Prediction, Predictions, TagPrediction, TagPredictions
from cascade.engine.streaming import StreamOptions
from cascade.exceptions import OptionError
from cascade.monitoring.sequential import EDetector
from cascade.monitoring.shift import ShiftDetector
from cascade.monitoring.state import MonitorState, Sampler
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.profiling import depth_of, features
from cascade.pipelines.tagger import Tagger
from cascade.text.texts import Text
from cascade.text.word_encoding import Sentence

TOGETHER: Final = 32  # answers of a stream that are drawn, and sampled ones that tier 2 looks at, together
EVERY: Final = 4  # texts, of which one is looked at: to look is to encode it once more
LOOKED_AT: Final = 64  # of these together

P = TypeVar("P", bound="Classifier | Tagger")
Ask: TypeAlias = Literal["predict", "predict_texts"]
"""The method of a pipeline that answers a list."""


class Monitor(Generic[P]):
    """A pipeline in use, and what is known of how often its answers differ from tier 2's at full depth.

    Its answers are the pipeline's own, in their order. What changes is kept here and does not grow with the number of
    texts. Calls must come from one thread at a time.

    A seeded generator draws one number per answer, whatever the text says and however texts come in batches, so the
    sample needs no weights.

    Two statements hold at all times at once (`cascade.monitoring.sequential`): an interval for the rate, over all that
    was compared; and an alarm, raised when it is shown that the rate has risen above the bound, be it half-way. The
    alarm is false with a probability of at most `1 - confidence` over an endless stream in which the rate stays at
    most the bound. A bound from a certificate itself holds with the confidence of the certificate.

    A third one needs neither labels nor tier 2: where the bundle has a profile of texts that it is meant for
    (`cascade calibrate` and `cascade build` write one), an alarm is raised when it is shown that texts are of another
    kind: deeper or surer answers, longer or shorter texts, more or fewer new words. It is false with a probability of
    at most `1 - confidence` over an endless stream of texts like those.

    Example:
        monitor = Monitor(Classifier.from_pretrained("models/sentiment"), share=0.01, bound=0.05)
        for answer in monitor.stream(texts):
            ...
        if monitor.report().alarm_at is not None:
            monitor.safer()
    """

    def __init__(
        self,
        pipeline: P,
        *,
        share: float = 0.01,
        bound: float | None = None,
        confidence: float = 0.95,
        seed: int = 0,
        on_alarm: Callable[[Monitor[P]], object] | None = None,
        on_shift: Callable[[Monitor[P]], object] | None = None,
    ) -> None:
        """Begin to watch.

        Args:
            pipeline: a classifier or a tagger. Of a tagger sentences are compared (any word differs).
            share: how many of the answers are sampled, above 0, at most 1.
            bound: the alarm is raised when more than this share of all answers differ, in (0, 1). By default the upper
                limit of the disagreement in the certificate (not one about words, which older versions made); without
                one, no alarm is raised.
            confidence: of the interval, and of either alarm, each, in (0, 1).
            seed: of the sample.
            on_alarm: called with this monitor when the alarm about disagreement is raised; `Monitor.safer` serves.
            on_shift: called with this monitor when it is shown that texts are of another kind.

        An impossible value is an `OptionError`.
        """
        if pipeline.regression:
            raise OptionError("a monitor must watch labels, got a regression; compare its numbers yourself")
        certificate = pipeline.certificate
        if bound is None and certificate is not None and certificate.unit != "word":
            bound = certificate.disagreement.upper
        self._sampler = Sampler(share=share, seed=seed)
        detector = None if bound is None else EDetector(bound=bound, confidence=confidence)
        profile, manifest = pipeline.bundle.manifest.profile, pipeline.bundle.manifest
        shift = None
        if profile is not None:
            profile = profile if pipeline.policies == manifest.policies else profile.of_texts()
            shift = ShiftDetector(profile=profile, confidence=confidence)
            self._slots, self._noise = profile.slots, np.random.default_rng(seed)
        self._begun = self._state = MonitorState(confidence=confidence, detector=detector, shift=shift)
        self._held: list[tuple[int, Any, Any]] = []  # of a stream, that are not drawn yet: number, text, answer
        self._looks: list[tuple[int, Any, float]] = []  # number, text, depth
        self._on_shift = on_shift
        self._pipeline = pipeline
        self._full = cast(P, pipeline.with_policies(pipeline.policies.full_depth()))
        self._on_alarm = on_alarm
        self._waiting: list[tuple[int, Any, Prediction | TagPrediction]] = []  # number, text, answer
        self._ask: Ask = "predict"
        self._seen = 0

    @property
    def pipeline(self) -> P:
        """What answers at present: what was given, or since `safer` a safer copy of it."""
        return self._pipeline

    def __repr__(self) -> str:
        return f"Monitor({self._pipeline!r}, share={self._sampler.share!r}, {self.report()!r})"

    @overload
    def predict(self: Monitor[Classifier], texts: Iterable[Text]) -> Predictions: ...
    @overload
    def predict(self: Monitor[Tagger], texts: Iterable[Sentence]) -> TagPredictions: ...
    def predict(self, texts: Iterable[Any]) -> Predictions | TagPredictions:
        """The answers of the pipeline's own `predict`; what was sampled is compared before it returns."""
        answers: Predictions | TagPredictions = self._watched(texts, "predict")
        return answers

    def predict_texts(self: Monitor[Tagger], texts: Iterable[str]) -> TagPredictions:
        """To `Tagger.predict_texts` what `predict` is to `Tagger.predict`."""
        answers: TagPredictions = self._watched(texts, "predict_texts")
        return answers

    @overload
    def stream(
        self: Monitor[Classifier], texts: Iterable[Text], *, options: StreamOptions | None = None
    ) -> Iterator[Prediction]: ...
    @overload
    def stream(
        self: Monitor[Tagger], texts: Iterable[Sentence], *, options: StreamOptions | None = None
    ) -> Iterator[TagPrediction]: ...
    def stream(
        self, texts: Iterable[Any], *, options: StreamOptions | None = None
    ) -> Iterator[Prediction] | Iterator[TagPrediction]:
        """The answers of the pipeline's own `stream`; sampled ones are compared some 32 together, and at the end.

        If `safer` is called meanwhile (by `on_alarm`, say), texts that are read from then on are answered by the new
        setting; what was read already is answered as before and no longer compared.
        """
        return self._stream(texts, "predict", options)

    def stream_texts(
        self: Monitor[Tagger], texts: Iterable[str], *, options: StreamOptions | None = None
    ) -> Iterator[TagPrediction]:
        """To `Tagger.stream_texts` what `stream` is to `Tagger.stream`."""
        return self._stream(texts, "predict_texts", options)

    def report(self) -> MonitorState:
        """What is known by now. Asking at any time, and as often as one likes, does not spoil the bounds."""
        return replace(self._state, seen=self._seen)

    def safer(self) -> bool:
        """Let a safer setting answer from now on: `safer` of the present pipeline.

        What was counted was about the setting before, so counts and alarm begin again, with the same bound; each
        setting's alarm has its own `1 - confidence`. False: tier 2 answers everything at full depth already.
        """
        safer = self._pipeline.safer()
        if safer is None:
            return False
        self._pipeline = cast(P, safer)
        old, shift = self._state, self._begun.shift
        if old.shifted_at is not None:  # texts stay of another kind, whoever answers them
            shift = old.shift
        elif shift is not None:
            shift = replace(shift, profile=shift.profile.of_texts(), balls={})
        self._state = replace(self._begun, raised=old.raised + 1, shift=shift, shifted_at=old.shifted_at)
        for waiting in (self._held, self._looks, self._waiting):
            waiting.clear()
        return True

    def _watched(self, texts: Any, ask: Ask) -> Any:
        self._turn_to(ask)
        # What can be read only once is kept; the pipeline says what is wrong with anything else.
        given = list(texts) if isinstance(texts, Iterable) and not isinstance(texts, Collection) else texts
        answers = getattr(self._pipeline, ask)(given)
        every = given if isinstance(given, Sequence) else list(given)
        self._draw_held()
        self._draw(range(self._seen + 1, self._seen + len(answers) + 1), every, answers)
        self._seen += len(answers)
        self._compare()
        return answers

    def _stream(self, texts: Iterable[Any], ask: Ask, options: StreamOptions | None) -> Iterator[Any]:
        stream = attrgetter(ask.replace("predict", "stream"))
        stream(self._pipeline)(texts, options=options)  # says at once what is wrong with them; nothing is read yet
        return self._streamed(iter(texts), ask, lambda pipeline, rest: stream(pipeline)(rest, options=options))

    def _streamed(self, source: Iterator[Any], ask: Ask, answers: Callable[[P, Iterable[Any]], Any]) -> Iterator[Any]:
        ended = False
        while not ended:
            pipeline, held = self._pipeline, deque[Any]()

            def read(pipeline: P = pipeline, held: deque[Any] = held) -> Iterator[Any]:
                nonlocal ended
                for text in source:
                    held.append(text)
                    yield text
                    if self._pipeline is not pipeline:  # the rest is for the safer one
                        return
                ended = True

            for answer in answers(pipeline, read()):
                given = held.popleft()
                self._turn_to(ask)
                self._seen += 1
                if self._pipeline is pipeline:
                    self._held.append((self._seen, given, answer))
                    if len(self._held) >= TOGETHER:
                        self._draw_held()
                        if len(self._looks) >= LOOKED_AT:
                            self._look()
                        if len(self._waiting) >= TOGETHER:
                            self._compare()
                yield answer
        self._compare()

    def _draw_held(self) -> None:
        """Draw from what a stream has answered, perhaps one that was abandoned."""
        if self._held:
            numbers, given, answers = zip(*self._held, strict=True)
            self._held.clear()
            self._draw(numbers, given, answers)

    def _draw(self, numbers: Sequence[int], given: Sequence[Any], answers: Any) -> None:
        """Put aside what is sampled of some answers, and what is compared with the profile."""
        self._waiting += [(numbers[row], given[row], answers[row]) for row in self._sampler.draw(len(numbers))]
        if self._looking:
            rows = [row for row, number in enumerate(numbers) if number % EVERY == 1]
            self._looks += [(numbers[row], given[row], depth_of(answers[row])) for row in rows]

    def _turn_to(self, ask: Ask) -> None:
        if ask != self._ask:  # a stream of the other kind, abandoned or still going on, may have left something
            self._compare()
        self._ask = ask

    def _compare(self) -> None:
        """Run what waits at full depth, and count."""
        self._draw_held()
        self._look()
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        numbers, given, answers = zip(*waiting, strict=True)
        deepest = self._pipeline.policies == self._full.policies
        again = answers if deepest else getattr(self._full, self._ask)(list(given))
        differ = np.array([_said(answer) != _said(one) for answer, one in zip(answers, again, strict=True)])
        silent = self._state.alarm_at is None
        self._state = self._state.after(differ, np.array(numbers, dtype=np.int64))
        if silent and self._state.alarm_at is not None and self._on_alarm is not None:
            self._on_alarm(self)

    @property
    def _looking(self) -> bool:
        return self._state.shift is not None and self._state.shifted_at is None

    def _look(self) -> None:
        """Compare texts with the profile."""
        looks, self._looks = self._looks, []
        if not looks or not self._looking:
            return
        numbers, given, depth = zip(*looks, strict=True)
        values = features(self._pipeline, given, np.array(depth), self._slots, self._noise)
        self._state = self._state.looked_at(values, np.array(numbers, dtype=np.int64))
        if self._state.shifted_at is not None and self._on_shift is not None:
            self._on_shift(self)


def _said(answer: Prediction | TagPrediction) -> Label | list[str]:
    return answer.label if isinstance(answer, Prediction) else answer.tags

"""`Monitor`: shadows a sampled share of a model's answers with tier 2 at full depth, and watches how often they differ.

What is watched is the share of ALL answers that differ from those of tier 2 at full depth, alone: the rate that a
certificate states as its disagreement. So the sample is one of all answers, not only of those that tier 1 or an early
exit gave, and needs no weights; an answer that cannot differ counts as equal without running anything (of a classifier
without a blend: a text of a single window that went through all layers of tier 2). A seeded generator draws it, one
number per answer, whatever the text says and however texts come in batches. Outcomes are counted in the order of the
answers, also those known at once, since an order by what is known would spoil the bounds.

Two statements hold at all times at once (`betting`): an interval for the rate, over all that was shadowed; and an
alarm, raised when it is shown that the rate has risen above the bound, be it half-way. The alarm is false with a
probability of at most `1 - confidence` over an endless stream in which the rate stays at most the bound. A bound from
a certificate is itself one that holds with the confidence of the certificate. A shift under which the two tiers agree
as before goes unseen: what is guarded is what the cascade loses against tier 2, not whether tier 2 is right.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Final, Generic, TypeAlias, TypeVar, cast, overload

import numpy as np

from cascade.core.results import Prediction, Predictions, TagPrediction, TagPredictions
from cascade.engine.streaming import StreamOptions
from cascade.monitoring.sampling import MonitorReport, Sampler, Shadow, Tally
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.policies.exits import never
from cascade.policies.routing import defer_all
from cascade.text.tokenizer import Text
from cascade.text.word_encoding import Sentence

__all__ = ["Monitor", "MonitorReport"]

TOGETHER: Final = 32  # sampled answers that tier 2 looks at together

F = TypeVar("F", bound="Classifier | Tagger")
Ask: TypeAlias = Callable[[Any, Any], Any]
"""What a model is asked for the answers to a list."""


def _ask(face: Classifier | Tagger, given: Any) -> Predictions | TagPredictions:
    return face.predict(given)


def _ask_texts(tagger: Tagger, given: Any) -> TagPredictions:
    return tagger.predict_texts(given)


class Monitor(Generic[F]):
    """A model in use, and what is known of how often its answers differ from tier 2's at full depth.

    Its answers are the model's own: shadows change neither them nor their order. All that changes is kept here and not
    in the model, and does not grow with the number of texts. Calls must come from one thread at a time.

    Example:
        monitor = Monitor(Classifier.from_pretrained("models/sentiment"), share=0.01, bound=0.05)
        for answer in monitor.stream(texts):
            ...
        if monitor.report().alarm_at is not None:
            monitor.safer()
    """

    def __init__(
        self,
        face: F,
        *,
        share: float = 0.01,
        bound: float | None = None,
        confidence: float = 0.95,
        seed: int = 0,
        on_alarm: Callable[[Monitor[F]], object] | None = None,
    ) -> None:
        """Begin to watch.

        Args:
            face: a classifier or a tagger. Of a tagger sentences are compared (any word differs); single words where
                its certificate is about words.
            share: how many of the answers are sampled, above 0, at most 1; where words are compared, how many of the
                words, with one word of a sentence at most (keep it below 1 / words of the longest sentence).
            bound: the alarm is raised when more than this share of all answers differ, in (0, 1). If left out, the
                upper limit of the disagreement in the certificate; if there is none, no alarm is raised.
            confidence: of the interval, and of the alarm, each, in (0, 1).
            seed: of the sample.
            on_alarm: called with this monitor when the alarm is raised; `Monitor.safer` serves.

        Raises:
            OptionError: an impossible value.
        """
        certificate = face.certificate
        if bound is None and certificate is not None:
            bound = certificate.disagreement.upper
        by_word = isinstance(face, Tagger) and certificate is not None and certificate.unit == "word"
        self._sampler = Sampler(share=share, by_word=by_word, seed=seed)
        self._begun = self._tally = Tally.of(bound, confidence)
        self._face = face
        self._full = cast(F, face.with_router(defer_all).with_exit_policy(never))
        self._on_alarm = on_alarm
        self._seen = self._raised = 0
        self._waiting: list[Shadow] = []
        self._ask: Ask = _ask

    @property
    def face(self) -> F:
        """What answers at present: what was given, or since `safer` a safer copy of it."""
        return self._face

    def __repr__(self) -> str:
        return f"Monitor({self._face!r}, share={self._sampler.share!r}, {self.report()!r})"

    @overload
    def predict(self: Monitor[Classifier], texts: Iterable[Text]) -> Predictions: ...
    @overload
    def predict(self: Monitor[Tagger], texts: Iterable[Sentence]) -> TagPredictions: ...
    def predict(self, texts: Iterable[Any]) -> Predictions | TagPredictions:
        """The answers of the model's own `predict`; shadows of what was sampled run before it returns.

        Args:
            texts: texts of a classifier, sentences of a tagger.
        """
        answers: Predictions | TagPredictions = self._predict(texts, _ask)
        return answers

    def predict_texts(self: Monitor[Tagger], texts: Iterable[str]) -> TagPredictions:
        """To `Tagger.predict_texts` what `predict` is to `Tagger.predict`."""
        answers: TagPredictions = self._predict(texts, _ask_texts)
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
        """The answers of the model's own `stream`; shadows run 32 together, and what is left at the end.

        If `safer` is called meanwhile (by `on_alarm`, say), texts that are read from then on are answered by the new
        setting; what was read already is answered as before and no longer compared.

        Args:
            texts: texts of a classifier, sentences of a tagger.
            options: of the model's `stream`.
        """

        def answers(face: F, rest: Iterable[Any]) -> Iterator[Any]:
            return face.stream(rest, options=options)

        answers(self._face, texts)  # says at once what is wrong with them; nothing is read yet
        return self._stream(texts, answers, _ask)

    def stream_texts(
        self: Monitor[Tagger], texts: Iterable[str], *, options: StreamOptions | None = None
    ) -> Iterator[TagPrediction]:
        """To `Tagger.stream_texts` what `stream` is to `Tagger.stream`."""

        def answers(face: Tagger, rest: Iterable[str]) -> Iterator[TagPrediction]:
            return face.stream_texts(rest, options=options)

        answers(self._face, texts)
        return self._stream(texts, answers, _ask_texts)

    def report(self) -> MonitorReport:
        """What is known by now. Asking at any time, and as often as one likes, does not spoil the bounds."""
        return self._tally.report(seen=self._seen, raised=self._raised)

    def safer(self) -> bool:
        """Let a safer setting answer from now on: `Face.safer` of the present one.

        What was counted was about the setting before, so counting begins anew, and so does the alarm, with the same
        bound; each setting's alarm has its own `1 - confidence`.

        Returns:
            False if nothing is safer: tier 2 answers everything at full depth already.
        """
        safer = self._face.safer()
        if safer is None:
            return False
        self._face = cast(F, safer)
        self._raised += 1
        self._tally = self._begun
        self._waiting.clear()
        return True

    def _predict(self, texts: Any, ask: Ask) -> Any:
        self._turn_to(ask)
        # What can be read only once is kept; the model says what is wrong with anything else.
        given = list(texts) if isinstance(texts, Iterable) and not isinstance(texts, Collection) else texts
        answers = ask(self._face, given)
        every = given if isinstance(given, Sequence) else list(given)
        words = answers.offsets[1:] - answers.offsets[:-1] if self._sampler.by_word else np.ones(len(answers), np.int64)
        for row, word in self._sampler.draw(words):
            self._waiting.append(Shadow(self._seen + row + 1, every[row], answers[row], word))
        self._seen += len(answers)
        self._compare()
        return answers

    def _stream(
        self, texts: Iterable[Any], answers: Callable[[F, Iterable[Any]], Iterator[Any]], ask: Ask
    ) -> Iterator[Any]:
        source, ended = iter(texts), False
        while not ended:
            face, held = self._face, deque[Any]()

            def read(face: F = face, held: deque[Any] = held) -> Iterator[Any]:
                nonlocal ended
                for text in source:
                    held.append(text)
                    yield text
                    if self._face is not face:  # the rest is for the safer one
                        return
                ended = True

            for answer in answers(face, read()):
                given = held.popleft()
                self._seen += 1
                self._turn_to(ask)
                if self._face is face:
                    words = len(answer.tags) if self._sampler.by_word else 1
                    for _, word in self._sampler.draw(np.array([words], dtype=np.int64)):
                        self._waiting.append(Shadow(self._seen, given, answer, word))
                    if len(self._waiting) >= TOGETHER:
                        self._compare()
                yield answer
        self._compare()

    def _turn_to(self, ask: Ask) -> None:
        if ask != self._ask:  # a stream of the other kind, abandoned or still going on, may have left something
            self._compare()
        self._ask = ask

    def _compare(self) -> None:
        """Run what waits at full depth, and count."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        places = [place for place, shadow in enumerate(waiting) if self._may_differ(shadow)]
        differ = np.zeros(len(waiting), dtype=np.bool_)
        if places:
            again = self._ask(self._full, [waiting[place].given for place in places])
            differ[places] = [waiting[place].differs(one) for place, one in zip(places, again, strict=True)]
        silent = self._tally.alarm_at is None
        numbers = np.array([shadow.number for shadow in waiting], dtype=np.int64)
        self._tally = self._tally.after(differ, numbers, rerun=len(places))
        if silent and self._tally.alarm_at is not None and self._on_alarm is not None:
            self._on_alarm(self)

    def _may_differ(self, shadow: Shadow) -> bool:
        face = self._face
        if face.router == defer_all and face.exit_policy == never:
            return False
        if not isinstance(face, Classifier) or isinstance(shadow.answer, TagPrediction) or face.blend:
            return True
        route = shadow.answer.route
        deep = route.tier == 2 and route.exit_layer == max(face.tier2.layers)
        # The route of a text of several windows is that of the one that went deepest.
        return not deep or len(face.tokenizer.encode([shadow.given]).units.rows) > 1

"""A share of the answers of a server, compared with full depth by a thread of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final

from cascade.exceptions import CascadeError
from cascade.monitoring.monitor import TOGETHER, Monitor
from cascade.monitoring.state import Sampler
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger

KEPT: Final = 1024  # sampled items that wait at most; older ones are not compared


class Watch:
    """Samples what a pipeline answered as certified, and asks a monitor about it.

    Answers do not depend on batches, so what is sampled is simply answered once more, and then at full depth.
    `share`: of the answers, above 0, at most 1.
    """

    def __init__(self, pipeline: Classifier | Tagger, share: float) -> None:
        self._sampler = Sampler(share=share, seed=0)
        self._monitor: Monitor[Any] = Monitor(pipeline, share=1.0)
        self._waiting: deque[tuple[bool, Any]] = deque(maxlen=KEPT)
        self._thread = ThreadPoolExecutor(1, "cascade-watch")
        self._state, self._seen = self._monitor.report(), 0

    def offer(self, items: Sequence[Any], *, words: bool) -> None:
        """Tell of items that were answered. `words`: they are lists of words."""
        self._seen += len(items)
        chosen = [(words, items[row]) for row in self._sampler.draw(len(items))]
        self._waiting.extend(chosen)
        if chosen:
            with suppress(RuntimeError):  # it was stopped
                self._thread.submit(self._compare)

    def told(self) -> dict[str, Any]:
        """What is known by now, as JSON has it. `seen`: answers; `shadowed`: those that were compared."""
        state, names = self._state, ("shadowed", "disagreements", "bound")
        alarms = {"alarm": state.alarm_at is not None, "shifted": state.shifted_at is not None}
        known = {name: getattr(state, name) for name in names}
        return {"seen": self._seen, **known, "interval": list(state.interval), **alarms}

    def stop(self) -> None:
        """End once what is under way is compared; what else was sampled is forgotten."""
        self._waiting.clear()
        self._thread.shutdown(cancel_futures=True)

    def _compare(self) -> None:
        while self._waiting:
            taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), TOGETHER))]
            for words in {of_words for of_words, _ in taken}:
                items = [item for of_words, item in taken if of_words == words]
                texts = not words and isinstance(self._monitor.pipeline, Tagger)
                with suppress(CascadeError, MemoryError, RuntimeError):  # of samples only: the answers have gone out
                    (self._monitor.predict_texts if texts else self._monitor.predict)(items)
            self._state = self._monitor.report()

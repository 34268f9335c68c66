"""A share of the answers of a server, compared with full depth by a thread of its own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from cascade.core.rows import IntArray
from cascade.exceptions import CascadeError
from cascade.monitoring.monitor import TOGETHER, Monitor
from cascade.monitoring.sampling import Sampler
from cascade.monitoring.state import MonitorState
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger

KEPT: Final = 1024  # sampled items that wait at most; further ones are not compared


class Watch:
    """Samples what a pipeline answered as certified, and asks a monitor about it.

    Answers do not depend on batches, so what is sampled is simply answered once more, and then at full depth.

    Args:
        pipeline: what answers.
        share: of the answers, above 0, at most 1; of words where the certificate is about words.
        bound: see `Monitor`; as certified if left out.
    """

    def __init__(self, pipeline: Classifier | Tagger, *, share: float, bound: float | None = None) -> None:
        certificate = pipeline.certificate
        by_word = isinstance(pipeline, Tagger) and certificate is not None and certificate.unit == "word"
        self._sampler = Sampler(share=share, by_word=by_word, seed=0)
        self._monitor: Monitor[Any] = Monitor(pipeline, share=1.0, bound=bound)
        self._waiting: deque[tuple[bool, Any]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self.seen = 0
        self._state = self._monitor.report()

    def offer(self, items: Sequence[Any], units: IntArray, *, words: bool) -> None:
        """Tell of items that were answered. `units`: of each, shape `(items,)`; `words`: they are lists of words."""
        with self._changed:
            self.seen += len(items)
            for row, _ in self._sampler.draw(units):
                if len(self._waiting) < KEPT:
                    self._waiting.append((words, items[row]))
            if self._waiting:
                self._changed.notify()

    def report(self) -> MonitorState:
        """What is known by now; `seen` counts what was sampled."""
        return self._state

    def start(self) -> None:
        """Begin to compare."""
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="cascade-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End once what is under way is compared."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopped)
                if self._stopped:
                    return
                words = self._waiting[0][0]
                taken: list[Any] = []
                while self._waiting and self._waiting[0][0] == words and len(taken) < TOGETHER:
                    taken.append(self._waiting.popleft()[1])
            texts = not words and isinstance(self._monitor.pipeline, Tagger)
            try:
                (self._monitor.predict_texts if texts else self._monitor.predict)(taken)
            except (CascadeError, MemoryError, RuntimeError):  # of a sample only; the answer itself has gone out
                continue
            self._state = self._monitor.report()

"""A share of the answers of a server, compared with full depth by a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, Full, Queue
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
        share: of the answers, above 0, at most 1.
        bound: see `Monitor`; as certified if left out.
    """

    def __init__(self, pipeline: Classifier | Tagger, *, share: float, bound: float | None = None) -> None:
        self._sampler = Sampler(share=share, seed=0)
        self._monitor: Monitor[Any] = Monitor(pipeline, share=1.0, bound=bound)
        self._waiting: Queue[tuple[bool, Any] | None] = Queue(KEPT)
        self._thread: threading.Thread | None = None
        self._state = self._monitor.report()
        self.seen = 0

    def offer(self, items: Sequence[Any], units: IntArray, *, words: bool) -> None:
        """Tell of items that were answered. `units`: of each, shape `(items,)`; `words`: they are lists of words."""
        self.seen += len(items)
        for row in self._sampler.draw(len(items)):
            with suppress(Full):
                self._waiting.put_nowait((words, items[row]))

    def report(self) -> MonitorState:
        """What is known by now; `seen` counts what was sampled."""
        return self._state

    def start(self) -> None:
        """Begin to compare."""
        self._thread = threading.Thread(target=self._run, name="cascade-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End once what is under way is compared; what else was sampled is forgotten."""
        if self._thread is not None:
            self._drained(KEPT)
            self._waiting.put(None)
            self._thread.join()
            self._thread = None

    def _drained(self, most: int) -> list[tuple[bool, Any] | None]:
        found: list[tuple[bool, Any] | None] = []
        with suppress(Empty):
            while len(found) < most:
                found.append(self._waiting.get_nowait())
        return found

    def _run(self) -> None:
        while True:
            taken = [self._waiting.get(), *self._drained(TOGETHER - 1)]
            for words in {one[0] for one in taken if one is not None}:
                items = [one[1] for one in taken if one is not None and one[0] == words]
                with suppress(CascadeError, MemoryError, RuntimeError):  # of samples only: the answers have gone out
                    if words or not isinstance(self._monitor.pipeline, Tagger):
                        self._monitor.predict(items)
                    else:
                        self._monitor.predict_texts(items)
            self._state = self._monitor.report()
            if None in taken:
                return

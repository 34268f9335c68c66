"""Requests join batches: the first tier takes all that waits, and what it defers of all of them is pooled.

There are two jobs, each of which one thread at a time does: to look (encode what waits, run the first tier, answer what
is not deferred) and to finish (run the later tiers on a slice of the pool). Two threads share them, or one where the
model may use no more: two would only wait for each other (at 400 requests a second on one core of an Intel Xeon with
AMX the median was 75 ms with two threads and 21 ms with one). Whoever has looked finishes next if nothing else waits.
Works are small and requests take turns, so that a slow one does not hold the others.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias

from cascade.core.limits import Limits
from cascade.exceptions import CascadeError, InputError
from cascade.serving.errors import Failed, Overloaded, TooLong
from cascade.serving.load import FINISH, LOOK, Late, Load
from cascade.serving.metrics import Metrics
from cascade.serving.running import Runner
from cascade.serving.served import Form, Served
from cascade.serving.work import Answers, Ended, Request, Turns, Work, cut, settle, size_of
from cascade.text.texts import read_texts
from cascade.text.word_encoding import check_words

WORK_TOKENS: Final = 1024  # of a work at most, as estimated, unless it is one item
CHARACTERS: Final = 250  # of an item for each token that the model reads; text-embeddings-inference has the same

Run: TypeAlias = Callable[[Sequence[Work], int], list[Ended]]
_LOGGER = logging.getLogger(__name__)


class Batcher:
    """Answers requests by one model, `served`. Any number of tasks of an event loop may ask at once."""

    def __init__(self, served: Served, limits: Limits, metrics: Metrics, late: Late | None = None) -> None:
        """Nothing runs before `start`. An `OptionError` where what the model reads does not fit the limits.

        `late`: of the event loop, where several share one.
        """
        self._limits, self._metrics, self._late = limits, metrics, late or Late()
        self._changed = threading.Condition()
        self._queue, self._pool = Turns(), Turns()
        self._busy = [0, 0]  # tokens that a thread looks at, finishes
        self._threads: list[threading.Thread] = []
        self._items = 0  # under way
        self._last = FINISH  # of the jobs that were begun
        self._accepts = self._ends = False
        self._waking: asyncio.AbstractEventLoop | None = None  # which loop will wake a thread
        self._use(served)

    def _use(self, served: Served) -> None:
        self._limits.check(served.max_input_length)
        self.served, self._load = served, Load(self._limits, len(served.levels))
        runner = Runner(self._limits.max_batch_tokens, self._load, self._metrics)
        self._jobs: tuple[Run, Run] = runner.look, runner.finish

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait: as estimated, or as deferred by the first tier."""
        return self._queue.tokens + self._pool.tokens

    @property
    def deferred_tokens(self) -> int:
        """Of these, tokens that wait for the later tiers."""
        return self._pool.tokens

    @property
    def healthy(self) -> bool:
        """Whether the threads are alive."""
        return bool(self._threads) and all(thread.is_alive() for thread in self._threads)

    @property
    def level(self) -> int:
        """At which level answers are made now; 0 as certified."""
        with self._changed:
            return self._step()

    def start(self) -> None:
        """Start the threads."""
        self._accepts, self._ends = True, False
        self._metrics.refresh[self.served.name] = self._show
        names = (f"cascade-{self.served.name}-{number}" for number in range(min(self.served.pipeline.threads, 2)))
        self._threads = [threading.Thread(target=self._run, name=name, daemon=True) for name in names]
        for thread in self._threads:
            thread.start()

    def stop(self, *, seconds: float) -> None:
        """Refuse what comes from now on, answer what was accepted, and end the threads.

        What is not answered after so many seconds fails.
        """
        end = time.perf_counter() + seconds
        with self._changed:
            self._accepts, self._ends = False, True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(max(end - time.perf_counter(), 0))
        with self._changed:
            late = [*self._queue.clear(), *self._pool.clear()]
        self._settle([(work, Failed("Backend error: the server stops")) for work in late])
        if self.served.watch is not None:
            self.served.watch.stop()

    def swap(self, served: Served) -> None:
        """Let another model answer what comes from now on; what is under way ends with the old one."""
        with self._changed:
            old = self.served
            self._use(served)
        if old.watch is not None:
            old.watch.stop()

    async def answer(
        self,
        items: Sequence[Any],
        form: Form,
        *,
        truncate: bool | None = None,
        windows: bool = False,
        left: bool = False,
    ) -> Answers:
        """Answer the items of a request: texts and pairs, lists of words, or a tagger's texts, as `form` says.

        `truncate`: whether of an item that is too long the first tokens are read, with `left` the last ones; as the
        limits say if left out; `windows`: read all of it in overlapping windows. `Overloaded`: too much waits, or the
        server stops; `TooLong`: an item does not fit, and is neither to be truncated nor to be read in windows;
        `InputError`: one cannot be read; `Failed`: the model could not answer, or is of another task.
        """
        loop = asyncio.get_running_loop()
        cuts = not windows and (self._limits.auto_truncate if truncate is None else truncate)
        truncation = "left" if cuts and left else cuts
        request = Request((self.served, form, truncation), not (cuts or windows), time.perf_counter())
        works = self._works(request, items, loop)
        with self._changed:
            self._admit(len(items), sum(work.tokens for work in works))
            for work in works:
                self._queue.add(work)
            fresh, self._waking = self._waking is not loop, loop
        self._late.enter(loop)
        if fresh:  # requests that the loop has at hand come in one batch (`_next` waits), and threads are woken once
            loop.call_soon(self._wake)
        try:
            several = asyncio.gather(*(work.future for work in works)) if len(works) > 1 else None
            answers = Answers.join([await works[0].future] if several is None else await several)
        finally:
            self._late.leave()
            with self._changed:
                self._items -= len(items)
                self._queue.drop(request)
                self._pool.drop(request)
                request.gone = True
        self._metrics.answer(answers.served.name, answers.seconds["queue"], answers.degraded)
        return answers

    def _wake(self) -> None:
        with self._changed:
            self._waking = None
            if not self._busy[LOOK]:  # otherwise who looks now will look again
                self._changed.notify()

    def _works(self, request: Request, items: Sequence[Any], loop: asyncio.AbstractEventLoop) -> list[Work]:
        served, form, truncation = request.key
        if served.words != (form is not Form.TEXT):
            raise Failed(f"Backend error: Model is not a {'classifier' if form is Form.TEXT else 'tagger'} model")
        words = form is Form.WORDS
        given: list[Any] = list(items) if words else read_texts(items)
        if words:
            check_words(given)
        else:
            most = CHARACTERS * served.max_input_length
            for place, item in enumerate(given):
                length = len(item) if isinstance(item, str) else max(map(len, item))
                if length > most and not truncation:
                    raise TooLong(length, most, "characters")
                if length > most:
                    kept = slice(-most, None) if truncation == "left" else slice(most)
                    given[place] = item[kept] if isinstance(item, str) else (item[0][kept], item[1][kept])
        most_tokens = served.max_input_length if truncation and not words else sys.maxsize  # what is cut does not wait
        sizes = [min(size_of(item), most_tokens) for item in given]
        runs = cut(given, sizes, min(WORK_TOKENS, self._limits.max_batch_tokens))
        works = [Work(request, given[one:two], sum(sizes[one:two]), loop.create_future()) for one, two in runs]
        request.alone = len(works) == 1
        return works

    def _admit(self, items: int, tokens: int) -> None:
        waiting, seconds = self.queued_tokens, self._seconds()
        self._load.step(self._load.pressure(waiting, seconds), time.perf_counter())
        if (
            not self._accepts
            or self._items + items > self._limits.max_concurrent_requests
            or (waiting and waiting + tokens > self._limits.max_queue_tokens)
            or seconds > self._load.limit
        ):
            raise Overloaded(seconds)
        self._items += items

    @property
    def overloaded(self) -> bool:
        """Whether a request would wait for too long, in its socket and here."""
        with self._changed:
            return self._seconds() > self._load.limit

    def _seconds(self) -> float:
        """For how long a request would wait, by what was measured; or one does wait, whatever was measured."""
        looking, finishing = self._busy if self.queued_tokens else (0, 0)  # one may wait, however long a batch takes
        ahead = self._queue.ahead + looking / 2, self._pool.ahead + finishing / 2  # half of a batch is left on average
        now, firsts = time.perf_counter(), (self._queue.first, self._pool.first)
        waited = (now - one.arrived for one in firsts if one is not None and one.alone)  # others wait for themselves
        return self._late.seconds + max([self._load.seconds(*ahead), *waited])

    @property
    def _slice(self) -> int:
        return self._load.slice(self._pool.ahead)

    def _step(self) -> int:
        return self._load.step(self._load.pressure(self.queued_tokens, self._seconds()), time.perf_counter())

    def _show(self) -> None:
        watch = self.served.watch
        self._metrics.state(self.served.name, self.queued_tokens, self.level, None if watch is None else watch.told())

    def _run(self) -> None:
        while True:
            with self._changed:
                job = self._next()
                while job is None:
                    if self._ends and not (self._queue or self._pool or any(self._busy)):
                        self._changed.notify_all()
                        return
                    self._changed.wait(self._patience())
                    job = self._next()
                number, works, level = job
                self._busy[number], self._last = max(sum(work.tokens for work in works), 1), number
                run = self._jobs[number]
                if (self._queue and not self._busy[LOOK]) or (self._pool and not self._busy[FINISH]):
                    self._changed.notify()  # the other thread has something to do, or a deadline to keep
            try:
                groups: dict[object, list[Work]] = {}
                least = time.perf_counter() - 2 * self._load.limit if number == LOOK and self._load.worst else 0.0
                for work in works:
                    if work.request.alone and work.request.arrived < least:  # it waited longer than was thought
                        self._settle([(work, Overloaded(1.0))])
                    elif not work.request.gone:
                        groups.setdefault(work.request.key, []).append(work)
                for some in groups.values():
                    self._settle(self._halved(some, run, level))
            except Exception as error:  # noqa: BLE001  # a thread that ends would answer nobody
                self._settle([(work, _failed(error)) for work in works])
            finally:
                with self._changed:
                    self._busy[number] = 0
                    if self._ends:
                        self._changed.notify_all()

    def _next(self) -> tuple[int, list[Work], int] | None:
        """The next job for a thread, if there is one: its number, its works, and the level."""
        finish = self._pool and not self._busy[FINISH] and not self._patience()
        look = self._queue and not self._busy[LOOK] and self._waking is None
        if look and not (finish and self._last == LOOK):
            level, most = self._step(), self._limits.max_batch_requests or math.inf
            return LOOK, self._queue.take(self._limits.max_batch_tokens, most), level
        if finish:
            level = self._step()
            return FINISH, self._pool.take(self._slice), level
        return None

    def _patience(self) -> float | None:
        """For how many seconds the pool may wait for more; `None`: until something happens."""
        first = self._pool.first
        if first is None or self._busy[FINISH]:
            return None
        if self._pool.tokens >= self._slice or not (self._queue or self._busy[LOOK]):
            return 0.0
        return max(first.arrived + self._limits.max_wait / 1000 - time.perf_counter(), 0.0)

    def _halved(self, works: list[Work], run: Run, level: int) -> list[Ended]:
        """Run works; where that fails each half of them, so that a work that is to blame fails alone."""
        try:
            return run(works, level)
        except Exception as error:  # noqa: BLE001  # of whatever kind, others must be answered
            if len(works) == 1:
                return [(works[0], _failed(error))]
        half = len(works) // 2
        return [*self._halved(works[:half], run, level), *self._halved(works[half:], run, level)]

    def _settle(self, ended: Sequence[Ended]) -> None:
        """Pool what has no answers yet, and hand out the others, by one call of their event loop."""
        loops: dict[asyncio.AbstractEventLoop, list[Ended]] = {}
        with self._changed:
            for work, found in ended:
                if found is not None:
                    loops.setdefault(work.future.get_loop(), []).append((work, found))
                elif not work.request.gone:
                    self._pool.add(work)
        for loop, some in loops.items():
            with suppress(RuntimeError):  # the loop is closed, and nobody waits
                loop.call_soon_threadsafe(_hand_over, some)


def _hand_over(some: Sequence[Ended]) -> None:
    for work, found in some:
        settle(work.future, found)


def _failed(error: Exception) -> CascadeError:
    """What a client is told."""
    if isinstance(error, InputError | TooLong | Failed):
        return error
    _LOGGER.error("the model could not answer", exc_info=error)
    return Failed(f"Backend error: {error}")

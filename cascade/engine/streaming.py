"""Any number of items in bounded memory, answers in the caller's order and before a deadline.

Items go through the first tier a buffer at a time. What is deferred of several buffers is pooled until it fills batches
of the second tier, or until the oldest item has waited long enough, or until too many items are held back; then it runs
together and everything held back comes out. A router sees one buffer at a time, so a `Budget` is kept per buffer.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Generic, TypeVar

from cascade.core.checks import check_whole
from cascade.core.results import Stats
from cascade.engine.cascade import Cascade, Look, Meter, Outcome
from cascade.engine.inputs import Inputs
from cascade.exceptions import InputError, OptionError

Item = TypeVar("Item")


@dataclass(frozen=True)
class StreamOptions:
    """How much a stream holds back, and for how long.

    Attributes:
        buffer_size: items that go through the first tier together.
        pool_tokens: tokens of deferred rows that are enough to run the second tier: a few batches.
        look_ahead: items read but not answered at most; at least `buffer_size`.
        max_age: seconds after which an item is answered, though the source be silent: a thread of its own reads it.
            `None`: no limit, and the source is read by the calling thread.
        pause: seconds without a further item after which all are answered, before they are that old. `None`: no limit.
        on_stats: called with the statistics of some items before their answers come.
    """

    buffer_size: int = 1024
    pool_tokens: int = 8192
    look_ahead: int = 4096
    max_age: float | None = 1.0
    pause: float | None = None
    on_stats: Callable[[Stats], object] | None = None

    def __post_init__(self) -> None:
        for name in ("buffer_size", "pool_tokens", "look_ahead"):
            check_whole(name, getattr(self, name), "leave it out for the default")
        if self.look_ahead < self.buffer_size:
            raise OptionError(
                f"look_ahead must be at least buffer_size ({self.buffer_size}), got {self.look_ahead}; raise it"
            )
        for name in ("max_age", "pause"):
            age: object = getattr(self, name)
            if age is not None and (isinstance(age, bool) or not isinstance(age, int | float) or not age >= 0):
                raise OptionError(f"{name} must be seconds of at least 0, got {age!r}; None sets no limit")


def stream(
    cascade: Cascade,
    encode: Callable[[list[Item]], Inputs],
    items: Iterable[Item],
    *,
    options: StreamOptions | None = None,
    what: str = "text",
) -> Iterator[Outcome]:
    """Answer items as they come: outcomes of some items each, together those of all items in their order.

    Items are read one by one, never more than `look_ahead` ahead of the answers; where `max_age` is a number, by a
    thread of its own, which ends with the stream, or with the item that it waits for. `encode` makes inputs of some
    items; their rows are made here, to find items that cannot be read. `what`: an item is called in messages.

    Raises:
        InputError: an item that cannot be read, named by its number in the stream. What the source itself raises goes
            through. Either comes after the answers for all items before.
    """
    options = options or StreamOptions()
    pool, max_age = _Pool(cascade, encode, what), math.inf if options.max_age is None else float(options.max_age)
    with _source(items, options) as source:
        ended = False
        while not ended:
            begun, buffer, ended = source.take(options.buffer_size, pool.since + max_age)
            fault = pool.add(buffer, begun) if buffer else None
            if (
                fault is not None
                or ended
                or time.monotonic() >= pool.since + max_age
                or source.paused()
                or not pool.tokens
                or pool.tokens >= options.pool_tokens
                or pool.held + options.buffer_size > options.look_ahead
            ):
                held = pool.held
                for outcome in pool.answers():
                    if options.on_stats is not None:
                        options.on_stats(outcome.stats)
                    yield outcome
                source.release(held)
            if fault is not None:
                raise fault


def buffers(items: Iterable[Item], *, options: StreamOptions) -> Iterator[list[Item]]:
    """Items as a stream reads them: `buffer_size` together, fewer before they are too old, or at a pause."""
    with _source(items, options) as source:
        ended = False
        while not ended:
            _, buffer, ended = source.take(options.buffer_size, math.inf)
            if buffer:
                yield buffer
            source.release(len(buffer))


class _Pool(Generic[Item]):
    """Buffers after the first tier, and what of them waits for the second.

    Attributes:
        since: when the oldest item arrived; infinite if there is none.
        held: items.
        tokens: of what was deferred.
    """

    def __init__(self, cascade: Cascade, encode: Callable[[list[Item]], Inputs], what: str) -> None:
        self._cascade, self._encode, self._what = cascade, encode, what
        self._looks: list[Look] = []
        self._seen = 0
        self.since = math.inf
        self.held = self.tokens = 0

    def add(self, buffer: list[Item], begun: float) -> InputError | None:
        """Read a buffer with the first tier; up to an item that cannot be read, whose fault is returned."""
        inputs = self._read(buffer)
        if isinstance(inputs, InputError):
            for number, one in enumerate(buffer):
                fault = self._read([one])
                if isinstance(fault, InputError):
                    where = f"{self._what} {self._seen + number} of the stream, alone as {self._what} 0"
                    if number:
                        self.add(buffer[:number], begun)
                    return InputError(f"{where}: {fault}")
            return inputs
        look = self._cascade.look(inputs)
        self._looks.append(look)
        self._seen += len(buffer)
        self.since = min(self.since, begun)
        self.held += len(buffer)
        self.tokens += 0 if look.rest is None else look.rest.tokens
        return None

    def answers(self) -> Iterator[Outcome]:
        """Run the second tier, and empty the pool."""
        looks, self._looks = self._looks, []
        self.since, self.held, self.tokens = math.inf, 0, 0
        for look, scores in zip(looks, self._cascade.finish(looks), strict=True):
            yield self._cascade.outcome(look.inputs, scores, Meter())

    def _read(self, some: list[Item]) -> Inputs | InputError:
        try:
            inputs = self._encode(list(some))
            inputs.encode()
        except InputError as fault:
            return fault
        return inputs


class _Direct(Generic[Item]):
    """A source that is read by the thread that wants its items; an error of its own ends it, and comes last."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = iter(items)
        self._error: BaseException | None = None

    def take(self, most: int, until: float) -> tuple[float, list[Item], bool]:
        """When the first of the next items arrived, up to `most` of them, and whether they are the last."""
        found: list[Item] = []
        try:
            found.extend(islice(self._items, most))
        except Exception as error:  # noqa: BLE001  # raised after the answers
            self._error = error
        return time.monotonic(), found, len(found) < most

    def paused(self) -> bool:
        """Whether there was nothing more to read for so long that no item should wait for others."""
        return False

    def release(self, count: int) -> None:
        """So many items are answered."""

    def stop(self) -> None:
        """No more items are wanted."""

    def __enter__(self) -> _Direct[Item]:
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        self.stop()
        if kind is None and self._error is not None:
            raise self._error


class _Reader(_Direct[Item]):
    """A source that a thread of its own reads ahead, so that waiting for it can end at a deadline."""

    def __init__(self, items: Iterable[Item], options: StreamOptions) -> None:
        super().__init__(items)
        self._max_age, self._pause = (
            math.inf if age is None else float(age) for age in (options.max_age, options.pause)
        )
        self._last = -math.inf  # when an item arrived
        self._changed = threading.Condition()
        self._waiting: deque[tuple[float, Item]] = deque()
        self._room = options.look_ahead  # items that may still be read
        self._done = self._stopped = False
        self._need = 1  # items for which `take` waits
        self._thread = threading.Thread(target=self._read, name="cascade-stream", daemon=True)
        self._thread.start()

    def take(self, most: int, until: float) -> tuple[float, list[Item], bool]:
        """Wait for `most` items, no longer than the oldest one may, nor than `until`."""
        with self._changed:
            while len(self._waiting) < most and not self._done:
                end = min(until, self._waiting[0][0] + self._max_age) if self._waiting else until
                if end < math.inf:  # something waits for more
                    end = min(end, self._last + self._pause)
                left = end - time.monotonic()
                if left <= 0:
                    break
                # Woken by the first item, which sets a deadline, and then by the last one.
                self._need = 1 if end == math.inf else most
                self._changed.wait(min(left, threading.TIMEOUT_MAX))
            taken = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
            ended = self._done and not self._waiting
        return (taken[0][0] if taken else time.monotonic()), [item for _, item in taken], ended

    def paused(self) -> bool:
        """Whether nothing waits and nothing came for the `pause`."""
        with self._changed:
            return not self._waiting and time.monotonic() >= self._last + self._pause

    def release(self, count: int) -> None:
        """So many items are answered: the thread may read as many more."""
        with self._changed:
            self._room += count
            self._changed.notify_all()

    def stop(self) -> None:
        """No more items are wanted: the thread ends, after the item that it waits for."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _read(self) -> None:
        items, error = self._items, None
        try:
            while self._wanted():
                item = next(items)
                with self._changed:
                    self._last = time.monotonic()
                    self._waiting.append((self._last, item))
                    self._room -= 1
                    if len(self._waiting) >= self._need:
                        self._changed.notify_all()
        except StopIteration:
            pass
        except BaseException as caught:  # noqa: BLE001  # raised in the thread that wants the items
            error = caught
        with self._changed:
            self._error, self._done = error, True
            self._changed.notify_all()

    def _wanted(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._room > 0 or self._stopped)
            return not self._stopped


def _source(items: Iterable[Item], options: StreamOptions) -> _Direct[Item]:
    return _Direct(items) if options.max_age is None else _Reader(items, options)

"""One thread budget for all callers of a bundle: several batches at once, each on a thread of its own.

A batch that has one thread to itself wastes nothing on dividing small operators among threads and waiting for the
slowest part of each: over SST-2's dev set two threads with a batch each took 0.77 of the time that they took with one
batch after the other (ARCHITECTURE.md).
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from cascade.core.checks import check_whole

Item = TypeVar("Item")
Made = TypeVar("Made")


class Executor:
    """Runs functions on at most `threads` threads at once, whoever calls it from however many threads.

    Who waits is served in order of arrival. What runs inside may call the executor again: it stays on its thread.

    Attributes:
        threads: the budget, at least 1.
    """

    def __init__(self, threads: int = 1) -> None:
        self.threads = check_whole("threads", threads, "give the number of threads that may be busy at once")
        self._forget()
        _EXECUTORS.add(self)

    def __repr__(self) -> str:
        return f"Executor({self.threads})"

    def __reduce__(self) -> tuple[type[Executor], tuple[int]]:
        return Executor, (self.threads,)  # another process has a budget of its own

    def run_each(
        self, function: Callable[[Item], Made], items: Sequence[Item], *, pooled: bool = False
    ) -> Iterator[Made]:
        """What a function makes of each item, in order, as many of them under way at once as threads are free.

        With one thread or one item everything runs on the calling thread. An error, or an interruption, ends it as
        soon as the items that are under way are done; those that have not begun never do.

        Args:
            function: called from several threads.
            items: any number.
            pooled: each item takes all threads, because what it runs has a pool of them.
        """
        if self.threads == 1 or pooled or len(items) < 2 or self._mine.held:
            count = self.threads if pooled else 1
            for item in items:
                yield self._holding(function, item, count)
            return
        pool = ThreadPoolExecutor(min(self.threads, len(items)), thread_name_prefix="cascade")
        try:
            yield from pool.map(lambda item: self._holding(function, item, 1), items)
        finally:
            pool.shutdown(cancel_futures=True)

    @contextmanager
    def permits(self, count: int) -> Iterator[None]:
        """Wait until so many of the threads are free, and hold them meanwhile; a thread that holds some has enough."""
        if self._mine.held:
            yield
            return
        permits = self._take(count)
        try:
            yield
        finally:
            self._give(permits, count)

    def _holding(self, function: Callable[[Item], Made], item: Item, count: int) -> Made:
        """As `with self.permits(count)`, at less cost: single texts wait for it."""
        if self._mine.held:
            return function(item)
        permits = self._take(count)
        try:
            return function(item)
        finally:
            self._give(permits, count)

    def _take(self, count: int) -> _Permits:
        permits = self._permits
        permits.take(count)
        self._mine.held = True
        return permits

    def _give(self, permits: _Permits, count: int) -> None:
        self._mine.held = False
        permits.give(count)

    def _forget(self) -> None:
        """Nobody waits and all is free: at the start, and in a forked child, which has none of the threads."""
        self._permits, self._mine = _Permits(self.threads), _Mine()


class _Permits:
    """So many permits, given out in order of arrival."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.waiting: deque[object] = deque()
        self._changed = threading.Condition()

    def take(self, count: int) -> None:
        """Wait for so many."""
        with self._changed:
            if self.waiting or self.free < count:
                ticket = object()
                self.waiting.append(ticket)
                try:
                    self._changed.wait_for(lambda: self.waiting[0] is ticket and self.free >= count)
                finally:
                    self.waiting.remove(ticket)
                    self._changed.notify_all()
            self.free -= count

    def give(self, count: int) -> None:
        """Give so many back."""
        with self._changed:
            self.free += count
            if self.waiting:
                self._changed.notify_all()


class _Mine(threading.local):
    """Whether this thread holds permits."""

    held = False


_EXECUTORS: weakref.WeakSet[Executor] = weakref.WeakSet()


def _forget_all() -> None:
    for executor in list(_EXECUTORS):
        executor._forget()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forget_all)


def in_turn(function: Callable[[Item], Made]) -> Callable[[Item], Made]:
    """The same function for callers on several threads: one call at a time."""
    lock = threading.Lock()

    def guarded(item: Item) -> Made:
        with lock:
            return function(item)

    return guarded

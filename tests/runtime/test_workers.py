"""Items in order, at most so many at once, and an early end when one fails."""

from __future__ import annotations

import threading
import time

import pytest

from cascade.runtime.workers import in_turn, run_each


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order(threads: int) -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.02 if item == 0 else 0)
        return item * item

    assert list(run_each(slow_first, range(6), threads=threads)) == [0, 1, 4, 9, 16, 25]


def test_so_many_at_once_and_no_more() -> None:
    barrier = threading.Barrier(3, timeout=10)
    running, most, lock = 0, 0, threading.Lock()

    def meet(_item: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        barrier.wait()
        with lock:
            running -= 1

    list(run_each(meet, range(9), threads=3))
    assert most == 3


@pytest.mark.parametrize(("threads", "items"), [(1, 4), (4, 1)])
def test_one_thread_or_one_item_stays_on_the_calling_thread(threads: int, items: int) -> None:
    found = list(run_each(lambda _item: threading.get_ident(), range(items), threads=threads))
    assert set(found) == {threading.get_ident()}


def test_an_error_ends_it_early() -> None:
    begun = []

    def fail(item: int) -> None:
        begun.append(item)
        time.sleep(0.01)
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 0"):
        list(run_each(fail, range(100), threads=2))
    assert len(begun) < 10
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("cascade")]


def test_in_turn_lets_one_in_at_a_time() -> None:
    inside, most = 0, 0

    def enter(item: int) -> int:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.002)
        inside -= 1
        return item

    assert list(run_each(in_turn(enter), range(8), threads=4)) == list(range(8))
    assert most == 1

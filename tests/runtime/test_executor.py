"""Items in order, at most so many at once whoever asks, and an early end when one fails."""

from __future__ import annotations

import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from cascade.engine.multi_exit import MultiExit
from cascade.engine.single_exit import SingleExit
from cascade.exceptions import OptionError
from cascade.policies.exits import MaxProbability
from cascade.runtime.executor import Executor, in_turn
from tests.models.batching import FixedSize
from tests.models.toy import Toy, batch_of


class Counter:
    """How many are inside at once."""

    def __init__(self) -> None:
        self.inside, self.most, self._lock = 0, 0, threading.Lock()

    def enter(self, seconds: float = 0.002, weight: int = 1) -> None:
        with self._lock:
            self.inside += weight
            self.most = max(self.most, self.inside)
        time.sleep(seconds)
        with self._lock:
            self.inside -= weight


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order(threads: int) -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.02 if item == 0 else 0)
        return item * item

    assert list(Executor(threads).run_each(slow_first, range(6))) == [0, 1, 4, 9, 16, 25]


def test_so_many_at_once_and_no_more() -> None:
    barrier, counter = threading.Barrier(3, timeout=10), Counter()

    def meet(_item: int) -> None:
        barrier.wait()
        counter.enter()

    list(Executor(3).run_each(meet, range(9)))
    assert counter.most == 3


@pytest.mark.parametrize("pooled", [False, True])
def test_many_callers_share_the_budget(pooled: bool) -> None:
    """One run with a pool of n threads counts n."""
    executor, counter = Executor(2), Counter()
    weight = 2 if pooled else 1

    def call(number: int) -> list[int]:
        def work(item: int) -> int:
            counter.enter(weight=weight)
            return item

        return list(executor.run_each(work, range(number % 3 + 1), pooled=pooled))

    with ThreadPoolExecutor(8) as callers:
        assert list(callers.map(call, range(24))) == [list(range(number % 3 + 1)) for number in range(24)]
    assert counter.most == 2


@pytest.mark.parametrize("threads", [1, 2])
def test_graphs_of_eight_callers_never_exceed_the_budget(threads: int) -> None:
    """The whole of both tiers, pools included: before, eight callers ran sixteen graphs at once."""
    counter, executor, toy = Counter(), Executor(threads), Toy()

    def counted(function: Any, weight: int) -> Any:
        def run(feeds: Any) -> Any:
            counter.enter(0.001, weight)
            return function(feeds)

        return run

    class Graph:
        def __init__(self, inner: Any, weight: int) -> None:
            self.inputs, self.outputs = inner.inputs, inner.outputs
            self.run = counted(inner.run, weight)
            self.serial = self if weight == 1 else Graph(inner, 1)

    plain1, plain2 = toy.tier1(), toy.tier2()
    tier1 = SingleExit(backend=Graph(plain1.backend, threads), labels=3, max_length=64, executor=executor, pool_from=9)
    tier2 = MultiExit(
        embed=Graph(plain2.embed, threads),
        stages=[Graph(stage, threads) for stage in plain2.stages],
        layers=plain2.layers,
        labels=3,
        heads=plain2.heads,
        max_length=64,
        exit_policy=MaxProbability(0.8),
        batching=FixedSize(2),
        together=2,
        executor=executor,
        pool_from=9,
    )
    units = [batch_of([5] * count) for count in (1, 2, 9, 20)]
    expected = [(plain1.score(one).probabilities, tier2.score(one).probabilities) for one in units]
    counter.most = 0

    def call(number: int) -> None:
        one, (first, second) = units[number % 4], expected[number % 4]
        np.testing.assert_allclose(tier1.score(one).probabilities, first, atol=1e-6)
        np.testing.assert_allclose(tier2.score(one).probabilities, second, atol=1e-6)

    with ThreadPoolExecutor(8) as callers:
        list(callers.map(call, range(24)))
    assert counter.most == threads
    assert counter.inside == 0


def test_who_comes_first_is_served_first() -> None:
    """A run that needs all threads is not overtaken by small ones."""
    executor, served = Executor(2), []
    held, begun = threading.Event(), threading.Event()

    def hold() -> None:
        with executor.permits(1):
            begun.set()
            held.wait(10)

    def take(count: int) -> None:
        with executor.permits(count):
            served.append(count)

    threads = [threading.Thread(target=hold)]
    threads[0].start()
    begun.wait(10)
    for waiting, count in enumerate((2, 1, 1), start=1):
        threads.append(threading.Thread(target=take, args=(count,)))
        threads[-1].start()
        while len(executor._permits.waiting) < waiting:
            time.sleep(0.001)
    assert served == []
    held.set()
    for thread in threads:
        thread.join(10)
    assert served == [2, 1, 1]


def test_what_runs_inside_may_ask_again() -> None:
    executor = Executor(2)

    def outer(item: int) -> int:
        return sum(executor.run_each(lambda inner: inner * item, range(4), pooled=True))

    assert list(executor.run_each(outer, range(8))) == [6 * item for item in range(8)]


@pytest.mark.parametrize(("threads", "items", "pooled"), [(1, 4, False), (4, 1, False), (4, 3, True)])
def test_one_thread_or_one_item_stays_on_the_calling_thread(threads: int, items: int, pooled: bool) -> None:
    found = list(Executor(threads).run_each(lambda _item: threading.get_ident(), range(items), pooled=pooled))
    assert set(found) == {threading.get_ident()}


def test_an_error_ends_it_early() -> None:
    executor, begun = Executor(2), []

    def fail(item: int) -> None:
        begun.append(item)
        time.sleep(0.01)
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 0"):
        list(executor.run_each(fail, range(100)))
    assert len(begun) < 10
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("cascade")]
    assert list(executor.run_each(abs, [-1, -2])) == [1, 2]  # all permits came back


def test_another_process_has_a_budget_of_its_own() -> None:
    assert pickle.loads(pickle.dumps(Executor(3))).threads == 3
    with pytest.raises(OptionError, match="threads must be a whole number of at least 1"):
        Executor(0)


def test_in_turn_lets_one_in_at_a_time() -> None:
    counter = Counter()

    def enter(item: int) -> int:
        counter.enter()
        return item

    assert list(Executor(4).run_each(in_turn(enter), range(8))) == list(range(8))
    assert counter.most == 1

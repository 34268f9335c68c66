"""One text at a time: peers in their processes answer blocks of texts in turns; seconds of each text are taken there.

Every peer answers every text once before, and what that took does not count, so whatever a library prepares when it
first sees a length is ready. A block holds texts from the whole file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from cascade.core.checks import check_whole
from cascade.core.rows import IntArray
from cascade_bench.peer_kinds import CASCADE
from cascade_bench.peer_turns import PAUSE, Peers, Running

__all__ = ["Singles", "one_at_a_time"]

BLOCK = 20  # texts in a turn
TURNS = 10  # at least, as far as there are texts: so many ratios have an interval of 95 %
LEAD = 2  # answers before those that count: the processor's caches hold what the peer before needed


@dataclass(frozen=True, eq=False)
class Singles:
    """What came out, by text.

    Attributes:
        texts: their numbers in the file, from 0. Shape `(n,)`.
        turns: the turn in which each was answered, from 0. Shape `(n,)`.
        seconds: of each, by the key of the peer that answered. Shapes `(n,)`.
        by_tier1: whether the cascade's first tier answers it alone; `None` if no cascade ran. Shape `(n,)`.
        orders: per turn, the keys of the peers in the order in which they ran.
    """

    texts: IntArray
    turns: IntArray
    seconds: Mapping[str, npt.NDArray[np.float64]]
    by_tier1: npt.NDArray[np.bool_] | None
    orders: list[list[str]]


def one_at_a_time(
    peers: Peers,
    count: int,
    *,
    pause: float = PAUSE,
    progress: Callable[[str], object] | None = None,
    seed: int = 0,
) -> Singles:
    """All that are running answer the same texts, in turns; one that fails is set aside.

    Args:
        peers: loaded ones.
        count: texts, spread evenly over the file; all of them where it has fewer.
        pause: seconds between turns.
        progress: called before each turn with the peer's name.
        seed: of the orders.

    Raises:
        OptionError: a count below 1.
    """
    check_whole("count", count, "200 give a p95 worth reading")
    say = progress or (lambda _name: None)
    texts = np.linspace(0, peers.count - 1, min(count, peers.count)).astype(np.int64)
    blocks = min(len(texts), max(TURNS, round(len(texts) / BLOCK)))
    turns = np.arange(len(texts)) % blocks
    seconds = {key: np.zeros(len(texts)) for key in peers.running}
    routes: dict[str, list[bool] | None] = {}

    def block(peer: Running, *, turn: int) -> None:
        own = np.flatnonzero(turns == turn)
        asked = np.concatenate((np.resize(own[-LEAD:], LEAD), own))
        seconds[peer.kind.key][own] = peer.process.single(texts[asked].tolist())[LEAD:]

    def warm_up(peer: Running) -> None:
        for turn in range(blocks):
            block(peer, turn=turn)
        if peer.kind.key == CASCADE:
            routes[CASCADE] = peer.process.by_tier1(texts.tolist())

    for peer in list(peers.running.values()):
        say(f"warm-up: {peer.kind.name}, one at a time")
        peers.guard(peer, warm_up)
    orders: list[list[str]] = []
    rng = np.random.default_rng(seed)
    for turn in range(blocks):
        keys = list(peers.running)
        orders.append([keys[number] for number in rng.permutation(len(keys))])
        for key in orders[-1]:
            say(f"{peers.running[key].kind.name}, one at a time")
            time.sleep(pause)
            peers.guard(peers.running[key], partial(block, turn=turn))
    found = routes.get(CASCADE)
    return Singles(
        texts,
        turns,
        {key: seconds[key] for key in peers.running},
        None if found is None else np.array(found, dtype=np.bool_),
        orders,
    )

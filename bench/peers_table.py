"""The peers' table: accuracy, agreement, seconds and memory of each peer, and why the others have none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import median
from typing import Any

from cascade.exceptions import OptionError
from cascade_bench.data import Labelled
from cascade_bench.peer_kinds import FULL, PIPELINE, Kind
from cascade_bench.peer_process import Job, PeerProcess
from cascade_bench.peer_single import one_at_a_time
from cascade_bench.peer_turns import BATCH_SIZES, PAUSE, Absent, Peers
from cascade_bench.peers_single import SingleTable, summarise
from cascade_bench.statistics import Interval, speed_up
from cascade_bench.tag_data import Tagged

__all__ = ["PeerRow", "PeerTable", "compare"]


@dataclass(frozen=True)
class PeerRow:
    """A peer in one order of the texts.

    Attributes:
        kind: which.
        by_length: it sorted the texts by their characters first; this engine sorts by itself and is given them as is.
        batch_size: its best; `None` for this engine, which sizes batches by itself.
        tried: texts per second on some of the texts, by batch size.
        accuracy: in [0, 1].
        agreement: share of answers that are the same as those of tier 2 at full depth; `None` if that failed.
        seconds: of one pass by repeat; `None` where it had no turn.
        passes: how often it ran in a turn.
        over_full, over_pipeline: how many times faster than these; `None` where they failed.
        load_seconds: until it could answer.
        peak_mib: the most memory that its process held in all, in both orders.
    """

    kind: Kind
    by_length: bool
    batch_size: int | None
    tried: Mapping[int, float]
    accuracy: float
    agreement: float | None
    seconds: tuple[float | None, ...]
    passes: int
    over_full: Interval | None
    over_pipeline: Interval | None
    load_seconds: float
    peak_mib: float | None

    @property
    def name(self) -> str:
        """For programs: the kind and the order."""
        return self.kind.key + ("-by-length" if self.by_length else "")

    @property
    def median_seconds(self) -> float:
        """Of one pass."""
        return median(value for value in self.seconds if value is not None)


@dataclass(frozen=True)
class PeerTable:
    """What was measured.

    Attributes:
        rows: a line per peer and order.
        absent: those without figures.
        count: texts, or words, in a pass.
        orders: per repeat, who ran in which order.
        unit: what is counted: `texts` or `words`.
        single: what one text takes; `None` if that was not asked for.
    """

    rows: tuple[PeerRow, ...]
    absent: tuple[Absent, ...]
    count: int
    orders: list[list[str]]
    unit: str = "texts"
    single: SingleTable | None = None


def compare(
    kinds: Sequence[Kind],
    job: Job,
    data: Labelled | Tagged,
    *,
    repeats: int = 7,
    sizes: Sequence[int] = BATCH_SIZES,
    start: Callable[[], PeerProcess] | None = None,
    progress: Callable[[str], object] | None = None,
    pause: float = PAUSE,
    single: int = 0,
) -> PeerTable:
    """Run peers beside each other.

    Args:
        kinds: which.
        job: what they are given; its folder must be there.
        data: what they answer, tokenisation included.
        repeats: turns of each, but for slow ones; see `interleaving.interleave`.
        sizes: of batches to try.
        start: starts a process; `PeerProcess` if left out.
        progress: called before each piece of work with its name.
        pause: seconds between turns.
        single: so many texts are answered one at a time as well; see `peer_single.one_at_a_time`. 0: none.

    Raises:
        OptionError: no peer could be run at all.
    """
    peers = Peers(job, data.inputs, sizes=sizes, start=start, progress=progress)
    with peers:
        peers.load(kinds)
        turns = peers.take_turns(repeats, pause=pause)
        singles = one_at_a_time(peers, single, pause=pause, progress=progress) if single else None
        peaks = peers.quit()
    if not peers.running:
        reasons = "; ".join(f"{one.kind.name}: {one.reason}" for one in peers.absent.values())
        raise OptionError(
            f"one contestant at least must run, none did ({reasons}); install one, or mend the checkpoint"
        )
    full = peers.running.get(FULL)
    piped = PIPELINE in peers.running
    rows = []
    for key, peer in peers.running.items():
        for by_length, labels in peer.labels.items():
            own = turns.seconds[key, by_length]
            row = PeerRow(
                kind=peer.kind,
                by_length=by_length,
                batch_size=None if peer.kind.own else peer.sizes[by_length],
                tried=peer.tried[by_length],
                accuracy=data.right(labels) / len(data),
                agreement=None if full is None else _same(labels, full.labels[False], words=job.tagging),
                seconds=tuple(own),
                passes=turns.passes[key, by_length],
                over_full=None if full is None else speed_up(turns.seconds[FULL, False], own),
                over_pipeline=speed_up(turns.seconds[PIPELINE, False], own) if piped else None,
                load_seconds=peer.load_seconds,
                peak_mib=peaks[key],
            )
            rows.append(row)
    absent = tuple(peers.absent[kind.key] for kind in kinds if kind.key in peers.absent)
    left = [peer.kind for peer in peers.running.values()]
    latencies = None if singles is None else summarise(singles, left, tagging=job.tagging)
    return PeerTable(tuple(rows), absent, len(data), turns.orders, data.unit, latencies)


def _same(labels: Sequence[Any], others: Sequence[Any], *, words: bool) -> float:
    if words:
        labels, others = [*chain.from_iterable(labels)], [*chain.from_iterable(others)]
    return sum(bool(a == b) for a, b in zip(labels, others, strict=True)) / len(labels)

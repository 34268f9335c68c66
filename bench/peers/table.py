"""Accuracy, agreement, seconds and memory of each external baseline, and why the others have none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cascade.core.statistics import Interval, speed_up
from cascade.exceptions import OptionError
from cascade_bench.peers.running import BATCH_SIZES, PAUSE, Absent, Peers, name_of
from cascade_bench.peers.single import SingleTable, one_at_a_time, summarise
from cascade_bench.systems.baselines import TRANSFORMERS, Baseline
from cascade_bench.systems.local import FULL
from cascade_bench.systems.process import Job, WorkerProcess
from cascade_bench.table.data import Data
from cascade_bench.table.measuring import Measured
from cascade_bench.timing.interleaving import Progress, quiet


@dataclass(frozen=True, kw_only=True)
class PeerRow(Measured):
    """A baseline in one order of the texts.

    Attributes:
        by_length: it sorted the texts by their characters first; this engine sorts by itself and is given them as is.
        batch_size: its best; `None` for this engine.
        agreement: share of answers that are the same as those of tier 2 at full depth; `None` if that failed.
        peak_mib: the most memory that its process held in all, in both orders.
    """

    kind: Baseline
    by_length: bool
    batch_size: int | None
    agreement: float | None
    over_full: Interval | None
    peak_mib: float | None

    @property
    def name(self) -> str:
        """For programs: the key and the order."""
        return name_of(self.kind, self.by_length)


@dataclass(frozen=True)
class PeerTable:
    """What was measured: a line per baseline and order, those without figures, which system ran when in each repeat."""

    rows: tuple[PeerRow, ...]
    absent: tuple[Absent, ...]
    data: Data
    orders: list[list[str]]
    single: SingleTable | None = None


def compare(
    kinds: Sequence[Baseline],
    job: Job,
    data: Data,
    *,
    repeats: int = 7,
    sizes: Sequence[int] = BATCH_SIZES,
    start: Callable[[], WorkerProcess] | None = None,
    progress: Progress = quiet,
    pause: float = PAUSE,
    single: int = 0,
) -> PeerTable:
    """Run baselines beside each other: `repeats` turns of each over all texts, then `single` texts one at a time.

    The job's folder must be there. `start`: starts a process; `WorkerProcess` if left out. If none can be run at all
    that is an `OptionError`.
    """
    peers = Peers(job, data.items, sizes=sizes, start=start, progress=progress)
    with peers:
        peers.load(kinds)
        turns = peers.take_turns(repeats, pause=pause)
        singles = one_at_a_time(peers, single, pause=pause, progress=progress) if single else None
        peaks = peers.quit()
    if not peers.running:
        reasons = "; ".join(f"{one.kind.name}: {one.reason}" for one in peers.absent.values())
        raise OptionError(f"one system at least must run, none did ({reasons}); install one, or mend the checkpoint")
    full = peers.running.get(FULL)
    piped = TRANSFORMERS in peers.running
    rows = []
    for key, peer in peers.running.items():
        for by_length, labels in peer.labels.items():
            name = name_of(peer.kind, by_length)
            own = turns.seconds[name]
            row = PeerRow(
                kind=peer.kind,
                by_length=by_length,
                batch_size=None if peer.kind.own else peer.sizes[by_length],
                accuracy=data.accuracy(labels),
                agreement=None if full is None else data.agreement(labels, full.labels[False]),
                seconds=tuple(own),
                over_full=None if full is None else speed_up(turns.seconds[FULL], own),
                over_pipeline=speed_up(turns.seconds[TRANSFORMERS], own) if piped else None,
                peak_mib=peaks[key],
            )
            rows.append(row)
    absent = tuple(peers.absent[kind.key] for kind in kinds if kind.key in peers.absent)
    left = [peer.kind for peer in peers.running.values()]
    latencies = None if singles is None else summarise(singles, left, tagging=job.tagging)
    return PeerTable(tuple(rows), absent, data, turns.orders, latencies)

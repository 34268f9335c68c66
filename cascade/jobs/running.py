"""One process or several that work on the parts of a job, until all are whole."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from cascade.core.checks import check_whole
from cascade.core.files import locked, sha256_of
from cascade.core.results import Counts
from cascade.exceptions import CascadeError, CascadeWarning, OptionError
from cascade.jobs.answers import AnyPipeline, answered
from cascade.jobs.job import JOINED, Job, open_job
from cascade.jobs.leases import Lease
from cascade.jobs.parts import durable, join, read_block, write, write_block
from cascade.jobs.rows import Rows, blocks
from cascade.jobs.settings import Settings
from cascade.text.records import FileFormat

LOOK: Final = 1.0  # seconds between looks at what others do


def predict_tables(
    pipeline: AnyPipeline,
    inputs: Iterable[str | Path],
    output: str | Path,
    settings: Settings | None = None,
    *,
    form: FileFormat | None = None,
    workers: int = 1,
    on_ray: bool = False,
    fresh: bool = False,
    show_progress: bool = False,
) -> Counts:
    """Answer every row of tables, in order, in memory that does not grow with them.

    Rows are written in parts, each whole; the same call again goes on where one ended, however it ended. Several
    processes, of this call or of others with the same output, share the parts. Returned is what was counted in all
    parts, also those that were whole before.

    Args:
        pipeline: a `Classifier` or `Tagger` of a bundle, without tiers and policies that are functions.
        inputs: files, folders and patterns of parquet, Arrow, jsonl, csv, tsv and text lines (these also .gz, .zst).
        output: a file `.parquet`, `.jsonl` or `.csv`, or a folder for the parts. The parts of a file lie in the folder
            `NAME.parts` beside it until it is made.
        settings: columns that are read and written, and what bad rows do.
        form: of all inputs; by their suffixes if left out.
        workers: processes, each with the pipeline's threads.
        on_ray: the workers are tasks on a cluster (`ray.work_on_ray`).
        fresh: clear what a job wrote there, and begin anew.
        show_progress: a bar on standard error.

    Another job in the output's place, or nothing more that can be written there, is an `OptionError`; a file that
    cannot be read or lacks columns, or a row, as `settings` say, a `DataError`.
    """
    check_whole("workers", workers, "leave it out for one")
    try:
        job = open_job(pipeline, inputs, output, settings or Settings(), form=form, fresh=fresh)
        with _bar(job, show_progress):
            if on_ray:
                from cascade.jobs.ray import work_on_ray

                work_on_ray(work, job, pipeline, workers)
            elif workers == 1:
                with warnings.catch_warnings():  # `Counts.truncated` says it
                    warnings.filterwarnings("ignore", "pairs and words must fit", CascadeWarning)
                    work(job, pipeline)
            else:
                _spawn(job, pipeline, workers)
        _finish(job)
    except OSError as error:
        if isinstance(error, CascadeError):
            raise
        told = " ".join(str(error.strerror or error).split())
        raise OptionError(
            f"an output must have room and be writable, got {output} ({told}); the same command goes on from there"
        ) from error
    return sum((job.counts(number) or Counts() for number in range(len(job.parts))), Counts())


def work(job: Job, pipeline: AnyPipeline) -> None:
    """Make the parts that nobody works on, one after the other, until all are whole."""
    with closing(Rows(job.inputs, job.settings, job.kept)) as rows:
        while missing := [number for number in range(len(job.parts)) if job.counts(number) is None]:
            made = [_make(job, number, pipeline, rows) for number in missing]
            if not all(made):
                time.sleep(LOOK)


def _make(job: Job, number: int, pipeline: AnyPipeline, rows: Rows) -> bool:
    """Make a part, from where a dead worker came to; whether that was done, and not left to another worker."""
    lease, path = Lease.take(job.beside(number, "lease")), job.part(number)
    if lease is None:
        return False
    with lease:
        if job.counts(number) is not None:
            return True
        counts, done = Counts(), 0
        with suppress(OSError):  # of the first block that nobody has answered
            while True:
                counts, done = counts + read_block(job.block(number, done))[1], done + 1
        for block in blocks(rows.read(job.parts[number], counts.rows)):
            table, more = answered(pipeline, block, job.settings)
            write_block(job.block(number, done), table, more)
            counts, done = counts + more, done + 1
        if lease.held():  # otherwise it was taken over, while this process slept
            found = [job.block(number, one) for one in range(done)]
            with durable(path) as made:
                write(made, (read_block(one)[0] for one in found), job.schema, path.suffix[1:], len(job.kept))
            told = {"bytes": path.stat().st_size, "sha256": sha256_of(path), "counts": asdict(counts)}
            with durable(job.beside(number, "json")) as made:
                made.write_text(json.dumps(told) + "\n", encoding="utf-8")
            for one in found:
                one.unlink(missing_ok=True)
    return True


def _finish(job: Job) -> None:
    """Make the one file of all parts, and remove them; and blocks of workers that were killed or had slept."""
    for left in job.state.glob("part-*.block"):
        left.unlink(missing_ok=True)
    if job.target is None:
        return
    with locked(job.state):
        parts = list(map(job.part, range(len(job.parts))))
        if not job.joined:
            with durable(job.target) as made:
                join(made, parts, job.schema, parts[0].suffix[1:])
            (job.state / JOINED).touch()
        for path in parts:
            path.unlink(missing_ok=True)


def _spawn(job: Job, pipeline: AnyPipeline, workers: int) -> None:
    """Let processes work on the parts. What one of them raises ends all; where one dies the others do without it."""
    context = multiprocessing.get_context("spawn")
    told: Any = context.SimpleQueue()
    processes = [context.Process(target=_worker, args=(job, pipeline, told), daemon=True) for _ in range(workers)]
    try:
        for process in processes:
            process.start()
        while told.empty() and (alive := [process.sentinel for process in processes if process.is_alive()]):
            wait(alive, LOOK)
        if not told.empty():
            raise told.get()
    finally:
        for process in processes:
            if process.pid is not None:
                process.terminate()
                process.join()
    missing = sum(job.counts(number) is None for number in range(len(job.parts)))
    if missing:
        raise OptionError(
            f"workers must live until all parts are whole, but all {workers} ended with {missing} parts missing; see "
            "whether memory was short, and give the same command again"
        )


def _worker(job: Job, pipeline: AnyPipeline, told: Any) -> None:
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)  # what is whole stays, the rest is taken over

    threading.Thread(target=follow, daemon=True).start()
    warnings.simplefilter("ignore")  # the counts say it
    try:
        work(job, pipeline)
    except KeyboardInterrupt:  # of all processes of the terminal, and the parent ends this one
        pass
    except (CascadeError, OSError) as error:
        told.put(error)


@contextmanager
def _bar(job: Job, show: bool) -> Iterator[None]:
    """A bar that knows rows, rate, share deferred and time left, from what lies in the folder: of others too."""
    rows, ended = sum(span.rows for part in job.parts for span in part), threading.Event()
    found: dict[str, dict[str, Counts]] = {}  # of each part by file: its record, or blocks until that is there

    def seen() -> Counts:
        for path in job.state.glob("part-*"):
            part, _, kind = path.name.partition(".")
            own = found.setdefault(part, {})
            if kind == "json" and kind not in own and (counts := job.counts(int(part[5:]))) is not None:
                found[part] = {kind: counts}
            elif kind.endswith("block") and not {kind, "json"} & own.keys():
                with suppress(OSError):  # its part has just become whole
                    own[kind] = read_block(path)[1]
        return sum((counts for own in found.values() for counts in own.values()), Counts())

    def draw() -> None:
        before = seen()
        with tqdm(total=rows, initial=before.rows, unit=" rows") as bar:
            last = False
            while not last:
                last, found = ended.wait(LOOK), seen()
                share = (found.deferred - before.deferred) / max(found.units - before.units, 1)
                bar.set_postfix_str(f"{share:.1%} deferred", refresh=False)
                bar.update(max(found.rows - bar.n, 0))

    thread = threading.Thread(target=draw, daemon=True)
    try:
        if show:
            thread.start()
        yield
    finally:
        ended.set()
        if show:
            thread.join()

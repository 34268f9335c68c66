"""`cascade-bench serve`: its options, its table, its file."""

from __future__ import annotations

import itertools
import json
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from cascade.bundle.manifest import TAGGING
from cascade.bundle.opening import open_bundle
from cascade.core.files import check_output
from cascade.exceptions import OptionError
from cascade.runtime.threads import check_threads
from cascade_bench.options import data_option, json_option, model_argument, threads_option
from cascade_bench.serve.baselines import SERVERS
from cascade_bench.serve.client import Job as Load
from cascade_bench.serve.searching import Loaded, highest_rate, load
from cascade_bench.systems.local import CASCADE
from cascade_bench.systems.process import Job, WorkerError
from cascade_bench.table.data import read_items
from cascade_bench.timing import machine
from cascade_bench.timing.interleaving import Progress, quiet
from cascade_bench.timing.report import bar, benchmark, grid, write_json

if TYPE_CHECKING:
    from cascade_bench.serve.servers import Server

PATIENCE = 1.0  # seconds: a run that is so late is missed
FEWEST, LONGER = 300, 4  # requests of a run, for which it may take so many times its seconds
FORMS = {"rate": ",.0f", "cpu_ms": ".2f", "client_cpu_ms": ".3f", "memory_mib": ",.0f"}
NAMES = {CASCADE: "cascade serve", **{key: name for key, (name, *_) in SERVERS.items()}}


@click.command(short_help="Requests a second at p99 under a limit, beside FastAPI servers of the same checkpoint.")
@model_argument
@data_option
@click.option("--checkpoint", metavar="FOLDER", help="The last tier as transformers reads it, for the baselines.")
@click.option("--only", multiple=True, type=click.Choice([*NAMES]), help="Run these only; may be repeated.")
@click.option("--seconds", type=click.FloatRange(min=0.1), default=5.0, show_default=True, help="Of each run.")
@click.option("--limit", type=click.FloatRange(min=0.1), default=50.0, show_default=True, help="Of p99, in ms.")
@click.option("--flags", default="", metavar="TEXT", help='More options of cascade serve: "--workers 2".')
@threads_option
@json_option
def serve(model: str, *, file: str, checkpoint: str | None, only: tuple[str, ...], **given: Any) -> None:
    """How many requests a second a server answers while p99 stays under a limit.

    That of `cascade serve`, and with --checkpoint of two FastAPI servers around the bundle's last tier: one with
    transformers.pipeline, one with batches in int8 ONNX Runtime. Each request has one text of the file, drawn at
    random. Requests leave at random moments, as those of many clients do, whether or not the ones before were answered,
    from a process of its own; latency counts from the moment that was drawn. The highest rate is searched for in runs
    of a few seconds, and confirmed by a run of its own, whose p50, p99 and milliseconds of CPU are shown. The client
    runs on the same machine: its CPU is shown too.

    \b
    Example:
      cascade-bench serve models/sentiment --data dev.jsonl
      cascade-bench serve models/sentiment --data dev.jsonl --checkpoint runs/tier2 --seconds 10 --threads 2
    """
    from cascade_bench.serve.servers import Server  # it guards its own door

    seconds, limit, json_file = given["seconds"], given["limit"], given["json_file"]
    check_output("--json", json_file, file)
    manifest, count = open_bundle(model).manifest, check_threads(given["threads"])
    if manifest.task == TAGGING:
        raise OptionError(f"the bundle must be a classifier's, got a tagger's, {model}; see cascade-bench peers")
    keys = [key for key in only or NAMES if key == CASCADE or checkpoint]
    if not keys:
        raise OptionError(f"--checkpoint must be given for {only[0]}, got none; name a folder that transformers reads")
    bodies = [json.dumps({"inputs": text}) for text in read_items(file)]
    made, absent = list[dict[str, Any]](), dict[str, str]()
    with tempfile.TemporaryDirectory(prefix="cascade-bench-") as folder, bar() as step:
        job = Job(model, checkpoint or "", folder, count, manifest.tiers[-1].max_length)
        for key in keys:
            try:
                with Server(_command(key, job, shlex.split(given["flags"])), threads=count) as server:
                    made.append(measure(key, server, bodies, limit=limit / 1000, seconds=seconds, progress=step))
            except WorkerError as error:  # noqa: PERF203  # beside what a server takes
                absent[key] = str(error)
    facts = machine.facts(threads=count)
    details = {"model": model, "data": Path(file).name, "limit_ms": limit, "seconds": seconds, "checkpoint": checkpoint}
    click.echo("\n".join([grid(*_table(made, limit)), "", *_said(made, absent, seconds), machine.in_words(facts)]))
    write_json(json_file, facts, made, details=details, absent=absent)


def measure(
    key: str, server: Server, bodies: list[str], *, limit: float, seconds: float, progress: Progress = quiet
) -> dict[str, Any]:
    """The highest rate whose p99 is under `limit` seconds, and its last run, as a benchmark; CPU is of one request.

    `WorkerError`: there is none.
    """
    cpu, seeds = list[float](), itertools.count()

    def run(rate: float) -> Loaded:
        progress(f"{NAMES[key]}, {rate:.0f}/s")
        server.settle()  # of the run before: a server works on for clients that have gone
        cpu.append(server.cpu())
        longer = min(max(seconds, FEWEST / rate), LONGER * seconds)
        made = load(Load(server.port, bodies, rate, longer, seed=next(seeds), patience=max(PATIENCE, 4 * limit)))
        cpu.append(server.cpu())
        return made

    found = highest_rate(run, limit)
    if found is None:
        raise WorkerError(f"no rate was found at which p99 stays under {1000 * limit:g} ms")
    rate, last = found
    count, used = len(last.status), {"cpu_ms": cpu[-1] - cpu[-2], "client_cpu_ms": last.cpu}
    info = {"rate": rate, **{name: 1000 * each / count for name, each in used.items()}, "memory_mib": server.memory()}
    return benchmark(key, last.latency.tolist(), info)


def _table(made: Sequence[Mapping[str, Any]], limit: float) -> tuple[list[str], list[list[str]]]:
    head = ["system", f"requests/s, p99 < {limit:g} ms", "p50, ms", "p99, ms", "CPU, ms", "client's CPU, ms", "MiB"]
    rows = []
    for one in made:
        cells = [f"{one['extra_info'][name]:{form}}" for name, form in FORMS.items()]
        times = [f"{1000 * value:.1f}" for value in np.quantile(one["stats"]["data"], (0.5, 0.99))]
        rows.append([NAMES[one["name"]], cells[0], *times, *cells[1:]])
    return head, rows


def _said(made: Sequence[Mapping[str, Any]], absent: Mapping[str, str], seconds: float) -> list[str]:
    """What failed, and a conclusion."""
    said = [f"{NAMES[key]}: {reason}." for key, reason in absent.items()]
    rates = {one["name"]: one["extra_info"]["rate"] for one in made}
    own = rates.pop(CASCADE, None)
    if own and rates:
        best = max(rates, key=rates.__getitem__)
        said.append(f"{NAMES[CASCADE]} answers {own / rates[best]:.1f} times as many as {NAMES[best]}.")
    method = (
        f"One text a request, Poisson arrivals, runs of {seconds:g} s; latency from the scheduled moment; CPU of one"
    )
    return [*said, f"{method} request, of server and client, which share the machine."]


def _command(key: str, job: Job, flags: Sequence[str]) -> list[str]:
    """What starts a server, but for the port."""
    if key == CASCADE:  # all answers as certified, unless flags say otherwise
        own = ["-c", "from cascade.cli import main; main()", "serve", job.model, "--threads", str(job.threads)]
        return [*own, "--hostname", "127.0.0.1", "--degrade-at", "1", *flags, "--port"]
    return ["-m", "cascade_bench.serve.baselines", key, json.dumps(asdict(job))]

"""kill -9 at random moments: what is visible afterwards is whole, and the same command goes on or says what to do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np

from cascade.bundle.manifest import MANIFEST_FILE
from cascade.bundle.opening import open_bundle
from tests.hostile.children import Tally, side_by_side
from tests.hostile.making import inputs

LIMIT = 900  # seconds, after which a command hangs
RUN = "from {module} import main; main()"
BUILD = """
from cascade.training.build import building, report
building.EPOCHS.update(frozen=30.0, static=2.0, transformer=2.0, tuned=1.0)
building.COPIES, report.TURNS = 1, (1, 1)
from cascade.cli import main; main()
"""  # a few epochs, a few turns
SAVE = "from cascade import load; load({model!r}, threads=1).save_pretrained('saved', overwrite=True)"


@dataclass(frozen=True)
class Command:
    """A command, run in a folder of its own. `made`: what it leaves there; `kept`: whether that was there before."""

    name: str
    program: str
    arguments: tuple[str, ...]
    made: str
    kept: bool = False

    def start(self, folder: Path, *more: str) -> subprocess.Popen[str]:
        """Run it in a session of its own."""
        return subprocess.Popen(
            [sys.executable, "-c", self.program, *self.arguments, *more],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def commands(base: Path) -> list[Command]:
    """The six commands that write."""
    cascade, train = RUN.format(module="cascade.cli"), RUN.format(module="cascade.training.cli")
    export, model = RUN.format(module="cascade_export.cli"), str(base / "toy")

    def given(line: str) -> tuple[str, ...]:
        return tuple(line.format(base=base).split())

    loop = "--epochs 20 --batch-size 8 --learning-rate 1e-2"
    calibrate = "--data {base}/data.jsonl --no-guarantee --max-drop 0.2 --output bundle --json report.json"
    rows = "--train {base}/rows.jsonl --eval {base}/rows.jsonl --output model"
    options = "--texts {base}/build.txt --output bundle --minutes 1 --max-disagreement 0.2"
    return [
        Command("predict", cascade, given("predict {base}/toy {base}/texts.txt --output out.jsonl"), "out.jsonl"),
        Command("save", SAVE.format(model=model), (), "saved", kept=True),
        Command("calibrate", cascade, given(f"calibrate {{base}}/toy {calibrate}"), "bundle"),
        Command("export", export, given("--tier2 {base}/tier2 --tier1 {base}/tier1 --output bundle"), "bundle"),
        Command("train", train, given(f"exits {{base}}/backbone {rows} {loop}"), "model"),
        Command("build", BUILD, given(f"build {{base}}/model {options}"), "bundle"),
    ]


def kill(total: int, *, folder: Path, seed: int, processes: int, only: Sequence[str] | None = None) -> Iterator[Tally]:
    """Kill so many commands in turn, and let each go on to its end; gives what became of each."""
    base = folder / "base"
    base.mkdir(parents=True)
    inputs(base)
    chosen = [command for command in commands(base) if not only or command.name in only]
    begun = {command.name: _whole_run(command, folder / f"{command.name} whole", base) for command in chosen[:total]}
    faults = [fault for _, fault in begun.values() if fault]
    if faults:
        yield Tally(crashes=len(faults), notes=faults)
        return

    def one(number: int) -> Tally:
        command, rng = chosen[number % len(chosen)], Random(f"{seed} {number}")
        work = folder / f"{command.name} {number}"
        _prepare(command, work, base)
        when = _kill(command, work, rng, begun[command.name][0])
        found = Tally(1)
        for fault in _judge(command, work):
            found.count(fault, f"{command.name} killed {when}, --seed {seed}, number {number}")
        if found.good:
            shutil.rmtree(work)
        return found

    yield from side_by_side(one, range(total), processes)


def _prepare(command: Command, work: Path, base: Path) -> None:
    work.mkdir()
    if command.kept:
        shutil.copytree(base / "sure", work / command.made)


def _whole_run(command: Command, work: Path, base: Path) -> tuple[float, str]:
    """How long a run takes that nobody kills, and what went wrong with it."""
    _prepare(command, work, base)
    begin, process = time.monotonic(), command.start(work)
    said, _ = process.communicate(timeout=LIMIT)
    spent = time.monotonic() - begin
    good = process.returncode in (0, 1) and (work / command.made).exists()
    return spent, "" if good else f"crashes: {command.name}, not killed: {said[-500:]}"


def _kill(command: Command, work: Path, rng: Random, whole: float) -> str:
    """At any moment, late ones more often, or just after something new stands in the folder."""
    process, begin, before = command.start(work), time.monotonic(), _names(work)
    if rng.randrange(2):
        changes = rng.choice((1, 1, 2, 5))
        while process.poll() is None and len(_names(work) - before) < changes:
            time.sleep(0.005)
        time.sleep(rng.random() ** 2 * 0.05)
    else:
        time.sleep(max(rng.random(), rng.random()) * whole)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return f"after {time.monotonic() - begin:.2f} s of {whole:.1f}"


def _names(folder: Path) -> set[str]:
    """Of all that is in it; folders may go while they are listed."""
    return {os.path.join(at, name) for at, folders, files in os.walk(folder) for name in (*folders, *files)}  # noqa: PTH118


def _judge(command: Command, work: Path) -> Iterator[str]:
    yield from (f"lost: {fault}" for fault in faults_of(work))
    if command.kept and not (work / command.made).exists():
        yield f"lost: {command.made} is gone"
    options: list[str] = []
    for _ in range(3):
        process = command.start(work, *options)
        try:
            said, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            yield "hangs: the same command again"
            return
        if "Traceback" in said:
            yield f"tracebacks: the same command again: {said[-500:]}"
            return
        told = [option for option in ("--resume", "--overwrite") if option in said and option not in options]
        if process.returncode == 2 and told:
            options.append(told[0])
        elif process.returncode == 2 and "set overwrite" in said:
            options.append("--overwrite")
        else:
            break
    there = any(told in said for told in ("must not be there yet", "must be a new or empty folder"))
    if process.returncode == 2 and there and _is_whole(work / command.made):
        return  # it was whole before the kill, and the command says what to do
    if process.returncode not in (0, 1):
        yield f"crashes: the same command again, status {process.returncode}: {said[-500:]}"
    elif not (work / command.made).exists():
        yield f"lost: {command.made} was not made"
    yield from (f"lost: in the end {fault}" for fault in faults_of(work))
    left = [path.name for path in work.iterdir() if path.name.startswith(".")]
    if left:
        yield f"lost: {left} were not cleared"


def _is_whole(made: Path) -> bool:
    """Whether a file, a bundle or a checkpoint is there; `faults_of` looks into it."""
    return made.is_file() or any((made / name).is_file() for name in (MANIFEST_FILE, "config.json"))


def faults_of(folder: Path) -> Iterator[str]:
    """What looks whole in a folder and is not. Hidden names and `*.part` promise nothing."""
    from safetensors import safe_open

    for file in folder.rglob("*"):
        parts = file.relative_to(folder).parts
        if not file.is_file() or any(part.startswith(".") or part.endswith(".part") for part in parts):
            continue
        try:
            if file.name == MANIFEST_FILE:
                open_bundle(file.parent)
            elif file.suffix == ".json":
                json.loads(file.read_text(encoding="utf-8"))
            elif file.suffix == ".jsonl":
                content = file.read_text(encoding="utf-8")
                rows = [json.loads(line) for line in content.split("\n")[:-1]]
                answers = file.name == "out.jsonl"
                if not content.endswith("\n") or (answers and [row["line"] for row in rows] != [*range(1, 60_001)]):
                    raise ValueError(f"{len(rows)} rows")
            elif file.suffix == ".npy":
                np.load(file)
            elif file.suffix == ".safetensors":
                with safe_open(file, "np"):
                    pass
            elif file.suffix == ".html" and "</html>" not in file.read_text(encoding="utf-8"):
                raise ValueError("it is cut")
        except Exception as error:  # noqa: BLE001  # anything that its reader says
            yield f"{'/'.join(parts)}: {type(error).__name__}: {error}"

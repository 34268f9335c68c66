"""What a child throws, and how it judges the answers. A fault is a line: what it counts as, then what happened."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import cache, cached_property
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import cascade
from cascade import Classifier, Tagger
from cascade.cli import main
from cascade.cli.predict import command
from cascade.exceptions import CascadeError
from cascade.text.records import FileFormat
from tests.fuzz.bundles import broken_bundle
from tests.fuzz.texts import WRITERS, HostileFile, broken_file, hostile_file, is_shown, text
from tests.hostile.asking import ROOT, Asked, Asker

AFRESH = 20  # of one file in so many the command loads the bundle anew
FORMS = [form for form in WRITERS if form in {one.value for one in FileFormat}]


class Thrower:
    """Throws texts and files at bundles, and broken copies of the tiny ones."""

    def __init__(self, folder: Path, bundles: Sequence[Path]) -> None:
        self.folder, self.bundles = folder, bundles
        self.asker, self.load = Asker(bundles), cache(cascade.load)

    def throw(self, kind: str, rng: Random, count: int) -> Iterator[str]:
        """So many `texts`, `files` or `bundles`; gives each fault."""
        ways = {
            "texts": lambda: self.asker.texts(rng, count),
            "files": lambda: self.file(rng),
            "bundles": lambda: self.bundle(rng),
        }
        for _ in range(1 if kind == "texts" else count):
            yield from _guarded(ways[kind]())

    @cached_property
    def tiny(self) -> list[Classifier | Tagger]:
        """The tiny bundles, whole."""
        return [cascade.load(folder, threads=1) for folder in self.bundles[:2]]

    @cached_property
    def contents(self) -> list[dict[str, bytes]]:
        """Files of the tiny bundles."""
        return [
            {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
            for folder in self.bundles
        ]

    def file(self, rng: Random) -> Iterator[str]:
        """A file through `cascade predict`."""
        number, form = rng.randrange(2), rng.choice(FORMS)
        compressed = not rng.randrange(4)
        made = (hostile_file if rng.randrange(2) else broken_file)(rng, form, compressed=compressed)
        work = self.folder / "file"
        work.mkdir(exist_ok=True)
        for file in work.iterdir():
            file.unlink()
        path, output = work / f"in{made.suffix}", work / "out.jsonl"
        path.write_bytes(made.content)
        on_error, to_file = rng.choice(("null", "null", "skip", "stop")), bool(rng.randrange(2))
        given = ["predict", str(self.bundles[number]), str(path), "--on-error", on_error, "--threads", "1"]
        given += ["--text-column", "text"] if number else []
        given += ["--output", str(output)] if to_file else []
        with patch.object(command, "load", self.load) if rng.randrange(AFRESH) else nullcontext():
            status, out, err = _command(*given)
        if status not in (0, 2) or (
            status == 2 and (not err.splitlines()[-1].startswith("Error: ") or not is_shown(err))
        ):
            yield f"tracebacks: status {status}, {err[-300:]!r} for {made.content[:200]!r}"
        left = {file.name for file in work.iterdir()} - {path.name}
        if left != ({output.name} if to_file and status == 0 else set()):
            yield f"lost: status {status} left {left}"
        if made.texts is not None:
            answers = [
                json.loads(line) for line in (output.read_text() if to_file and status == 0 else out).splitlines()
            ]
            yield from self._compare(made, number, on_error, status, answers)

    def _compare(
        self, file: HostileFile, number: int, on_error: str, status: int, answers: list[dict[str, Any]]
    ) -> Iterator[str]:
        texts = file.texts or []
        if (status == 2) != (on_error == "stop" and None in texts):
            yield f"lost: status {status} with {on_error} for {file.content[:300]!r}"
            return
        if status == 2:
            return
        wanted: list[str | None] = [one for one in texts if one is not None]
        pipeline, key = self.tiny[number], "tags" if number else "label"
        known = iter(Asked(pipeline, "running" if number else "texts").together(list(wanted)))
        expected = [
            None if one is None else next(known).names for one in texts if one is not None or on_error == "null"
        ]
        got = [[one] if isinstance(one, str) else one for one in (answer[key] for answer in answers)]
        if len(got) != len(expected) or [one is None for one in got] != [one is None for one in expected]:
            yield f"lost: {len(got)} of {len(expected)} rows with {on_error} for {file.content[:300]!r}"
        elif got != expected:
            yield f"reordered: {file.content[:300]!r}"

    def bundle(self, rng: Random) -> Iterator[str]:
        """A broken bundle, loaded and asked."""
        files, folder, printed = broken_bundle(rng, rng.choice(self.contents)), self.folder / "broken", self._printed()
        shutil.rmtree(folder, ignore_errors=True)
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        items = [text(rng) for _ in range(3)]
        try:
            pipeline = cascade.load(folder, threads=1)
            found = pipeline.predict_texts(items) if isinstance(pipeline, Tagger) else pipeline.predict(items)
            if len(found) != len(items):
                yield f"lost: {len(found)} answers"
        except CascadeError as error:
            if "\n" in str(error) or not is_shown(str(error)):
                yield f"tracebacks: not in one line: {str(error)[:300]!r}"
        if not rng.randrange(4):
            status, out, err = _command("inspect", str(folder))
            if status not in (0, 2) or not is_shown(out + err):
                yield f"tracebacks: inspect, status {status}: {(out + err)[-300:]!r}"
        if self._printed() != printed:
            yield "tracebacks: a library printed to standard output"

    def _printed(self) -> int:
        return os.fstat(1).st_size


def _guarded(faults: Iterator[str]) -> Iterator[str]:
    try:
        yield from faults
    except BaseException as error:  # noqa: BLE001  # a panic of Rust is one, too
        yield _traceback(error)


def _traceback(error: BaseException) -> str:
    places = traceback.extract_tb(error.__traceback__)
    place = next((one for one in reversed(places) if one.filename.startswith(str(ROOT))), places[-1])
    return f"tracebacks: {type(error).__name__}: {error!s:.200} at {place.filename}:{place.lineno}"


def _command(*arguments: str) -> tuple[int, str, str]:
    """Run `cascade` in this process: its status and what it says."""
    kept, streams = (sys.stdout, sys.stderr), [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    sys.stdout, sys.stderr = streams
    try:
        main(arguments)
    except SystemExit as end:
        status = end.code
    finally:
        sys.stdout, sys.stderr = kept
    said = []
    for stream in streams:
        stream.flush()
        said.append(stream.buffer.getvalue().decode("utf-8"))
    return int(status or 0), said[0], said[1]

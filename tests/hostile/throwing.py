"""What a child throws, and how it judges the answers. A fault is a line: what it counts as, then what happened."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import numpy as np

import cascade
from cascade import Classifier, Tagger
from cascade.cli import main
from cascade.core.rows import FloatArray
from cascade.exceptions import CascadeError
from cascade.text.entities import AggregationStrategy
from cascade.text.records import FileFormat
from tests.fuzz.bundles import broken_bundle
from tests.fuzz.texts import WRITERS, HostileFile, broken_file, hostile_file, is_shown, long_text, text, words

ROOT = Path(__file__).parents[2]
CLOSE = 5e-3  # int8: scales are fixed, so only the order of float additions differs from batch to batch
Answer: TypeAlias = tuple[list[str], FloatArray]
Ask: TypeAlias = Callable[[list[Any]], list[Answer]]
FORMS = [form for form in WRITERS if form in {one.value for one in FileFormat}]


class Thrower:
    """Throws at the shipped bundles (texts), at tiny ones (files), and at broken copies of these."""

    def __init__(self, folder: Path, bundles: Sequence[Path]) -> None:
        self.folder, self.bundles = folder, bundles

    def throw(self, kind: str, rng: Random, count: int) -> Iterator[str]:
        """So many `texts`, `files` or `bundles`; gives each fault."""
        ways = {
            "texts": lambda: self.texts(rng, count),
            "files": lambda: self.file(rng),
            "bundles": lambda: self.bundle(rng),
        }
        for _ in range(1 if kind == "texts" else count):
            yield from _guarded(ways[kind]())

    @cached_property
    def classifier(self) -> Classifier:
        """Of films."""
        return Classifier.from_pretrained(ROOT / "models" / "sentiment", threads=1)

    @cached_property
    def tagger(self) -> Tagger:
        """Of parts of speech."""
        return Tagger.from_pretrained(ROOT / "models" / "pos", threads=1)

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

    def texts(self, rng: Random, count: int) -> Iterator[str]:
        """A batch, the same from the other end, as a stream, and some alone."""
        way = rng.choice(("texts", "texts", "pairs", "words", "running", "entities"))
        makers: dict[str, Callable[[Random], Any]] = {"words": words, "pairs": lambda rng: (text(rng), text(rng))}
        make = makers.get(way, text)
        items: list[Any] = [make(rng) for _ in range(count)]
        if way in ("texts", "running") and not rng.randrange(60):
            items[rng.randrange(count)] = long_text(rng)
        strategy = rng.choice([*AggregationStrategy])
        pipeline: Any = self.classifier if way in ("texts", "pairs") else self.tagger
        found = _asked(pipeline, way, strategy)(items)
        others = [("from the other end", _asked(pipeline, way, strategy)(items[::-1])[::-1])]
        if way != "entities":
            stream = pipeline.stream_texts if way == "running" else pipeline.stream
            others.append(("streamed", [*map(_answer, stream(iter(items)))]))
        if any(len(other) != count for other in (found, *(other for _, other in others))):
            yield f"lost: of {count} {way}"
            return
        chosen = rng.sample(range(count), min(4, count))
        alone = {row: _asked(pipeline, way, strategy)([items[row]])[0] for row in chosen}
        others.append(("alone", [alone.get(row, answer) for row, answer in enumerate(found)]))
        differ = [(how, row) for how, other in others for row in range(count) if not _same(found[row], other[row])]
        if differ:
            yield from self._judge(pipeline, way, strategy, items, differ)

    def _judge(
        self, pipeline: Any, way: str, strategy: AggregationStrategy, items: list[Any], differ: list[tuple[str, int]]
    ) -> Iterator[str]:
        """Answers differ: by rounding at a threshold, if they do not at full depth, where nothing is decided."""
        deep = _asked(pipeline.with_policies(pipeline.policies.full_depth()), way, strategy)
        whole = deep(items)
        for how, row in differ:
            name = "near" if _same(whole[row], deep([items[row]])[0]) else "reordered"
            yield f"{name}: {way} {how}: {items[row]!r:.200}"

    def file(self, rng: Random) -> Iterator[str]:
        """A file through `cascade predict`."""
        number, form = rng.randrange(2), rng.choice(FORMS)
        compressed = not rng.randrange(4)
        made = (hostile_file if rng.randrange(2) else broken_file)(rng, form, compressed=compressed)
        work = self.folder / "file"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        path, output = work / f"in{made.suffix}", work / "out.jsonl"
        path.write_bytes(made.content)
        on_error, to_file = rng.choice(("null", "null", "skip", "stop")), bool(rng.randrange(2))
        given = ["predict", str(self.bundles[number]), str(path), "--on-error", on_error, "--threads", "1"]
        given += ["--text-column", "text"] if number else []
        status, out, err = _command(*given, *(("--output", str(output)) if to_file else ()))
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
        known = iter(_asked(pipeline, "running" if number else "texts", AggregationStrategy.NONE)(list(wanted)))
        expected = [None if one is None else next(known)[0] for one in texts if one is not None or on_error == "null"]
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


def _asked(pipeline: Any, way: str, strategy: AggregationStrategy) -> Ask:
    if way == "entities":
        return lambda items: [_entities(found) for found in pipeline(items, aggregation_strategy=strategy)]
    predict = pipeline.predict_texts if way == "running" else pipeline.predict
    return lambda items: [*map(_answer, predict(items))]


def _answer(one: Any) -> Answer:
    names = one.tags if hasattr(one, "tags") else [str(one.label)]
    return list(names), np.ravel(one.probabilities)


def _entities(found: list[dict[str, Any]]) -> Answer:
    names = [f"{one.get('entity', one.get('entity_group'))} {one['start']} {one['end']}" for one in found]
    return names, np.array([one["score"] for one in found], dtype=np.float32)


def _same(left: Answer, right: Answer) -> bool:
    return left[0] == right[0] and left[1].shape == right[1].shape and bool(np.allclose(left[1], right[1], atol=CLOSE))


def _guarded(faults: Iterator[str]) -> Iterator[str]:
    try:
        yield from faults
    except BaseException as error:  # noqa: BLE001  # a panic of Rust is one, too
        yield _traceback(error)


def _traceback(error: BaseException) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
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

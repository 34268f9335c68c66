"""The graphs of a bundle by themselves, with inputs of any size, and the grid of sizes that they are measured on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cascade.core.rows import IntArray, Rows, offsets_of
from cascade.engine.packing import ACTIVE_FEEDS, FEEDS, Actives, Packing, padded
from cascade.exceptions import OptionError
from cascade.runtime.backend import Array, Backend, OnnxBackend
from cascade_bench.systems.local import Model

ROWS, LENGTHS = (1, 4, 16, 64), (8, 32, 128)
MOST_TOKENS = 4096  # points with more are left out: no policy makes such batches


@dataclass(frozen=True)
class Point:
    """A batch: tokens of each row. `mixed`: from a quarter of the longest up, otherwise all rows alike."""

    lengths: tuple[int, ...]
    mixed: bool

    @property
    def tokens(self) -> int:
        """Of all rows together."""
        return sum(self.lengths)

    @property
    def name(self) -> str:
        """For readers and programs."""
        return f"{len(self.lengths)}x{max(self.lengths)}{' mixed' if self.mixed else ''}"


@dataclass(frozen=True, eq=False)
class Part:
    """A graph of a bundle. `key`, `name`: for programs and readers. `feeds`: its inputs for rows of these lengths."""

    key: str
    name: str
    backend: OnnxBackend
    feeds: Callable[[IntArray], Mapping[str, Array]]


def points(rows: Sequence[int], lengths: Sequence[int], *, max_length: int) -> list[Point]:
    """A grid, with mixed lengths too wherever there are several rows. Lengths above `max_length` are cut to it."""
    found: dict[Point, None] = {}
    for count in rows:
        for longest in sorted({min(length, max_length) for length in lengths}):
            some = np.linspace(max(2, longest // 4), longest, count).round().astype(int)
            for point in (Point((longest,) * count, mixed=False), Point(tuple(some.tolist()), mixed=True)):
                if point.tokens <= MOST_TOKENS and (count > 1 or not point.mixed):
                    found[point] = None
    return list(found)


def parts(model: Model) -> list[Part]:
    """The graphs of a bundle, in the order in which they run."""
    one, two = model.tier1, model.tier2
    ids = model.tokenizer.encode(["a gripping film, and not one minute too long"]).units.rows.ids
    second = model.bundle.manifest.tier2

    def batch(lengths: IntArray) -> Rows:
        tokens = int(lengths.sum())
        return Rows(np.resize(ids, tokens), np.zeros(tokens, dtype=np.int64), offsets_of(lengths))

    def whole(lengths: IntArray) -> Mapping[str, Array]:
        names = ("input_ids", "attention_mask", "token_type_ids")
        return dict(zip(names, padded(batch(lengths), max_length=2**31), strict=True))

    def embed(lengths: IntArray) -> Mapping[str, Array]:
        made, positions = batch(lengths), Packing.of(lengths).position_ids(two.position_offset)
        return {"input_ids": made.ids, "token_type_ids": made.types, "position_ids": positions}

    def stage(lengths: IntArray) -> Mapping[str, Array]:
        packing, tokens = Packing.of(lengths, heads=second.heads), int(lengths.sum())
        hidden = np.random.default_rng(0).normal(size=(tokens, second.width)).astype(np.float32)
        every = np.arange(tokens, dtype=np.int64)  # of a tagger: no word has exited, each token is a word
        actives = Actives(packing, packing, every)
        tagging = {name: actives.array(name) for name in ACTIVE_FEEDS}
        return {"hidden": hidden, **packing.feeds(FEEDS), **tagging, "words": every}

    starts = (0, *two.layers[:-1])
    return [
        Part("tier1", "tier 1", _onnx(one.backend), whole),
        Part("embed", "embed", _onnx(two.embed), embed),
        *(
            Part(f"stage-{last}", f"layer {last}" if last == first + 1 else f"{first + 1}-{last}", _onnx(graph), stage)
            for first, last, graph in zip(starts, two.layers, two.stages, strict=True)
        ),
    ]


def _onnx(backend: Backend) -> OnnxBackend:
    if not isinstance(backend, OnnxBackend):
        raise OptionError(f"profile needs graphs in ONNX files, got {type(backend).__name__}; give a bundle's folder")
    return backend

"""A bundle of files that are no graphs: opening and writing look into none of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cascade.bundle.manifest import Manifest
from cascade.bundle.opening import Bundle
from cascade.bundle.tiers import MultiExitSpec, SingleExitSpec, StageSpec
from cascade.bundle.writing import write_bundle
from cascade.policies import Policies, Threshold, never

FILES: dict[str, bytes | Path] = {
    "tokenizer.json": b"{}",
    "onnx/model.onnx": b"tier one",
    "tier2/embed.onnx": b"embed",
    "tier2/stage_00.onnx": b"x" * (3 << 20),  # more than a block
}
POLICIES = Policies((Threshold(0.9),), (never, never), ((1.0,), (1.0,)))
MANIFEST = Manifest(
    task="text-classification",
    problem_type="single_label_classification",
    labels=("no", "yes"),
    tiers=(
        SingleExitSpec(file="onnx/model.onnx", model="static", max_length=16),
        MultiExitSpec("tier2/embed.onnx", (StageSpec("tier2/stage_00.onnx", 1),), width=4, heads=2, max_length=16),
    ),
    policies=POLICIES,
    library_version="0.1.0",
)


@pytest.fixture
def made(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "made", FILES, MANIFEST)


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return [path.name for path in folder.iterdir()]

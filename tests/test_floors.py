"""The floors of ARCHITECTURE.md: who imports whom, and what `import cascade` must leave alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ENGINE = ROOT / "cascade"

FLOORS = {
    "batch": 0, "betting": 0, "certificate": 0, "certificate_form": 0, "checks": 0, "confidence": 0, "exceptions": 0,
    "files": 0,
    "manifest": 0, "results": 0, "texts": 0, "words": 0, "workers": 0,
    "batching": 1, "cost_model": 1, "decoding": 1, "exit_accuracy": 1, "exit_policy": 1, "exits": 1, "fitting": 1,
    "host_costs": 1, "learned_routing": 1, "packing": 1, "routing": 1, "schedule": 1, "shadows": 1, "threads": 1,
    "viterbi": 1, "windows": 1, "word_exits": 1, "word_packing": 1, "wordpiece": 1, "workload": 1,
    "backend": 2, "bundle": 2, "bundle_writing": 2, "cost_cache": 2, "hub": 2, "reading": 2, "records": 2,
    "tokenizer": 2, "word_encoding": 2,
    "loading": 3, "staged": 3, "tiers": 3, "word_tiers": 3,
    "engine": 4, "streaming": 4, "calibration": 4, "word_engine": 4,
    "aggregation": 4, "measuring": 4, "plan": 4, "trials": 4,
    "certification": 5, "classifier": 5, "cli": 5, "face": 5, "monitor": 5, "observed": 5, "planner": 5, "tagger": 5,
    "training": 6,
}  # fmt: skip
"""Rooms by floor."""

EXTRAS = {"certification", "training"}
"""Rooms that need an extra of their own, and guard their doors."""

LIGHT = {"click", "huggingface_hub", "numpy", "onnxruntime", "tokenizers", "tqdm"}
SEAMS = {"tokenizers": {"tokenizer", "wordpiece"}, "onnxruntime": {"backend"}, "huggingface_hub": {"hub"}}
"""The only rooms that may touch these libraries."""

HEAVY = (
    "torch",
    "transformers",
    "optimum",
    "matplotlib",
    "fastapi",
    "datasets",
    "scipy",
    "pandas",
    "sklearn",
    "pyarrow",
)


def room(file: Path) -> str:
    return file.relative_to(ENGINE).parts[0].removesuffix(".py")


def engine_files() -> list[Path]:
    return [file for file in sorted(ENGINE.rglob("*.py")) if file != ENGINE / "__init__.py"]


def imported(file: Path) -> list[str]:
    """Full names of what a file imports, inside functions too; a name below a package counts as its module."""
    names = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively; the walk below reads full names only"
            assert node.module is not None
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def inner_rooms(file: Path) -> set[str]:
    """Rooms of `cascade` that a file imports; names of the package itself, such as its version, are no room."""
    parts = [name.split(".") for name in imported(file)]
    return {part[1] for part in parts if part[0] == "cascade" and len(part) > 1 and part[1] in FLOORS}


def test_every_room_has_a_floor() -> None:
    on_disk = {room(file) for file in engine_files()}
    assert on_disk - set(FLOORS) == set(), "a new room needs a floor, here and in ARCHITECTURE.md"


@pytest.mark.parametrize("file", engine_files(), ids=lambda file: str(file.relative_to(ENGINE)))
def test_imports_come_from_below(file: Path) -> None:
    here = room(file)
    above = {other for other in inner_rooms(file) if FLOORS[other] > FLOORS[here]}  # its own floor: see the next test
    assert above == set(), f"{here} is on floor {FLOORS[here]}"


def test_no_rooms_import_each_other_in_a_circle() -> None:
    below: dict[str, set[str]] = {}
    for file in engine_files():
        below.setdefault(room(file), set()).update(inner_rooms(file) - {room(file)})
    while below:
        free = {name for name, needs in below.items() if not needs & set(below)}
        assert free, f"these rooms import each other in a circle: {sorted(below)}"
        below = {name: needs for name, needs in below.items() if name not in free}


@pytest.mark.parametrize(
    "file",
    [file for file in engine_files() if room(file) not in EXTRAS],
    ids=lambda file: str(file.relative_to(ENGINE)),
)
def test_engine_needs_light_packages_only(file: Path) -> None:
    outside = {name.split(".")[0] for name in imported(file)} - {"cascade"} - set(sys.stdlib_module_names)
    if room(file) == "records":
        outside -= {"pyarrow"}  # parquet files only, imported inside the function that reads them, with its own error
    assert outside <= LIGHT
    for library, rooms in SEAMS.items():
        assert library not in outside or room(file) in rooms, f"{library} belongs to {sorted(rooms)}"


def test_bench_uses_public_names_only() -> None:
    for file in sorted((ROOT / "bench").rglob("*.py")):
        parts = [name.split(".") for name in imported(file)]
        hidden = [
            part for part in parts if part[0] == "cascade" and part[-1].startswith("_") and part[-1] != "__version__"
        ]
        assert hidden == [], f"{file} imports private names"
        assert "cascade_export" not in {part[0] for part in parts}, f"{file} imports the exporter"


def test_import_is_light() -> None:
    code = (
        "import sys, cascade, cascade.cli, cascade.classifier\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""

"""The floors: who imports whom, and what `import cascade` must leave alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ENGINE = ROOT / "cascade"

FLOORS = {
    "exceptions": 0, "_version": 0,
    "core": 1,
    "policies": 2,
    "text": 3, "runtime": 3, "bundle": 3,
    "engine": 4,
    "pipelines": 5,
    "monitoring": 6, "calibration": 6,
    "serving": 7, "training": 7, "jobs": 7,
    "cli": 8,
}  # fmt: skip
"""Folders by floor: a folder imports from lower floors only, never from its own floor's neighbours."""

FORBIDDEN = {"engine": {"text", "bundle"}}
"""Floors below that a folder must not know all the same: the engine knows rows, not texts, and graphs, not files."""

EXTRAS = {"calibration", "jobs", "serving", "training"}
"""Folders that need an extra of their own, and guard their doors."""

LIGHT = {"click", "huggingface_hub", "numpy", "onnxruntime", "tokenizers", "tqdm"}
SEAMS = {"tokenizers": "text", "onnxruntime": "runtime", "huggingface_hub": "bundle"}
"""The only folders that may touch these libraries."""

HEAVY = ["torch", "transformers", "optimum", "matplotlib", "fastapi", "datasets", "scipy", "pandas", "sklearn",
         "pyarrow"]  # fmt: skip


def folder(file: Path) -> str:
    return file.relative_to(ENGINE).parts[0].removesuffix(".py")


def engine_files() -> list[Path]:
    return [file for file in sorted(ENGINE.rglob("*.py")) if file != ENGINE / "__init__.py"]


def name_of(file: Path) -> str:
    return str(file.relative_to(ENGINE))


def imported(file: Path) -> list[str]:
    """Full names of what a file imports, inside functions too."""
    names = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively; the walk below reads full names only"
            assert node.module is not None
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def inside(file: Path) -> set[str]:
    """Folders of `cascade` that a file imports from, its own left out."""
    parts = [name.split(".") for name in imported(file)]
    return {part[1] for part in parts if part[0] == "cascade" and len(part) > 1} - {folder(file)}


def test_every_folder_has_a_floor() -> None:
    assert {folder(file) for file in engine_files()} - set(FLOORS) == set(), "a new folder needs a floor"


@pytest.mark.parametrize("file", engine_files(), ids=name_of)
def test_imports_come_from_lower_floors(file: Path) -> None:
    here = folder(file)
    assert {other for other in inside(file) if FLOORS[other] >= FLOORS[here]} == set(), f"floor {FLOORS[here]}"
    assert inside(file) & FORBIDDEN.get(here, set()) == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = {".".join(("cascade", *file.relative_to(ENGINE).with_suffix("").parts)): file for file in engine_files()}
    below = {
        name: {part for full in imported(file) for part in (full, full.rpartition(".")[0]) if part in modules} - {name}
        for name, file in modules.items()
    }
    while below:
        free = {name for name, needs in below.items() if not needs & set(below)}
        assert free, f"these modules import each other in a circle: {sorted(below)}"
        below = {name: needs for name, needs in below.items() if name not in free}


@pytest.mark.parametrize("file", [file for file in engine_files() if folder(file) not in EXTRAS], ids=name_of)
def test_engine_needs_light_packages_only(file: Path) -> None:
    outside = {name.split(".")[0] for name in imported(file)} - {"cascade"} - set(sys.stdlib_module_names)
    if file.name == "records.py":
        outside -= {"pyarrow"}  # parquet files only, imported inside the function that reads them, with its own error
    if file.name == "estimator.py":
        outside -= {"sklearn"}  # for those who import this file, with its own error
    assert outside <= LIGHT
    for library, home in SEAMS.items():
        assert library not in outside or folder(file) == home, f"{library} belongs to {home}"


def test_bench_and_export_use_public_names_only() -> None:
    for file in sorted((ROOT / "bench").rglob("*.py")):
        parts = [name.split(".") for name in imported(file)]
        hidden = [part for part in parts if part[0] == "cascade" and part[-1].startswith("_")]
        assert [part for part in hidden if part[-1] != "__version__"] == [], f"{file} imports private names"
        assert "cascade_export" not in {part[0] for part in parts}, f"{file} imports the exporter"


def test_import_is_light() -> None:
    code = (
        "import sys, cascade, cascade.cli, cascade.pipelines.classifier\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""

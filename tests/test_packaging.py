"""What a user gets: the wheel's contents, its metadata, and the light core."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest

import cascade
from tests.test_floors import LIGHT, ROOT

HERE = {"cascade": ROOT / "cascade", "cascade_bench": ROOT / "bench", "cascade_export": ROOT / "export"}
SHIPPED = ROOT / "models" / "intents"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of the sdist, built without isolation: no network. From a copy: the checkout stays as it is."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    for folder in (*HERE.values(), SHIPPED):
        for file in folder.rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                target = source / file.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)],
        check=True,
        capture_output=True,
        text=True,
    )
    (file,) = out.glob("*.whl")
    return zipfile.ZipFile(file)


def described(wheel: zipfile.ZipFile) -> Message:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return Parser().parsestr(wheel.read(name).decode())


def test_top_level_names(wheel: zipfile.ZipFile) -> None:
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert top == {"cascade", "cascade_bench", "cascade_export", f"cascade_encoder-{cascade.__version__}.dist-info"}


def test_every_module_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    inside = set(wheel.namelist())
    for package, folder in HERE.items():
        modules = {f"{package}/{file.relative_to(folder).as_posix()}" for file in folder.rglob("*.py")}
        assert modules - inside == set(), "list the new package in pyproject.toml"


def test_data_and_licence_are_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    data = [*(f"cascade/cli/demo/{name}.jsonl" for name in ("sentiment", "intents", "tags"))]
    data += [f"cascade/serving/page/{name}" for name in ("index.html", "page.js", "page.css")]
    data += [
        "cascade/serving/openapi.json",
        *(f"cascade/runtime/kernels/{name}" for name in ("layer.cpp", "layer.inc")),
    ]
    data += [f"{package}/py.typed" for package in HERE]
    assert set(data) <= set(wheel.namelist())
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())
    assert described(wheel)["License-Expression"] == "Apache-2.0 AND CC-BY-3.0"


@pytest.mark.bundle
def test_the_demo_works_without_a_clone(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    inside = {file.relative_to(SHIPPED).as_posix(): file for file in SHIPPED.rglob("*") if file.is_file()}
    assert {f"cascade/models/intents/{name}" for name in inside} <= set(wheel.namelist())
    assert sum(file.stat().st_size for file in inside.values()) < 20 * 2**20
    wheel.extractall(tmp_path / "site")
    (tmp_path / "empty").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", "from cascade.cli import main; main(['demo', '--threads', '1'])"],
        cwd=tmp_path / "empty",
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "intents: 60 sentences, 151 labels" in done.stdout
    assert f"cascade predict {tmp_path}/site/cascade/models/intents texts.txt" in done.stdout
    assert done.stderr == ""


def test_the_core_is_light_and_torch_is_bounded(wheel: zipfile.ZipFile) -> None:
    requirements = described(wheel).get_all("Requires-Dist") or []
    core = {re.split(r"[^\w-]", line)[0] for line in requirements if "extra ==" not in line}
    assert core == LIGHT
    assert {line.split(";")[0].strip() for line in requirements if line.startswith("torch")} == {"torch<2.16,>=2.6"}


def test_commands() -> None:
    scripts = {entry.name: entry for entry in metadata.distribution("cascade-encoder").entry_points}
    assert set(scripts) == {"cascade", "cascade-bench", "cascade-export", "cascade-train"}
    for entry in scripts.values():
        assert callable(entry.load())


def test_version() -> None:
    assert metadata.version("cascade-encoder") == cascade.__version__

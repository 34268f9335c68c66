from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cascade.cost_cache import CostKey, cache_folder, read_costs, write_costs
from cascade.exceptions import DataError
from cascade.host_costs import HostCosts
from tests.costs import costs
from tests.toy import toy_bundle

CPU = "processor : 0\nmodel name : A CPU\nflags : b a\n\nprocessor : 1\nmodel name : Another\n"


@pytest.fixture
def key(tmp_path: Path) -> CostKey:
    (tmp_path / "root/proc").mkdir(parents=True)
    (tmp_path / "root/proc/cpuinfo").write_text(CPU)
    return CostKey.of(toy_bundle(tmp_path / "bundle").manifest, threads=2, root=tmp_path / "root")


def test_what_a_key_says(key: CostKey) -> None:
    assert len(key.graphs) == len(set(key.graphs)) == 6  # tier 1, embed, three stages, the tokenizer
    assert key.processor[1:] == ("A CPU", "a", "b")
    assert key.versions[0].startswith("onnxruntime ")


def test_a_processor_that_says_nothing_of_itself(tmp_path: Path) -> None:
    manifest = toy_bundle(tmp_path / "bundle").manifest
    assert len(CostKey.of(manifest, threads=2, root=tmp_path / "none").processor) == 2


def test_there_and_back(tmp_path: Path, key: CostKey) -> None:
    folder = tmp_path / "new" / "folder"
    assert read_costs(folder, key) is None
    assert write_costs(folder, key, costs())
    assert read_costs(folder, key) == costs()
    assert [file.name for file in folder.iterdir()] == [key.name]  # nothing partial is left


@pytest.mark.parametrize(
    "change",
    [
        {"graphs": ("other",)},
        {"processor": ("x86_64", "A CPU", "a")},
        {"threads": 1},
        {"versions": ("onnxruntime 0",)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_key_is_another_file(tmp_path: Path, key: CostKey, change: dict[str, Any]) -> None:
    write_costs(tmp_path, key, costs())
    other = replace(key, **change)
    assert other.name != key.name
    assert read_costs(tmp_path, other) is None
    (tmp_path / key.name).rename(tmp_path / other.name)
    assert read_costs(tmp_path, other) is None  # the file says itself what it is about


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("costs",), None),
        (("costs", "stages"), []),
        (("costs", "stages"), [{"alone": {}, "beside": {}}]),
        (("costs", "layers"), [1, 2]),
        (("costs", "layers"), [1.5, 2, 3]),
        (("costs", "threads"), True),
        (("costs", "threads"), -1),
        (("costs", "tokenize"), 3),
        (("costs", "embed", "beside"), None),
        (("costs", "embed", "lone"), {}),
        (("costs", "tier1", "alone", "fixed"), "0.1"),
        (("costs", "tier1", "alone", "fixed"), -1.0),
        (("costs", "tier1", "alone", "knee"), 1.5),
        (("costs", "start"), float("nan")),
    ],
    ids=str,
)
def test_a_file_with_something_else_in_it_is_not_there(
    tmp_path: Path, key: CostKey, path: tuple[str, ...], value: object
) -> None:
    write_costs(tmp_path, key, costs())
    made = inner = json.loads((tmp_path / key.name).read_text())
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    (tmp_path / key.name).write_text(json.dumps(made))
    assert read_costs(tmp_path, key) is None


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"key": {}'], ids=len)
def test_a_damaged_file_is_not_there(tmp_path: Path, key: CostKey, text: str) -> None:
    write_costs(tmp_path, key, costs())
    (tmp_path / key.name).write_text(text)
    assert read_costs(tmp_path, key) is None


def test_bytes_that_are_no_text(tmp_path: Path, key: CostKey) -> None:
    (tmp_path / key.name).write_bytes(b"\xff\xfe\x00")
    assert read_costs(tmp_path, key) is None


def test_costs_that_are_none() -> None:
    with pytest.raises(DataError, match="a host's costs must be as they were written, but KeyError"):
        HostCosts.from_json({"threads": 2})


def test_a_folder_that_cannot_be_made(tmp_path: Path, key: CostKey) -> None:
    (tmp_path / "file").write_text("")
    assert not write_costs(tmp_path / "file" / "folder", key, costs())
    (tmp_path / key.name).mkdir()
    assert not write_costs(tmp_path, key, costs())
    assert [file for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_where_costs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "cascade" / "costs"
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert cache_folder() == tmp_path / "home" / ".cache" / "cascade" / "costs"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path(os.environ["HOME"]) / ".cache" / "cascade" / "costs"

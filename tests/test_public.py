"""Every room keeps one public list: sorted, complete and importable."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

import cascade
import cascade_bench
import cascade_export


def rooms() -> list[str]:
    found = ["cascade", "cascade_bench", "cascade_export"]
    for package in (cascade, cascade_bench, cascade_export):
        found += [module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    return [name for name in found if not name.rsplit(".", 1)[-1].startswith("_")]


def public(module: ModuleType) -> list[str]:
    names: list[str] = module.__all__
    return names


def order(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions and values: the order that ruff's RUF022 asks for."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize("name", rooms())
def test_room_has_a_sorted_list_of_what_it_offers(name: str) -> None:
    module = importlib.import_module(name)
    names = public(module)
    assert names == sorted(names, key=order)
    assert len(names) == len(set(names))
    for offered in names:
        assert getattr(module, offered) is not None


@pytest.mark.parametrize("name", rooms())
def test_room_says_what_it_is_for(name: str) -> None:
    assert len((importlib.import_module(name).__doc__ or "").strip()) > 20


@pytest.mark.parametrize("name", rooms())
def test_what_a_room_defines_without_underscore_is_in_its_list(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    missing = {found for found in classes if not found.startswith("_")} - set(public(module))
    assert missing == set()


def test_the_face_of_the_package() -> None:
    assert {"Classifier"} <= set(cascade.__all__)
    assert cascade.__version__.count(".") == 2

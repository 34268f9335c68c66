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
    # pytest reads the suites of the harness, nobody imports them
    return [name for name in found if not name.rsplit(".", 1)[-1].startswith(("_", "conftest", "test_"))]


def public(module: ModuleType) -> list[str]:
    """What a room offers. One that defines nothing, as a package that is a mere folder, needs no list."""
    names: list[str] | None = getattr(module, "__all__", None)
    assert names is not None or not {type(node) for node in body(module)} & {ast.ClassDef, ast.FunctionDef}
    return names or []


def body(module: ModuleType) -> list[ast.stmt]:
    assert module.__file__ is not None
    return ast.parse(Path(module.__file__).read_text(encoding="utf-8")).body


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
def test_a_class_without_underscore_is_in_the_list(name: str) -> None:
    module = importlib.import_module(name)
    classes = {node.name for node in body(module) if isinstance(node, ast.ClassDef)}
    assert {found for found in classes if not found.startswith("_")} - set(public(module)) == set()


def test_the_face_of_the_package() -> None:
    assert "Classifier" in public(cascade)
    assert cascade.__version__.count(".") == 2

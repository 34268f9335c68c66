"""What is public: the lists of the packages, sorted, complete and importable. Plain modules keep none."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import cascade
import cascade_bench
import cascade_export


def modules() -> list[str]:
    found = ["cascade", "cascade_bench", "cascade_export"]
    for package in (cascade, cascade_bench, cascade_export):
        found += [module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    return [name for name in found if not name.endswith((".__main__", ".kernels._layer"))]  # the latter is no module


def order(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions and values: the order that ruff's RUF022 asks for."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize("name", modules())
def test_a_module_says_what_it_is_for_and_a_package_what_it_offers(name: str) -> None:
    if name.endswith("ray"):
        pytest.importorskip("ray")
    module = importlib.import_module(name)
    assert len((module.__doc__ or "").strip()) > 20
    names: list[str] = getattr(module, "__all__", [])
    assert not names or hasattr(module, "__path__"), "names are public where a package lists them"
    assert names == sorted(set(names), key=order)
    for offered in names:
        assert getattr(module, offered) is not None


def test_the_public_packages() -> None:
    assert {"Classifier", "Tagger", "load"} <= set(cascade.__all__)
    assert len(importlib.import_module("cascade.policies").__all__) > 20
    assert cascade.__version__.count(".") == 2

"""How far a calibration is: stages of the work, each told how much of it was done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias

__all__ = ["Stages", "no_progress"]

Stages: TypeAlias = Callable[[str, int], AbstractContextManager[Any]]
"""Called with the name of a stage and how much there is of it; gives a function that is called with each part done."""


@contextmanager
def no_progress(_name: str, _total: int) -> Iterator[Callable[[int], object]]:
    """`Stages` that show nothing."""
    yield lambda _count: None

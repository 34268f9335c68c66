"""The commands that need an extra: without it they end in one line with status 2, not in a traceback."""

from __future__ import annotations

from cascade.core.console import enter


def train() -> None:
    """`cascade-train`, with the `train` extra."""
    enter("cascade.training.cli")


def export() -> None:
    """`cascade-export`, with the `export` extra."""
    enter("cascade_export.cli")


def bench() -> None:
    """`cascade-bench`, with the `bench` extra."""
    enter("cascade_bench.cli")

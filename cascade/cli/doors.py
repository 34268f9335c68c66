"""The commands that need an extra: without it they end in one line with status 2, not in a traceback."""

from __future__ import annotations

from functools import partial

from cascade.core.console import enter

train = partial(enter, "cascade.training.cli")
export = partial(enter, "cascade_export.cli")
bench = partial(enter, "cascade_bench.cli")

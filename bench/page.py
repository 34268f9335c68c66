"""The curve as one self-contained page: picture, table, machine, exact command. It loads nothing from anywhere.

Needs the `bench` extra.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.resources import files
from typing import Any

from cascade.exceptions import MissingExtraError
from cascade_bench import curve_report, plot
from cascade_bench.curve import Curve
from cascade_bench.machine import in_words

try:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup
except ImportError as error:
    raise MissingExtraError(
        f"a page needs the bench extra, but {error.name} is missing; "
        'pip install "cascade-encoder[bench]", or leave out --html'
    ) from error

__all__ = ["render"]

TEMPLATE = "curve.html.j2"


def render(curve: Curve, machine: Mapping[str, Any], *, model: str, data: str, command: str) -> str:
    """The page.

    Args:
        curve: what was placed and timed.
        machine: facts about it.
        model: as the user named it.
        data: the same.
        command: that made all this.
    """
    head, rows = curve_report.cells(curve)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("cascade_bench").joinpath(TEMPLATE).read_text(encoding="utf-8"))
    cpu = machine["cpu"]
    return template.render(
        model=model,
        data=data,
        metric=curve.given.metric,
        picture=Markup(plot.svg(curve)),  # noqa: S704  # matplotlib's own; texts in it are outlines
        head=head,
        rows=rows,
        settings=curve_report.settings(curve),
        notes=curve.given.notes,
        method=curve_report.method(curve),
        machine=in_words(dict(machine)),
        facts={
            "CPU": cpu["model"],
            "CPUs": f"{cpu['count']}, of which {cpu['available']} may be used",
            "Control group": "no limit" if cpu["cgroup_quota"] is None else f"{cpu['cgroup_quota']:g} CPUs",
            "Instructions": ", ".join(cpu["flags"]) or "none of note",
            "Memory": "unknown" if machine["memory_mib"] is None else f"{machine['memory_mib']:,} MiB",
            "Load before": ", ".join(f"{load:.2f}" for load in machine["load_average"] or []) or "unknown",
            "System": f"{machine['system']}, {machine['machine']}",
            "Threads": machine["threads"],
            "Versions": ", ".join(
                [f"Python {machine['python_version']}", *(f"{k} {v}" for k, v in machine["versions"].items())]
            ),
            "Revision": machine["git"] or "unknown",
            "Data (SHA-256)": curve.given.sha256 or "read from a stream",
        },
        command=command,
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )

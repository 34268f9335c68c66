"""Where a calibration was made: predicted speed-ups are those of one machine."""

from __future__ import annotations

import platform
from typing import Any

from cascade._version import __version__
from cascade.runtime.host import host
from cascade.runtime.threads import available_cpus

__all__ = ["machine"]


def machine(*, threads: int) -> dict[str, Any]:
    """Facts about this machine by name. `threads`: that the tiers were given."""
    return {
        **host(),
        "cpus_allowed": available_cpus(),
        "threads": threads,
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "python": platform.python_version(),
        "cascade": __version__,
    }

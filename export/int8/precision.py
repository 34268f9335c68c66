"""The one option that the command line must know before torch is loaded."""

from __future__ import annotations

from enum import Enum

__all__ = ["Int8"]


class Int8(Enum):
    """How linear layers are quantised.

    STATIC: one scale per activation, from calibration texts; an answer does not depend on its batch mates.
    DYNAMIC: one scale per tensor, measured while running; no calibration, but answers depend on batch mates.
    ROWS: one scale per row of an activation, measured while running; no calibration, and no batch mates, but slower;
        `cascade-bench precisions` says by how much, and what it brings.
    NONE: fp32.
    """

    STATIC = "static"
    DYNAMIC = "dynamic"
    ROWS = "rows"
    NONE = "none"

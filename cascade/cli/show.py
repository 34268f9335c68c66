"""Numbers, sizes, times and routes in words, for terminals."""

from __future__ import annotations

from cascade.core.results import Route
from cascade.exceptions import printable


def clipped(text: str, width: int) -> str:
    """At most `width` characters of a text, on one line, `printable`.

    Example: clipped("a gripping film", 10) -> "a gripp..."
    """
    line = printable(" ".join(text.split()))
    return line if len(line) <= width else line[: max(width - 3, 0)] + "..."


def duration(seconds: float) -> str:
    """A time with the unit that suits it: 0.0042 -> "4.2 ms", 3.21 -> "3.2 s"."""
    if seconds < 1:
        milliseconds = seconds * 1000
        return f"{milliseconds:.1f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"
    return f"{seconds:.1f} s"


def size(count: int) -> str:
    """Bytes in the unit that suits them: 13_000_000 -> "12.4 MiB"."""
    if count < 1024:
        return f"{count} B"
    return f"{count / 1024:.1f} KiB" if count < 1024**2 else f"{count / 1024**2:.1f} MiB"


def route_in_words(route: Route, depth: int) -> str:
    """Where an answer came from. `depth`: layers of tier 2.

    Example: route_in_words(Route(2, 3, 0.98), 6) -> "tier 2, layer 3 of 6"
    """
    return "tier 1" if route.tier == 1 else f"tier 2, layer {route.exit_layer} of {depth}"

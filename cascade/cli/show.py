"""Numbers, sizes, times, routes and policies in words, for terminals."""

from __future__ import annotations

from collections.abc import Iterable

from cascade.core.results import Route
from cascade.exceptions import printable
from cascade.policies.routing import DeferAll
from cascade.policies.settings import Policies


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


def pairs(rows: Iterable[tuple[str, str]]) -> str:
    """A line for each name and its value, aligned, all `printable`."""
    known = [(printable(name), printable(value)) for name, value in rows]
    width = max(len(name) for name, _ in known)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in known)


def policy_rows(policies: Policies) -> list[tuple[str, str]]:
    """What decides, by name: routers, blends, policies of tiers with exits, of a tagger windows and decoding."""
    several, rows = len(policies.routers) > 1, []
    for number, (router, blend) in enumerate(zip(policies.routers, policies.blend, strict=True), start=1):
        skipped = f": tier {number} is not run" * isinstance(router, DeferAll)
        rows.append((f"router {number}" if several else "router", f"{router!r}{skipped}"))
        shown = f"{blend:g}, of tier {number}'s answer beside tier {number + 1}'s"
        rows.append((f"blend {number}" if several else "blend", shown))
    for number, (own, policy) in enumerate(zip(policies.temperatures, policies.exits, strict=True), start=1):
        if len(own) > 1:
            rows.append((f"exits of tier {number}" if several else "exit policy", repr(policy)))
    some = (("windows", policies.windows), ("decoding", policies.decoding), ("long texts", policies.reading))
    return rows + [(name, repr(policy)) for name, policy in some if policy is not None]

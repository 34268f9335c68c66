"""Suites for pytest. `make bench` runs them; they are no part of the tests.

    conftest      the bundle that they run on (`--bundle`), its texts
    test_guard    the gains: ratios of what takes turns in one run, against those that are pinned
    test_pieces   pytest-benchmark: tokenise, pack, each stage, route, leave, merge
    test_whole    the same end to end: tier 2 whole and with exits, the cascade, one text alone

What the guard is made of: `guard` (who runs), `reference` (what they are compared with), `pins` (`pinned.json`),
`summary` (what is said at the end). A gain that is meant to stay is pinned, on a machine that does nothing else:

    pytest bench/harness/test_guard.py --bundle models/sentiment --pin

The pieces and the whole do not take turns: their figures compare with an earlier run of their own on a quiet machine
only.
"""

from __future__ import annotations

__all__: list[str] = []

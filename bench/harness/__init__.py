"""pytest-benchmark suites for the pieces of the engine. `make bench` runs them; they are no part of the tests.

    conftest      the bundle that they run on (`--bundle`), its texts
    test_pieces   tokenise, pack, each stage, route, leave, merge
    test_whole    end to end: tier 2 whole and with exits, the cascade, one text alone

They leave to others: comparing contestants (`cascade-bench table` and `peers`), whose rounds take turns; these do not,
so their figures compare with an earlier run of their own on a quiet machine only.
"""

from __future__ import annotations

__all__: list[str] = []

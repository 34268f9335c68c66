"""Counts of what was thrown and of what went wrong; status 1 if anything did.

python -m tests.hostile --texts 1000000 --files 100000 --bundles 20000 --kills 200
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from tests.hostile.children import Tally, throw
from tests.hostile.kills import kill
from tests.hostile.making import tiny_bundles

SIZES = {"texts": 64, "files": 20, "bundles": 1}
COLUMNS = [own.name for own in fields(Tally) if own.name != "notes"]


def run(arguments: Sequence[str] | None = None) -> int:
    """Throw what is asked for; 0 if nothing went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    for kind, default in {"texts": 2000, "files": 500, "bundles": 500, "kills": 12}.items():
        parser.add_argument(f"--{kind}", type=int, default=default, metavar="N")
    parser.add_argument("--only", nargs="*", metavar="COMMAND", help="kill only these")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--limit", type=float, default=300, metavar="SECONDS", help="after which a job hangs")
    given = parser.parse_args(arguments)
    print(f"--seed {given.seed}")
    print(f"{'':8}" + "".join(f"{name:>12}" for name in COLUMNS) + f"{'seconds':>12}", flush=True)
    good = True
    with tempfile.TemporaryDirectory(prefix="hostile-") as made:
        folder = Path(made)
        bundles = tiny_bundles(folder / "tiny")
        for kind in (*SIZES, "kills"):
            total, begin = getattr(given, kind), time.monotonic()
            if not total:
                continue
            if kind == "kills":
                found = kill(total, folder / kind, seed=given.seed, processes=given.processes, only=given.only)
            else:
                (folder / kind).mkdir(exist_ok=True)
                found = throw(
                    kind,
                    total,
                    size=SIZES[kind],
                    seed=given.seed,
                    folder=folder / kind,
                    bundles=bundles,
                    processes=given.processes,
                    limit=given.limit,
                )
            numbers = "".join(f"{getattr(found, name):12,}" for name in COLUMNS)
            print(f"{kind:8}{numbers}{time.monotonic() - begin:12.0f}", flush=True)
            for note in found.notes[:40]:
                print(f"    {note}", flush=True)
            good &= found.good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(run())

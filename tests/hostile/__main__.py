"""Counts of what was thrown and of what went wrong; status 1 if anything did. Ctrl-C prints what was counted so far.

Of texts, 15 jobs in 16 ask tiny bundles of both tasks, under routers, exits, decoders, windows and batches that are
drawn; one asks a shipped bundle as it is. 512 texts are answered together, from the other end and as a stream, 8 of
them alone. A quarter is one odd word, the same many times or random characters, one in 72 as long as a page, one in
10,000 up to 100,000 characters. Files go through `cascade predict`, which loads the bundle anew for one in 20. Broken
bundles have their hashes repaired. Commands are killed at any moment, and then run again.

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

from tests.hostile.children import SIZES, Tally, throw
from tests.hostile.kills import kill
from tests.hostile.making import tiny_bundles

COLUMNS = [own.name for own in fields(Tally) if own.name != "notes"]
NOTES = 40  # of a kind that are printed


def run(arguments: Sequence[str] | None = None) -> int:
    """Throw what is asked for; 0 if nothing went wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.hostile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for kind, default in {"texts": 2000, "files": 500, "bundles": 500, "kills": 12}.items():
        parser.add_argument(f"--{kind}", type=int, default=default, metavar="N")
    parser.add_argument("--only", nargs="*", metavar="COMMAND", help="kill only these")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--limit", type=float, default=300, metavar="SECONDS", help="after which a job hangs")
    given = parser.parse_args(arguments)
    print(f"--seed {given.seed}")
    print(f"{'':8}" + "".join(f"{name:>12}" for name in COLUMNS) + f"{'seconds':>12}", flush=True)
    with tempfile.TemporaryDirectory(prefix="hostile-") as made:
        folder = Path(made)
        bundles = tiny_bundles(folder / "tiny")
        good, whole = True, True
        for kind in (*SIZES, "kills"):
            if whole and getattr(given, kind):
                found, whole = _counted(kind, given, folder / kind, bundles)
                good &= found.good
    return 0 if good and whole else 1


def _counted(kind: str, given: argparse.Namespace, folder: Path, bundles: tuple[Path, ...]) -> tuple[Tally, bool]:
    """One kind, with its faults printed as they come and its counts at the end; and whether nobody interrupted it."""
    folder.mkdir()
    found, begin, whole = Tally(), time.monotonic(), True
    seed, total, processes = given.seed, getattr(given, kind), given.processes
    if kind == "kills":
        ends = kill(total, folder=folder, seed=seed, processes=processes, only=given.only)
    else:
        ends = throw(kind, total, folder=folder, seed=seed, processes=processes, bundles=bundles, limit=given.limit)
    try:
        for more in ends:
            for note in more.notes[: max(0, NOTES - len(found.notes))]:
                print(f"    {note}", flush=True)
            found += more
    except KeyboardInterrupt:
        whole = False
    numbers = "".join(f"{getattr(found, name):12,}" for name in COLUMNS)
    print(f"{kind:8}{numbers}{time.monotonic() - begin:12.0f}{'' if whole else '  interrupted'}", flush=True)
    return found, whole


if __name__ == "__main__":
    sys.exit(run())

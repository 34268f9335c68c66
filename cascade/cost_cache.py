"""Costs of a host on disk, so that a bundle is measured once on each machine: in the user's cache folder.

A file is named by everything that a cost depends on: the graphs, the processor, the threads, the versions. What cannot
be read, or is not what its name says, counts as not there. Nothing is ever written beside a bundle unless its folder
is named. It leaves to others: measuring (`measuring`), what costs are (`host_costs`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cascade.backend import runtime_version
from cascade.exceptions import DataError
from cascade.host_costs import HostCosts
from cascade.manifest import TOKENIZER_FILE, Manifest

__all__ = ["FORMAT_VERSION", "CostKey", "cache_folder", "read_costs", "write_costs"]

FORMAT_VERSION = 1
"""Of the file, and of what the costs mean: raise it where either changes."""


@dataclass(frozen=True)
class CostKey:
    """What costs depend on.

    Attributes:
        graphs: hashes of the graphs, in the order in which they run, and of the tokenizer.
        processor: model and flags of the CPU.
        threads: that the graphs were given.
        versions: of what runs them.
    """

    graphs: tuple[str, ...]
    processor: tuple[str, ...]
    threads: int
    versions: tuple[str, ...]

    @classmethod
    def of(cls, manifest: Manifest, *, threads: int, root: Path = Path("/")) -> CostKey:
        """Of a bundle on this machine.

        Args:
            manifest: of the bundle.
            threads: for both tiers together.
            root: where `proc` is.
        """
        second = manifest.tier2
        files = (manifest.tier1.file, second.embed, *(stage.file for stage in second.stages), TOKENIZER_FILE)
        return cls(
            graphs=tuple(manifest.files[file].sha256 for file in files),
            processor=_processor(root),
            threads=threads,
            versions=(f"onnxruntime {runtime_version()}", f"numpy {np.__version__}", manifest.library_version),
        )

    @property
    def name(self) -> str:
        """Of the file, without its folder."""
        told = json.dumps([FORMAT_VERSION, self.graphs, self.processor, self.threads, self.versions])
        return f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.json"


def cache_folder() -> Path:
    """Where costs are kept: `$XDG_CACHE_HOME/cascade/costs`, or `~/.cache/cascade/costs`."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # A path that is not absolute is to be ignored (XDG Base Directory Specification).
    base = named if named.is_absolute() else Path("~/.cache").expanduser()
    return base / "cascade" / "costs"


def read_costs(folder: Path, key: CostKey) -> HostCosts | None:
    """Costs that were kept; `None` where there are none, or none that can be used."""
    try:
        made = json.loads((folder / key.name).read_text(encoding="utf-8"))
        if not isinstance(made, dict) or made.get("key") != _plain(key):
            return None
        return HostCosts.from_json(made.get("costs"))
    except (OSError, ValueError, RecursionError, DataError):
        return None


def write_costs(folder: Path, key: CostKey, costs: HostCosts) -> bool:
    """Keep costs, whole or not at all.

    Returns:
        Whether they were kept: where the folder cannot be written to, they are measured again next time.
    """
    told = json.dumps({"key": _plain(key), "costs": costs.to_json()}, indent=1) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=f".{key.name}-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(told)
            Path(name).replace(folder / key.name)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError:
        return False
    return True


def _plain(key: CostKey) -> dict[str, Any]:
    """As JSON gives it back."""
    return {
        "version": FORMAT_VERSION,
        "graphs": list(key.graphs),
        "processor": list(key.processor),
        "threads": key.threads,
        "versions": list(key.versions),
    }


def _processor(root: Path) -> tuple[str, ...]:
    lines: Sequence[str] = ()
    with contextlib.suppress(OSError):
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    found: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    flags = sorted(found.get("flags", found.get("Features", "")).split())  # Features: of ARM
    return (platform.machine(), found.get("model name", platform.processor()), *flags)

"""What a benchmark ran on: CPU, limits, versions, revision. Figures without these cannot be compared."""

from __future__ import annotations

import math
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cascade
from cascade.runtime.host import cpu_info, processor, version_of
from cascade.runtime.kernels import KINDS, kind
from cascade.runtime.threads import available_cpus, cgroup_quota

FLAGS = ("avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8")
INT8_FLAGS = ("amx_int8", "avx512_vnni", "avx_vnni")  # the best first
PACKAGES = ("numpy", "onnxruntime", "tokenizers", "torch", "transformers")


def facts(*, threads: int, root: Path = Path("/")) -> dict[str, Any]:
    """Facts about this machine, for JSON. `threads`: that systems were given. `root`: where `proc` and `sys` are."""
    flags, quota = cpu_info("flags", root=root).split(), cgroup_quota(root=root)
    return {
        "cpu": {
            "model": processor(root=root),
            "flags": [flag for flag in FLAGS if flag in flags],
            "count": os.cpu_count(),
            "available": available_cpus(root=root),
            "cgroup_quota": None if math.isinf(quota) else quota,
        },
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python_version": platform.python_version(),
        "kernels": KINDS[kind()],
        "threads": threads,
        "versions": {"cascade": cascade.__version__} | {name: own for name in PACKAGES if (own := version_of(name))},
        "git": revision(),
    }


def in_words(found: Mapping[str, Any]) -> str:
    """The facts that readers of a table want, in one line."""
    cpu, versions = found["cpu"], found["versions"]
    quota = "" if cpu["cgroup_quota"] is None else f", control group {cpu['cgroup_quota']:g}"
    int8 = next((flag for flag in INT8_FLAGS if flag in cpu["flags"]), "no VNNI")
    names = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{cpu['model']}, {cpu['count']} CPUs{quota}, {int8}; kernels: {found['kernels']}; {found['threads']} threads; "
        f"Python {found['python_version']}, {names}; revision {found['git'] or 'unknown'}."
    )


def revision(folder: Path | None = None) -> str | None:
    """Short hash of the checkout that the package is in, with a plus where files differ from it; `None` without one."""
    git = ["git", "-C", str(folder or Path(cascade.__file__).parent)]
    try:
        # A package installed inside somebody's checkout is not part of it.
        for asked in (["ls-files", "--error-unmatch", "__init__.py"], ["describe", "--always", "--dirty=+"]):
            done = subprocess.run([*git, *asked], capture_output=True, text=True, check=True, timeout=20)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()

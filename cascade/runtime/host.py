"""What makes this host as fast as it is, by name."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def host(*, root: Path = Path("/")) -> dict[str, str | int]:
    """The model of the CPU, its cores and the version of ONNX Runtime. `root`: where `proc` is."""
    runtime = version_of("onnxruntime") or "unknown"  # one of its builds has another name
    return {"cpu": processor(root=root), "cores": os.cpu_count() or 1, "onnxruntime": runtime}


def version_of(name: str) -> str | None:
    """Of an installed distribution; `None` where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def cache_folder() -> Path:
    """Where this package keeps what it found out on this host; it may not be there yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "cascade")  # noqa: PTH111  # raises nothing


def processor(*, root: Path = Path("/")) -> str:
    """The model of the CPU. `root`: where `proc` is."""
    return cpu_info("model name", root=root) or platform.processor() or "unknown"


def cpu_info(name: str, *, file: str = "cpuinfo", root: Path = Path("/")) -> str:
    """What Linux says first under this name in a file of `proc`; nothing elsewhere. `root`: where `proc` is."""
    try:
        # Read no further than to the first CPU: a large host's file has hundreds.
        with (root / "proc" / file).open(encoding="utf-8", errors="replace") as lines:
            return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
    except OSError:
        return ""


def give_back_memory() -> None:
    """Hand what was freed back to the system, where the C library is one that keeps it (glibc): some milliseconds."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def multiplies_bf16(flags: str) -> bool:
    """Whether a CPU multiplies much faster in bfloat16 than in float32. `flags`: as `cpu_info` gives them.

    A training step of MPNet takes 0.35 of the time (AMD EPYC with AVX512-BF16) or 0.43 (Intel Xeon with AMX).
    """
    return not {"amx_bf16", "avx512_bf16"}.isdisjoint(flags.split())

"""How many CPUs this process may use: its affinity and the quotas of its control groups, version 1 and 2.

ONNX Runtime sizes its pools from the host's cores; in a container with a quota of 2 on a host of 64 that is ruinous.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from cascade.core.checks import check_whole


def available_cpus(*, root: Path = Path("/")) -> int:
    """CPUs that this process may use, at least 1: the smaller of its affinity and its control groups' quota.

    A quota that is not whole is rounded up, as the JVM does: of 1.5 CPUs two threads make use, one would not.

    Args:
        root: where `proc` and `sys` are.
    """
    try:
        affinity = len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux knows affinities
        affinity = os.cpu_count() or 1
    return math.ceil(min(cgroup_quota(root=root), affinity))


def check_threads(threads: int | None) -> int:
    """The number of threads an option asks for; `None` means `available_cpus()`.

    Raises:
        OptionError: not a whole number of at least 1.
    """
    if threads is None:
        return available_cpus()
    return check_whole("threads", threads, "leave it out to use the CPUs that this process may use")


def cgroup_quota(*, root: Path = Path("/")) -> float:
    """CPUs that the control groups of this process allow, infinite where they set no limit.

    A limit anywhere between the process's group and the root counts. Inside a container the path in
    `/proc/self/cgroup` may name a group of the host that is not mounted; then the mounted root is the container's own.

    Args:
        root: where `proc` and `sys` are.
    """
    return min(_quotas(root), default=math.inf)


def _quotas(root: Path) -> Iterator[float]:
    mounts = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if not controllers:
            for folder in _upwards(mounts, group):
                limit, _, period = _read(folder / "cpu.max").strip().partition(" ")
                yield _share(limit, period)
        elif "cpu" in controllers.split(","):
            for mount in (mounts / controllers, mounts / "cpu"):
                for folder in _upwards(mount, group):
                    yield _share(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _upwards(mount: Path, group: str) -> Iterator[Path]:
    path = PurePosixPath(group)
    for part in (path, *path.parents):
        yield mount / str(part).lstrip("/")


def _share(quota: str, period: str) -> float:
    try:
        allowed, of = int(quota), int(period)
    except ValueError:  # "max", or a file that is not there
        return math.inf
    return allowed / of if allowed > 0 and of > 0 else math.inf


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""

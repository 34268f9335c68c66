from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest

from cascade.exceptions import OptionError
from cascade.runtime.threads import available_cpus, cgroup_quota, check_threads


def host(root: Path, groups: str, files: dict[str, str]) -> Path:
    """The files of a system whose process is in the control groups `groups`."""
    files = {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{name}": text for name, text in files.items()}}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V1 = "cpu.cfs_quota_us", "cpu.cfs_period_us"


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/\n", {}, math.inf),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000\n"}, 2),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "50000 100000\n"}, 0.5),
        (
            "3:cpu,cpuacct:/docker/0a\n2:memory:/x\n",
            {f"cpu,cpuacct/{V1[0]}": "300000\n", f"cpu,cpuacct/{V1[1]}": "100000\n"},
            3,
        ),
        ("1:cpu:/\n0::/\n", {f"cpu/{V1[0]}": "-1\n", f"cpu/{V1[1]}": "100000\n"}, math.inf),
        ("garbage\n0::/\n", {"cpu.max": "garbage"}, math.inf),
    ],
)
def test_quota(tmp_path: Path, groups: str, files: dict[str, str], quota: float) -> None:
    assert cgroup_quota(root=host(tmp_path, groups, files)) == quota


@pytest.mark.parametrize(("quota", "cpus"), [(50_000, 1), (100_000, 1), (150_000, 2), (900_000, 4)])
def test_the_smaller_of_affinity_and_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: int, cpus: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 5}, raising=False)
    assert available_cpus(root=host(tmp_path, "0::/\n", {"cpu.max": f"{quota} 100000\n"})) == cpus


@pytest.mark.parametrize(("count", "cpus"), [(3, 3), (None, 1)])
def test_systems_without_affinity_or_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int | None, cpus: int
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert cgroup_quota(root=tmp_path) == math.inf
    assert available_cpus(root=tmp_path) == cpus


def test_this_process_has_at_least_one() -> None:
    assert check_threads(None) == available_cpus() >= 1
    assert check_threads(3) == 3


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "2"])
def test_threads_are_checked(bad: Any) -> None:
    with pytest.raises(OptionError, match=r"threads must be a whole number of at least 1, .*; leave it out to use"):
        check_threads(bad)

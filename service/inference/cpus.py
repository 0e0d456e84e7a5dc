"""The number of cores that this process may use; more threads would only slow each other down."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PROC = Path("/proc/self")


def usable_cpus(proc: Path = PROC) -> int:
    """The cores of this process's affinity, or of the CPU limit of its cgroups if that is less.

    Limits are rounded up to whole cores; otherwise a part of a core would stay unused.

    Args:
        proc: The process's folder in /proc; systems without it have no cgroups.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(cores, *(math.ceil(limit) for limit in _limits(proc)), cores))


def _limits(proc: Path) -> Iterator[float]:
    """CPU limits in cores of the process's cgroup and its ancestors, versions 1 and 2."""
    try:
        memberships = (proc / "cgroup").read_text().splitlines()
        mounts = [line.split() for line in (proc / "mountinfo").read_text().splitlines()]
    except OSError:
        return
    for line in memberships:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for fields in mounts:
            root, point, kind, options = fields[3], Path(fields[4]), *_kind_of(fields)
            wanted = "cpu" in options if controllers else kind == "cgroup2"
            if wanted and kind.startswith("cgroup"):
                yield from _limits_within(point, _below(root, path))


def _kind_of(fields: list[str]) -> tuple[str, list[str]]:
    """The file system type and its options, which follow a dash (proc_pid_mountinfo(5))."""
    dash = fields.index("-")
    return fields[dash + 1], fields[-1].split(",")


def _below(root: str, path: str) -> PurePosixPath:
    """The cgroup's path below the mounted one; a container often sees only its own cgroup."""
    pure = PurePosixPath(path)
    return pure.relative_to(root) if pure.is_relative_to(root) else PurePosixPath()


def _limits_within(point: Path, path: PurePosixPath) -> Iterator[float]:
    for folder in (path, *path.parents):
        for read in (_limit_v2, _limit_v1):
            try:
                quota, period = read(point / folder)
            except (OSError, ValueError):  # no files of this cgroup version, or the limit is "max"
                continue
            if quota > 0 < period:
                yield quota / period


def _limit_v2(folder: Path) -> tuple[int, int]:
    quota, period = (folder / "cpu.max").read_text().split()
    return int(quota), int(period)


def _limit_v1(folder: Path) -> tuple[int, int]:
    quota, period = (
        (folder / name).read_text() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    )
    return int(quota), int(period)

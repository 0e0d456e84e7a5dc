"""The cores a process may use, as the kernel's files say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.inference import usable_cpus

V1 = "29 20 0:26 {root} {point} rw - cgroup cgroup rw,cpu,cpuacct\n"
V2 = "30 20 0:27 {root} {point} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def process(
    folder: Path, membership: str, mount: str, files: dict[str, str], root: str = "/"
) -> Path:
    """A made-up /proc/self whose cgroups are mounted within `folder`."""
    point = folder / "sys" / "fs" / "cgroup"
    for name, text in files.items():
        (point / name).parent.mkdir(parents=True, exist_ok=True)
        (point / name).write_text(text + "\n")
    proc = folder / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(membership + "\n")
    noise = "21 20 0:20 / /proc rw - proc proc rw\n"
    (proc / "mountinfo").write_text(noise + mount.format(root=root, point=point))
    return proc


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a server, whatever runs the tests."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


@pytest.mark.parametrize(
    ("membership", "mount", "files", "root", "expected"),
    [
        ("0::/", V2, {"cpu.max": "200000 100000"}, "/", 2),
        ("0::/", V2, {"cpu.max": "150000 100000"}, "/", 2),
        ("0::/", V2, {"cpu.max": "10000 100000"}, "/", 1),
        ("0::/", V2, {"cpu.max": "max 100000"}, "/", 16),
        ("0::/", V2, {"cpu.max": "6400000 100000"}, "/", 16),
        ("0::/a/b", V2, {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, "/", 3),
        ("0::/a/b", V2, {"a/b/cpu.max": "500000 100000", "a/cpu.max": "max 100000"}, "/", 5),
        ("0::/pods/x", V2, {"cpu.max": "400000 100000"}, "/pods/x", 4),
        ("0::/../other", V2, {"cpu.max": "400000 100000"}, "/pods/x", 4),
        ("0::/", V2, {"cpu.max": "nonsense"}, "/", 16),
        ("0::/", V2, {}, "/", 16),
        (
            "4:cpu,cpuacct:/pod",
            V1,
            {"pod/cpu.cfs_quota_us": "250000", "pod/cpu.cfs_period_us": "100000"},
            "/",
            3,
        ),
        (
            "4:cpu,cpuacct:/pod",
            V1,
            {"pod/cpu.cfs_quota_us": "-1", "pod/cpu.cfs_period_us": "100000"},
            "/",
            16,
        ),
        ("4:memory:/pod", V1, {"pod/cpu.cfs_quota_us": "1", "pod/cpu.cfs_period_us": "1"}, "/", 16),
    ],
    ids=[
        "two cores",
        "one and a half",
        "a tenth",
        "no limit",
        "more than there are",
        "the parent's",
        "its own below a free parent",
        "a container that sees its own",
        "a cgroup outside the mount",
        "unreadable",
        "no file",
        "version 1",
        "version 1 without a limit",
        "another controller",
    ],
)
def test_the_cpu_limit_counts(
    tmp_path: Path,
    membership: str,
    mount: str,
    files: dict[str, str],
    root: str,
    expected: int,
) -> None:
    """The least of affinity and every limit above the process, rounded up; never less than 1."""
    assert usable_cpus(process(tmp_path, membership, mount, files, root)) == expected


def test_without_cgroups_the_affinity_counts(tmp_path: Path) -> None:
    """Where there is no /proc, nothing limits but the affinity."""
    assert usable_cpus(tmp_path / "nowhere") == 16


def test_this_process_has_cores() -> None:
    """The real files can be read."""
    assert 1 <= usable_cpus() <= 16

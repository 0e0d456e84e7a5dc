"""Killed at any instant, work on an archive comes to the same end as if nothing had happened."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from small_archives import write_archive

from service.backfill.results.columns import as_rows
from service.backfill.results.sinks import read_rows
from service.cli import main

# For more instants: CXRVIEW_KILLS=50 CXRVIEW_IMAGES=1500
IMAGES = int(os.environ.get("CXRVIEW_IMAGES", "160"))
KILLS = int(os.environ.get("CXRVIEW_KILLS", "5"))
LIVES = (0.9, 1.7)  # seconds of a worker, which takes one to start
SECONDS = 30.0 + 6 * KILLS  # for all of it
Outcomes = dict[str, tuple[Any, ...]]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Different images, two copies, and two files that cannot be classified."""
    folder = write_archive(tmp_path_factory.mktemp("archive"), IMAGES, side=256)
    (folder / "copies").mkdir()
    for number in (3, 4):
        copied = (folder / f"{number:05d}.dcm").read_bytes()
        (folder / "copies" / f"{number}.dcm").write_bytes(copied)
    return folder


def command(archive: Path, out: Path, *more: str) -> list[str]:
    return ["backfill", str(archive), f"--out={out}", "--chunk=8", "--fetchers=2", *more]


def outcomes(out: Path) -> Outcomes:
    """What became of each image; whichever of two copies came first is as good as the other."""
    rows = [row for batch in read_rows(out / "results") for row in as_rows(batch)]
    assert len({row.locator for row in rows}) == len(rows)
    keys = [row.key for row in rows if row.outcome == "done"]
    assert len(set(keys)) == len(keys)
    found: Outcomes = {}
    for row in rows:
        copied = row.key in {"1.2.3", "1.2.4"}
        name = f"copy of {row.key} {row.outcome}" if copied else row.locator
        pfi = None if row.pfi is None else round(row.pfi, 5)  # batches differ in their last digits
        found[name] = (row.outcome, row.code, row.view, None if copied else pfi)
    return found


@pytest.fixture(scope="module")
def undisturbed(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    out = tmp_path_factory.mktemp("undisturbed")
    assert main(command(archive, out)) == 0
    found = outcomes(out)
    assert len(found) == IMAGES + 4
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_loses_nothing(
    archive: Path, undisturbed: Outcomes, url: str, tmp_path: Path, workers: int
) -> None:
    """Again and again, whichever it is, with a ledger in a file or in PostgreSQL."""
    out, chance = tmp_path / "out", random.Random(workers)
    options = ("--resume", "--lease-seconds=1", f"--ledger={url}")
    words = [sys.executable, "-m", "service.cli", *command(archive, out, *options)]
    running: dict[subprocess.Popen[bytes], float] = {}  # each, and when it is killed
    deadline, kills, codes = time.monotonic() + SECONDS, 0, []

    def begin() -> None:
        process = subprocess.Popen(words, stderr=subprocess.PIPE)
        running[process] = time.monotonic() + chance.uniform(*LIVES)

    try:
        for _ in range(workers):
            begin()
        while running:
            assert time.monotonic() < deadline
            time.sleep(0.02)
            for process, end in list(running.items()):
                if process.poll() is not None:
                    codes.append(process.returncode)
                elif kills < KILLS and time.monotonic() > end:
                    process.kill()
                    kills += 1
                    begin()
                else:
                    continue
                process.communicate()
                del running[process]
    finally:
        for process in running:
            process.kill()
            process.communicate()
    assert kills == KILLS
    assert codes[-1] == 0
    assert outcomes(out) == undisturbed

"""The engine of several machines: workers come and go, and the end is that of one process."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from socket import gethostname
from typing import Any

import psutil
import pytest
from archive_servers import free_port
from images import png, radiograph
from small_archives import write_archive

from model_store import DEFAULT_ROOT
from service.backfill.engines.local import LEAST_FOR_SHARE
from service.backfill.engines.ray import RayWorker
from service.backfill.engines.ray_placement import ClusterError, Placement, check_ledger, placements
from service.backfill.engines.task import Task
from service.backfill.ledger.ledger import Ledger
from service.backfill.results.columns import as_rows
from service.backfill.results.rows import Row
from service.backfill.results.sinks import read_rows
from service.cli import main

IMAGES = 300
SECONDS = 300.0  # Ray takes its time where a machine is slow or has other work
GOOGLENET = "--model=googlenet/1.0.0"  # slow enough for the test to interrupt it


class Machines:
    """A Ray cluster of machines with one core each, all of them on this one."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="ray")  # sockets have short names
        self.address = f"127.0.0.1:{free_port()}"
        self.environment = os.environ | {
            "RAY_ADDRESS": self.address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self._processes: list[subprocess.Popen[bytes]] = []

    def add(self, *, first: bool = False) -> subprocess.Popen[bytes]:
        """Returns at once, except for the first."""
        host, port = self.address.split(":")
        head = ("--head", f"--node-ip-address={host}", f"--port={port}")
        head += ("--include-dashboard=false", f"--temp-dir={self._folder}")
        words = head if first else (f"--address={self.address}",)
        ray = Path(sys.executable).with_name("ray")
        with (Path(self._folder) / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                [ray, "start", "--block", "--num-cpus=1", *words],
                env={**self.environment, "RAY_ADDRESS": ""},
                stdout=log,
                stderr=log,
            )
        self._processes.append(process)
        return process

    def log(self) -> str:
        return (Path(self._folder) / "log.txt").read_text()

    def close(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def until(true: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    machines = Machines()
    try:
        machines.add(first=True)
        until(lambda: machines.log().count("Ray runtime started") == 1, "the first does not start")
        machines.add()
        until(lambda: machines.log().count("Ray runtime started") == 2, "the second does not start")
        yield machines
    finally:
        machines.close()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Different images, and two files that cannot be classified."""
    return write_archive(tmp_path_factory.mktemp("archive"), IMAGES, side=256)


def command(archive: Path, out: Path, *more: str) -> list[str]:
    return ["backfill", str(archive), f"--out={out}", "--chunk=8", *more]


def rows_in(out: Path) -> list[Row]:
    return [row for batch in read_rows(out / "results") for row in as_rows(batch)]


def content(out: Path) -> dict[str, tuple[Any, ...]]:
    """All rows, without times, tries and the last digits, in which batches differ."""
    rows, found = rows_in(out), {}
    for row in rows:
        fields: Mapping[str, Any] = vars(row) | {"pfi": row.pfi and round(row.pfi, 5)}
        left = {"seconds", "finished", "attempts"}
        found[row.locator] = tuple(value for name, value in fields.items() if name not in left)
    assert len(found) == len(rows)
    return found


@pytest.fixture(scope="module")
def of_one_process(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("local")
    assert main(command(archive, out, GOOGLENET)) == 0
    return content(out)


def begun(machines: Machines, archive: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    words = command(archive, out, "--engine=ray", GOOGLENET, "--lease-seconds=3", *more)
    return subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-m", "service.cli", *words],
        env=machines.environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def workers() -> list[psutil.Process]:
    """The processes that work on a job, as Ray names them."""
    return [
        each
        for each in psutil.process_iter(["name"])
        if each.info["name"].startswith("ray::RayWorker")
    ]


@contextmanager
def ledger_of(out: Path) -> Iterator[tuple[Ledger, str]]:
    """The ledger and its job, as soon as all images are found."""
    until((out / "ledger.sqlite").is_file, "no ledger")
    ledger = Ledger(f"sqlite:///{out}/ledger.sqlite")
    try:
        until(lambda: ledger.jobs() and ledger.jobs()[0].complete, "nothing is found")
        yield ledger, ledger.jobs()[0].id
    finally:
        ledger.close()


def test_workers_come_and_go(
    machines: Machines, archive: Path, of_one_process: dict[str, Any], tmp_path: Path
) -> None:
    """One of two is killed, a machine joins, and breaks down: the same rows as ever."""
    out = tmp_path / "out"
    process = begun(machines, archive, out)
    try:
        with ledger_of(out) as (ledger, job):
            # The job cannot end before all of this: this test keeps most images leased
            kept = list(iter(lambda: ledger.lease(job, 8, 10 * SECONDS), None))
            assert len(kept) > 20

            def theirs() -> set[str]:
                return ledger.leases(job) - {lease.id for lease in kept}

            until(lambda: len(workers()) == 2, "two workers do not start")
            for _ in range(10):
                ledger.release(kept.pop())
            until(lambda: len(theirs()) == 4, "two workers, with two leases each")
            workers()[0].kill()
            third = machines.add()
            until(
                lambda: ledger.job(job).open == sum(len(lease.items) for lease in kept),
                "no worker takes its images",
            )
            until(lambda: len(workers()) == 3, "no worker takes the placements")
            third.kill()
            while kept:
                ledger.release(kept.pop())
        _, said = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert f"{IMAGES} done, 1 skipped, 1 failed of {IMAGES + 2} images" in " ".join(said.split())
    assert content(out) == of_one_process
    assert {row.attempts for row in rows_in(out)} == {1, 2}


def test_ctrl_c_pauses_all(
    machines: Machines, archive: Path, of_one_process: dict[str, Any], tmp_path: Path
) -> None:
    """What they had fetched is committed, the rest given back; one process ends it."""
    out = tmp_path / "out"
    process = begun(machines, archive, out)
    try:
        with ledger_of(out) as (ledger, job):
            until(lambda: ledger.job(job).counts["done"], "no worker works")
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=SECONDS)
            assert process.returncode == 130, said
            assert (ledger.job(job).state, ledger.leases(job)) == ("paused", set())
            assert ledger.job(job).open > 0
    finally:
        process.kill()
    assert main(command(archive, out, GOOGLENET, "--resume")) == 0
    assert content(out) == of_one_process
    assert {row.attempts for row in rows_in(out)} == {1}


def test_a_killed_coordinator_loses_nothing(
    machines: Machines, archive: Path, of_one_process: dict[str, Any], tmp_path: Path
) -> None:
    """One process goes on at once, while workers may not have heard of it yet."""
    out = tmp_path / "out"
    process = begun(machines, archive, out)
    with ledger_of(out) as (ledger, job):
        until(lambda: ledger.job(job).counts["done"], "no worker works")
        process.kill()
        process.communicate()
    assert main(command(archive, out, GOOGLENET, "--resume")) == 0
    assert content(out) == of_one_process


def test_what_stops_a_worker_stops_all(machines: Machines, tmp_path: Path) -> None:
    """The command that began the job prints the worker's reason."""
    archive, out = tmp_path / "archive", tmp_path / "out"
    archive.mkdir()
    for number in range(2 * LEAST_FOR_SHARE):
        (archive / f"{number}.png").write_bytes(png(radiograph(256, 256))[:300])
    process = begun(machines, archive, out, "--max-errors=1%")
    _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 2
    assert "images failed (100.0%), more than 1.0%" in " ".join(said.split())
    with ledger_of(out) as (ledger, job):
        assert ledger.job(job).state == "stopped"
        assert "more than 1.0%" in (ledger.job(job).reason or "")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:{port}", "no Ray cluster at 127.0.0.1:{port}"),
        ("ray://127.0.0.1:{port}", "must run on a machine of the cluster"),
        ("127.0.0.1:first", "no Ray cluster at 127.0.0.1:first"),
    ],
)
def test_a_cluster_that_is_not_there(
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    address: str,
    reason: str,
) -> None:
    """An error of the command, before anything is worked on."""
    port = free_port()
    monkeypatch.setenv("RAY_ADDRESS", address.format(port=port))
    assert main(command(archive, tmp_path, "--engine=ray")) == 2
    assert reason.format(port=port) in " ".join(capsys.readouterr().err.split())


def test_a_limit_is_for_one_worker(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each of many would take so many."""
    assert main(command(archive, tmp_path, "--engine=ray", "--limit=5")) == 2
    assert "--limit is for one worker" in capsys.readouterr().err


def task_of(archive: Path, out: Path, job: str = "j") -> Task:
    """A task, as the command sends it to its workers."""
    return Task(
        job=job, ledger=f"sqlite:///{out}/ledger.sqlite", source=str(archive), options={}, out=out,
        format="parquet", model="swift/1.0.0", model_store=DEFAULT_ROOT, provider="cpu",
        fetchers=1, max_failed_share=1.0, limit=None, chunk_images=8, lease_seconds=3.0,
    )  # fmt: skip


def test_a_machine_without_the_folder_is_named(archive: Path, tmp_path: Path) -> None:
    """Results in a folder of its own would be missing from all others."""
    with pytest.raises(ClusterError, match=f"gone is not on {re.escape(gethostname())}"):
        RayWorker().run(task_of(archive, tmp_path / "gone"), 1)


def test_a_worker_that_is_paused_before_it_begins_does_nothing(
    archive: Path, tmp_path: Path
) -> None:
    """Another one does all that is left, and says so."""
    assert main(command(archive, tmp_path, "--limit=16")) == 1
    with ledger_of(tmp_path) as (ledger, job):
        task, first, second = task_of(archive, tmp_path, job), RayWorker(), RayWorker()
        counts, before = ledger.job(job).counts, ledger.job(job).open
        first.pause()
        assert first.run(task, 1).images == 0
        assert ledger.job(job).counts == counts
        said = second.run(task, 1)
        assert (said.images, said.not_chest, ledger.job(job).state) == (before, 0, "done")
        assert said.bytes > 1000 * said.images
        assert said.codes == {"corrupt_image": 1, "unrecognised_format": 1}
    assert len(rows_in(tmp_path)) == IMAGES + 2


def node(name: str, host: str = "a", *, alive: bool = True, **resources: float) -> dict[str, Any]:
    """As Ray describes one."""
    return {"NodeID": name, "NodeManagerHostname": host, "Alive": alive, "Resources": resources}


def test_places_are_machines_or_their_gpus() -> None:
    """None where there is no core, or no GPU for a network that needs one."""
    nodes = [node("a", CPU=4.0), node("b", CPU=16.0, GPU=4.0), node("c", CPU=0.0), node("d"),
             node("e", CPU=4.0, alive=False)]  # fmt: skip
    assert placements(nodes, "cpu") == [Placement("a", 0, 4, 0), Placement("b", 0, 16, 0)]
    assert placements(nodes, "cuda") == [Placement("b", number, 4, 1) for number in range(4)]


def test_machines_do_not_share_a_file() -> None:
    """A ledger that is one: locks of network file systems are not to be trusted."""
    two = [node("a", "one"), node("b", "two")]
    check_ledger(two, "postgresql+pg8000://somewhere/ledger")
    check_ledger([node("a", "one"), node("b", "one"), node("c", "two", alive=False)], "sqlite:///x")
    with pytest.raises(ClusterError, match="2 machines cannot share a ledger in a file"):
        check_ledger(two, "sqlite:///x")

"""Full disks, locked ledgers, archives that are away: work stops, says why, and nothing is lost."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import needs
import pytest
from conftest import ROOT
from disks import PLAIN, disk, fill
from small_archives import write_archive

from model_store import Store
from service.backfill.engines.local import LocalEngine
from service.backfill.ledger.jobs import Job, LedgerAwayError
from service.backfill.ledger.ledger import Ledger
from service.backfill.results.columns import as_rows
from service.backfill.results.folder import Results
from service.backfill.results.sinks import SINKS, read_rows
from service.backfill.sources.opening import open_source
from service.cli import main
from service.inference import Pipeline, open_pipeline

IMAGES = 60
SWIFT = "swift/1.0.0"
COPIES = {"00000.dcm", "copy.dcm"}  # whichever comes first is done
DISK = 6000  # kilobytes; more than ledger, reserve and results take
Outcomes = Counter[tuple[Any, ...]]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Different images, a copy, and two files that cannot be classified."""
    folder = tmp_path_factory.mktemp("archive") / "archive"
    folder.mkdir()
    write_archive(folder, IMAGES)
    shutil.copy(folder / "00000.dcm", folder / "copy.dcm")
    (folder / "within").mkdir()
    (folder / "00001.dcm").rename(folder / "within" / "00001.dcm")
    return folder


def outcomes(out: Path) -> Outcomes:
    """What became of each image, by its certificate and its one row."""
    assert json.loads((out / "certificate.json").read_text())["valid"]
    rows = [row for batch in read_rows(out / "results") for row in as_rows(batch)]
    return Counter(
        (
            "a copy" if row.locator in COPIES else row.locator,
            *(row.outcome, row.code, row.view, row.attempts),
            None if row.pfi is None else round(row.pfi, 4),
        )
        for row in rows
    )


@pytest.fixture(scope="module")
def undisturbed(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    out = tmp_path_factory.mktemp("undisturbed")
    assert main(["backfill", str(archive), f"--out={out}", f"--model={SWIFT}"]) == 0
    found = outcomes(out)
    assert found.total() == IMAGES + 3
    return found


class Run:
    """A job on the archive, by commands; the first has come as far as ten images."""

    def __init__(self, archive: Path, out: Path, *more: str, url: str = "") -> None:
        self.out, self._url = out, url or f"sqlite:///{out}/ledger.sqlite"
        self._words = ["backfill", str(archive), f"--out={out}", "--chunk=5", f"--model={SWIFT}"]
        self._words += more
        assert self.go("--limit=10")[0] == 1
        assert self.job.state == "paused"

    @property
    def job(self) -> Job:
        ledger = Ledger(self._url)
        try:
            return ledger.jobs()[0]
        finally:
            ledger.close()

    def go(self, *more: str, under: tuple[str, ...] = ()) -> tuple[int, str]:
        """One command, under others in a process of its own; its exit code, and what it said."""
        words = [*self._words, *more]
        if not under:
            with redirect_stderr(StringIO()) as stream:
                code = main(words)
            return code, "".join(stream.getvalue().split())
        command = [*under, sys.executable, "-m", "service.cli", *words]
        run = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
        )
        assert "Traceback" not in run.stderr
        return run.returncode, "".join(run.stderr.split())

    def stops(self, reason: str, under: tuple[str, ...] = ()) -> None:
        """It does not go on, and both the command and the ledger say why."""
        code, said = self.go("--resume", under=under)
        assert code == 2
        assert reason.replace(" ", "") in said
        found = self.job
        assert found.state == "stopped"
        assert reason in (found.reason or "")

    def ends_as(self, undisturbed: Outcomes) -> None:
        """It goes on, and comes to the same end."""
        code, said = self.go("--resume")
        assert code == 0, said
        assert self.job.state == "done"
        assert self.job.reason is None
        assert outcomes(self.out) == undisturbed


@pytest.fixture
def run(archive: Path, tmp_path: Path) -> Run:
    return Run(archive, tmp_path / "out")


def test_an_archive_that_is_away(
    run: Run, archive: Path, undisturbed: Outcomes, tmp_path: Path
) -> None:
    """Is said before anything is done; the job stays as it was."""
    archive.rename(tmp_path / "away")
    try:
        code, said = run.go("--resume")
    finally:
        (tmp_path / "away").rename(archive)
    assert (code, "neitherafolder" in said, run.job.state) == (2, True, "paused")
    run.ends_as(undisturbed)


def test_a_folder_that_cannot_be_listed(run: Run, archive: Path, undisturbed: Outcomes) -> None:
    """What is elsewhere is worked on; the archive is not taken for whole."""
    closed = archive / "within"
    closed.chmod(0)
    try:
        run.stops("1 folders cannot be listed; all others have been", PLAIN)
    finally:
        closed.chmod(0o755)
    run.ends_as(undisturbed)


@pytest.mark.parametrize("left", [0, 8192, 40960, 65536])
def test_a_full_disk(archive: Path, undisturbed: Outcomes, tmp_path: Path, left: int) -> None:
    """However little is left for ledger, results and certificate; again and again."""
    with disk(tmp_path / "disk", DISK):
        run = Run(archive, tmp_path / "disk" / "out")
        filler = fill(tmp_path / "disk", left)
        for _ in range(6):  # more often than an image may be suspected of killing its worker
            fill(tmp_path / "disk", left)
            run.stops("the disk is full: ")
        filler.unlink()
        run.ends_as(undisturbed)
        assert not list((run.out / "results").rglob(".*"))


def test_a_disk_that_is_full_for_the_certificate(
    archive: Path, undisturbed: Outcomes, tmp_path: Path
) -> None:
    """All images have their outcomes then; only it is missing."""
    run = Run(archive, tmp_path / "out")
    with disk(run.out / "audit", 8):
        fill(run.out / "audit")
        run.stops(f"the disk is full: {run.out / 'audit'}")
        assert run.job.open == 0
        assert not (run.out / "certificate.json").exists()
    run.ends_as(undisturbed)


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_file_may_not_grow(
    archive: Path, undisturbed: Outcomes, tmp_path: Path, url: str
) -> None:
    """By a limit of the system, as quotas are; the ledger is elsewhere."""
    run = Run(archive, tmp_path / "out", f"--ledger={url}", "--format=ndjson", url=url)
    run.stops("cannot be written to: File too large", ("prlimit", "--fsize=2000"))
    assert not list((run.out / "results").rglob(".*"))
    run.ends_as(undisturbed)


def test_results_that_are_a_file(run: Run, undisturbed: Outcomes, tmp_path: Path) -> None:
    """A file in place of the folder stops the job."""
    results = run.out / "results"
    results.rename(tmp_path / "moved")
    results.write_text("")
    run.stops("Not a directory")
    results.unlink()
    (tmp_path / "moved").rename(results)
    run.ends_as(undisturbed)


def test_results_that_may_not_be_written(run: Run, undisturbed: Outcomes) -> None:
    """Nor may the certificate claim that they were."""
    (folder,) = (run.out / "results").iterdir()
    folder.chmod(0o555)
    try:
        run.stops(f"{folder} cannot be written to: Permission denied", PLAIN)
    finally:
        folder.chmod(0o755)
    run.ends_as(undisturbed)


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """By another program, which writes to the ledger and does not end."""
    file = out / "ledger.sqlite"
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.close()


def test_a_ledger_that_is_locked(archive: Path, undisturbed: Outcomes, tmp_path: Path) -> None:
    """The lock outlasts the time-out; nothing can be written, and nothing has changed."""
    out = tmp_path / "out"
    run = Run(archive, out, f"--ledger=sqlite:///{out}/ledger.sqlite?timeout=0.1")
    with locked(out):
        code, said = run.go("--resume")
        assert (code, "theledgerislockedbyanotherprocess" in said) == (2, True)
    assert (run.job.state, run.job.open) == ("paused", IMAGES + 3 - 10)
    run.ends_as(undisturbed)


def test_a_model_that_is_gone(archive: Path, undisturbed: Outcomes, tmp_path: Path) -> None:
    """No other takes its place."""
    store = tmp_path / "store"
    shutil.copytree(ROOT / "model_store" / SWIFT, store / SWIFT)
    run = Run(archive, tmp_path / "out", f"--model-store={store}")
    (store / SWIFT).rename(tmp_path / "gone")
    code, said = run.go("--resume")
    assert (code, SWIFT in said, run.job.state) == (2, True, "paused")
    (tmp_path / "gone").rename(store / SWIFT)
    run.ends_as(undisturbed)


@pytest.fixture(scope="module")
def pipeline() -> Iterator[Pipeline]:
    with open_pipeline(Store().load(SWIFT)) as pipeline:
        yield pipeline


class Watched:
    """The archive, with an action that runs while it is read."""

    def __init__(self, archive: Path, act: Callable[[int], None]) -> None:
        self._source, self._act = open_source(str(archive)), act
        self.find = self._source.find
        self.reads: Counter[str] = Counter()
        self.on_close: Callable[[], object] = lambda: None

    def read(self, locator: str) -> Any:
        self.reads[locator] += 1
        self._act(self.reads.total())
        return self._source.read(locator)

    def close(self) -> None:
        self.on_close()


def worked(ledger: Ledger, job: str, source: Any, out: Path, pipeline: Pipeline) -> Job:
    card = Store().load(SWIFT).card
    results = Results(out, SINKS["parquet"])
    work = LocalEngine(
        ledger, job, source, pipeline.submit, card, results=results, chunk_images=5, fetchers=1
    )
    return work.run()


def test_a_ledger_that_is_locked_amid_work(
    archive: Path, undisturbed: Outcomes, tmp_path: Path, pipeline: Pipeline
) -> None:
    """Work stops, gives back what it has, and says that it did; then it goes on."""
    held = ExitStack()
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite?timeout=0.1")
    job = ledger.open_job("job", {}).id

    def act(reads: int) -> None:
        if reads == 20:
            held.enter_context(locked(tmp_path))

    source = Watched(archive, act)
    source.on_close = held.close
    with pytest.raises(LedgerAwayError, match="locked by another process"):
        worked(ledger, job, source, tmp_path, pipeline)
    found = ledger.job(job)
    assert (found.state, "locked" in (found.reason or "")) == ("stopped", True)
    assert ledger.leases(job) == set()
    found = worked(ledger, job, Watched(archive, lambda _: None), tmp_path, pipeline)
    assert (found.state, found.counts["found"], found.open) == ("done", IMAGES + 3, 0)
    ledger.close()


@pytest.mark.parametrize("jump", [3600, -3600])
def test_a_clock_that_jumps(
    archive: Path, tmp_path: Path, pipeline: Pipeline, opened, clock, jump: int
) -> None:
    """Amid the work of two: leases seem to have run out, or to last; each image has one row."""
    ledgers = [opened(), opened()]
    job = ledgers[0].open_job("job", {}).id

    def act(reads: int) -> None:
        if reads == 15:  # of each
            clock.seconds += jump

    found: list[Job] = []
    threads = [
        threading.Thread(
            target=lambda ledger=ledger: found.append(
                worked(ledger, job, Watched(archive, act), tmp_path, pipeline)
            )
        )
        for ledger in ledgers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.state for each in found] == ["done", "done"]
    rows = [row for batch in read_rows(tmp_path / "results") for row in as_rows(batch)]
    assert Counter(row.locator for row in rows) == Counter(open_source(str(archive)).find())
    counts = Counter(row.outcome for row in rows)
    assert counts == {"done": IMAGES, "skipped": 2, "failed": 1}


# A folder that may be written to, on a machine where nothing else may
SEALED = """
mount --bind "$1" "$1"
for folder in /tmp /var/tmp; do
    mount --rbind $folder $folder
    mount -o remount,ro,bind $folder
done
cd /proc
shift
exec "$@"
"""


def test_no_folder_for_temporary_files(tmp_path: Path) -> None:
    """As in a pod whose root is read-only: the ledger of many files needs its own folder alone."""
    namespace = ["unshare", "--mount", "sh", "-ec", SEALED, "sh", str(tmp_path)]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip(needs.MOUNTS)
    archive = tmp_path / "archive"
    archive.mkdir()
    count = 1200  # beyond 64 KiB of names, SQLite keeps what it may have to undo in a file
    for number in range(count):
        (archive / f"{number:064}").write_text("no image")
    words = ["backfill", str(archive), "--out", str(tmp_path / "out"), "--model", SWIFT]
    run = subprocess.run(
        [*namespace, sys.executable, "-m", "service.cli", *words],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout) == (0, ""), run.stderr
    assert outcomes(tmp_path / "out").total() == count

"""One worker of an archive, as `cxrview backfill` is one, and what each of its parts costs.

One JSON object out. The numbers of seconds are those that its thread waited, for others and for the
database, too.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
from tiny import Stub

from model_store import Store
from service.backfill.engines.local import LocalEngine
from service.backfill.job_folder import LEDGER, alone, conclude
from service.backfill.ledger.jobs import Job
from service.backfill.ledger.ledger import Ledger
from service.backfill.results.folder import Results
from service.backfill.results.sinks import SINKS
from service.backfill.sources.folder import FolderOptions, FolderSource

REFRESH_SECONDS = 0.25  # as the command looks
INSIDE = 36  # images between their source and their answer, as of the command on two cores
OF_THE_LEDGER = ("add", "lease", "known", "commit", "renew", "job", "leases", "parts", "end")


class Timed:
    """Seconds in each method, by all threads together."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.cpu: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.first: dict[str, float] = {}

    def watch(self, thing: object, names: tuple[str, ...]) -> None:
        """Each call of these methods from now on."""
        for name in names:
            setattr(thing, name, self._timed(name, getattr(thing, name)))

    def _timed(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any, **named: Any) -> Any:
            begin, cpu = time.perf_counter(), time.thread_time()
            try:
                return method(*words, **named)
            finally:
                self.seconds[name] += time.perf_counter() - begin
                self.cpu[name] += time.thread_time() - cpu
                self.calls[name] += 1
                self.first.setdefault(name, time.time())

        return call


class Memory(threading.Thread):
    """Resident megabytes, four times a second, beside the images that have an answer.

    And those of a file, if there is one: the log of SQLite, which goes with the last connection.
    """

    def __init__(self, progress: Callable[[], int], log: Path) -> None:
        super().__init__(daemon=True)
        self._log, self._log_mb = log, 0.0
        self.values: list[tuple[int, float]] = []
        self._progress, self._ended = progress, threading.Event()

    def run(self) -> None:
        """Until the end."""
        while not self._ended.wait(REFRESH_SECONDS):
            self.values.append((self._progress(), resident()))
            with suppress(FileNotFoundError):
                self._log_mb = max(self._log_mb, self._log.stat().st_size / 1e6)

    def end(self) -> dict[str, float]:
        """The peak, and the slope of the second half."""
        self._ended.set()
        self.join()
        values = np.array([*self.values, (self._progress(), resident())])
        half = values[len(values) // 2 :]
        slope = np.polyfit(half[:, 0], half[:, 1], 1)[0] if np.ptp(half[:, 0]) else 0.0
        memory = {"peak_mb": float(values[:, 1].max()), "mb_a_million": float(slope * 1e6)}
        return memory | {"log_mb": self._log_mb}


def resident() -> float:
    """Megabytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main(url: str, archive: str, folder: str, started: str, *resumed: str) -> None:
    """Work, conclude, say what it cost."""
    out, timed = Path(folder), Timed()
    source = FolderSource(Path(archive), FolderOptions())
    with ExitStack() as stack:
        if url.startswith("sqlite"):
            stack.enter_context(alone(out))
        ledger = Ledger(url)
        stack.callback(ledger.close)
        job = ledger.open_job("archive", {"source": archive})
        timed.watch(ledger, OF_THE_LEDGER)
        results = Results(out, SINKS["parquet"])
        timed.watch(results, ("write", "publish", "recover"))
        card = Store().load("swift/1.0.0").card
        work = LocalEngine(
            ledger, job.id, source, Stub(card).submit, card, results=results, inside=INSIDE
        )
        before = time.perf_counter()
        memory = Memory(lambda: work.progress.images, out / f"{LEDGER}-wal")
        memory.start()
        job = worked(work, ledger, job)
        found: dict[str, Any] = {"work_seconds": time.perf_counter() - before, **memory.end()}
        assert job.state == "done", job
        if resumed:
            found = {
                "resume_seconds": time.time() - float(started),
                "resume_seconds_of": dict(timed.seconds),
            }
            begin = time.perf_counter()
            names = sum(1 for _ in source.find())
            print(json.dumps(found | {"names_s": names / (time.perf_counter() - begin)}))
            return
        images = max(work.progress.images, 1)
        found |= {
            "first_part_seconds": timed.first.get("publish", time.time()) - float(started),
            "ledger_ms": 1e3 * sum(timed.seconds[name] for name in OF_THE_LEDGER) / images,
            "ledger_cpu_ms": 1e3 * sum(timed.cpu[name] for name in OF_THE_LEDGER) / images,
            "sink_ms": 1e3 * (timed.seconds["write"] + timed.seconds["publish"]) / images,
            "microseconds_of": {
                name: 1e6 * seconds / images for name, seconds in timed.seconds.items()
            },
            "cpu_ms": 1e3 * time.process_time() / images,
        }
        if work.ended:
            begin = time.perf_counter()
            certificate = conclude(ledger, job, out)
            assert certificate.valid, certificate.errors
            found["certificate_seconds"] = time.perf_counter() - begin
            found["certificate_peak_mb"] = peak_megabytes()
    print(json.dumps(found))


def worked(work: LocalEngine, ledger: Ledger, job: Job) -> Job:
    """In a thread, while this one looks, as the command does."""
    ended: list[Job] = []
    thread = threading.Thread(target=lambda: ended.append(work.run()))
    thread.start()
    while thread.is_alive():
        thread.join(REFRESH_SECONDS)
        ledger.job(job.id)
    return ended[0]


def peak_megabytes() -> float:
    """Of this process from its start."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    main(*sys.argv[1:])

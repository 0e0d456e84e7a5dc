"""The engine for several machines: Ray runs one worker on each, and all share one ledger.

A worker is a local engine with its own pipeline. It owns the images that it has leased until the
lease expires, so workers may stop and start at any time. The ledger guarantees one outcome for each
image; Ray only keeps workers running.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from socket import gethostname
from threading import Event
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from model_store import Store
from service.backfill.engines.local import LocalEngine, Progress
from service.backfill.engines.ray_placement import (
    ClusterError,
    Placement,
    check_address,
    check_ledger,
    placements,
)
from service.backfill.engines.stopping import reason_of, stop
from service.backfill.engines.task import Task
from service.backfill.ledger.jobs import Job
from service.backfill.ledger.ledger import Ledger
from service.backfill.sources.opening import open_source
from service.inference import open_pipeline

LOOK_SECONDS = 0.5
MOST_LOOKS = 600  # checks of a cluster without a free machine; its first ones may still start
CALLS = 3  # concurrent calls of a worker: run, pause, progress
# Workers that died in a row without any new outcome. Images that crash every worker are given up
# after fewer deaths, so the cause must be another one
MOST_DEATHS = 20

LOG = logging.getLogger(__name__)


class Said(NamedTuple):
    """The progress of a worker, as `Progress`."""

    images: int
    bytes: int
    not_chest: int
    codes: Counter[str]


class RayWorker:
    """A Ray actor: runs in its own process, and its methods in threads."""

    def __init__(self) -> None:
        self._paused = Event()
        self._work: LocalEngine | None = None

    def run(self, task: Task, cpus: int) -> Said:
        """Work on the job until it is done or paused.

        Raises:
            ClusterError: The error that stopped it, as text, because not all errors can be pickled.
        """
        try:
            self._run(task, cpus)
        except Exception as error:
            raise ClusterError(reason_of(error)) from error
        return self.progress()

    def _run(self, task: Task, cpus: int) -> None:
        if not task.out.is_dir():  # the process that began the job has created it
            raise ClusterError(f"{task.out} is not on {gethostname()}: all machines must share it")
        version = Store(task.model_store).load(task.model)
        source = open_source(task.source, task.options)
        ledger = Ledger(task.ledger)
        try:
            with open_pipeline(version, task.provider, cpus) as pipeline:
                self._work = task.work(ledger, source, pipeline, version, cpus)
                if not self._paused.is_set():
                    self._work.run()
        finally:
            ledger.close()

    def pause(self) -> None:
        """Pause the work; if it has not begun, it will not."""
        self._paused.set()
        if self._work is not None:
            self._work.pause()

    def progress(self) -> Said:
        """What this worker has done so far."""
        found = self._work.progress if self._work is not None else Progress()
        return Said(found.images, found.bytes, found.not_chest, found.codes)


@dataclass(eq=False)
class WorkerHandle:
    """A worker that was started, and its last progress."""

    placement: Placement
    actor: Any
    said: Said = field(default_factory=lambda: Said(0, 0, 0, Counter()))
    asked: Any = None  # Ray's reference of a progress call that has not returned yet
    ending: bool = False


class RayEngine:
    """Keeps one worker running at each placement of a Ray cluster until the job is done.

    Args:
        task: The job and its options.
        ledger: The open ledger that holds the job.
    """

    def __init__(self, task: Task, ledger: Ledger) -> None:
        self.progress = Progress()
        self.ended = False
        self._task, self._ledger = task, ledger
        self._paused = Event()
        self._workers: dict[Any, WorkerHandle] = {}  # by Ray's reference of its `run` call
        self._gone: list[WorkerHandle] = []
        self._deaths, self._open, self._looks = 0, -1, 0
        self._error: Exception | None = None

    def pause(self) -> None:
        """Stop; `run` returns when the images that were fetched are committed."""
        self._paused.set()

    def run(self) -> Job:
        """Work until the job is done or paused; returns the job in its new state.

        Raises:
            ClusterError: There are no machines, all workers die, or an error stopped one of them;
                committed results stay.
        """
        self._ledger.set_state(self._task.job, "running")
        while self._goes_on():
            for returned in self._returned():
                self._take_leave(returned, self._workers.pop(returned))
            self._look()
        job = self._ledger.job(self._task.job)
        if self._error is not None:
            stop(self._ledger, job.id, self._error)
            raise self._error
        self.ended = job.state == "done"
        if not self.ended:
            self._ledger.set_state(job.id, "paused")
        return self._ledger.job(job.id)

    def _goes_on(self) -> bool:
        """Start missing workers, or end all of them; False when none is left."""
        if self._paused.is_set() or self._error is not None:
            for handle in self._workers.values():
                _end_worker(handle)
        elif self._ledger.job(self._task.job).state != "done":
            self._start_workers()
            return True
        return bool(self._workers)

    def _start_workers(self) -> None:
        taken = {handle.placement for handle in self._workers.values()}
        free = [
            placement
            for placement in placements(_nodes(), self._task.provider)
            if placement not in taken
        ]
        for placement in free:
            node = NodeAffinitySchedulingStrategy(placement.node, soft=False)
            actor: Any = (
                ray.remote(RayWorker)
                .options(
                    num_cpus=placement.cpus,
                    num_gpus=placement.gpus,
                    max_concurrency=CALLS,
                    scheduling_strategy=node,
                )
                .remote()
            )
            self._workers[actor.run.remote(self._task, placement.cpus)] = WorkerHandle(
                placement, actor
            )
        self._looks = 0 if self._workers else self._looks + 1
        if self._looks > MOST_LOOKS:
            self._error = ClusterError("no machine of the cluster has a core for a worker")

    def _returned(self) -> list[Any]:
        if not self._workers:
            self._paused.wait(LOOK_SECONDS)
            return []
        found: list[Any] = ray.wait(list(self._workers), timeout=LOOK_SECONDS)[0]
        return found

    def _take_leave(self, returned: Any, handle: WorkerHandle) -> None:
        """Handle a worker that has returned or died."""
        self._gone.append(handle)
        try:
            handle.said = ray.get(returned)
        except RayTaskError as error:
            cause = error.cause if isinstance(error.cause, ClusterError) else error
            self._error = self._error or cause
        except RayError as error:  # the worker or its machine died
            LOG.warning("a worker is gone: %s", error)
            self._count_death()
        ray.kill(handle.actor)  # frees its placement

    def _count_death(self) -> None:
        still_open = self._ledger.job(self._task.job).open
        self._deaths = self._deaths + 1 if still_open == self._open else 1
        self._open = still_open
        if self._deaths >= MOST_DEATHS and not self._paused.is_set():
            self._error = ClusterError(
                f"{self._deaths} workers died, and no image came to an outcome meanwhile"
            )

    def _look(self) -> None:
        """Ask all workers for their progress, and add up their last answers."""
        for handle in self._workers.values():
            handle.asked = handle.asked or handle.actor.progress.remote()
            if ray.wait([handle.asked], timeout=0)[0]:
                with suppress(RayError):  # it has died; `_returned` reports that
                    handle.said = ray.get(handle.asked)
                handle.asked = None
        said = [handle.said for handle in (*self._workers.values(), *self._gone)]
        codes = Counter[str]()
        for each in said:
            codes.update(each.codes)
        self.progress.images = sum(each.images for each in said)
        self.progress.bytes = sum(each.bytes for each in said)
        self.progress.not_chest = sum(each.not_chest for each in said)
        self.progress.codes = codes


@contextmanager
def on_ray(task: Task, ledger: Ledger) -> Iterator[RayEngine]:
    """An engine on the cluster of RAY_ADDRESS, else the one on this machine, else a new one.

    Raises:
        ClusterError: There is no cluster, or several machines would share a ledger in a file.
    """
    # Ray would report usage statistics; nothing about an archive of patients leaves the site
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    check_address(os.environ.get("RAY_ADDRESS", ""))
    try:
        ray.init(include_dashboard=False, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(f"no Ray cluster: {error}") from error
    try:
        check_ledger(_nodes(), task.ledger)
        yield RayEngine(task, ledger)
    finally:
        ray.shutdown()


def _nodes() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return found


def _end_worker(handle: WorkerHandle) -> None:
    if not handle.ending:
        handle.ending = True
        handle.actor.pause.remote()

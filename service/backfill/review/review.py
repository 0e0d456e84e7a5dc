"""The review of jobs that are done: worklists, decisions, exports, and the pictures."""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from model_store import View
from service.backfill.job_store import JobStore
from service.backfill.ledger.decisions import Decisions
from service.backfill.ledger.jobs import Job, JobStateError
from service.backfill.ledger.ledger import Ledger
from service.backfill.ledger.readings import (
    MOST_READERS,
    Decision,
    Entry,
    Readings,
    Role,
    UnknownInstanceError,
    standing,
)
from service.backfill.report.write import CERTIFICATE, HEADERS
from service.backfill.results.rows import Source
from service.backfill.results.sinks import RESULTS
from service.backfill.review.agreement import Agreement, agreements
from service.backfill.review.exports import (
    LABELS,
    FileFormat,
    Form,
    Tables,
    accepted,
    export,
    patient_of,
)
from service.backfill.review.originals import Original, Originals
from service.backfill.review.worklist import FILE, Reason, Worklist, worklist_of

# open: that no person has read; second: that one other person has read; conflicts: that two others
# have read in two ways
Show = Literal["open", "second", "conflicts", "all"]
MOST_HELD = 4  # worklists in memory


@dataclass(frozen=True)
class Entries:
    """Some entries of a worklist, in its order."""

    rows: list[dict[str, Any]]
    readings: list[Readings]  # of each row
    next: int | None  # the place to go on at; None: there are no more


@dataclass(frozen=True)
class Summary:
    """How far a review is."""

    images: int
    reasons: Mapping[Reason, int]  # images by their first reason
    read: int  # images that a person has read
    read_twice: int
    conflicts: int  # images of which the readers differ, and no adjudicator has decided
    final: Mapping[Decision, int]  # images by the decision that is taken for true
    readers: Mapping[str, int]  # images by reader
    agreements: list[Agreement]


@dataclass(frozen=True)
class Label:
    """What an image is, as persons have decided."""

    instance: int
    view: str  # of exports.LABELS
    patient: str  # its study, as results name no patients; else the image itself


class Review:
    """The review of the jobs of a folder.

    Args:
        store: The jobs.
        opened: Opens the source of a job by its description.
    """

    def __init__(self, store: JobStore, opened: Callable[[Mapping[str, Any]], Source]) -> None:
        self._store, self._originals = store, Originals(opened)
        self._lock = Lock()
        self._held: OrderedDict[str, tuple[str, Worklist]] = OrderedDict()

    def close(self) -> None:
        """Close the sources."""
        self._originals.close()

    def jobs(self) -> list[Job]:
        """The jobs that can be reviewed, the newest first."""
        return [job for job in self._store.jobs() if self._is_done(job)]

    def job(self, job: str) -> Job:
        """A job that can be reviewed.

        Raises:
            UnknownJobError: There is no such job.
            JobStateError: The job is not done.
        """
        found = self._store.job(job)
        if not self._is_done(found):
            raise JobStateError("a job can be reviewed when it is done")
        return found

    def entries(self, job: str, reader: str, show: Show, after: int, most: int) -> Entries:
        """Some entries of a worklist.

        Args:
            job: The id of the job.
            reader: The person who asks.
            show: Which entries.
            after: The place in the worklist to begin at.
            most: So many entries at most.

        Raises:
            UnknownJobError, JobStateError: See `job`.
        """
        worklist, stand = self._worklist(self.job(job)), self._decisions.standing(job)
        chosen = (
            place
            for instance, place in islice(worklist.places.items(), after, None)
            if _shown(stand.get(instance), reader, show)
        )
        places = list(islice(chosen, most + 1))  # one more: the place to go on at
        rows = list(worklist.entries(places[:most]))
        readings = [stand.get(row["instance"], Readings()) for row in rows]
        return Entries(rows, readings, places[most] if len(places) > most else None)

    def decide(
        self, job: str, instance: int, reader: str, role: Role, decision: Decision | None
    ) -> Entry:
        """Add a decision about an image of the worklist; see `Decisions.add`.

        Raises:
            UnknownJobError, JobStateError: See `job`.
            UnknownInstanceError: The worklist has no such image.
            ReviewStateError: The decisions that stand do not allow it.
        """
        self._row(self.job(job), instance)
        return self._decisions.add(job, instance, reader, role, decision)

    def summary(self, job: str) -> Summary:
        """How far a review is.

        Raises:
            UnknownJobError, JobStateError: See `job`.
        """
        worklist, stand = self._worklist(self.job(job)), self._decisions.standing(job)
        readings = [stand[number] for number in worklist.places if number in stand]
        final = Counter(each.final for each in readings if each.final)
        return Summary(
            images=len(worklist),
            reasons=worklist.first_reasons(),
            read=sum(bool(each.by_reader) for each in readings),
            read_twice=sum(len(each.by_reader) == MOST_READERS for each in readings),
            conflicts=sum(each.differ and each.final is None for each in readings),
            final=final,
            readers=Counter(reader for each in readings for reader in each.by_reader),
            agreements=agreements(readings),
        )

    def export(self, job: str, form: Form, file_format: FileFormat) -> bytes:
        """The decisions as a file.

        Raises:
            UnknownJobError, JobStateError: See `job`.
        """
        found, history = self.job(job), self._decisions.history(job)
        source, rows = str(found.description["source"]), list(_rows(self._worklist(found)))
        return export(form, file_format, Tables(source, rows, history, standing(history)))

    def labels(self, job: str) -> list[Label]:
        """The images that are decided frontal, lateral or not_chest, in the worklist's order.

        Raises:
            UnknownJobError, JobStateError: See `job`.
        """
        worklist, stand = self._worklist(self.job(job)), self._decisions.standing(job)
        views = {number: each.final for number, each in stand.items() if each.final in LABELS}
        rows = worklist.entries(sorted(worklist.places[n] for n in views if n in worklist.places))
        return [
            Label(row["instance"], str(views[row["instance"]]), patient_of(row)) for row in rows
        ]

    def out(self, job: str) -> Path:
        """The folder of a job."""
        return self._store.out(job)

    def outs(self) -> list[Path]:
        """The folders of all jobs, in whatever state they are."""
        return self._store.outs()

    def read(self, job: str, instance: int) -> Original:
        """An image of a worklist, read again from the source of the job.

        Raises:
            UnknownJobError, JobStateError: See `job`.
            UnknownInstanceError: The worklist has no such image.
            PictureError, SourceNotAllowedError, OptionsError, SourceError: See `Originals.read`.
        """
        found = self.job(job)
        key = self._row(found, instance)["key"]
        return self._originals.read(found, self._decisions.locator(job, instance), key)

    @property
    def _decisions(self) -> Decisions:
        return self._store.ledger.decisions

    def _is_done(self, job: Job) -> bool:
        return job.state == "done" and self._store.certified(job.id)

    def _row(self, job: Job, instance: int) -> dict[str, Any]:
        worklist = self._worklist(job)
        if instance not in worklist.places:
            raise UnknownInstanceError("the worklist has no such image")
        return next(worklist.entries([worklist.places[instance]]))

    def _worklist(self, job: Job) -> Worklist:
        out = self._store.out(job.id)
        certificate = _hash(out)
        with self._lock:  # so that it is made once
            held = self._held.get(job.id)
            if held is None or held[0] != certificate:
                held = (certificate, read(out, self._store.ledger, job.id))
                self._held[job.id] = held
                if len(self._held) > MOST_HELD:
                    self._held.popitem(last=False)
            self._held.move_to_end(job.id)
            return held[1]


def read(out: Path, ledger: Ledger, job: str) -> Worklist:
    """The worklist in the folder of a job that is done."""
    numbers = partial(ledger.decisions.numbers, job)
    return worklist_of(out / RESULTS, out / HEADERS / FILE, _hash(out), numbers)


def accepted_in(out: Path, ledger: Ledger, job: str) -> dict[str, View]:
    """The final views, by SOP Instance UID, of images whose header disagrees with the model.

    Args:
        out: The folder of the job.
        ledger: The ledger of the job.
        job: The id of the job.
    """
    return accepted(_rows(read(out, ledger, job)), ledger.decisions.standing(job))


def _hash(out: Path) -> str:
    return hashlib.sha256((out / CERTIFICATE).read_bytes()).hexdigest()


def _rows(worklist: Worklist) -> Iterator[dict[str, Any]]:
    return worklist.entries(list(range(len(worklist))))


def _shown(readings: Readings | None, reader: str, show: Show) -> bool:
    """Whether an image is among those that a person asks for."""
    if show == "all":
        return True
    if readings is None or not readings.by_reader:  # most of a long worklist
        return show == "open"
    by = readings.by_reader
    if show == "second":
        return len(by) == 1 and reader not in by
    return readings.differ and readings.adjudication is None and reader not in by

"""Calibrations of a running service: one at a time, each on the decided images of a job.

The images are read again from the job's source into a private folder, which the operator names
because it should be in memory. It is deleted when the calibration ends, or else at the next start.
"""

from __future__ import annotations

import csv
import logging
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Lock, Thread
from typing import NamedTuple

from model_store import DEFAULT_ROOT, ModelVersion, SiteReport, Store, StoreError, load_published
from service.backfill.allowed_sources import SourceNotAllowedError
from service.backfill.ledger.jobs import Job
from service.backfill.ledger.readings import ReviewStateError
from service.backfill.results.rows import SourceError
from service.backfill.review import calibration_process
from service.backfill.review.calibration_process import CalibrationError, missing_packages
from service.backfill.review.calibration_record import Calibration, Kept, State, keep, kept_in
from service.backfill.review.originals import PictureError
from service.backfill.review.review import Label, Review
from service.backfill.sources.options import OptionsError
from service.imaging import ImageError
from service.inference import Image

FEWEST = 60  # images with a view: 59 right answers show an error rate of 5 % at most
FEWEST_PATIENTS = 10  # of either view
VIEWS = ("frontal", "lateral")
ANSWER_SECONDS = 300.0
OWN = "cxrview-calibration-"
MANIFEST, IMAGES, REPORT = "manifest.csv", "images", "report.json"
ENDED = "the service ended meanwhile"

LOG = logging.getLogger(__name__)


class Place(NamedTuple):
    """Where calibrations work."""

    store: Path  # of models
    folder: Path | None  # for the images; None: there are no calibrations
    most_bytes: int  # of all images of a calibration


class Calibrations:
    """Starts calibrations, each in its own thread, and knows those before.

    Args:
        review: Has the images and their labels.
        place: Where they work.
        submit: Decodes an image, as `Pipeline.submit`.
    """

    def __init__(self, review: Review, place: Place, submit: Callable[[Image], None]) -> None:
        self._review, self._place, self._submit = review, place, submit
        self._store = Store(place.store)
        self._lock, self._stopping = Lock(), Event()
        self._thread: Thread | None = None
        self._current: tuple[str, Calibration] | None = None  # the id of the job
        self._end_those_before()

    def close(self) -> None:
        """End the one that runs, and delete its images."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def of(self, job: str) -> list[Calibration]:
        """Those of a job, the newest first.

        Raises:
            UnknownJobError, JobStateError: See `Review.job`.
        """
        found = [each.calibration for each in kept_in(self._review.out(self._review.job(job).id))]
        with self._lock:
            now = self._current[1] if self._current is not None else None
        return [now if now is not None and now.id == each.id else each for each in found]

    def refusal(self, job: str) -> str | None:
        """Why a job's model cannot be calibrated here and now; None: it can.

        Raises:
            UnknownJobError, JobStateError: See `Review.job`.
        """
        found = self._review.job(job)
        return (
            _few(self._review.labels(job))
            or self._unfit()
            or self._unknown(_model_of(found))
            or ("a calibration runs already: one at a time" if self._busy else None)
        )

    def start(self, job: str, reader: str) -> Calibration:
        """Begin to calibrate the model of a job.

        Raises:
            UnknownJobError, JobStateError: See `Review.job`.
            ReviewStateError: It cannot be done here and now; the text says why.
            UnwritableError: The job's folder cannot be written to.
        """
        found = self._review.job(job)
        with self._lock:
            if (reason := self.refusal(job)) is not None:
                raise ReviewStateError(reason)
            assert self._place.folder is not None  # it would be a reason
            model = _model_of(found)
            identifier = secrets.token_hex(8)
            calibration = Calibration(
                id=identifier,
                model=model,
                version=self._next(model),
                reader=reader,
                created=datetime.now(UTC),
                images=len(self._review.labels(job)),
            )
            scratch = self._place.folder.resolve() / f"{OWN}{identifier}"
            work = Work(found, calibration, scratch)
            keep(self._review.out(found.id), Kept(calibration=calibration, scratch=scratch))
            self._current = (found.id, calibration)
            self._thread = Thread(target=self._do, args=[work], name="calibration", daemon=True)
            self._thread.start()
        return calibration

    @property
    def _busy(self) -> bool:
        return self._current is not None and self._current[1].active

    def _unfit(self) -> str | None:
        """What the operator would have to change."""
        store, folder = self._place.store, self._place.folder
        if missing := missing_packages():
            return f"the extra `calibration` is not installed: {', '.join(missing)}"
        if folder is None:
            return "CXRVIEW_CALIBRATION_FOLDER names no folder for the images"
        if not _writable(folder):
            return "the folder of CXRVIEW_CALIBRATION_FOLDER cannot be written to"
        if store.resolve() == DEFAULT_ROOT.resolve():
            return "CXRVIEW_MODEL_STORE is the package's own folder, which keeps no new versions"
        if not _writable(store):
            return "the folder of CXRVIEW_MODEL_STORE cannot be written to"
        return None

    def _unknown(self, model: str) -> str | None:
        known = model in {*self._store.list(), *Store().list()}
        return None if known else f"{model}, the model of this job, is not in CXRVIEW_MODEL_STORE"

    def _next(self, model: str) -> str:
        """The reference of the next version, by its last number, that no store has yet."""
        name, version = model.split("/")
        major, minor, _ = version.split(".")
        same = f"{name}/{major}.{minor}."
        known = {*self._store.list(), *Store().list()}
        last = max(int(each.removeprefix(same)) for each in known if each.startswith(same))
        return f"{same}{last + 1}"

    def _do(self, work: Work) -> None:
        """Calibrate; whatever happens becomes the calibration's end."""
        state: State = "failed"
        report = reason = None
        try:
            report = self._calibrated(work)
            state = "done"
        except Exception as error:  # noqa: BLE001  # it becomes the calibration's `reason`
            LOG.error("calibration %s has failed: %s", work.now.id, type(error).__name__)  # noqa: TRY400
            reason = ENDED if self._stopping.is_set() else _reason(error)
        finally:
            shutil.rmtree(work.scratch, ignore_errors=True)
        ended = datetime.now(UTC)
        self._tell(work, state=state, report=report, reason=reason, ended=ended)

    def _calibrated(self, work: Work) -> SiteReport:
        parent = load_published(work.now.model, self._store)
        if parent.card.model_sha256 != work.job.description.get("model_sha256"):
            raise CalibrationError(f"{work.now.model} is another model now than that of the job")
        work.scratch.mkdir(mode=0o700)
        (work.scratch / IMAGES).mkdir()
        labels = _usable(self._review.labels(work.job.id), parent)
        self._tell(work, images=len(labels))
        _write_manifest(work, self._fetched(work, labels))
        self._tell(work, state="fitting")
        report = work.scratch / REPORT
        name, version = work.now.version.split("/")
        arguments = (
            *(work.now.model, "--manifest", str(work.scratch / MANIFEST)),
            *("--images", str(work.scratch / IMAGES), "--store", str(self._place.store.resolve())),
            *("--name", name, "--version", version, "--report", str(report)),
        )
        calibration_process.calibrate(arguments, work.scratch, self._stopping)
        return SiteReport.model_validate_json(report.read_bytes())

    def _fetched(self, work: Work, labels: Sequence[Label]) -> list[Label]:
        """Write the images by their numbers; those that can be read again."""
        held, found = 0, list[Label]()
        for read, label in enumerate(labels, 1):
            if self._stopping.is_set():
                raise CalibrationError(ENDED)
            path = work.scratch / IMAGES / str(label.instance)
            try:
                held += self._fetch(work.job.id, label, path, self._place.most_bytes - held)
                found.append(label)
            except (PictureError, ImageError):
                path.unlink(missing_ok=True)
            self._tell(work, read=read, left_out=read - len(found))
        return found

    def _fetch(self, job: str, label: Label, path: Path, most: int) -> int:
        """Write an image, if it is still the one that was decided about; its bytes."""
        original = self._review.read(job, label.instance)
        size = len(original.data)
        if size > most:
            raise CalibrationError(
                f"the images have more than {self._place.most_bytes} bytes, the limit of "
                "CXRVIEW_MAX_CALIBRATION_BYTES"
            )
        path.write_bytes(original.data)
        if original.uid is not None:  # it is in the file, which a decode worker reads
            image = Image(original.data, "backfill")
            self._submit(image)
            image.answer.result(ANSWER_SECONDS)
            assert image.radiograph is not None  # there is no prediction without it
            original.check(image.radiograph.sop_instance_uid)
        return size

    def _tell(self, work: Work, **changes: object) -> None:
        """Keep a new state; progress within a state only in memory."""
        with self._lock:
            work.now = work.now.model_copy(update=changes)
            self._current = (work.job.id, work.now)
        if "state" in changes:
            try:
                kept = Kept(calibration=work.now, scratch=work.scratch)
                keep(self._review.out(work.job.id), kept)
            except OSError as error:
                LOG.error("calibration %s is not recorded: %s", work.now.id, error)  # noqa: TRY400

    def _end_those_before(self) -> None:
        """Delete the images of calibrations that the last process did not end."""
        changes = {"state": "failed", "reason": ENDED, "ended": datetime.now(UTC)}
        for out in self._review.outs():
            for kept in kept_in(out):
                if kept.calibration.active:
                    if kept.scratch.name.startswith(OWN):
                        shutil.rmtree(kept.scratch, ignore_errors=True)
                    ended = kept.calibration.model_copy(update=changes)
                    with suppress(OSError):  # it is tried again at the next start
                        keep(out, Kept(calibration=ended, scratch=kept.scratch))


class Work:
    """A calibration in progress."""

    def __init__(self, job: Job, calibration: Calibration, scratch: Path) -> None:
        self.job, self.now, self.scratch = job, calibration, scratch


def _model_of(job: Job) -> str:
    return str(job.description["model"])


def _few(labels: Sequence[Label]) -> str | None:
    """Why the labels are not enough."""
    views = Counter(label.view for label in labels if label.view in VIEWS)
    if views.total() < FEWEST:
        return (
            f"it needs {FEWEST} images that are decided frontal or lateral; "
            f"there are {views.total()}"
        )
    patients = Counter(view for view, _ in {(each.view, each.patient) for each in labels})
    if any(patients[view] < FEWEST_PATIENTS for view in VIEWS):
        given = " and ".join(f"{view} images of {patients[view]}" for view in VIEWS)
        return f"it needs images of either view of {FEWEST_PATIENTS} studies; there are {given}"
    return None


def _usable(labels: Sequence[Label], parent: ModelVersion) -> list[Label]:
    """Without images that are no chest, where the model has no head for them."""
    chest = parent.card.heads.chest is not None
    return [label for label in labels if chest or label.view in VIEWS]


def _write_manifest(work: Work, labels: Sequence[Label]) -> None:
    """Numbers stand for files and patients; the job for the source, as the card names it."""
    patients = dict[str, int]()
    with (work.scratch / MANIFEST).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "view", "patient_id", "source"))
        for each in labels:
            patient = patients.setdefault(each.patient, len(patients))
            row = (each.instance, each.view, patient, f"job {work.job.id[:8]}")
            writer.writerow(row)


def _writable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _reason(error: Exception) -> str:
    """In words, where the error is one that a person can do something about."""
    known = CalibrationError | SourceError | SourceNotAllowedError | OptionsError | StoreError
    told = str(error) if isinstance(error, known | OSError) else ""
    return told or f"the service failed: {type(error).__name__}"

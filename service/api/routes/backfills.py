"""Backfill jobs on whole archives: the endpoints, and the lifespan of their manager."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from model_store import Prediction
from service.api import metrics, openapi
from service.api.auth.permissions import authorise
from service.api.json_body import received_json
from service.api.parameters import check_parameters
from service.api.paths import BACKFILLS
from service.api.problems import CODES, JOB_RESPONSES
from service.api.request_context import context_of
from service.api.routes.backfill_schemas import (
    IMAGE_STATES,
    Backfill,
    Backfills,
    NewBackfill,
    SourceRoot,
    SourceRoots,
    State,
)
from service.api.runtime import Runtime, runtime_of
from service.api.settings import Settings
from service.backfill.ledger.jobs import BackfillsDisabledError
from service.backfill.sources.kinds import kinds_below
from service.inference import Classification, Image

if TYPE_CHECKING:
    from service.backfill.manager import Manager

Responses = dict[int | str, dict[str, Any]]

# Images of a job in flight, in addition to those being decoded and in a batch
AHEAD = 4
# Files in the folder of a job (service/backfill/report, which needs the extra `backfill`)
CERTIFICATE = "certificate.json"
HEADER_AUDIT = "audit/header-audit.csv"
WORKLIST = "audit/worklist.csv"
OF_JOBS = ("duplicate", "crashed")  # codes of images, in addition to those of problems

ASKED: Responses = {status: JOB_RESPONSES[status] for status in (401, 403, 404, 503)}
CHANGED = ASKED | {409: JOB_RESPONSES[409]}
MADE = CHANGED | {status: JOB_RESPONSES[status] for status in (408, 413, 422)}

router = APIRouter(
    prefix=BACKFILLS,
    tags=["backfill"],
    dependencies=[authorise("backfill"), check_parameters],
)


class BackfillExtraError(Exception):
    """Backfill jobs are enabled, but the extra `backfill` is not installed."""


def require_extra(settings: Settings) -> None:
    """Check that the extra `backfill` is installed, if jobs are enabled.

    Raises:
        BackfillExtraError: A package is missing.
    """
    if settings.backfill_folder is not None:
        try:
            import_module("service.backfill.manager")
        except ImportError as error:
            detail = f"CXRVIEW_BACKFILL_FOLDER needs the extra `backfill`: {error}"
            raise BackfillExtraError(detail) from error


@asynccontextmanager
async def open_backfills(settings: Settings, runtime: Runtime) -> AsyncIterator[Manager | None]:
    """Work on jobs until the block ends; None if jobs are not enabled.

    Raises:
        BusyError: Another process uses the folder.
        LedgerError: The ledger cannot be opened.
    """
    if settings.backfill_folder is None:
        _describe(None)
        yield None
        return
    from service.backfill.allowed_sources import AllowedSources
    from service.backfill.manager import Manager

    manager = await asyncio.to_thread(
        Manager,
        settings.backfill_folder,
        settings.backfill_ledger,
        AllowedSources(settings.backfill_sources),
        partial(_submit, runtime),
        runtime.card,
        inside=settings.decode_workers + settings.max_batch_images + AHEAD,
        max_image_bytes=settings.max_upload_bytes,
    )
    manager.start()
    _describe(manager)
    try:
        yield manager
    finally:
        _describe(None)
        await asyncio.to_thread(manager.close)


def _submit(runtime: Runtime, image: Image) -> None:
    metrics.BACKFILL_BYTES.inc(len(image.data or b""))
    image.answer.add_done_callback(partial(_count, runtime, image))
    runtime.pipeline.submit(image)


def _count(runtime: Runtime, image: Image, answer: Future[Prediction]) -> None:
    if answer.cancelled() or answer.exception() is not None or image.radiograph is None:
        return
    found = image.radiograph
    classification = Classification.of(found, answer.result(), runtime.card)
    metrics.count_answer(classification, image.lane, "backfills", found.fallbacks)


def _describe(manager: Manager | None) -> None:
    for state in get_args(State):
        count = partial(manager.watch.count, state) if manager else lambda: 0
        metrics.BACKFILL_JOBS.labels(state).set_function(count)
    for state in IMAGE_STATES:
        images = partial(manager.watch.images, state) if manager else lambda: 0
        metrics.BACKFILL_IMAGES.labels(state).set_function(images)
    for code in (*CODES, *OF_JOBS):
        refused = partial(manager.watch.refused, code) if manager else lambda: 0
        metrics.BACKFILL_REFUSED.labels(code).set_function(refused)


def manager_of(request: Request) -> Manager:
    """The manager of the process's jobs.

    Raises:
        BackfillsDisabledError: Jobs are not enabled.
    """
    if request.app.state.backfills is None:
        raise BackfillsDisabledError("set CXRVIEW_BACKFILL_FOLDER to work on archives")
    return cast("Manager", request.app.state.backfills)


# A forward reference, because the module is loaded only if jobs are enabled
ManagerDep = Annotated["Manager", Depends(manager_of)]
KeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="a second request with the same key gets the same job",
        pattern="^[!-~]{1,128}$",
    ),
]


def _recorded(action: str) -> Any:
    """A dependency that records a request in the audit log first, if the job exists."""

    def record(request: Request, job: str, manager: ManagerDep) -> None:
        context_of(request.scope).asked(action, manager.job(job).job.id)

    return Depends(record)


@router.post(
    "",
    summary="Create a job",
    status_code=202,
    response_model=Backfill,
    responses=MADE,
    openapi_extra=openapi.NEW_BACKFILL,
)
async def create(
    request: Request, response: Response, manager: ManagerDep, key: KeyHeader = None
) -> Backfill:
    """Classify every image of an archive once. Jobs run one at a time, in the order of creation."""
    wanted = await received_json(request, NewBackfill, declared=False)
    context = context_of(request.scope)
    context.asked_for_job(wanted.source)
    shown = await run_in_threadpool(manager.create, key, wanted.model_dump())
    context.asked("created", shown.job.id)
    response.headers["Location"] = f"{BACKFILLS}/{shown.job.id}"
    return Backfill.of(shown)


@router.get("", summary="List jobs", responses=ASKED)
def list_all(manager: ManagerDep) -> Backfills:
    """All jobs, the newest first."""
    return Backfills(backfills=[Backfill.of(shown) for shown in manager.jobs()])


@router.get(
    "/sources",
    summary="List allowed sources",
    responses=ASKED,
    dependencies=[Depends(manager_of)],
)
def sources(request: Request) -> SourceRoots:
    """The folders and addresses below which jobs may read, and the kinds of sources there."""
    roots = runtime_of(request).settings.backfill_sources
    return SourceRoots(
        sources=[SourceRoot(root=each, kinds=list(kinds_below(each))) for each in roots]
    )


@router.get("/{job}", summary="One job", responses=ASKED)
def read(job: str, manager: ManagerDep) -> Backfill:
    """The progress of a job, and the codes of images that were skipped or failed."""
    shown = manager.job(job)
    return Backfill.of(shown, manager.codes(job))


@router.get(
    "/{job}/results",
    summary="Results",
    response_class=StreamingResponse,
    dependencies=[_recorded("results")],
    responses=ASKED | {200: openapi.ROWS_ANSWER},
)
def results(job: str, manager: ManagerDep) -> StreamingResponse:
    """One JSON object a line for each image that has an outcome, also while the job runs.

    Failed images are included when the job is done; until then they may be tried again.
    """
    return StreamingResponse(manager.results(job), media_type="application/x-ndjson")


@router.get(
    "/{job}/certificate",
    summary="Certificate",
    response_class=Response,
    dependencies=[_recorded("certificate")],
    responses=CHANGED | {200: openapi.CERTIFICATE_ANSWER},
)
def certificate(job: str, manager: ManagerDep) -> Response:
    """Whether every image has exactly one outcome; available when the job is done."""
    return Response(manager.report(job, CERTIFICATE).read_bytes(), media_type="application/json")


@router.get(
    "/{job}/header-audit",
    summary="Header audit",
    response_class=FileResponse,
    dependencies=[_recorded("header-audit")],
    responses=CHANGED | {200: openapi.CSV_ANSWER},
)
def header_audit(job: str, manager: ManagerDep) -> FileResponse:
    """Headers that contradict the pixels, by station and month; available when the job is done."""
    return FileResponse(manager.report(job, HEADER_AUDIT), media_type=openapi.CSV)


@router.get(
    "/{job}/worklist",
    summary="Worklist",
    response_class=FileResponse,
    dependencies=[_recorded("worklist")],
    responses=CHANGED | {200: openapi.CSV_ANSWER},
)
def worklist(job: str, manager: ManagerDep) -> FileResponse:
    """Images whose header contradicts the pixels; available when the job is done."""
    return FileResponse(manager.report(job, WORKLIST), media_type=openapi.CSV)


@router.post("/{job}/pause", summary="Pause", dependencies=[_recorded("pause")], responses=CHANGED)
def pause(job: str, manager: ManagerDep) -> Backfill:
    """Finish the images in progress, and stop; `resume` continues with the others."""
    return Backfill.of(manager.pause(job))


@router.post(
    "/{job}/resume", summary="Resume", dependencies=[_recorded("resume")], responses=CHANGED
)
def resume(job: str, manager: ManagerDep) -> Backfill:
    """Continue a job that was paused, or stopped by an error."""
    return Backfill.of(manager.resume(job))


@router.post(
    "/{job}/cancel", summary="Cancel", dependencies=[_recorded("cancel")], responses=CHANGED
)
def cancel(job: str, manager: ManagerDep) -> Backfill:
    """Stop a job for good. Its results so far stay; there is no certificate."""
    return Backfill.of(manager.cancel(job))


@router.post(
    "/{job}/retry-failed",
    summary="Retry failed images",
    dependencies=[_recorded("retry-failed")],
    responses=CHANGED,
)
def retry_failed(job: str, manager: ManagerDep) -> Backfill:
    """Try failed images again, and no others. A running job must be paused first."""
    return Backfill.of(manager.retry_failed(job))

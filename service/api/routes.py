"""The endpoints. Each reads like the path of the image."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request, Response, Security
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from model_store import ModelCard
from service.api import openapi, problems
from service.api.access.gate import Access
from service.api.archives import ArchiveLimits, read_archive
from service.api.forms import boundary_of, read_form
from service.api.limits import Holding
from service.api.ndjson import line_of
from service.api.one_image import classify_one
from service.api.paths import BATCH, CLASSIFY, CLIENTS, MODEL
from service.api.problems import RESPONSES
from service.api.receiving import lapsing, length_of, receive
from service.api.runtime import Runtime
from service.api.schemas import Classification, ClientUsage, Health
from service.api.settings import Settings
from service.api.trail import trail_of
from service.api.uploads import Upload, UploadError
from service.inference import Image, Lane

LOG = logging.getLogger(__name__)
router = APIRouter(lifespan=openapi.for_these_settings)
# Documents how to show one's key; the gate has looked at it by then
KEY = [Security(HTTPBearer(auto_error=False, description="a key from `cxrview key`"))]

LaneQuery = Annotated[
    Lane,
    Query(
        description="`interactive`: somebody waits; refused when it would take too long. "
        "`backfill`: has only the time that the other lane leaves."
    ),
]


def runtime_of(request: Request) -> Runtime:
    """The process's runtime, which the lifespan opened."""
    runtime: Runtime = request.app.state.runtime
    return runtime


def access_of(request: Request) -> Access:
    """Who may come in, and how much they send."""
    access: Access = request.app.state.access
    return access


RuntimeDep = Annotated[Runtime, Depends(runtime_of)]


async def holding_of(request: Request, runtime: RuntimeDep) -> AsyncIterator[Holding]:
    """A batch's bytes in memory; given back after the last byte of the answer."""
    length = length_of(request, runtime.settings.max_batch_body_bytes)
    patience_seconds = runtime.settings.max_receive_idle_seconds
    async with runtime.held.open("backfill", length, patience_seconds) as holding:
        yield holding


HoldingDep = Annotated[Holding, Depends(holding_of)]


@router.post(
    CLASSIFY,
    tags=["classification"],
    summary="One radiograph",
    response_model=Classification,
    responses=RESPONSES,
    openapi_extra=openapi.ONE_FILE,
    dependencies=KEY,
)
async def classify(request: Request, lane: LaneQuery = "interactive") -> Response:
    """Classify one chest radiograph, DICOM, PNG or JPEG, as frontal or lateral.

    The format is recognised by content. A DICOM header is compared with the answer, never used.
    """
    return await classify_one(request, lane)  # the door has answered most of them already


@router.post(
    BATCH,
    tags=["classification"],
    summary="Many radiographs",
    responses=RESPONSES | {200: openapi.NDJSON_ANSWER},
    openapi_extra=openapi.MANY_FILES,
    dependencies=KEY,
    response_class=StreamingResponse,
)
async def classify_batch(
    request: Request, runtime: RuntimeDep, holding: HoldingDep
) -> StreamingResponse:
    """Classify many radiographs: many fields `files`, or one zip or tar as the body.

    Answers NDJSON as results come, one line a file, in no particular order: its `name` and the
    answer, or its `name` and an `error`. A bad file never fails its neighbours. All take the lane
    `backfill`, and wait for room in it.
    """
    with lapsing(holding.settle):
        uploads = await _many_files(request, runtime.settings, holding)
    lines = _lines(uploads, runtime, request)
    return StreamingResponse(lines, media_type="application/x-ndjson")


@router.get(
    MODEL,
    tags=["classification"],
    summary="The model's card",
    responses={status: RESPONSES[status] for status in (401, 503)},
    dependencies=KEY,
)
async def model(runtime: RuntimeDep) -> ModelCard:
    """The card of the model that answers: cutoff, results with confidence intervals, provenance."""
    return runtime.card


@router.get(
    CLIENTS,
    tags=["operation"],
    summary="Who comes",
    responses={status: RESPONSES[status] for status in (401, 403, 503)},
    dependencies=KEY,
)
async def clients(request: Request) -> list[ClientUsage]:
    """Who has a key, as the service has read them, and who else has come; needs `admin`.

    Images are those of this process, since it started.
    """
    access = access_of(request)
    known = {each.name: each for each in access.keys.clients} if access.keys else {}
    names = sorted({*known, *access.rates.seen})
    return [ClientUsage.of(name, known.get(name), access.rates.of(name)) for name in names]


@router.get(
    "/livez",
    tags=["operation"],
    summary="Does it go on by itself?",
    responses={503: {"model": Health, "description": "Only a new process will help"}},
    response_model_exclude_defaults=True,
)
async def livez(runtime: RuntimeDep, response: Response) -> Health:
    """503 when a batch or a decoder has not returned for a minute, or one of their threads ended.

    Never because of load, however heavy, and never in a process that is ending. An image of the
    lane `backfill` has ten minutes, because it may get little of the CPU.
    """
    if not (reasons := runtime.stuck):
        return Health(status="live")
    LOG.error("stuck: %s", "; ".join(reasons))  # the kubelet tells nobody what the body says
    response.status_code = 503
    return Health(status="stuck", reasons=reasons)


@router.get(
    "/readyz",
    tags=["operation"],
    summary="Are images taken?",
    responses={503: {"model": Health, "description": "It starts, stops, or is stuck"}},
    response_model_exclude_defaults=True,
)
async def readyz(runtime: RuntimeDep, response: Response) -> Health:
    """The model has answered its probe, and images are being taken."""
    if runtime.ready:
        return Health(status="ready")
    response.status_code = 503
    return Health(status="not ready", reasons=runtime.stuck)


@router.get(
    "/metrics",
    tags=["operation"],
    summary="Prometheus",
    response_class=Response,
    responses={200: openapi.METRICS_ANSWER},
)
async def prometheus() -> Response:
    """Prometheus metrics; images/s is `rate(cxrview_images_total[1m])`."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


async def _many_files(request: Request, settings: Settings, holding: Holding) -> Iterator[Upload]:
    """The field `files` of a form, or a zip or tar as the raw body."""
    read = partial(
        receive, request, settings.max_batch_body_bytes, settings.max_receive_idle_seconds, holding
    )
    boundary = boundary_of(request.headers.get("content-type", ""))
    if boundary is not None:
        most, largest = settings.max_archive_entries, settings.max_upload_bytes
        return iter(await read_form(read, boundary, "files", most, largest))
    limits = ArchiveLimits(
        settings.max_archive_entries,
        settings.max_upload_bytes,
        settings.max_archive_ratio,
        settings.max_archive_bytes,
    )
    chunks: list[bytes] = []
    await read(chunks.append)
    return read_archive(b"".join(chunks), limits)


async def _lines(
    uploads: Iterator[Upload], runtime: Runtime, request: Request
) -> AsyncIterator[str]:
    """The answers of all uploads, a few of which are on their way at any time."""
    most = runtime.settings.max_batch_images + runtime.settings.decode_workers
    pending: set[asyncio.Task[str]] = set()
    try:
        async for upload in _each(uploads):
            pending.add(asyncio.create_task(_line(upload, runtime, request)))
            if len(pending) >= most:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield task.result()
        for line in asyncio.as_completed(pending):
            yield await line
    finally:
        for task in pending:
            task.cancel()


async def _each(uploads: Iterator[Upload]) -> AsyncIterator[Upload]:
    """Unpack in a thread; an archive that breaks in the middle ends with a line that says so."""
    try:
        while (upload := await to_thread.run_sync(next, uploads, None)) is not None:
            yield upload
    except UploadError as error:
        yield Upload("", error=error)


async def _line(upload: Upload, runtime: Runtime, request: Request) -> str:
    name, trail, access = upload.name, trail_of(request.scope), access_of(request)
    try:
        if upload.error is not None:
            raise upload.error
        await access.rates.wait(trail.client)
        await runtime.admission.wait_for_room("backfill")
        with runtime.admission.place("backfill") as place:
            place.arrived()
            image = Image(upload.data, "backfill")
            del upload  # so that its bytes can go when they are decoded
            answer = await runtime.classify(image, "batch")
            trail.classified(answer)
            return line_of(name, answer)
    except Exception as error:  # noqa: BLE001  # it becomes this file's line, and its neighbours go on
        problems.record(error, trail)
        return line_of(name, error)

"""The endpoint for many radiographs in one request, answered line by line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse

from service.api import openapi, problems
from service.api.auth.access import Access
from service.api.auth.permissions import authorise, check_rate
from service.api.body import lapsing, length_of, receive
from service.api.ndjson import line_of
from service.api.parameters import check_parameters
from service.api.paths import BATCH
from service.api.problems import RESPONSES
from service.api.request_context import context_of
from service.api.runtime import Runtime, runtime_of
from service.api.settings import Settings
from service.inference import Image
from service.uploads.archives import ArchiveLimits, read_archive
from service.uploads.budget import Reservation
from service.uploads.multipart import boundary_of, read_form
from service.uploads.upload import Upload, UploadError

router = APIRouter()


async def reservation_of(request: Request) -> AsyncIterator[Reservation]:
    """The reservation of the batch's bytes; released after the last byte of the answer."""
    runtime = runtime_of(request)
    settings = runtime.settings
    length = length_of(request, settings.max_batch_body_bytes)
    async with runtime.budget.reserve(
        "backfill", length, settings.max_receive_idle_seconds
    ) as reservation:
        yield reservation


@router.post(
    BATCH,
    tags=["classification"],
    summary="Many radiographs",
    responses=RESPONSES | {200: openapi.NDJSON_ANSWER},
    openapi_extra=openapi.MANY_FILES,
    dependencies=[authorise("backfill"), check_parameters, check_rate],
    response_class=StreamingResponse,
)
async def classify_batch(
    request: Request,
    reservation: Annotated[Reservation, Depends(reservation_of)],
) -> StreamingResponse:
    """Classify many radiographs: many fields `files`, or one zip or tar as the body.

    Answers NDJSON, one line for each file as soon as it is done, in any order: its `name` and the
    answer, or its `name` and an `error`. A bad file does not affect the others. All files use the
    lane `backfill`, and wait for a slot in it.
    """
    runtime = runtime_of(request)
    with lapsing(reservation.settle):
        uploads = await _many_files(request, runtime.settings, reservation)
    lines = _lines(uploads, runtime, request)
    return StreamingResponse(lines, media_type="application/x-ndjson")


async def _many_files(
    request: Request, settings: Settings, reservation: Reservation
) -> Iterator[Upload]:
    """The field `files` of a form, or a zip or tar as the raw body."""
    read = partial(receive, request, settings.max_batch_body_bytes, settings, reservation)
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
    """The answers of all uploads; a limited number is in progress at any time."""
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
    """The uploads, unpacked in a thread; a damaged archive ends with an upload with its error."""
    try:
        while (upload := await to_thread.run_sync(next, uploads, None)) is not None:
            yield upload
    except UploadError as error:
        yield Upload("", error=error)


async def _line(upload: Upload, runtime: Runtime, request: Request) -> str:
    access: Access = request.app.state.access
    name, context = upload.name, context_of(request.scope)
    try:
        if upload.error is not None:
            raise upload.error
        await access.rates.wait(context.client)
        await runtime.admission.wait_for_slot("backfill")
        with runtime.admission.slot("backfill") as slot:
            slot.arrived()
            image = Image(upload.data, "backfill")
            del upload  # so that its bytes are freed once they are decoded
            answer = await runtime.classify(image, "batch")
            context.classified(answer)
            return line_of(name, answer)
    except Exception as error:  # noqa: BLE001  # it becomes this file's line; other files go on
        problems.record(error, context)
        return line_of(name, error)

"""The endpoint for one radiograph."""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.api import metrics, openapi
from service.api.auth.permissions import authorise_lane, count_image
from service.api.body import lapsing, length_of, receive, receive_whole
from service.api.parameters import check_parameters
from service.api.paths import CLASSIFY
from service.api.problems import RESPONSES
from service.api.request_context import context_of
from service.api.runtime import runtime_of
from service.api.settings import Settings
from service.inference import Buffer, Classification, Image, Lane
from service.uploads.budget import Reservation
from service.uploads.multipart import boundary_of, read_form
from service.uploads.upload import MalformedMultipartError

router = APIRouter()

LaneQuery = Annotated[
    Lane,
    Query(
        description="`interactive`: a person waits; refused when it would take too long. "
        "`backfill`: uses only the time that the other lane leaves."
    ),
]
ExplainQuery = Annotated[
    bool,
    Query(
        description="add `explanation`: what the network saw, where it found evidence, and the "
        "frame, made small for display"
    ),
]


@router.post(
    CLASSIFY,
    tags=["classification"],
    summary="One radiograph",
    response_model=Classification,
    responses=RESPONSES,
    openapi_extra=openapi.ONE_FILE,
    dependencies=[authorise_lane, check_parameters, count_image],
)
async def classify(
    request: Request, lane: LaneQuery = "interactive", explain: ExplainQuery = False
) -> Response:
    """Classify one chest radiograph as frontal or lateral.

    DICOM, PNG, JPEG, JPEG-LS, JPEG 2000 or TIFF: the format is recognised by content. A DICOM
    header is compared with the answer, never used. A model with a chest head answers `not_chest`
    for other images, and one with heads for the orientation says how the image lies; other models
    answer null there.
    """
    begin, runtime = time.perf_counter(), runtime_of(request)
    settings = runtime.settings
    with runtime.admission.slot(lane) as slot:
        length = length_of(request, settings.max_upload_bytes)
        patience_seconds = (
            settings.latency_budget_seconds
            if lane == "interactive"
            else settings.max_receive_idle_seconds
        )
        async with runtime.budget.reserve(lane, length, patience_seconds) as reservation:
            start = time.perf_counter()
            with lapsing(slot.lapse, reservation.settle):
                data = await _one_file(request, settings, reservation, length)
                image = Image(data, lane, displayed=explain)
                del data  # so that its bytes are freed once they are decoded
            slot.arrived()
            metrics.observe_stage("receive", time.perf_counter() - start)
            answer = await runtime.classify(image, "classify", request)
            context_of(request.scope).classified(answer)
            metrics.observe_answer(lane, time.perf_counter() - begin)
    return Response(answer.model_dump_json(), media_type="application/json")


async def _one_file(
    request: Request, settings: Settings, reservation: Reservation, length: int
) -> Buffer:
    """The raw body, or the field `file` of a form."""
    boundary = boundary_of(request.headers.get("content-type", ""))
    if boundary is not None:
        read = partial(receive, request, settings.max_upload_bytes, settings, reservation)
        uploads = await read_form(read, boundary, "file", 2, settings.max_upload_bytes)
        if len(uploads) != 1:
            raise MalformedMultipartError("one file a request; many go to /v1/classify/batch")
        return uploads[0].data
    if length:
        return await receive_whole(request, length, settings, reservation)
    chunks = bytearray()
    await receive(request, settings.max_upload_bytes, settings, reservation, chunks.extend)
    return chunks

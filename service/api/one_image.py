"""One request, one radiograph: from its body to its answer."""

from __future__ import annotations

import time
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from service.api import metrics
from service.api.forms import boundary_of, read_form
from service.api.limits import Holding
from service.api.receiving import lapsing, length_of, receive, receive_whole
from service.api.runtime import Runtime
from service.api.settings import Settings
from service.api.trail import trail_of
from service.api.uploads import MalformedMultipartError
from service.inference import Buffer, Image, Lane


async def classify_one(request: Request, lane: Lane) -> Response:
    """Receive, classify, answer.

    Raises:
        QueueFullError, BodyError, UploadError, ImageError, BatcherClosedError: As problems.py
            shows them.
    """
    begin = time.perf_counter()
    runtime: Runtime = request.app.state.runtime
    settings = runtime.settings
    with runtime.admission.place(lane) as place:
        length = length_of(request, settings.max_upload_bytes)
        async with runtime.held.open(lane, length, settings.latency_budget_seconds) as holding:
            start = time.perf_counter()
            with lapsing(place.lapse, holding.settle):
                image = Image(await _one_file(request, settings, holding, length), lane)
            place.arrived()
            metrics.observe_stage("receive", time.perf_counter() - start)
            answer = await runtime.classify(image, "classify", request)
            trail_of(request.scope).classified(answer)
            metrics.observe_answer(lane, time.perf_counter() - begin)
    return Response(answer.model_dump_json(), media_type="application/json")


async def _one_file(request: Request, settings: Settings, holding: Holding, length: int) -> Buffer:
    """The raw body, or the field `file` of a form."""
    read = partial(
        receive, request, settings.max_upload_bytes, settings.max_receive_idle_seconds, holding
    )
    boundary = boundary_of(request.headers.get("content-type", ""))
    if boundary is not None:
        uploads = await read_form(read, boundary, "file", 2, settings.max_upload_bytes)
        if len(uploads) != 1:
            raise MalformedMultipartError("one file a request; many go to /v1/classify/batch")
        return uploads[0].data
    if length:
        return await receive_whole(request, length, settings.max_receive_idle_seconds, holding)
    chunks = bytearray()
    await read(chunks.extend)
    return chunks

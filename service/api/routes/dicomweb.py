"""DICOMweb: the endpoints of the Store transaction, STOW-RS (DICOM PS3.18 10.5)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from service.api import openapi, problems
from service.api.admission import QueueFullError
from service.api.auth.access import Access
from service.api.auth.permissions import authorise, check_rate
from service.api.body import chunks_of, lapsing, length_of
from service.api.dicom import Exchange
from service.api.middleware.unforeseen_errors import where
from service.api.parameters import check_parameters
from service.api.paths import STUDIES
from service.api.problems import STORE_RESPONSES
from service.api.request_context import context_of
from service.api.routes.classify import LaneQuery
from service.api.runtime import runtime_of
from service.dicom.entries import DeliveriesDisabledError
from service.dicom.instance import SourceInstance
from service.dicom.related import (
    DICOM,
    OnePart,
    Parser,
    Part,
    RelatedParser,
    boundary_of_related,
)
from service.dicom.stow import (
    OUT_OF_RESOURCES,
    OtherStudyError,
    Outcome,
    StudyUidError,
    answer_type,
    encode,
    reason_of,
    response_of,
    status_of,
)
from service.imaging import valid_uid
from service.inference import Lane, let_go
from service.uploads.budget import Reservation
from service.uploads.upload import EntryTooLargeError, MediaTypeError

if TYPE_CHECKING:
    from service.dicom.intake import Accepted, Intake

# Sending an object again later may help
TEMPORARY = (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS)

LOG = logging.getLogger(__name__)

router = APIRouter(
    prefix=STUDIES,
    tags=["dicomweb"],
    dependencies=[authorise("classify"), check_parameters, check_rate],
)


def intake_of(request: Request) -> Intake:
    """The intake of the process.

    Raises:
        DeliveriesDisabledError: No destinations are configured.
    """
    exchange: Exchange | None = request.app.state.exchange
    if exchange is None:
        raise DeliveriesDisabledError("set CXRVIEW_DESTINATIONS to accept DICOM objects")
    return exchange.intake


@router.post(
    "",
    summary="Store objects",
    response_class=Response,
    responses=STORE_RESPONSES,
    openapi_extra=openapi.OBJECTS,
)
async def store(request: Request, lane: LaneQuery = "backfill") -> Response:
    """Classify DICOM objects, and deliver the results to the destinations.

    The answer comes when the results of all objects are committed to the outbox, so they survive a
    crash; nothing else is stored. It lists each object in Referenced SOP Sequence (0008,1199), or
    in Failed SOP Sequence (0008,1198) with Failure Reason (0008,1197). An object that is sent again
    has the same result, once.
    """
    return await _store(request, lane, None)


@router.post(
    "/{study}",
    summary="Store objects of one study",
    response_class=Response,
    responses=STORE_RESPONSES,
    openapi_extra=openapi.OBJECTS,
)
async def store_in_study(request: Request, study: str, lane: LaneQuery = "backfill") -> Response:
    """Like `/dicom-web/studies`; objects of other studies fail."""
    if valid_uid(study) is None:
        raise StudyUidError("the path does not end in a Study Instance UID")
    return await _store(request, lane, study)


async def _store(request: Request, lane: Lane, study: str | None) -> Response:
    intake, runtime = intake_of(request), runtime_of(request)
    settings = runtime.settings
    answer = answer_type(",".join(request.headers.getlist("accept")))
    boundary = _boundary_of(request)
    most = settings.max_upload_bytes if boundary is None else settings.max_batch_body_bytes
    length = length_of(request, most)
    async with runtime.budget.reserve(
        lane, min(length, settings.max_upload_bytes), settings.max_receive_idle_seconds
    ) as reservation:
        storing = Storing(request, intake, lane, study, reservation)
        parser = OnePart() if boundary is None else _parser_of(boundary, request)
        outcomes = await storing.store(chunks_of(request, most, settings), parser)
    status = status_of(outcomes)
    headers = {}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(runtime.admission.retry_after_seconds(lane))
    return Response(encode(response_of(outcomes), answer), status, headers, answer)


def _boundary_of(request: Request) -> bytes | None:
    if (coding := request.headers.get("content-encoding", "identity")).lower() != "identity":
        raise MediaTypeError(f"Content-Encoding is not supported ({len(coding)} characters)")
    return boundary_of_related(request.headers.get("content-type", ""))


def _parser_of(boundary: bytes, request: Request) -> Parser:
    settings = runtime_of(request).settings
    return RelatedParser(boundary, settings.max_archive_entries, settings.max_upload_bytes)


class Storing:
    """Stores the objects of one request while it arrives, a limited number at once.

    The rest of the body stays with the client while the byte budget is full.

    Args:
        request: Its body is read by the caller.
        intake: Of the process.
        lane: Of all objects.
        study: Their Study Instance UID; None: any.
        reservation: Of the bytes in memory.
    """

    def __init__(
        self,
        request: Request,
        intake: Intake,
        lane: Lane,
        study: str | None,
        reservation: Reservation,
    ) -> None:
        self._context = context_of(request.scope)
        self._access: Access = request.app.state.access
        self._runtime = runtime_of(request)
        self._intake = intake
        self._lane: Lane = lane
        self._study = study
        self._reservation = reservation
        settings = self._runtime.settings
        self._most = settings.max_batch_images + settings.decode_workers
        self._tasks: list[asyncio.Task[Outcome]] = []
        self._pending: set[asyncio.Task[Outcome]] = set()
        self._working: set[asyncio.Task[Any]] = set()  # those that have a slot, or ask for one

    async def store(self, chunks: AsyncIterator[bytes], parser: Parser) -> list[Outcome]:
        """Store the parts of a body; returns what became of each, in their order.

        Raises:
            MalformedMultipartError, TooManyEntriesError: See `RelatedParser`. Objects before the
                damage may be stored; they have the same results when they are sent again.
            BodyError, ServiceFullError: The body was not received.
        """
        try:
            with lapsing(self._reservation.settle):
                async for chunk in chunks:
                    await self._reserve(len(chunk))
                    for part in self._feed(parser, chunk):
                        await self._begin(part)
            for part in parser.close():
                await self._begin(part)
            return await asyncio.gather(*self._tasks)
        finally:
            for task in self._pending:
                task.cancel()
            await asyncio.gather(*self._pending, return_exceptions=True)

    async def _reserve(self, count: int) -> None:
        """Reserve bytes for a chunk: wait for objects of this request before those of others."""
        while not self._reservation.add_if_free(count):
            if not self._pending:
                await self._reservation.add_in_turn(count)
                return
            await self._one_done()

    def _feed(self, parser: Parser, chunk: bytes) -> list[Part]:
        before = parser.held_bytes + len(chunk)
        parts = parser.feed(chunk)
        kept = parser.held_bytes + sum(len(part.data) for part in parts)
        self._reservation.free(before - kept)
        return parts

    async def _begin(self, part: Part) -> None:
        if len(self._pending) >= self._most:
            await self._one_done()
        task = asyncio.create_task(self._outcome(part))
        self._tasks.append(task)
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _one_done(self) -> None:
        await asyncio.wait(self._pending, return_when=asyncio.FIRST_COMPLETED)

    async def _outcome(self, part: Part) -> Outcome:
        """Store one object."""
        found: list[SourceInstance] = []  # one, if its header can be read
        size = len(part.data)

        def check(source: SourceInstance) -> None:
            found.append(source)
            if self._study not in (None, source.study_instance_uid):
                raise OtherStudyError("the object belongs to another study")

        try:
            _check_part(part, self._runtime.settings.max_upload_bytes)
            await self._access.rates.wait(self._context.client)
            accepted = await self._accept(part, check)
            self._context.classified(accepted.classification)
            return Outcome(accepted.source)
        except Exception as error:  # noqa: BLE001  # it becomes this object's outcome
            return Outcome(found[0] if found else None, self._failed(error))
        finally:
            part.data = bytearray()
            self._reservation.free(size)

    async def _accept(self, part: Part, check: Callable[[SourceInstance], None]) -> Accepted:
        """Accept one object, once its lane has a slot.

        In the lane `backfill` it waits for any image; in the other one for those of this request
        only, so that they do not make it fail.
        """
        task = asyncio.current_task()
        assert task is not None
        while True:
            await self._slot()
            self._working.add(task)
            try:
                return await self._intake.accept(part.data, self._lane, check)
            except QueueFullError:  # another image took it meanwhile
                if self._lane == "interactive" and len(self._working) == 1:
                    raise
            finally:
                self._working.discard(task)

    async def _slot(self) -> None:
        admission = self._runtime.admission
        if self._lane == "backfill":
            await admission.wait_for_slot(self._lane)
        while self._working and admission.refuses(self._lane):
            await asyncio.wait(self._working, return_when=asyncio.FIRST_COMPLETED)

    def _failed(self, error: Exception) -> int:
        """Record an error; returns its Failure Reason (0008,1197)."""
        problems.record(error, self._context)
        kind = problems.kind_of(error)
        if not kind.foreseen:
            LOG.error("request %s: %s", self._context.request_id, where(error))
        let_go(error)  # otherwise its frames keep the object in memory until garbage collection
        return OUT_OF_RESOURCES if kind.status in TEMPORARY else reason_of(error)


def _check_part(part: Part, most: int) -> None:
    if part.media_type not in (b"", DICOM):
        raise MediaTypeError("a part that is not application/dicom")
    if part.too_large:
        raise EntryTooLargeError(f"the object exceeds {most} bytes")

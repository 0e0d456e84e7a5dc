"""The table of errors and their RFC 9457 problems. A published `code` keeps its meaning."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.types import Scope

from service.api import metrics, openapi
from service.api import request_errors as requests
from service.api.admission import QueueFullError
from service.api.audit import AuditError
from service.api.auth import clients
from service.api.auth.rates import RateLimitedError
from service.api.paths import template_of
from service.api.request_context import RequestContext, context_of
from service.backfill.allowed_sources import SourceNotAllowedError
from service.backfill.ledger import jobs, readings
from service.backfill.results.rows import SourceError
from service.backfill.review.originals import PictureError
from service.backfill.sources.options import OptionsError
from service.dicom import stow
from service.dicom.entries import (
    DeliveriesDisabledError,
    DeliveryStateError,
    OutboxAwayError,
    UnknownDeliveryError,
)
from service.dicom.instance import InstanceError
from service.imaging import errors as imaging
from service.inference import BatcherClosedError, let_go
from service.uploads import upload as uploads
from service.uploads.budget import ServiceFullError

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:cxrview:problem:"


class Problem(BaseModel):
    """A problem of RFC 9457. `code` is stable and documented; `detail` is for people."""

    model_config = ConfigDict(frozen=True)

    type: str
    title: str
    status: int
    detail: str
    code: str


class Kind(NamedTuple):
    """The code, status and title of one class of errors."""

    code: str
    status: HTTPStatus
    title: str

    @property
    def foreseen(self) -> bool:
        """Whether the error's own text is shown to the client."""
        return self.status != HTTPStatus.INTERNAL_SERVER_ERROR


BAD = HTTPStatus.BAD_REQUEST
TOO_LARGE = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
UNSUPPORTED = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
UNAUTHORISED = HTTPStatus.UNAUTHORIZED
UNPROCESSABLE = HTTPStatus.UNPROCESSABLE_ENTITY
UNAVAILABLE = HTTPStatus.SERVICE_UNAVAILABLE


def _kinds(*rows: tuple[type[Exception], HTTPStatus, str]) -> dict[type[Exception], Kind]:
    """Each error's own code, its status and its title."""
    return {error: Kind(error.code, status, title) for error, status, title in rows}  # type: ignore[attr-defined]


KINDS: dict[type[Exception], Kind] = {
    **_kinds(
        (imaging.EmptyImageError, BAD, "Empty file"),
        (imaging.UnrecognisedFormatError, UNSUPPORTED, "Not an image"),
        (imaging.CorruptImageError, UNPROCESSABLE, "Damaged image"),
        (imaging.DecoderFailedError, UNPROCESSABLE, "Decoder failed"),
        (imaging.NoPixelDataError, UNPROCESSABLE, "No Pixel Data"),
        (imaging.ImageTooSmallError, UNPROCESSABLE, "Too few pixels"),
        (imaging.ImageTooLargeError, UNPROCESSABLE, "Too many pixels"),
        (imaging.BlankImageError, UNPROCESSABLE, "Blank image"),
        (imaging.UnsupportedSopClassError, UNSUPPORTED, "SOP class not accepted"),
        (imaging.UnsupportedTransferSyntaxError, UNSUPPORTED, "Unsupported transfer syntax"),
        (imaging.UnsupportedPixelFormatError, UNSUPPORTED, "Unsupported pixel format"),
        (imaging.ColourImageError, UNSUPPORTED, "Colour image"),
        (imaging.MultiFrameError, UNSUPPORTED, "More than one frame"),
        (clients.NotAuthenticatedError, UNAUTHORISED, "Authentication required"),
        (clients.NotPermittedError, HTTPStatus.FORBIDDEN, "Not permitted"),
        (clients.IssuerUnreachableError, UNAVAILABLE, "Identity provider unreachable"),
        (RateLimitedError, HTTPStatus.TOO_MANY_REQUESTS, "Too many images"),
        (AuditError, UNAVAILABLE, "Answer cannot be recorded"),
        (
            requests.HeadTooLargeError,
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            "Request head too large",
        ),
        (requests.AmbiguousLengthError, BAD, "Conflicting body lengths"),
        (requests.BodyLengthError, BAD, "Body length mismatch"),
        (requests.BodyTooLargeError, TOO_LARGE, "Body too large"),
        (requests.BodyTimeoutError, HTTPStatus.REQUEST_TIMEOUT, "Body timeout"),
        (requests.ClientGoneError, HTTPStatus.REQUEST_TIMEOUT, "Client disconnected"),
        (ServiceFullError, UNAVAILABLE, "Too many uploads at once"),
        (uploads.MalformedMultipartError, BAD, "Malformed multipart body"),
        (uploads.UnknownArchiveError, UNSUPPORTED, "Neither zip nor tar"),
        (uploads.CorruptArchiveError, UNPROCESSABLE, "Damaged archive"),
        (uploads.TooManyEntriesError, TOO_LARGE, "Too many files"),
        (uploads.ArchiveTooLargeError, TOO_LARGE, "Archive too large"),
        (uploads.EntryTooLargeError, TOO_LARGE, "File too large"),
        (uploads.EntryRatioError, UNPROCESSABLE, "Compression ratio too high"),
        (uploads.EntryNameError, UNPROCESSABLE, "Unsafe file name"),
        (uploads.NestedArchiveError, UNSUPPORTED, "Archive within an archive"),
        (uploads.EntryKindError, UNSUPPORTED, "Not a regular file"),
        (uploads.UnreadableFileError, UNPROCESSABLE, "File cannot be read"),
        (OutboxAwayError, UNAVAILABLE, "Outbox cannot be used"),
        (QueueFullError, UNAVAILABLE, "Queue full"),
        (BatcherClosedError, UNAVAILABLE, "Service stopping"),
    ),
    # Errors without a `code` attribute
    RequestValidationError: Kind("invalid_request", UNPROCESSABLE, "Invalid request"),
    Exception: Kind("internal_error", HTTPStatus.INTERNAL_SERVER_ERROR, "Internal error"),
}
# These close the connection: a next request could not be told from the rest of the body
CLOSING = (
    requests.HeadError,
    requests.BodyTimeoutError,
    requests.BodyLengthError,
)
# Errors about jobs, which do not count as refused images
JOB_KINDS = _kinds(
    (jobs.BackfillsDisabledError, HTTPStatus.NOT_FOUND, "Backfill jobs are off"),
    (jobs.UnknownJobError, HTTPStatus.NOT_FOUND, "No such job"),
    (SourceNotAllowedError, HTTPStatus.FORBIDDEN, "Source not allowed"),
    (OptionsError, UNPROCESSABLE, "Source cannot be opened"),
    (SourceError, UNPROCESSABLE, "Source cannot be opened"),
    (jobs.JobConflictError, HTTPStatus.CONFLICT, "Job key already in use"),
    (jobs.LedgerAwayError, UNAVAILABLE, "Ledger cannot be used"),
    (jobs.JobStateError, HTTPStatus.CONFLICT, "Not possible in this job state"),
)
# Errors of reviews, which do not count as refused images
REVIEW_KINDS = _kinds(
    (readings.UnknownInstanceError, HTTPStatus.NOT_FOUND, "No such image on the worklist"),
    (readings.ReviewStateError, HTTPStatus.CONFLICT, "Not possible in this state of the review"),
    (PictureError, HTTPStatus.GONE, "Picture cannot be shown"),
)
# Errors of received DICOM objects
OBJECT_KINDS = _kinds(
    (uploads.MediaTypeError, UNSUPPORTED, "Media type not accepted"),
    (InstanceError, UNPROCESSABLE, "Not a DICOM object"),
    (stow.OtherStudyError, HTTPStatus.CONFLICT, "Object of another study"),
)
COUNTED_KINDS = KINDS | OBJECT_KINDS  # as refused images
# Errors of DICOMweb requests before their objects, which do not count as refused images
STORE_KINDS = _kinds(
    (DeliveriesDisabledError, HTTPStatus.NOT_FOUND, "No destinations"),
    (stow.NotAcceptableError, HTTPStatus.NOT_ACCEPTABLE, "Media type cannot be answered"),
    (stow.StudyUidError, BAD, "Not a Study Instance UID"),
)
# Errors about deliveries
DELIVERY_KINDS = _kinds(
    (DeliveriesDisabledError, HTTPStatus.NOT_FOUND, "No destinations"),
    (UnknownDeliveryError, HTTPStatus.NOT_FOUND, "No such delivery"),
    (DeliveryStateError, HTTPStatus.CONFLICT, "Not possible in this delivery state"),
)
REQUEST_KINDS = JOB_KINDS | REVIEW_KINDS | STORE_KINDS | DELIVERY_KINDS
ALL_KINDS = COUNTED_KINDS | REQUEST_KINDS
HTTP_KINDS = {
    HTTPStatus.NOT_FOUND: Kind("not_found", HTTPStatus.NOT_FOUND, "No such resource"),
    HTTPStatus.METHOD_NOT_ALLOWED: Kind(
        "method_not_allowed", HTTPStatus.METHOD_NOT_ALLOWED, "Method not allowed"
    ),
}
CODES = tuple(dict.fromkeys(kind.code for kind in (*ALL_KINDS.values(), *HTTP_KINDS.values())))
for _kind in COUNTED_KINDS.values():  # start at 0, so that alerts see the first one as an increase
    metrics.REFUSED.labels(_kind.code)


def _responses(kinds: Iterable[Kind]) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI responses for these kinds, by status."""
    codes: dict[int, list[str]] = {}
    for kind in dict.fromkeys(kinds):
        codes.setdefault(kind.status.value, []).append(f"`{kind.code}`")
    return {
        status: {
            "description": f"Problem: {', '.join(codes[status])}",
            "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}},
        }
        for status in sorted(codes)
    }


RESPONSES = _responses(KINDS.values())
JOB_RESPONSES = _responses((*KINDS.values(), *JOB_KINDS.values()))
REVIEW_RESPONSES = _responses((*KINDS.values(), *JOB_KINDS.values(), *REVIEW_KINDS.values()))
DELIVERY_RESPONSES = _responses(
    (
        *(
            KINDS[each]
            for each in (
                *(clients.NotAuthenticatedError, clients.NotPermittedError, AuditError),
                *(clients.IssuerUnreachableError, RequestValidationError, OutboxAwayError),
            )
        ),
        *DELIVERY_KINDS.values(),
    )
)
STORE_RESPONSES = openapi.with_stow_answers(
    _responses((*COUNTED_KINDS.values(), *STORE_KINDS.values()))
)


def kind_of(error: Exception) -> Kind:
    """The row of the nearest class; `internal_error` for any unforeseen error."""
    return next(ALL_KINDS[cls] for cls in type(error).__mro__ if cls in ALL_KINDS)


def problem_of(error: Exception) -> Problem:
    """The problem object of one error. Details of unforeseen errors stay inside."""
    kind = kind_of(error)
    detail = _detail_of(error) if kind.foreseen else "the service failed; its log says how"
    return _problem(kind, detail)


def _detail_of(error: Exception) -> str:
    """Text for people. For an invalid parameter: its name and the rule, each once; no values."""
    if isinstance(error, RequestValidationError):
        return "; ".join({f"{found['loc'][-1]}: {found['msg']}": "" for found in error.errors()})
    return str(error)


def _problem(kind: Kind, detail: str) -> Problem:
    return Problem(
        type=TYPE_PREFIX + kind.code,
        title=kind.title,
        status=kind.status,
        detail=detail,
        code=kind.code,
    )


def _response(problem: Problem, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(problem.model_dump(), problem.status, headers, media_type=MEDIA_TYPE)


def answer_to(error: Exception, scope: Scope) -> JSONResponse:
    """Record one error of a request, and return its response."""
    record(error, context_of(scope))
    return response_to(error)


def not_found() -> JSONResponse:
    """The response for an unknown path."""
    return _response(_problem(HTTP_KINDS[HTTPStatus.NOT_FOUND], HTTPStatus.NOT_FOUND.phrase))


def record(error: Exception, context: RequestContext) -> None:
    """Count one refused image, and record its problem in the request's context."""
    kind = kind_of(error)
    metrics.REFUSED.labels(kind.code).inc()
    context.failed(kind.code, kind.status)


def response_to(error: Exception) -> JSONResponse:
    """The response to one error."""
    headers = {}
    if (seconds := getattr(error, "retry_after_seconds", None)) is not None:
        headers["Retry-After"] = str(seconds)
    if isinstance(error, clients.NotAuthenticatedError | clients.NotPermittedError):
        headers["WWW-Authenticate"] = error.challenge
    if isinstance(error, CLOSING):
        headers["Connection"] = "close"
    return _response(problem_of(error), headers)


async def _answer_error(request: Request, error: Exception) -> JSONResponse:
    response = answer_to(error, request.scope)
    let_go(error)  # otherwise its frames keep the file in memory until garbage collection
    return response


async def _answer_request_error(request: Request, error: Exception) -> JSONResponse:
    context_of(request.scope).code = kind_of(error).code
    return response_to(error)


async def _answer_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    kind = HTTP_KINDS.get(status, Kind("invalid_request", status, status.phrase))
    context_of(request.scope).code = kind.code
    headers = dict(error.headers or {})
    if status == HTTPStatus.METHOD_NOT_ALLOWED and (methods := _methods_of(request)):
        headers["Allow"] = ", ".join(methods)
    return _response(_problem(kind, str(error.detail)), headers)


def _methods_of(request: Request) -> list[str]:
    """All methods of a path; the framework names only those of the first matching route."""
    described = request.app.openapi()["paths"]
    return sorted(map(str.upper, described.get(template_of(request.scope["path"], described), {})))


def install(app: FastAPI) -> None:
    """Make `app` answer every error with a problem."""
    for cls in COUNTED_KINDS.keys() - {Exception}:  # the middleware answers what no handler expects
        app.add_exception_handler(cls, _answer_error)
    for cls in REQUEST_KINDS:
        app.add_exception_handler(cls, _answer_request_error)
    app.add_exception_handler(HTTPException, _answer_http_error)

"""Read the answers of a service; what is none becomes a ServiceError."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from http import HTTPStatus

import httpx2
from pydantic import ValidationError

from cxrview.results import Result
from service.inference import Classification

# Statuses of a full or stopping service, or of a client above its rate; all have Retry-After
AGAIN = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
SHOWN_BYTES = 80  # of an answer that is none, in an error's text


class ServiceError(Exception):
    """The service refuses an image, or a request.

    Args:
        code: A stable code of docs/problems.md; "unreachable" without an answer; "not_the_service"
            for an error, and "invalid_answer" for an answer, that this client does not understand.
        detail: Text for people.
        status: The HTTP status; None without an answer.
    """

    def __init__(self, code: str, detail: str, status: int | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.status = status


class BusyError(Exception):
    """The service asks the client to retry later."""

    def __init__(self, refusal: ServiceError, seconds: float | None) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal
        self.seconds = seconds


def read_classification(response: httpx2.Response) -> Classification:
    """The answer for one image.

    Raises:
        BusyError: The service asks to retry later.
        ServiceError: It refuses the image, or this is no answer of it.
    """
    if response.status_code == HTTPStatus.OK:
        try:
            return Classification.model_validate_json(response.content)
        except ValidationError as error:
            kind = response.headers.get("content-type", "unknown type")
            raise _invalid(response.content, f"{kind}: {_reason_of(error)}") from None
    refusal = refusal_of(response)
    if response.status_code in AGAIN:
        after = response.headers.get("retry-after", "")
        raise BusyError(refusal, float(after) if after.isdecimal() else None)
    raise refusal


def refusal_of(response: httpx2.Response) -> ServiceError:
    """The error that a response with another status than 200 stands for."""
    status = response.status_code
    try:
        problem = response.json()
        return ServiceError(str(problem["code"]), str(problem["detail"]), status)
    except (ValueError, KeyError, TypeError, RecursionError):  # e.g. the error page of a proxy
        return ServiceError("not_the_service", f"HTTP {status}, and no problem of cxrview", status)


def unreachable(error: httpx2.RequestError) -> ServiceError:
    """The error of a request without an answer, or with a part of one."""
    return ServiceError("unreachable", f"the service cannot be reached: {error}")


def _invalid(content: bytes, reason: str) -> ServiceError:
    """The error of an answer with status 200 that this client does not understand."""
    shown = repr(content[:SHOWN_BYTES])[1:] if content else "nothing"
    detail = f"no answer that this client understands ({reason}): {len(content)} bytes, {shown}"
    return ServiceError("invalid_answer", detail, HTTPStatus.OK)


def _reason_of(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))} {first['msg']}".strip()


def lines_of(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines that end with a line feed alone: other separators of Unicode may stand in a name."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from filter(None, lines)
    if rest:
        yield rest


def read_result(line: bytes) -> Result:
    """The result of one line; a line that is none has an error."""
    name = ""
    try:
        found = json.loads(line)
        name = str(found.pop("name"))
        if (problem := found.get("error")) is None:
            return Result(name, Classification.model_validate(found))
        error = ServiceError(str(problem["code"]), str(problem["detail"]), problem["status"])
    except ValidationError as invalid:
        error = _invalid(line, _reason_of(invalid))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        error = _invalid(line, "no line of a batch")
    return Result(name, error=error)

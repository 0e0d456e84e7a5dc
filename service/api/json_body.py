"""Small JSON bodies, validated."""

from __future__ import annotations

from typing import TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from service.api.body import length_of, receive
from service.api.runtime import runtime_of

MAX_BODY_BYTES = 64 * 2**10
JSON = "application/json"

AnyModel = TypeVar("AnyModel", bound=BaseModel)


async def received_json(request: Request, kind: type[AnyModel], *, declared: bool) -> AnyModel:
    """The body of a request as a model.

    Args:
        request: Its body was not read yet.
        kind: The model.
        declared: Refuse a body whose Content-Type is not JSON. A page of another origin cannot send
            one that is, so it cannot act where the service asks for no key.

    Raises:
        RequestValidationError: It is not one.
        BodyTooLargeError, BodyTimeoutError, BodyLengthError, ServiceFullError, ClientGoneError:
            See `receive`.
    """
    if declared and not request.headers.get("content-type", "").startswith(JSON):
        problem = {"type": "media_type", "loc": ("content-type",), "msg": f"{JSON} is expected"}
        raise RequestValidationError([problem])
    runtime, chunks = runtime_of(request), list[bytes]()
    settings, length = runtime.settings, length_of(request, MAX_BODY_BYTES)
    async with runtime.budget.reserve(
        "interactive", length, settings.max_receive_idle_seconds
    ) as reservation:
        await receive(request, MAX_BODY_BYTES, settings, reservation, chunks.append)
    try:
        return kind.model_validate_json(b"".join(chunks))
    except ValidationError as error:
        found = [each | {"loc": each["loc"] or ("body",)} for each in error.errors()]
        raise RequestValidationError(found) from error

"""Answer unforeseen errors with a problem without details, and log them without PHI."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from traceback import format_tb

from starlette.types import Receive, Scope, Send

from service.api import problems
from service.api.middleware.http import HttpMiddleware
from service.api.request_context import context_of
from service.inference import BatcherClosedError

LOG = logging.getLogger(__name__)


class UnforeseenErrors(HttpMiddleware):
    """ASGI middleware: answers 500 after an unforeseen error."""

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        try:
            await self.app(scope, receive, send)
        except asyncio.CancelledError:  # at the end of the process
            if not context_of(scope).status:
                error = BatcherClosedError("the service is stopping")
                # Once more, if the rest of a body is still awaited before the answer
                with suppress(asyncio.CancelledError):
                    await problems.answer_to(error, scope)(scope, receive, send)
        except Exception as error:  # noqa: BLE001  # logged here; the client gets a problem
            context = context_of(scope)
            LOG.error("request %s: %s", context.request_id, where(error))  # noqa: TRY400
            if not context.status:  # otherwise the answer has begun, and breaks off
                await problems.answer_to(error, scope)(scope, receive, send)


def where(error: Exception) -> str:
    """An error's type and traceback, without its message, which may quote a patient's file."""
    return "".join([type(error).__name__, "\n", *format_tb(error.__traceback__)])

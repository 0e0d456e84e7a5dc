"""HTTP requests to an archive, within its limits and with a time-out for each wait.

Uses `httpx2`: threads may share its client, it has a time-out for each phase, and it is typed.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import NamedTuple

import httpx2

from service.backfill.results.rows import SourceError
from service.backfill.sources.request_throttle import RequestThrottle
from service.backfill.sources.retry_after import seconds_until
from service.backfill.sources.retrying import TransientError

RETRIED = frozenset({429, *range(500, 600)}) - {501, 505}
logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs URLs, which hold UIDs


class TooLargeError(Exception):
    """The answer has more bytes than the limit."""


class Reply(NamedTuple):
    """The answer to one request."""

    status: int
    content_type: str
    body: bytes


class Web:
    """GET requests below one address.

    Args:
        address: The base URL, without a slash at its end.
        timeout_seconds: To connect, and between any two chunks of an answer.
        throttle: Decides when each request begins.
    """

    def __init__(self, address: str, timeout_seconds: float, throttle: RequestThrottle) -> None:
        self._address = address
        self._throttle = throttle
        self._client = httpx2.Client(
            timeout=httpx2.Timeout(timeout_seconds, pool=None),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=64),
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, path: str, accept: str, most_bytes: int) -> Reply:
        """The answer, with any status that a retry would not change.

        Raises:
            TransientError: 5xx, 429, a time-out, or a connection that failed.
            TooLargeError: More than `most_bytes`, and a little for the multipart headers.
            SourceError: The client is closed, or the token's file cannot be read.
        """
        # gzip of an image takes a PACS a tenth of a second, and saves few bytes
        headers = {"Accept": accept, "Accept-Encoding": "identity"} | authorization()
        with self._throttle.passing():
            try:
                with self._client.stream(
                    "GET", f"{self._address}/{path}", headers=headers
                ) as response:
                    if response.status_code in RETRIED:
                        raise self._later(response)
                    body = _read(response, most_bytes + 4096)
            except httpx2.RequestError as error:  # its text holds the address
                detail = f"the archive does not answer ({type(error).__name__})"
                raise TransientError(detail) from error
            except RuntimeError as error:
                raise SourceError("the source is closed") from error
        return Reply(response.status_code, response.headers.get("content-type", ""), body)

    def _later(self, response: httpx2.Response) -> TransientError:
        after = seconds_until(response.headers.get("retry-after", ""))
        if after is not None:
            self._throttle.pause(after)
        return TransientError(f"the archive answers {response.status_code}", after)


def _read(response: httpx2.Response, most_bytes: int) -> bytes:
    pieces, size = [], 0
    for piece in response.iter_bytes():
        pieces.append(piece)
        size += len(piece)
        if size > most_bytes:
            raise TooLargeError
    return b"".join(pieces)


def authorization() -> dict[str, str]:
    """The header that signs in to the archive, from CXRVIEW_DICOMWEB_*; empty without them.

    Raises:
        SourceError: The token's file cannot be read.
    """
    variables = os.environ
    token = variables.get("CXRVIEW_DICOMWEB_TOKEN")
    if file := variables.get("CXRVIEW_DICOMWEB_TOKEN_FILE"):
        try:
            token = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError("the file CXRVIEW_DICOMWEB_TOKEN_FILE cannot be read") from error
    if token:
        return {"Authorization": f"Bearer {token}"}
    if (user := variables.get("CXRVIEW_DICOMWEB_USER")) is not None:
        return _basic(user, variables.get("CXRVIEW_DICOMWEB_PASSWORD", ""))
    return {}


def _basic(user: str, password: str) -> dict[str, str]:
    from base64 import b64encode

    pair = b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}

"""HTTP requests to a destination: credentials, TLS, time limits, and what its status means."""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

import httpx2

from service.backfill.sources.retry_after import seconds_until
from service.dicom.destinations import HttpDestination
from service.dicom.senders.client_tls import client_tls, tls_state
from service.dicom.senders.connection import ANSWER_BYTES
from service.dicom.senders.sender import RejectedError, RetryableError

LATER = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
ASKS = LATER | {HTTPStatus.SERVICE_UNAVAILABLE}
# About the URL or the credentials, whatever the result is: true until someone changes them
AWAY = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.METHOD_NOT_ALLOWED,
        HTTPStatus.PROXY_AUTHENTICATION_REQUIRED,
        HTTPStatus.GONE,
        HTTPStatus.MISDIRECTED_REQUEST,
    }
)
ALWAYS = {"User-Agent": "cxrview", "Accept-Encoding": "identity"}
logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs URLs


class Reply(NamedTuple):
    """An answer that says something about the result."""

    status: int
    content_type: str
    body: bytes


class Web:
    """Requests to one destination.

    Its secrets are read from their files for each request; its TLS files if one has changed.
    """

    def __init__(self, destination: HttpDestination) -> None:
        self._destination = destination
        self._client: httpx2.AsyncClient | None = None
        self._tls = tls_state(destination)
        # Only asynchronously can a request be ended as a whole: the time limits of a client are
        # for each read, and begin anew with each byte
        self._runner = asyncio.Runner()

    def close(self) -> None:
        """Close the connections."""
        self._disconnect()
        self._runner.close()

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Send one result.

        Args:
            path: Below the destination's URL.
            body: Of the request.
            headers: In addition to those of the destination.

        Raises:
            RetryableError: No whole answer in time, or one that says nothing about the result:
                3xx, 401, 403, 404, 408, 429, 5xx and others.
        """
        url, seconds = self._destination.url + path, self._destination.timeout_seconds
        sent = {**ALWAYS, **self._destination.headers, **self._secret(), **headers}
        client = self._current()
        try:
            return self._runner.run(_exchanged(client, url, body, sent, seconds))
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise RetryableError("timeout", f"no answer within {seconds:g} s", away=True) from error
        except httpx2.HTTPError as error:  # its text holds the address
            raise RetryableError("unreachable", type(error).__name__, away=True) from error

    def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            self._runner.run(client.aclose())

    def _current(self) -> httpx2.AsyncClient:
        """The client; a new one if a TLS file was renewed."""
        found = tls_state(self._destination)
        if found != self._tls:
            self._disconnect()
        if self._client is None:
            self._client, self._tls = self._opened(), found
        return self._client

    def _opened(self) -> httpx2.AsyncClient:
        context = client_tls(self._destination)
        # For TCP, and again for TLS: a handshake that the limit of the whole request ends would
        # leave its socket open
        limits = httpx2.Timeout(None, connect=self._destination.timeout_seconds / 2)
        return httpx2.AsyncClient(verify=context, timeout=limits, follow_redirects=False)

    def _secret(self) -> dict[str, str]:
        given = self._destination
        headers = {name: secret(path) for name, path in given.header_files.items()}
        if given.token_file is not None:
            headers["Authorization"] = f"Bearer {secret(given.token_file)}"
        if given.password_file is not None:
            pair = f"{given.user}:{secret(given.password_file)}".encode()
            headers["Authorization"] = f"Basic {b64encode(pair).decode()}"
        return headers


def secret(path: Path) -> str:
    """What a file of secrets holds, without white space around it.

    Raises:
        RetryableError: It cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        detail = f"{path.name} cannot be read"
        raise RetryableError("credentials", detail, away=True) from error


def check_status(status: int) -> None:
    """Raise RejectedError unless the status is a success."""
    if not 200 <= status < 300:
        raise RejectedError(f"HTTP {status}")


async def _exchanged(
    client: httpx2.AsyncClient, url: str, body: bytes, headers: Mapping[str, str], seconds: float
) -> Reply:
    """Connect, send, and read the whole answer."""
    async with (
        asyncio.timeout(seconds),
        client.stream("POST", url, content=body, headers=headers) as response,
    ):
        _check(response)
        content_type = response.headers.get("content-type", "")
        return Reply(response.status_code, content_type, await _read(response))


def _check(response: httpx2.Response) -> None:
    status = response.status_code
    if 300 <= status < 400:
        raise RetryableError("redirect", f"HTTP {status}", away=True)
    if status in AWAY:
        raise RetryableError("no_access", f"HTTP {status}", away=True)
    if status in LATER or status >= 500:
        after = seconds_until(response.headers.get("retry-after", ""))
        raise RetryableError("busy" if status in ASKS else "server_error", f"HTTP {status}", after)


async def _read(response: httpx2.Response) -> bytes:
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > ANSWER_BYTES:
            detail = f"an answer of more than {ANSWER_BYTES} bytes"
            raise RetryableError("unexpected_answer", detail, away=True)
    return bytes(body)

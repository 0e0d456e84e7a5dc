"""HTTP requests to a destination: credentials, TLS, time limits, and what its status means."""

from __future__ import annotations

import logging
import time
from base64 import b64encode
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

import httpx2

from service.backfill.sources.retry_after import seconds_until
from service.dicom.destinations import HttpDestination
from service.dicom.senders.client_tls import client_tls, tls_state
from service.dicom.senders.sender import RejectedError, RetryableError

ANSWER_BYTES = 2**20  # an answer about one instance is far smaller
LATER = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
ASKS = LATER | {HTTPStatus.SERVICE_UNAVAILABLE}
ALWAYS = {"User-Agent": "cxrview", "Accept-Encoding": "identity"}
logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs URLs


class Reply(NamedTuple):
    """An answer that is neither a redirection nor a request for a later attempt."""

    status: int
    content_type: str
    body: bytes


class Web:
    """Requests to one destination.

    Its secrets are read from their files for each request; its TLS files if one has changed.
    """

    def __init__(self, destination: HttpDestination) -> None:
        self._destination = destination
        self._client: httpx2.Client | None = None
        self._tls = tls_state(destination)

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Send one result.

        Args:
            path: Below the destination's URL.
            body: Of the request.
            headers: In addition to those of the destination.

        Raises:
            RetryableError: No answer, or 3xx, 408, 429 or 5xx.
        """
        url, seconds = self._destination.url + path, self._destination.timeout_seconds
        deadline = time.monotonic() + 3 * seconds
        sent = {**ALWAYS, **self._destination.headers, **self._secret(), **headers}
        try:
            with self._current().stream("POST", url, content=body, headers=sent) as response:
                _check(response)
                return Reply(
                    response.status_code,
                    response.headers.get("content-type", ""),
                    _read(response, deadline),
                )
        except httpx2.TimeoutException as error:
            raise RetryableError("timeout", f"no answer within {seconds:g} s", away=True) from error
        except httpx2.HTTPError as error:  # its text holds the address
            raise RetryableError("unreachable", type(error).__name__, away=True) from error

    def _current(self) -> httpx2.Client:
        """The client; a new one if a TLS file was renewed."""
        found = tls_state(self._destination)
        if found != self._tls:
            self.close()
        if self._client is None:
            self._client, self._tls = self._opened(), found
        return self._client

    def _opened(self) -> httpx2.Client:
        context = client_tls(self._destination)
        return httpx2.Client(
            verify=context, timeout=self._destination.timeout_seconds, follow_redirects=False
        )

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


def _check(response: httpx2.Response) -> None:
    status = response.status_code
    if 300 <= status < 400:
        raise RetryableError("redirect", f"HTTP {status}", away=True)
    if status in LATER or status >= 500:
        after = seconds_until(response.headers.get("retry-after", ""))
        raise RetryableError("busy" if status in ASKS else "server_error", f"HTTP {status}", after)


def _read(response: httpx2.Response, deadline: float) -> bytes:
    body = bytearray()
    for piece in response.iter_bytes():
        body += piece
        if len(body) > ANSWER_BYTES:
            raise RetryableError("server_error", f"an answer of more than {ANSWER_BYTES} bytes")
        if time.monotonic() > deadline:
            raise RetryableError("timeout", "the answer takes too long", away=True)
    return bytes(body)

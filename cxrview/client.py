"""Clients of a running service, with the methods of `Classifier`."""

from __future__ import annotations

import asyncio
import io
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Self

import httpx2
import numpy as np
from PIL import Image as PillowImage

from cxrview.answers import (
    BusyError,
    lines_of,
    read_classification,
    read_result,
    refusal_of,
    unreachable,
)
from cxrview.results import Result, Results
from cxrview.sources import Photometric, Source, each_of, read
from service.inference import Classification
from service.uploads.files import UnreadableEntry

CLASSIFY, BATCH = "/v1/classify", "/v1/classify/batch"
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 30.0
CONNECTIONS = 8


class Client:
    """A client with persistent connections; several threads may use it.

    Args:
        url: For example `https://cxrview.example`.
        key: An API key or a token, if the service needs one.
        timeout_seconds: For each step of a request.
        retries: How often an image is sent again while the service is full or cannot be reached.
            The wait is the service's Retry-After, or doubles each time.
    """

    def __init__(
        self, url: str, key: str | None = None, *, timeout_seconds: float = 60, retries: int = 5
    ) -> None:
        self._retries = retries
        self._http = httpx2.Client(
            base_url=url, timeout=timeout_seconds, headers=_authorization(key)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def classify(
        self,
        source: Source,
        *,
        photometric: Photometric = "MONOCHROME2",
        explain: bool = False,
    ) -> Classification:
        """Classify one radiograph; see `Classifier.classify`.

        An array must be uint8 or uint16; it is sent as PNG.

        Args:
            source: As for `Classifier.classify`.
            photometric: Of an array.
            explain: Also answer what the network saw, as `explanation`.

        Raises:
            ServiceError: The service refuses the image, cannot be reached, or answers what this
                client does not understand.
            ImageError, UploadError, TypeError: The source cannot be read or sent.
        """
        body = _body(source, photometric)
        attempt = 0
        while True:
            try:
                return read_classification(self._http.post(_path(explain), content=body))
            except (httpx2.RequestError, BusyError) as error:
                seconds = _wait_seconds(error, attempt, self._retries)
            time.sleep(seconds)
            attempt += 1

    def classify_many(
        self,
        sources: Iterable[Source],
        *,
        photometric: Photometric = "MONOCHROME2",
        connections: int = CONNECTIONS,
    ) -> Results:
        """Classify many images; a bad one does not stop the others. See `Classifier`.

        Args:
            sources: As for `classify`; a folder stands for all files below it, except hidden ones.
            photometric: The photometric interpretation of arrays.
            connections: Requests at the same time.
        """
        return Results(self._results(each_of(sources), photometric, connections))

    def _results(
        self,
        sources: Iterator[tuple[str, Source | UnreadableEntry]],
        photometric: Photometric,
        connections: int,
    ) -> Iterator[Result]:
        def ask(name: str, source: Source | UnreadableEntry) -> Result:
            try:
                return Result(name, self.classify(source, photometric=photometric))  # type: ignore[arg-type]
            except Exception as error:  # noqa: BLE001  # only this image fails
                return Result(name, error=error)

        pending: deque[Future[Result]] = deque()
        with ThreadPoolExecutor(connections, "ask") as threads:
            try:
                for name, source in sources:
                    pending.append(threads.submit(ask, name, source))
                    if len(pending) > 2 * connections:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:  # if the caller stops early
                for each in pending:
                    each.cancel()

    def classify_archive(self, archive: Path | str | bytes) -> Results:
        """Classify the files of a zip or tar in one request; results come in any order.

        Args:
            archive: The path or the bytes of a zip or tar.

        Returns:
            An iterator with one Result for each file. A line that this client does not understand
            is a Result with a ServiceError; its name is empty if it cannot be read.

        Raises:
            ServiceError: The service refuses the archive as a whole, or cannot be reached; also
                while iterating, if the connection breaks.
        """
        return Results(self._lines(archive))

    def _lines(self, archive: Path | str | bytes) -> Iterator[Result]:
        body = archive if isinstance(archive, bytes) else Path(archive).read_bytes()
        try:
            with self._http.stream("POST", BATCH, content=body) as response:
                if response.status_code != HTTPStatus.OK:
                    response.read()
                    raise refusal_of(response)
                yield from map(read_result, lines_of(response.iter_bytes()))
        except httpx2.RequestError as error:
            raise unreachable(error) from error


class AsyncClient:
    """A client for asyncio; see `Client`."""

    def __init__(
        self, url: str, key: str | None = None, *, timeout_seconds: float = 60, retries: int = 5
    ) -> None:
        self._retries = retries
        self._http = httpx2.AsyncClient(
            base_url=url, timeout=timeout_seconds, headers=_authorization(key)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def classify(
        self,
        source: Source,
        *,
        photometric: Photometric = "MONOCHROME2",
        explain: bool = False,
    ) -> Classification:
        """Classify one radiograph; see `Client.classify`."""
        body = await asyncio.to_thread(_body, source, photometric)
        attempt = 0
        while True:
            try:
                return read_classification(await self._http.post(_path(explain), content=body))
            except (httpx2.RequestError, BusyError) as error:
                seconds = _wait_seconds(error, attempt, self._retries)
            await asyncio.sleep(seconds)
            attempt += 1

    async def classify_many(
        self,
        sources: Iterable[Source],
        *,
        photometric: Photometric = "MONOCHROME2",
        connections: int = CONNECTIONS,
    ) -> AsyncIterator[Result]:
        """Classify many images, with results in the order of images; see `Client.classify_many`."""

        async def ask(name: str, source: Source | UnreadableEntry) -> Result:
            try:
                return Result(name, await self.classify(source, photometric=photometric))  # type: ignore[arg-type]
            except Exception as error:  # noqa: BLE001  # only this image fails
                return Result(name, error=error)

        pending: deque[asyncio.Task[Result]] = deque()
        try:
            for name, source in each_of(sources):
                pending.append(asyncio.create_task(ask(name, source)))
                if len(pending) >= connections:
                    yield await pending.popleft()
            while pending:
                yield await pending.popleft()
        finally:
            for task in pending:
                task.cancel()


def _wait_seconds(error: httpx2.RequestError | BusyError, attempt: int, retries: int) -> float:
    """The wait before the next attempt.

    Raises:
        ServiceError: This was the last attempt.
    """
    if isinstance(error, BusyError):
        if attempt == retries:
            raise error.refusal from None
        if error.seconds is not None:
            return error.seconds
    elif attempt == retries or isinstance(error, httpx2.UnsupportedProtocol):
        raise unreachable(error) from error
    longest: float = min(FIRST_WAIT_SECONDS * 2**attempt, LONGEST_WAIT_SECONDS)
    return longest * random.uniform(0.5, 1)  # jitter, so that clients do not retry at the same time


def _path(explain: bool) -> str:
    return f"{CLASSIFY}?explain=true" if explain else CLASSIFY


def _body(source: Source | UnreadableEntry, photometric: Photometric) -> bytes:
    data = read(source)
    if isinstance(data, bytes):
        return data
    if data.ndim != 2 or data.dtype.kind != "u" or data.dtype.itemsize > 2:
        raise TypeError(
            f"an array of {data.ndim} dimensions and {data.dtype} cannot be sent: uint8 or uint16 "
            "of two dimensions can; Classifier takes others"
        )
    pixels = np.iinfo(data.dtype).max - data if photometric == "MONOCHROME1" else data
    buffer = io.BytesIO()
    PillowImage.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _authorization(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}

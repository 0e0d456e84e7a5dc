"""A pod's end: whoever was in flight is answered, and nobody's connection is reset."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from images import dicom

CLIENTS = 200
PIXELS = np.random.default_rng(0).integers(0, 4096, (512, 512), dtype=np.uint16)
BODY = dicom(PIXELS)  # 0.5 MB
HEAD = f"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()


@contextmanager
def serving(*options: str, **settings: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The command in a process of its own, and its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", "serve", "--port", "0", *options],
        env=os.environ | {"CXRVIEW_MODEL": "swift/1.0.0"} | settings,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        line = next(line for line in process.stderr if "running on" in line)
        yield process, int(re.search(r":(\d+)", line.split("//")[1])[1])
    finally:
        process.kill()
        process.stderr.close()
        process.wait()


def until_it_listens(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return


async def response(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in head[1:] if line)
    await reader.readexactly(int(headers["content-length"]))
    return int(head[0].split()[1]), headers


async def get(port: int, path: str) -> tuple[int, dict[str, str]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    try:
        return await response(reader)
    finally:
        writer.close()


@pytest.mark.parametrize("places", ["256", "3"])
@pytest.mark.parametrize("drain", ["0", "1"])
def test_all_in_flight_are_answered_or_refused(places: str, drain: str) -> None:
    """200 uploads are half-way when the signal comes; most are refused where places are few."""

    async def scenario() -> Counter[int]:
        open_ones = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CLIENTS)]
        for _, writer in open_ones:
            writer.write(HEAD + BODY[: len(BODY) // 2])
            await writer.drain()
        await asyncio.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        if drain == "1":
            assert (await get(port, "/readyz"))[0] == 503
            status, headers = await get(port, "/livez")
            assert (status, headers["connection"]) == (200, "close")

        async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
            writer.write(BODY[len(BODY) // 2 :])
            status, _ = await response(reader)
            assert await reader.read() == b""  # closed, not reset
            writer.close()
            return status

        return Counter(await asyncio.gather(*(end(*each) for each in open_ones)))

    with serving(
        CXRVIEW_DRAIN_SECONDS=drain,
        CXRVIEW_MAX_QUEUE_IMAGES=places,
        CXRVIEW_LATENCY_BUDGET_SECONDS="60",
    ) as (process, port):
        statuses = asyncio.run(asyncio.wait_for(scenario(), 50))
        assert process.wait(10) == 0
    assert statuses.keys() <= {200, 503}
    assert sum(statuses.values()) == CLIENTS
    assert statuses[200] == (CLIENTS if places == "256" else 3)


def test_a_second_signal_ends_the_wait() -> None:
    """Whoever is in a hurry need not wait until the last request could have come."""
    with serving(CXRVIEW_DRAIN_SECONDS="60") as (process, port):
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 5
        while asyncio.run(get(port, "/readyz"))[0] != 503:
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_operations_have_a_port_of_their_own() -> None:
    """There are probes and metrics and nothing else; elsewhere there is all but those."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        operations = free.getsockname()[1]
    with serving("--operations-port", str(operations)) as (_, port):
        until_it_listens(operations)
        until_it_listens(port)
        for path in ("/livez", "/readyz", "/metrics"):
            assert asyncio.run(get(operations, path))[0] == 200
            assert asyncio.run(get(port, path))[0] == 404
        for path in ("/docs", "/v1/model", "/openapi.json"):
            assert asyncio.run(get(operations, path))[0] == 404
            assert asyncio.run(get(port, path))[0] == 200


def test_ctrl_c_ends_it_too() -> None:
    """At once, without a traceback."""
    with serving(CXRVIEW_DRAIN_SECONDS="60") as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()

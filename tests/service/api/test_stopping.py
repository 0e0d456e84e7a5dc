"""A pod's end: requests in flight are answered, and no connection is reset."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import numpy as np
import psutil
import pytest
from images import dicom
from live import Answer, read_answer, serving

from service.api.server import END_SECONDS, FINISH_SECONDS, FORCED_END_SECONDS

MODEL = "swift/1.0.0"
CLIENTS = 200
PIXELS = np.random.default_rng(0).integers(0, 4096, (512, 512), dtype=np.uint16)
BODY = dicom(PIXELS)  # 0.5 MB
HEAD = f"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()


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


async def get(port: int, path: str) -> Answer:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    try:
        return await read_answer(reader)
    finally:
        writer.close()


@pytest.mark.parametrize("places", ["256", "3"])
@pytest.mark.parametrize("drain", ["0", "1"])
def test_all_in_flight_are_answered_or_refused(places: str, drain: str, tmp_path: Path) -> None:
    """200 uploads are half-way when the signal comes; most are refused where places are few."""

    async def scenario() -> Counter[int]:
        open_ones = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CLIENTS)]
        for _, writer in open_ones:
            writer.write(HEAD + BODY[: len(BODY) // 2])
            await writer.drain()
        for _ in range(3):  # connections are accepted in their order, so all have been read then
            await get(port, "/livez")
        live.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        if drain == "1":
            assert (await get(port, "/readyz")).status == 503
            alive = await get(port, "/livez")
            assert (alive.status, alive.headers["connection"]) == (200, "close")

        async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
            writer.write(BODY[len(BODY) // 2 :])
            status = (await read_answer(reader)).status
            assert await reader.read() == b""  # closed, not reset
            writer.close()
            return status

        return Counter(await asyncio.gather(*(end(*each) for each in open_ones)))

    settings = {"drain_seconds": drain, "max_queue_images": places, "latency_budget_seconds": "60"}
    with serving(tmp_path / "log", model=MODEL, **settings) as live:
        port = live.port
        statuses = asyncio.run(asyncio.wait_for(scenario(), 50))
        assert live.process.wait(10) == 0
    assert statuses.keys() <= {200, 503}
    assert sum(statuses.values()) == CLIENTS
    assert statuses[200] == (CLIENTS if places == "256" else 3)


def test_a_second_signal_ends_the_wait(tmp_path: Path) -> None:
    """The process then ends at once, before the drain time is over."""
    with serving(tmp_path / "log", model=MODEL, drain_seconds="60") as live:
        live.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 5
        while asyncio.run(get(live.port, "/readyz")).status != 503:
            assert time.monotonic() < deadline
        assert live.end() == 0


@contextmanager
def dripped_body(port: int) -> Iterator[None]:
    """A client that sends its body byte by byte, and never comes to its end."""
    done = threading.Event()

    def drip(connection: socket.socket) -> None:
        with suppress(OSError):
            while not done.wait(0.05):
                connection.sendall(b"x")

    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(HEAD)
        thread = threading.Thread(target=drip, args=(connection,))
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


@pytest.mark.parametrize("drain", ["0", "60"])
def test_a_second_signal_waits_for_no_client(drain: str, tmp_path: Path) -> None:
    """Not even for one that still sends."""
    with serving(tmp_path / "log", model=MODEL, drain_seconds=drain) as live:
        with dripped_body(live.port):
            live.process.send_signal(signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                live.process.wait(1)
            workers = psutil.Process(live.process.pid).children(recursive=True)
            assert workers
            begin = time.monotonic()
            assert live.end() == 0
            assert time.monotonic() - begin < FORCED_END_SECONDS + 5
        assert "Traceback" not in live.log.read_text()
        assert not psutil.wait_procs(workers, 10)[1]  # they end with the service


def test_no_client_keeps_the_process(tmp_path: Path) -> None:
    """What does not come to its end is cut after `FINISH_SECONDS`, and the exit code is 0."""
    with serving(tmp_path / "log", model=MODEL) as live, dripped_body(live.port):
        begin = time.monotonic()
        live.process.send_signal(signal.SIGTERM)
        assert live.process.wait(END_SECONDS + 5) == 0
        assert time.monotonic() - begin > FINISH_SECONDS - 1
    assert "Traceback" not in live.log.read_text()


def failed_start(*options: str) -> tuple[int, str]:
    """Exit code and what was said."""
    command = [sys.executable, "-m", "service.cli", "serve", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, " ".join(done.stderr.split())


def test_a_port_that_is_taken_is_an_error_before_anything_is_loaded() -> None:
    """Whichever of the two it is."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for options in (("--port", port), ("--port", "0", "--operations-port", port)):
            code, said = failed_start(*options)
            assert code == 3
            assert "Address already in use" in said
            assert port in said
            assert "startup" not in said


@pytest.mark.parametrize("port", ["65536", "99999", "-1", "http"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    """The C library would take its lower 16 bits."""
    for option in ("--port", "--operations-port"):
        code, said = failed_start(f"{option}={port}")
        assert code == 2
        assert f"{port!r} is not a port" in said
    assert failed_start("--operations-port=0")[0] == 2
    assert "must differ" in failed_start("--port=8999", "--operations-port=8999")[1]


def test_probes_may_be_asked_by_head(tmp_path: Path) -> None:
    """As monitors and balancers do."""
    with serving(tmp_path / "log", model=MODEL) as live:
        for path in ("/livez", "/readyz"):
            answer = httpx2.head(f"{live.url}{path}")
            assert (answer.status_code, answer.content) == (200, b"")


def test_operations_have_a_port_of_their_own(tmp_path: Path) -> None:
    """There are probes and metrics and nothing else; elsewhere there is all but those."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        operations = free.getsockname()[1]
    with serving(tmp_path / "log", "--operations-port", str(operations), model=MODEL) as live:
        port = live.port
        until_it_listens(operations)
        until_it_listens(port)
        for path in ("/livez", "/readyz", "/metrics"):
            assert asyncio.run(get(operations, path)).status == 200
            assert asyncio.run(get(port, path)).status == 404
            assert asyncio.run(get(operations, f"http://x{path}")).status == 200
            assert asyncio.run(get(port, f"http://x{path}")).status == 404
        for path in ("/docs", "/v1/model", "/openapi.json"):
            assert asyncio.run(get(operations, path)).status == 404
            assert asyncio.run(get(port, path)).status == 200
        assert live.end() == 0


def test_ctrl_c_ends_it_too(tmp_path: Path) -> None:
    """At once, without a traceback."""
    with serving(tmp_path / "log", model=MODEL, drain_seconds="60") as live:
        assert live.end(signal.SIGINT) == 0
    assert "Traceback" not in live.log.read_text()

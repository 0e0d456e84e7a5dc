"""What cannot be taken is refused before it is held; who goes away harms nobody."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from conftest import DATA

from service.api.limits import HeldBytes, ServiceFullError

MIB = 2**20
BODY = (DATA / "frontal-0003.jpg").read_bytes()


def request_head(path: str, *headers: str) -> bytes:
    lines = (f"POST {path} HTTP/1.1", "Host: x", "Content-Type: image/jpeg", *headers)
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def response_of(connection: socket.socket) -> tuple[int, dict[str, object]]:
    """Read one response from a raw socket."""
    connection.settimeout(10)
    text = b""
    while b"\r\n\r\n" not in text or b"}" not in text.split(b"\r\n\r\n", 1)[1]:
        piece = connection.recv(65536)
        assert piece, text
        text += piece
    head, body = text.split(b"\r\n\r\n", 1)
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize(
    ("path", "limit"), [("/v1/classify", 4 * MIB), ("/v1/classify/batch", 6 * MIB)]
)
def test_a_declared_length_is_refused_before_a_byte_is_read(service, path, limit) -> None:
    """Content-Length over the limit gives 413 although nothing was sent yet."""
    with socket.create_connection((service.host, service.port)) as connection:
        connection.sendall(request_head(path, f"Content-Length: {limit + 1}"))
        status, problem = response_of(connection)
    assert (status, problem["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("path", "limit"), [("/v1/classify", 4 * MIB), ("/v1/classify/batch", 6 * MIB)]
)
def test_an_endless_body_is_refused_while_it_streams(service, path, limit) -> None:
    """Without a length the bytes are counted; 413 comes at the limit, and nothing stays held."""
    piece = 2**18
    chunk = b"%x\r\n%b\r\n" % (piece, bytes(piece))
    with socket.create_connection((service.host, service.port)) as connection:
        connection.sendall(request_head(path, "Transfer-Encoding: chunked"))
        for _ in range(limit // piece + 1):
            connection.sendall(chunk)  # and no end
        status, problem = response_of(connection)
    assert (status, problem["code"]) == (413, "body_too_large")
    assert service.runtime.held.held == 0


def test_a_client_that_stops_sending_is_cut(service) -> None:
    """After `max_receive_idle_seconds` of silence in the middle of a body: 408."""
    with socket.create_connection((service.host, service.port)) as connection:
        connection.sendall(request_head("/v1/classify", "Content-Length: 1000") + bytes(10))
        status, problem = response_of(connection)
    assert (status, problem["code"]) == (408, "body_timeout")


def test_uploads_of_all_requests_together_are_bounded(service) -> None:
    """While others' bodies fill the memory set aside, a new one gets 503 with Retry-After."""
    filler = service.runtime.held
    with filler.open() as holding:
        holding.add(filler.limit - 100)
        with service.client() as client:
            response = client.post("/v1/classify", content=BODY)
    assert (response.status_code, response.json()["code"]) == (503, "service_full")
    assert response.headers["retry-after"] == "1"


def test_held_bytes_are_given_back_however_a_request_ends(service) -> None:
    """After answers, refusals, batches and clients that vanish, nothing is held."""
    with service.client() as client:
        client.post("/v1/classify", content=BODY)
        client.post("/v1/classify", content=b"bad")
        client.post("/v1/classify/batch", files=[("files", BODY)] * 3)
    with socket.create_connection((service.host, service.port)) as connection:
        connection.sendall(request_head("/v1/classify", "Content-Length: 1000") + bytes(500))
    deadline = time.monotonic() + 5
    while service.runtime.held.held:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_account_is_exact() -> None:
    """A share that does not fit is not counted; what was counted goes back."""
    total = HeldBytes(100)
    with total.open() as one, total.open() as other:
        one.add(60)
        with pytest.raises(ServiceFullError):
            other.add(41)
        other.add(40)
        assert total.held == 100
    assert total.held == 0


def test_a_full_queue_gives_503_and_keeps_its_promises(service) -> None:
    """Beyond the queue: 503 with Retry-After, at once; those inside are answered all the same."""
    with ThreadPoolExecutor(4) as pool, service.client() as client:

        def post() -> httpx2.Response:
            return client.post("/v1/classify", content=BODY)

        with service.network_held():
            running = pool.submit(post)  # taken out of the queue, waits for the network
            time.sleep(0.1)
            service.until_waiting(0)
            inside = [pool.submit(post) for _ in range(2)]
            service.until_waiting(2)
            refused = post()
        answers = [future.result() for future in (running, *inside)]
    assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
    assert int(refused.headers["retry-after"]) >= 1
    assert [answer.json()["view"] for answer in answers] == ["frontal"] * 3


def test_a_client_that_goes_while_queued_leaves_its_peers_alone(service) -> None:
    """Its image never reaches the network; the peer behind it gets its answer."""
    with ThreadPoolExecutor(2) as pool, service.client() as client:

        def post() -> httpx2.Response:
            return client.post("/v1/classify", content=BODY)

        with service.network_held():
            running = pool.submit(post)
            time.sleep(0.1)
            service.until_waiting(0)
            goner = socket.create_connection((service.host, service.port))
            length = f"Content-Length: {len(BODY)}"
            goner.sendall(request_head("/v1/classify", length) + BODY)
            service.until_waiting(1)
            peer = pool.submit(post)
            service.until_waiting(2)
            gone = service.runtime.batcher._waiting[0].answer
            goner.close()
            deadline = time.monotonic() + 5
            while not gone.cancelled():
                assert time.monotonic() < deadline
                time.sleep(0.005)
        assert peer.result().json()["view"] == "frontal"
        assert running.result().status_code == 200


def slowly(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 4096):
        yield body[start : start + 4096]
        time.sleep(0.01)


def test_a_slow_client_does_not_hold_up_the_others(service) -> None:
    """While one body trickles in, others are answered; the slow one is answered in the end."""
    with service.client() as slow, service.client() as quick:
        result: list[httpx2.Response] = []
        thread = threading.Thread(
            target=lambda: result.append(slow.post("/v1/classify", content=slowly(BODY)))
        )
        thread.start()
        for _ in range(3):
            assert quick.post("/v1/classify", content=BODY).status_code == 200
        thread.join(20)
    assert result[0].json()["view"] == "frontal"


def test_requests_at_once_are_batched(service) -> None:
    """Parallel clients get their own answers, through fewer ONNX calls than images."""

    async def scenario() -> list[httpx2.Response]:
        async with httpx2.AsyncClient(base_url=service.url, timeout=30) as client:
            return await asyncio.gather(
                *(client.post("/v1/classify", content=BODY) for _ in range(2))
            )

    assert {answer.status_code for answer in asyncio.run(scenario())} == {200}

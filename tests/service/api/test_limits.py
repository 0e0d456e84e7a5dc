"""A request over a limit is refused before it is held; a lost client affects no other."""

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
from starlette.requests import Request

from service.api.body import receive_whole
from service.api.settings import Settings
from service.inference import LANES, Lane
from service.uploads.budget import ByteBudget, ServiceFullError

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
    assert service.runtime.budget.reserved == 0


def test_a_client_that_stops_sending_is_cut(service) -> None:
    """After `max_receive_idle_seconds` of silence in the middle of a body: 408."""
    with socket.create_connection((service.host, service.port)) as connection:
        connection.sendall(request_head("/v1/classify", "Content-Length: 1000") + bytes(10))
        status, problem = response_of(connection)
    assert (status, problem["code"]) == (408, "body_timeout")


def test_uploads_of_all_requests_together_are_bounded(start, light: Settings) -> None:
    """While others' bodies fill the memory set aside, a new one gets 503 with Retry-After."""
    hasty = light.model_copy(update={"latency_budget_seconds": 0.1})
    with start(hasty) as service:
        assert service.runtime.budget.take("interactive", service.runtime.budget.limit - 100)
        with service.client() as client:
            response = client.post("/v1/classify", content=BODY)
        assert (response.status_code, response.json()["code"]) == (503, "service_full")
        assert int(response.headers["retry-after"]) >= 1


def test_held_bytes_are_given_back_however_a_request_ends(service) -> None:
    """After answers, refusals, batches and clients that vanish, nothing is held."""
    with service.client() as client:
        client.post("/v1/classify", content=BODY)
        client.post("/v1/classify", content=b"bad")
        client.post("/v1/classify/batch", files=[("files", BODY)] * 3)
    with socket.create_connection((service.host, service.port)) as connection:
        connection.sendall(request_head("/v1/classify", "Content-Length: 1000") + bytes(500))
    deadline = time.monotonic() + 5
    while service.runtime.budget.reserved:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_account_is_exact() -> None:
    """What does not fit is not counted, what was counted goes back; more than was told is added."""

    async def scenario() -> None:
        total = ByteBudget(100)
        async with total.reserve("interactive", 50, 0.01) as one:
            one.add(50)
            one.add(10)  # more than it had said
            async with total.reserve("interactive", 0, 0.01) as other:
                with pytest.raises(ServiceFullError):
                    other.add(41)
            with pytest.raises(ServiceFullError) as refusal:
                async with total.reserve("interactive", 41, 0.01):
                    raise AssertionError
            assert refusal.value.retry_after_seconds == 1
            assert total.reserved == 60
        assert total.reserved == 0

    asyncio.run(scenario())


def test_who_does_not_fit_waits_in_turn_and_people_before_archives() -> None:
    """First come, first served within a lane, none overtakes; interactive bodies go first."""

    async def scenario() -> list[str]:
        total, order = ByteBudget(100), []

        async def enter(name: str, lane: Lane, count: int) -> None:
            async with total.reserve(lane, count, 5):
                order.append(name)

        async with total.reserve("interactive", 90, 5):
            waiting = [
                asyncio.create_task(enter(*each))
                for each in [
                    ("archive", "backfill", 20),
                    ("large", "interactive", 80),
                    ("small", "interactive", 5),
                ]
            ]
            await asyncio.sleep(0.01)
            assert order == []
        await asyncio.gather(*waiting)
        assert total.reserved == 0
        return order

    assert asyncio.run(scenario()) == ["large", "small", "archive"]


def test_backfill_leaves_slots_for_interactive_images() -> None:
    """An archive may fill three quarters of the memory; an interactive body fits beside it."""

    async def scenario() -> None:
        total = ByteBudget(100)
        async with total.reserve("backfill", 75, 0.01), total.reserve("interactive", 25, 0.01):
            assert total.reserved == 100
        with pytest.raises(ServiceFullError):
            await total.reserve("backfill", 76, 0.01).__aenter__()
        assert total.reserved == 0

    asyncio.run(scenario())


def test_who_gives_up_waiting_leaves_nothing_behind() -> None:
    """Cancelled before or just after its turn has come, a waiting body holds no bytes."""

    async def scenario() -> None:
        total = ByteBudget(100)
        for just_after in (False, True):
            first = total.reserve("interactive", 90, 5)
            await first.__aenter__()
            waiting = asyncio.create_task(total.reserve("interactive", 50, 5).__aenter__())
            await asyncio.sleep(0)
            if just_after:
                await first.__aexit__(None, None, None)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            if not just_after:
                await first.__aexit__(None, None, None)
            assert total.reserved == 0

    asyncio.run(scenario())


def test_a_slow_sender_holds_no_more_than_it_has_sent() -> None:
    """After it has settled, the bytes that were promised but did not come are others'."""

    async def scenario() -> None:
        total = ByteBudget(100)
        async with total.reserve("interactive", 100, 0.01) as slow:
            slow.add(10)
            slow.settle()
            async with total.reserve("interactive", 60, 0.01):
                slow.add(30)
                with pytest.raises(ServiceFullError):
                    slow.add(1)
        assert total.reserved == 0

    asyncio.run(scenario())


def test_a_body_is_whole_under_any_server() -> None:
    """One that knows no other way than ASGI's own: in one piece or many, it is what was sent."""
    sent = bytes(range(256)) * 512

    async def received(pieces: list[bytes]) -> bytes:
        messages = [{"type": "http.request", "body": each, "more_body": True} for each in pieces]
        messages.append({"type": "http.request"})  # how some say that the last one was the last

        async def receive() -> dict[str, object]:
            return messages.pop(0)

        request = Request({"type": "http", "headers": []}, receive)
        async with ByteBudget(len(sent)).reserve("interactive", len(sent), 1) as holding:
            return bytes(await receive_whole(request, len(sent), Settings(), holding))

    for size in (len(sent), 100_000, 65_536, 700):
        pieces = [sent[start : start + size] for start in range(0, len(sent), size)]
        assert asyncio.run(received(pieces)) == sent


def test_an_overloaded_service_refuses_before_the_body_is_sent(start, light: Settings) -> None:
    """The head alone gets 503 with Retry-After; when the body comes, the connection still works."""
    with start(light) as service:
        admission = service.runtime.admission
        admission.count("interactive", light.max_queue_images)
        with socket.create_connection((service.host, service.port)) as connection:
            head = request_head("/v1/classify", f"Content-Length: {len(BODY)}")
            connection.sendall(head)
            status, problem = response_of(connection)
            assert (status, problem["code"]) == (503, "queue_full")
            admission.count("interactive", -light.max_queue_images)
            connection.sendall(BODY)  # of the refused request, and then another one
            connection.sendall(head + BODY)
            status, answer = response_of(connection)
        assert (status, answer["model"]["name"]) == (200, "mean")


def test_only_images_are_refused_for_load(start, light: Settings) -> None:
    """With both lanes full a wrong lane is still called wrong, and everything else answers."""
    with start(light) as service, service.client() as client:
        for lane in LANES:
            service.runtime.admission.count(lane, light.max_queue_images)
            refused = client.post(f"/v1/classify?lane={lane}", content=BODY)
            assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
            assert refused.headers["content-type"] == "application/problem+json"
        wrong = client.post("/v1/classify?lane=fast", content=BODY)
        assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_request")
        again = client.post("/v1/classify?lane=interactive&lane=backfill", content=BODY)
        assert again.json()["code"] == "queue_full"
        assert client.get("/v1/classify").json()["code"] == "method_not_allowed"
        assert client.get("/readyz").status_code == 200


def test_a_slow_sender_keeps_no_place(start, light: Settings) -> None:
    """Bodies that trickle in count as images ahead for a moment only."""
    patient = light.model_copy(update={"max_receive_idle_seconds": 20})
    with start(patient) as service, service.client() as client:
        head = request_head("/v1/classify", f"Content-Length: {len(BODY)}")
        slow = [socket.create_connection((service.host, service.port)) for _ in range(3)]
        for connection in slow:
            connection.sendall(head + BODY[:100])
        admission = service.runtime.admission
        service.until(lambda: admission.images("interactive") == 3)
        assert client.post("/v1/classify", content=BODY).json()["code"] == "queue_full"
        service.until(lambda: admission.images("interactive") == 0)
        assert service.runtime.budget.reserved <= 300
        assert client.post("/v1/classify", content=BODY).status_code == 200
        for connection in slow:
            connection.sendall(BODY[100:])
            assert response_of(connection)[0] == 200
            connection.close()


def test_backfill_is_bounded_and_waits_behind_people(start, light: Settings) -> None:
    """`?lane=backfill` has places of its own: full, it is refused, and people still come in."""
    with start(light) as service, service.client() as client:
        admission = service.runtime.admission
        assert client.post("/v1/classify?lane=backfill", content=BODY).status_code == 200
        admission.count("backfill", light.max_queue_images)
        refused = client.post("/v1/classify?lane=backfill", content=BODY)
        assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
        assert client.post("/v1/classify", content=BODY).status_code == 200


def test_a_full_queue_gives_503_and_keeps_its_promises(service) -> None:
    """Beyond the queue: 503 with Retry-After, at once; those inside are answered all the same."""
    with ThreadPoolExecutor(4) as pool, service.client() as client:

        def post() -> httpx2.Response:
            return client.post("/v1/classify", content=BODY)

        with service.network_held():
            inside = [pool.submit(post) for _ in range(3)]
            service.until_waiting(3)
            refused = post()
        answers = [future.result() for future in inside]
    assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
    assert int(refused.headers["retry-after"]) >= 1
    assert [answer.json()["view"] for answer in answers] == ["frontal"] * 3


def test_a_client_that_goes_while_queued_leaves_its_peers_alone(service) -> None:
    """Its image never reaches the network; the peer behind it gets its answer."""
    with ThreadPoolExecutor(2) as pool, service.client() as client:

        def post() -> httpx2.Response:
            return client.post("/v1/classify", content=BODY)

        with service.network_held():
            goner = socket.create_connection((service.host, service.port))
            length = f"Content-Length: {len(BODY)}"
            goner.sendall(request_head("/v1/classify", length) + BODY)
            service.until_waiting(1)
            peer = pool.submit(post)
            service.until_waiting(2)
            gone = service.runtime.batcher._queues["interactive"][0].answer
            goner.close()
            deadline = time.monotonic() + 5
            while not gone.cancelled():
                assert time.monotonic() < deadline
                time.sleep(0.005)
        assert peer.result().json()["view"] == "frontal"


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

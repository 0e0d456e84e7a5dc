"""Large bodies take another way through the server; nobody notices but the clock."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import time
import weakref
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise

import numpy as np
import pytest
from garbage import no_search_for_garbage
from hypothesis import given, settings
from hypothesis import strategies as st
from images import dicom, png
from uvicorn import Config
from uvicorn.server import ServerState

from service.api.app import create_app
from service.api.metrics import REFUSED
from service.api.wire import LargeBodyProtocol

NOISE = np.random.default_rng(0).integers(0, 4096, (1024, 1024), dtype=np.uint16)
LARGE = dicom(NOISE)  # 2 MB
SMALL = png((NOISE[:64, :64] >> 4).astype(np.uint8))


@pytest.fixture(scope="module", params=["auto", "asyncio"])
def served(request, start, light) -> Iterator[object]:
    """A service on each of the two event loops; `auto` is uvloop where there is one."""
    patient = light.model_copy(update={"max_receive_idle_seconds": 2})
    with start(patient, request.param) as service:
        yield service


def post(body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = ("POST /v1/classify HTTP/1.1", "Host: x", *headers)
    lines += (f"Content-Length: {len(body) if length is None else length}",)
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class Client:
    """A connection on which every byte is ours."""

    def __init__(self, service) -> None:
        self.socket = socket.create_connection((service.host, service.port))
        self.socket.settimeout(10)
        self._rest = b""
        self.headers: dict[str, str] = {}  # of the last response

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.socket.sendall(piece)

    def _until(self, found) -> None:
        while not found():
            piece = self.socket.recv(65536)
            assert piece, self._rest
            self._rest += piece

    def response(self) -> tuple[int, dict[str, object]]:
        self._until(lambda: b"\r\n\r\n" in self._rest)
        head, self._rest = self._rest.split(b"\r\n\r\n", 1)
        if head.startswith(b"HTTP/1.1 100"):
            return 100, {}
        lines = head.decode("latin-1").lower().split("\r\n")
        self.headers = dict(line.split(": ", 1) for line in lines[1:])
        length = int(self.headers["content-length"])
        self._until(lambda: len(self._rest) >= length)
        body, self._rest = self._rest[:length], self._rest[length:]
        return int(head.split()[1]), json.loads(body)


def test_large_bodies_are_answered_one_after_another(served) -> None:
    """On one connection large and small bodies in turn get the answers they get alone."""
    with served.client() as client:
        alone = [client.post("/v1/classify", content=body).json() for body in (LARGE, SMALL)]
    assert alone[0] != alone[1]
    with Client(served) as client:
        for body, answer in [*zip((LARGE, SMALL), alone, strict=True)] * 3:
            client.send(post(body))
            assert client.response() == (200, answer)


@pytest.mark.parametrize("piece", [300, 70_001, 2**20])
def test_a_large_body_in_pieces_is_whole(served, piece: int) -> None:
    """However the network cuts it, also within the head, the answer is the same."""
    with Client(served) as client:
        client.send(post(LARGE))
        expected = client.response()
        assert expected[0] == 200
        whole = post(LARGE)
        first = 20 * piece
        client.send(*(whole[at : at + piece] for at in range(0, first, piece)), whole[first:])
        assert client.response() == expected


def test_requests_sent_ahead_are_answered_in_order(served) -> None:
    """A second and a third request right behind a large body lose no byte."""
    with Client(served) as client:
        client.send(post(SMALL))
        small = client.response()
        client.send(post(LARGE) + post(SMALL) + post(LARGE) + post(b"no image"))
        large = client.response()
        assert large[0] == 200
        assert [client.response() for _ in range(2)] == [small, large]
        status, problem = client.response()
        assert (status, problem["code"]) == (415, "unrecognised_format")


def test_a_client_that_waits_for_leave_to_send_gets_it(served) -> None:
    """With Expect: 100-continue the body comes after the leave, and is answered."""
    with Client(served) as client:
        client.send(post(b"", "Expect: 100-continue", length=len(LARGE)))
        assert client.response()[0] == 100
        client.send(LARGE)
        assert client.response()[0] == 200


def test_bodies_go_with_their_answers(served, monkeypatch) -> None:
    """Good or bad: none waits in memory for a search for garbage, which comes too late."""
    made, empty = [], np.empty

    def recorded(*args, **kwargs):
        made.append((array := empty(*args, **kwargs)).nbytes > 2**20 and weakref.ref(array))
        return array

    with no_search_for_garbage():
        with Client(served) as client:
            client.send(post(LARGE))  # what the first one leaves is not meant
            client.response()
            monkeypatch.setattr(np, "empty", recorded)
            for body, status in ((LARGE, 200), (LARGE[: -(2**19)], 422), (bytes(2**21), 415)):
                client.send(post(body))
                assert client.response()[0] == status
        bodies = [found for found in made if found]
        assert len(bodies) >= 3
        served.until(lambda: not any(body() is not None for body in bodies))


def test_requests_leave_no_circles(served, monkeypatch) -> None:
    """To find those of thousands of requests, the search for garbage stopped all for 200 ms."""
    connections, begin = [], LargeBodyProtocol.connection_made

    def recorded(self, transport):
        connections.append(weakref.ref(self))
        begin(self, transport)

    def exchange(body: bytes, status: int) -> None:
        with Client(served) as client:
            for _ in range(2):
                client.send(post(body))
                assert client.response()[0] == status

    cases = ((LARGE, 200), (SMALL, 200), (b"no image", 415))
    for case in cases:  # what the first ones leave is not meant
        exchange(*case)
    gc.collect()
    with no_search_for_garbage():
        monkeypatch.setattr(LargeBodyProtocol, "connection_made", recorded)
        for case in cases * 10:
            exchange(*case)
        assert len(connections) == 30
        served.until(lambda: not any(connection() is not None for connection in connections))
        # 60 requests, none of which leaves anything; transports of asyncio leave a few objects each
        assert gc.collect() < 10 * len(connections)


def test_a_head_may_come_alone(served) -> None:
    """As most clients send it; the body comes later, and past the parser from its first byte."""
    with Client(served) as client:
        whole = post(LARGE)
        head = whole.index(b"\r\n\r\n") + 4
        for _ in range(2):
            client.send(whole[:head])
            served.until(lambda: served.runtime.admission.images("interactive") == 1)
            client.send(whole[head:])
            assert client.response()[0] == 200


def test_a_client_that_goes_in_the_middle_leaves_nothing(served) -> None:
    """Its bytes are given back, and the next one is answered."""
    with Client(served) as client:
        client.send(post(LARGE)[: len(LARGE) // 2])
        served.until(lambda: served.runtime.held.held > 0)
    served.until(lambda: served.runtime.held.held == 0)
    with Client(served) as client:
        client.send(post(LARGE))
        assert client.response()[0] == 200


def test_nothing_is_read_for_a_client_that_has_gone(
    served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another connection may have the number of its socket by then, and would lose its bytes."""
    skipped = []

    def skip(connection: LargeBodyProtocol) -> None:
        skipped.append(connection)

    monkeypatch.setattr(LargeBodyProtocol, "skip", skip)
    with Client(served) as client:
        client.send(post(LARGE)[: len(LARGE) // 2])
        served.until(lambda: served.runtime.held.held > 0)
    served.until(lambda: served.runtime.held.held == 0)
    assert not skipped


def test_a_connection_whose_loop_has_ended_does_not_close_its_socket(light) -> None:
    """That is for the transport; the number may be another's by then."""
    config = Config(create_app(light))
    config.load()
    ours, theirs = socket.socketpair()
    with closing(asyncio.new_event_loop()) as loop, ours, theirs:
        connection = LargeBodyProtocol(config, ServerState(), {}, loop)
        connection.connection_made(asyncio.Transport({"socket": ours}))
        del connection
        ours.sendall(b"still here")
        assert theirs.recv(16) == b"still here"


def test_a_client_that_stops_in_the_middle_is_cut(served) -> None:
    """After the idle time 408, and the connection is closed."""
    with Client(served) as client:
        client.send(post(LARGE)[: len(LARGE) // 2])
        status, problem = client.response()
        assert (status, problem["code"]) == (408, "body_timeout")
        assert client.socket.recv(1) == b""


@pytest.mark.parametrize("late", [len(LARGE) // 2, 10])
def test_a_slow_sender_that_fits_no_more_is_refused_and_may_go_on(served, late: int) -> None:
    """Its place in memory had lapsed: 503; the rest is skipped, and the connection still works."""
    held, whole = served.runtime.held, post(LARGE)
    middle = len(whole) - late
    with Client(served) as client:
        client.send(whole[:middle])
        served.until(lambda: held.held == len(LARGE) - late)  # less than it has promised
        others = held.limit - held.held
        assert held.take("interactive", others)
        client.send(whole[middle:])
        status, problem = client.response()
        assert (status, problem["code"]) == (503, "service_full")
        held.give_back(others)
        client.send(whole)
        assert client.response()[0] == 200
    served.until(lambda: held.held == 0)


def test_a_refused_body_is_skipped(served) -> None:
    """Refused at the door, a large body that comes all the same is no request of its own."""
    admission = served.runtime.admission
    most = served.runtime.settings.max_queue_images
    refused = REFUSED.labels("queue_full")._value
    with Client(served) as client:
        admission.count("interactive", most)
        for place in range(2):  # the second in pieces, whose last ones come late
            before = refused.get()
            client.send(post(LARGE)[:500_000] if place else post(LARGE))
            status, problem = client.response()
            assert (status, problem["code"]) == (503, "queue_full")
            assert refused.get() == before + 1
        for start in range(500_000, len(post(LARGE)), 300_000):
            time.sleep(0.01)
            client.send(post(LARGE)[start : start + 300_000])
        admission.count("interactive", -most)
        client.send(post(LARGE))
        assert client.response()[0] == 200


@pytest.mark.parametrize("body", [SMALL, LARGE])
@pytest.mark.parametrize("header", [(), ("Connection: close",), ("Expect: 100-continue",)])
def test_a_refusal_is_the_same_whoever_writes_it(served, body: bytes, header: tuple[str]) -> None:
    """Written by the protocol or by the application: status, headers and body do not differ."""
    admission = served.runtime.admission
    most = served.runtime.settings.max_queue_images
    admission.count("interactive", most)
    try:
        with served.client() as client:
            # Another query goes the usual way, through routing and handlers
            usual = client.post("/v1/classify?lane=interactive&more", content=body)
        with Client(served) as client:
            client.send(post(body, *header))
            status, problem = client.response()
    finally:
        admission.count("interactive", -most)
    assert (status, problem) == (usual.status_code, usual.json()) == (503, usual.json())
    closing = {"connection"} if header == ("Connection: close",) else set()
    assert client.headers.keys() == {name.lower() for name in usual.headers} | closing
    assert client.headers["retry-after"] == usual.headers["retry-after"]
    assert client.headers["content-type"] == "application/problem+json"


def test_refused_and_taken_bodies_sent_ahead_are_told_apart(served) -> None:
    """Skipping one body ends exactly where the next request begins."""
    with Client(served) as client:
        client.send((post(LARGE).replace(b"/classify", b"/nope") + post(LARGE)) * 2)
        assert [client.response()[0] for _ in range(4)] == [404, 200, 404, 200]


MEDIUM = dicom(NOISE[:400, :400])  # 320 kB
REQUESTS = {
    "large": (post(MEDIUM), 200),
    "small": (post(SMALL), 200),
    "bad": (post(b"no image"), 415),
    "large refused": (post(MEDIUM).replace(b" HTTP", b"?lane=backfill HTTP", 1), 503),
    "small refused": (post(SMALL).replace(b" HTTP", b"?lane=backfill HTTP", 1), 503),
    "large unknown": (post(MEDIUM).replace(b"/classify", b"/nope", 1), 404),
}


@given(
    names=st.lists(st.sampled_from(sorted(REQUESTS)), min_size=1, max_size=6),
    shares=st.lists(st.floats(0, 1), max_size=5),
    pause=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_whatever_comes_however_it_is_cut_each_gets_its_answer(
    served, names: list[str], shares: list[float], pause: bool
) -> None:
    """Taken, refused, unknown, in any order on one connection, and cut anywhere."""
    whole = b"".join(REQUESTS[name][0] for name in names)
    cuts = [0, *sorted(round(share * len(whole)) for share in shares), len(whole)]
    most = served.runtime.settings.max_queue_images
    served.runtime.admission.count("backfill", most)
    try:
        with Client(served) as client:
            for start, end in pairwise(cuts):
                client.send(whole[start:end])
                time.sleep(0.005 * pause)
            assert [client.response()[0] for _ in names] == [REQUESTS[name][1] for name in names]
    finally:
        served.runtime.admission.count("backfill", -most)

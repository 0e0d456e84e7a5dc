"""Every byte of a connection: each request gets its own answer, or a clear refusal."""

from __future__ import annotations

import gc
import inspect
import json
import select
import socket
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import pairwise

import numpy as np
import pytest
from garbage import no_search_for_garbage
from hypothesis import given, settings
from hypothesis import strategies as st
from images import dicom, png
from leaks import WAYS, attack
from uvicorn.protocols.http import h11_impl
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.api.metrics import REFUSED
from service.api.protocol import BoundedProtocol

NOISE = np.random.default_rng(0).integers(0, 4096, (1024, 1024), dtype=np.uint16)
LARGE = dicom(NOISE)  # 2 MB
MANY = 1400  # files with long names, whose answers are more than the kernel's buffers hold
SMALL = png((NOISE[:64, :64] >> 4).astype(np.uint8))


@pytest.fixture(scope="module")
def served(start, light) -> Iterator[object]:
    """A service with deadlines that a test can wait for."""
    update = {
        "max_receive_idle_seconds": 2,
        "max_receive_seconds": 6,
        "max_head_seconds": 1,
        "max_write_seconds": 1,
        "max_connections": 40,
        "max_archive_entries": MANY,
    }
    with start(light.model_copy(update=update)) as service:
        yield service


def post(
    body: bytes, *headers: str, length: int | None = None, target: str = "/v1/classify"
) -> bytes:
    lines = (f"POST {target} HTTP/1.1", "Host: x", *headers)
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

    def readable(self, seconds: float) -> bool:
        return bool(select.select([self.socket], [], [], seconds)[0])

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


@pytest.fixture
def bodies(monkeypatch) -> list[weakref.ref]:
    """References to all arrays of over a megabyte that are made from now on: bodies."""
    made, empty = [], np.empty

    def recorded(*args, **kwargs):
        array = empty(*args, **kwargs)
        if array.nbytes > 2**20:
            made.append(weakref.ref(array))
        return array

    monkeypatch.setattr(np, "empty", recorded)
    return made


def test_bodies_go_with_their_answers(served, bodies) -> None:
    """Good or bad: none waits in memory for a search for garbage, which comes too late."""
    with no_search_for_garbage():
        with Client(served) as client:
            client.send(post(LARGE))  # what the first one leaves is not meant
            client.response()
            bodies.clear()
            for body, status in ((LARGE, 200), (LARGE[: -(2**19)], 422), (bytes(2**21), 415)):
                client.send(post(body))
                assert client.response()[0] == status
        assert len(bodies) >= 3
        served.until(lambda: not any(body() is not None for body in bodies))


def test_the_body_of_an_image_that_is_refused_when_it_is_whole_goes_too(served, bodies) -> None:
    """Its slot had lapsed and was taken: 503 without an answer, which alone would let it go."""
    admission, whole = served.runtime.admission, post(LARGE)
    most = served.runtime.settings.max_queue_images
    with no_search_for_garbage(), Client(served) as client:
        client.send(whole[:1000])
        sent = 1000
        served.until(lambda: admission.images("interactive") == 1)
        while admission.images("interactive"):
            client.send(whole[sent : (sent := sent + 1000)])
            time.sleep(0.05)
        admission.count("interactive", most)
        client.send(whole[sent:])
        status, problem = client.response()
        admission.count("interactive", -most)
        assert (status, problem["code"]) == (503, "queue_full")
        (body,) = bodies
        served.until(lambda: body() is None)


def test_requests_leave_no_circles(served, monkeypatch) -> None:
    """To find those of thousands of requests, the search for garbage stopped all for 200 ms."""
    connections, begin = [], BoundedProtocol.connection_made

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
        monkeypatch.setattr(BoundedProtocol, "connection_made", recorded)
        for case in cases * 10:
            exchange(*case)
        assert len(connections) == 30
        served.until(lambda: not any(connection() is not None for connection in connections))
        # 60 requests, none of which leaves anything; transports of asyncio leave a few objects each
        assert gc.collect() < 10 * len(connections)


def test_a_head_may_come_alone(served) -> None:
    """As most clients send it; the body comes later."""
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
        served.until(lambda: served.runtime.budget.reserved > 0)
    served.until(lambda: served.runtime.budget.reserved == 0)
    with Client(served) as client:
        client.send(post(LARGE))
        assert client.response()[0] == 200


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
    held, whole = served.runtime.budget, post(LARGE)
    middle = len(whole) - late
    with Client(served) as client:
        client.send(whole[:middle])
        served.until(lambda: held.reserved == len(LARGE) - late)  # less than it has promised
        others = held.limit - held.reserved
        assert held.take("interactive", others)
        client.send(whole[middle:])
        status, problem = client.response()
        assert (status, problem["code"]) == (503, "service_full")
        held.release(others)
        client.send(whole)
        assert client.response()[0] == 200
    served.until(lambda: held.reserved == 0)


def test_a_refused_body_is_skipped(served) -> None:
    """A refused body that comes all the same is no request of its own."""
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
def test_a_refusal_is_the_same_from_middleware_and_route(
    served, body: bytes, header: tuple[str]
) -> None:
    """Shed by the middleware or refused by the route: status, headers and body do not differ."""
    admission = served.runtime.admission
    most = served.runtime.settings.max_queue_images
    admission.count("interactive", most)
    try:
        with served.client() as client:
            # The middleware leaves any other query to the route
            usual = client.post("/v1/classify?lane=%69nteractive", content=body)
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


def until_closed(client: Client) -> bytes:
    """All that still comes until the service closes the connection."""
    received = b""
    with suppress(ConnectionResetError):
        while piece := client.socket.recv(65536):
            received += piece
    return received


def test_no_request_is_answered_from_bytes_that_it_did_not_send(served) -> None:
    """Whatever claims a body and sends none, less or another kind of it gets no PFI."""
    claims = [
        ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
        ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
        ("Connection: Upgrade", "Upgrade: anything"),
        ("Expect: 100-continue",),
        ("Content-Encoding: gzip",),
        (),
    ]
    for claim in claims:
        for sent in (b"", LARGE[:100], LARGE[: len(LARGE) - 1]):
            with Client(served) as honest:
                honest.send(post(LARGE))
                assert honest.response()[0] == 200
            with Client(served) as client:
                client.send(post(sent, *claim, length=len(LARGE)))
                client.socket.shutdown(socket.SHUT_WR)
                assert b'"pfi"' not in until_closed(client), (claim, len(sent))


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "tls/1.3"])
def test_an_upgrade_is_ignored_and_its_body_read(served, protocol: str) -> None:
    """RFC 9110 7.8: a server may ignore Upgrade; ordinary Java clients send it with each POST."""
    upgrade = (
        "Connection: Upgrade, HTTP2-Settings",
        f"Upgrade: {protocol}",
        "HTTP2-Settings: AAMA",
    )
    with Client(served) as client:
        client.send(post(LARGE))
        alone = client.response()
        for _ in range(3):
            client.send(post(LARGE, *upgrade))
            assert client.response() == alone


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        (("Transfer-Encoding: chunked", "Content-Length: 5"), 400, "ambiguous_length"),
        (tuple(f"X-{number}: 1" for number in range(100)), 431, "head_too_large"),
    ],
)
def test_a_head_that_no_honest_client_sends_closes_its_connection(
    served, fields: tuple[str, ...], status: int, code: str
) -> None:
    """Two lengths of one body, or too many fields: an answer, and nothing more is read."""
    lines = ("POST /v1/classify HTTP/1.1", "Host: x", *fields)
    with Client(served) as client:
        client.send(("\r\n".join(lines) + "\r\n\r\n").encode() + b"0\r\n\r\n")
        answer = client.response()
        assert (answer[0], answer[1]["code"]) == (status, code)
        assert until_closed(client) == b""


@pytest.mark.parametrize("rest", [b"", b"\r\n\r\n"])
def test_a_head_has_a_limit_of_bytes(served, rest: bytes) -> None:
    """Endless or whole, in one piece or many: 400 or 431, and the connection is closed."""
    with Client(served) as client, suppress(ConnectionError):
        client.send(b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 200_000 + rest)
        assert until_closed(client).startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))


def test_trailers_are_bounded_and_never_headers(served) -> None:
    """What follows a chunked body changes nothing; too much of it ends the connection."""
    head = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n%b\r\n0\r\n" % (len(SMALL), SMALL)
    with Client(served) as client:
        client.send(head + chunk + b"X-Request-ID: trailer\r\nContent-Length: 7\r\n\r\n")
        assert client.response()[0] == 200
        assert client.headers["x-request-id"] != "trailer"
        with suppress(ConnectionError):
            client.send(head + chunk + b"X: " + b"x" * 500_000)
        assert b'"pfi"' not in until_closed(client)


def test_small_chunks_are_read_and_tiny_ones_are_not(served) -> None:
    """Each chunk costs as much as kilobytes: clients send no body of megabytes byte by byte."""
    head = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

    def chunks(size: int) -> bytes:
        pieces = [LARGE[at : at + size] for at in range(0, len(LARGE), size)]
        return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)

    with Client(served) as client:
        for size in (256, 1000, 70_000):
            client.send(head + chunks(size) + b"0\r\n\r\n")
            assert client.response()[0] == 200
    with Client(served) as client, suppress(ConnectionError):
        client.send(head + chunks(1))
        assert until_closed(client).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("sent", [b"", b"POST /v1/classify HTTP/1.1\r\nHost:"])
def test_a_silent_connection_is_closed(served, sent: bytes) -> None:
    """Before its first head, within it, and after an answer: `max_head_seconds`."""
    with Client(served) as client:
        client.send(sent)
        assert until_closed(client) == b""
    with Client(served) as client:
        client.send(post(SMALL))
        assert client.response()[0] == 200
        client.send(sent)
        assert until_closed(client) == b""


def test_a_dripped_head_is_cut_however_often_a_byte_comes(served) -> None:
    """The deadline is that of the whole head."""
    begin = time.monotonic()
    with Client(served) as client, suppress(ConnectionError):
        for _ in range(100):
            client.send(b"G")
            time.sleep(0.05)
    assert time.monotonic() - begin < 4


def test_a_dripped_body_is_cut_although_bytes_come(served) -> None:
    """Each byte ends the silence, but the whole has `max_receive_seconds`."""
    with Client(served) as client:
        client.send(post(b"", length=len(LARGE)))
        for _ in range(100):
            client.send(b"x")
            if client.readable(0.1):
                break
        status, problem = client.response()
        assert (status, problem["code"]) == (408, "body_timeout")
        assert "complete" in problem["detail"]


def test_the_rest_of_a_refused_body_has_a_deadline(served) -> None:
    """After an early answer nothing else waits for the body."""
    with Client(served) as client:
        client.send(post(b"", length=2**40))
        assert client.response()[0] == 413
        assert until_closed(client) == b""


def test_a_refused_body_that_breaks_off_ends_the_connection(served, caplog) -> None:
    """No second answer can be sent, and no error is logged."""
    head = b"POST /v1/nothing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with Client(served) as client:
        client.send(head)
        assert client.response()[0] == 404
        client.send(b"no chunk\r\n")
        assert until_closed(client) == b""
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_client_that_does_not_read_its_answer_loses_it(served) -> None:
    """`max_write_seconds` after the buffers are full; its bytes leave the budget."""
    name = b"n" * 4000
    part = (
        b'--X\r\nContent-Disposition: form-data; name="files"; filename="%b"\r\n\r\nno\r\n' % name
    )
    body, budget = part * MANY + b"--X--\r\n", served.runtime.budget
    answered = REFUSED.labels("unrecognised_format")._value
    before = answered.get()
    head = f"POST /v1/classify/batch HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    with Client(served) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.send(head.encode() + b"Content-Type: multipart/form-data; boundary=X\r\n\r\n" + body)
        served.until(lambda: budget.reserved > 0)
        served.until(lambda: budget.reserved == 0)
    assert answered.get() - before < MANY  # it stopped in the middle


def test_the_connection_that_waits_longest_is_closed_for_a_new_one(served) -> None:
    """However many say nothing, a client that sends its request is answered."""
    with ExitStack() as stack:
        silent = [stack.enter_context(Client(served)) for _ in range(45)]
        for _ in range(3):
            with Client(served) as honest:
                honest.send(post(SMALL))
                assert honest.response()[0] == 200
        assert until_closed(silent[0]) == b""


def test_connections_have_a_limit(served) -> None:
    """Where all others are busy, one more is closed."""
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(served)) for _ in range(40)]
        for client in clients:
            client.send(post(b"", target="/v1/classify/batch", length=10))
        served.until(lambda: served.runtime.budget.reserved == 0)
        time.sleep(0.1)
        with Client(served) as late, suppress(ConnectionError):
            late.send(post(SMALL))
            assert until_closed(late) == b""
        for client in clients:
            assert client.response()[0] == 408


@pytest.mark.parametrize("http", [b"HTTP/1.0", b"HTTP/1.1"])
@pytest.mark.parametrize(
    ("target", "length", "status"),
    [
        ("/v1/nothing", None, 404),
        ("/v1/classify?lane=x", None, 422),
        ("/v1/classify", 5 * 2**20, 413),
    ],
)
def test_an_early_answer_reaches_a_client_that_closes(
    served, http: bytes, target: str, length: int | None, status: int
) -> None:
    """Python's urllib always asks for Connection: close; a reset would take the answer from it."""
    body = bytes(length or len(LARGE))
    request = post(body, "Connection: close", target=target).replace(b"HTTP/1.1", http, 1)
    with Client(served) as client:
        client.send(request)
        assert client.response()[0] == status
        assert client.socket.recv(1) == b""  # closed, not reset


def test_a_body_that_ends_too_soon_is_refused(served) -> None:
    """400, where the client still listens."""
    for sent in (0, 1, len(LARGE) - 1):
        with Client(served) as client:
            client.send(post(LARGE[:sent], length=len(LARGE)))
            client.socket.shutdown(socket.SHUT_WR)
            assert until_closed(client).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_target_may_name_its_host(served, scheme: str) -> None:
    """RFC 9112 3.2.2: a server must accept the absolute form."""
    with Client(served) as client:
        client.send(post(LARGE))
        alone = client.response()
        client.send(post(LARGE, target=f"{scheme}://hospital.example/v1/classify"))
        assert client.response() == alone
        client.send(f"PUT {scheme}://hospital.example HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert client.response()[0] == 405  # without a path: the page at /, which can be read only


def test_what_breaks_off_leaves_no_error_in_the_log(served, caplog) -> None:
    """A client cannot fill the log: the server has answered, and the application is told so."""
    head = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    for rest in (b"nonsense\r\n", b"5\r\nhello\r\n0\r\n" + b"X: " + b"x" * 500_000, b"5\r\nhel"):
        with Client(served) as client, suppress(OSError):  # it may have been closed already
            client.send(head + rest)
            client.socket.shutdown(socket.SHUT_WR)
            assert b'"pfi"' not in until_closed(client)
    assert answers(served)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def answers(served) -> bool:
    """Whether a new connection is served."""
    with Client(served) as client, suppress(ConnectionError, AssertionError):
        client.send(post(SMALL))
        return client.response()[0] == 200
    return False


def test_uvicorn_is_what_the_protocol_builds_on() -> None:
    """An upgrade of uvicorn that changes one of these must be read before it is taken."""
    names = ("connection_made", "connection_lost", "data_received", "handle_events")
    for name in (*names, "on_response_complete", "pause_writing", "resume_writing"):
        assert name in vars(H11Protocol), name
    parameters = inspect.signature(H11Protocol).parameters
    assert list(parameters) == ["config", "server_state", "app_state", "_loop"]
    source = inspect.getsource(h11_impl)
    for relied in (
        "self.connections.add(self)",
        "self.conn = h11.Connection(",
        "event = self.conn.next_event()",
        "except h11.RemoteProtocolError:",
        "self.cycle = RequestResponseCycle(",
        "on_response=self.on_response_complete",
        "self.response_complete = True",
        "self.server = get_local_addr(transport)",
    ):
        assert relied in source, relied


def test_nothing_of_another_client_is_answered(served) -> None:
    """In however many ways a request declares more than it sends; leaks.py tries thousands."""
    found = attack(served.port, 10 * len(WAYS))
    assert not found["leaks"]
    assert all("200" not in statuses for statuses in found["statuses"].values())

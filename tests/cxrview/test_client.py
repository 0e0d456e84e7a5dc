"""The Python API over HTTP: `Client` and `AsyncClient`, against a running service."""

from __future__ import annotations

import asyncio
import http.server
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import DATA
from heads import Mark, marked
from images import png, radiograph
from live import Live, serving

from cxrview import AsyncClient, Classification, Classifier, Client, Result, ServiceError

MARKS: tuple[tuple[Mark, ...], ...] = ((), ("no_chest",), ("turn_180", "inverted"))
FRONTAL = DATA / "frontal-0003.jpg"
LATERAL = DATA / "lateral-0013-header-says-pa.dcm"
MODEL = "swift/1.1.0"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    log = tmp_path_factory.mktemp("service") / "log"
    with serving(log, "--model", MODEL) as running:
        yield running


def test_a_client_asks_what_the_network_saw(service: Live) -> None:
    """With `explain`, one by one and with asyncio; else there is no explanation."""

    async def asked() -> Classification:
        async with AsyncClient(service.url) as client:
            return await client.classify(LATERAL, explain=True)

    with Client(service.url) as client:
        assert client.classify(LATERAL).explanation is None
        found = client.classify(LATERAL, explain=True)
    assert found == asyncio.run(asked())
    assert found.explanation is not None
    assert found.explanation.frame is not None


def test_a_client_answers_as_the_classifier(service: Live) -> None:
    """One after the other, many at a time, and with asyncio."""
    sources = [FRONTAL, LATERAL, LATERAL.read_bytes(), radiograph(128, 96), b"no image", "nowhere"]
    with Classifier(MODEL) as classifier, Client(service.url) as client:
        expected = [each.row() for each in classifier.classify_many(sources)]
        assert client.classify(FRONTAL) == classifier.classify(FRONTAL)
        found = [each.row() for each in client.classify_many(sources, connections=3)]

    async def ask() -> list[dict[str, Any]]:
        async with AsyncClient(service.url) as client:
            assert (await client.classify(LATERAL)).view == "lateral"
            return [each.row() async for each in client.classify_many(sources)]

    assert found == asyncio.run(ask())
    for own, of_service in zip(expected, found, strict=True):
        assert own.pop("pfi") == pytest.approx(of_service.pop("pfi"), abs=1e-3)
        assert own.pop("detail") is None or of_service["detail"]
        of_service.pop("detail")
        assert own == of_service


def test_an_archive_is_one_request(service: Live) -> None:
    """Each of its files has a result."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.write(FRONTAL, "one.jpg")
        archive.writestr("two.txt", "no image")
    with Client(service.url) as client:
        found = {each.name: each for each in client.classify_archive(buffer.getvalue())}
        assert found["one.jpg"].classification.view == "frontal"
        assert found["two.txt"].error_code == "unrecognised_format"
        with pytest.raises(ServiceError) as error:
            list(client.classify_archive(b"no archive"))
    assert (error.value.code, error.value.status) == ("unknown_archive", 415)


def test_a_refusal_has_its_code(service: Live) -> None:
    """That of docs/problems.md, with the status."""
    with Client(service.url) as client:
        with pytest.raises(ServiceError) as error:
            client.classify(b"\x89PNG\r\n\x1a\n")
        assert (error.value.code, error.value.status) == ("corrupt_image", 422)
        with pytest.raises(TypeError, match="uint8 or uint16"):
            client.classify(np.zeros((64, 64)))
        inverted = client.classify(
            255 - radiograph(96, 96, 8).astype("u1"), photometric="MONOCHROME1"
        )
        plain = client.classify(radiograph(96, 96, 8).astype("u1"))
        assert inverted.pfi == pytest.approx(plain.pfi, abs=1e-3)


@contextmanager
def answering(
    *answers: tuple[int, dict[str, str], bytes],
) -> Iterator[tuple[str, list[str | None]]]:
    """A server that gives these answers one after the other, and keeps what keys it was shown."""
    waiting, keys = list(answers), []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            keys.append(self.headers["authorization"])
            status, headers, body = waiting.pop(0)
            self.send_response(status)
            for name, value in ({"content-length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", keys
        finally:
            server.shutdown()
            thread.join()


FULL = json.dumps({"code": "queue_full", "detail": "the queue is full"}).encode()
ANSWER = json.dumps(
    {
        "view": "frontal",
        "pfi": 0.9,
        "threshold": 0.5,
        "review": False,
        "header": None,
        "sop_instance_uid": None,
        "warnings": [],
        "model": {"name": "swift", "version": "1.1.0", "sha256": "0"},
    }
).encode()


def test_it_comes_again_when_it_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """By Retry-After, with its key; without one it waits longer each time."""
    waits: list[float] = []
    monkeypatch.setattr("cxrview.client.time.sleep", waits.append)
    full = (503, {"retry-after": "7"}, FULL), (429, {}, FULL), (503, {}, FULL)
    with answering(*full, (200, {}, ANSWER)) as (url, keys), Client(url, "secret") as client:
        assert client.classify(b"x").view == "frontal"
    assert keys == ["Bearer secret"] * 4
    assert waits[0] == 7
    assert 0.5 <= waits[1] <= 1 < waits[2] * 1.01 <= 2.02


def test_it_gives_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what the service said last; or that there is none, or another one."""
    monkeypatch.setattr("cxrview.client.time.sleep", lambda _: None)
    with (
        answering(*[(503, {}, FULL)] * 3, (502, {}, b"<html>")) as (url, _),
        Client(url, retries=2) as client,
    ):
        for code in ("queue_full", "not_the_service"):
            with pytest.raises(ServiceError) as error:
                client.classify(b"x")
            assert error.value.code == code
    for gone in (url, "no-scheme"):
        with Client(gone, retries=1) as client, pytest.raises(ServiceError) as error:
            client.classify(b"x")
        assert (error.value.code, error.value.status) == ("unreachable", None)


OF_TOMORROW = ANSWER.replace(b"frontal", b"oblique")
STRANGE = [
    (b"<html>a login page</html>", "text/html.*<html>a login page"),
    (b"", "0 bytes, nothing"),
    (ANSWER[:50], "50 bytes"),
    (OF_TOMORROW, "view Input should be 'frontal', 'lateral' or 'not_chest'"),
    (ANSWER.replace(b"0.9", b"NaN"), "pfi"),
    (b"[]", "object"),
    (b"[" * 100_000, "100000 bytes"),
    (b'{"view": "\xff"}', "13 bytes"),
]


@pytest.mark.parametrize(("body", "message"), STRANGE, ids=range(len(STRANGE)))
def test_an_answer_that_is_none_says_what_came(body: bytes, message: str) -> None:
    """Of a proxy, or of a newer service; with both clients."""
    answers = [(200, {"content-type": "text/html"}, body)] * 2

    async def ask(url: str) -> None:
        async with AsyncClient(url) as client:
            await client.classify(b"x")

    with answering(*answers) as (url, _), Client(url) as client:
        for call in (lambda: client.classify(b"x"), lambda: asyncio.run(ask(url))):
            with pytest.raises(ServiceError, match=message) as error:
                call()
            assert (error.value.code, error.value.status) == ("invalid_answer", 200)
            assert len(str(error.value)) < 600


def named(name: str, answer: bytes = ANSWER) -> bytes:
    return json.dumps(json.loads(answer) | {"name": name}, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (named("bad", OF_TOMORROW), "bad"),
        (named("bad")[:-20], ""),
        (b"<html>", ""),
        (b"5", ""),
        (b"[]", ""),
        (b"null", ""),
        (b'{"name": "bad"}', "bad"),
        (b'{"view": "frontal"}', ""),
        (b'{"name": "bad", "error": "corrupt"}', "bad"),
        (b'{"name": "bad", "error": {"code": "corrupt_image"}}', "bad"),
        (b"[" * 100_000, ""),
        (b"\xff", ""),
    ],
    ids=range(12),
)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_line_that_is_none_fails_alone(line: bytes, name: str, at: int) -> None:
    """At the beginning, in the middle or at the end, with a line feed or without."""
    lines = [named("one"), named("two")]
    lines.insert(at, line)
    with answering((200, {}, b"\n".join(lines))) as (url, _), Client(url) as client:
        found = list(client.classify_archive(b"x"))
    assert [each.error_code for each in found].pop(at) == "invalid_answer"
    assert isinstance(found[at].error, ServiceError)
    assert [each.name for each in found if each.error is None] == ["one", "two"]
    assert found[at].name == name


def test_lines_end_with_a_line_feed_alone() -> None:
    """Other separators of Unicode are letters of a name."""
    names = ["a\u2028b", "a\u2029b", "a\x85b", "a\x0bb", "a\x0cb", "a\x1cb", "a\rb", "a\nb"]
    body = b"".join(named(name) + b"\n" for name in names)
    with answering((200, {}, body + b"\n")) as (url, _), Client(url) as client:
        found = list(client.classify_archive(b"x"))
    assert [(each.name, each.error) for each in found] == [(name, None) for name in names]


def test_a_connection_that_breaks_ends_an_archive_with_an_error() -> None:
    """After the results that came; as does a service that is not there."""
    body = named("one") + b"\n" + named("two")[:30]
    cut = (200, {"content-length": "5000", "connection": "close"}, body)
    with answering(cut) as (url, _), Client(url, timeout_seconds=2) as client:
        results = client.classify_archive(b"x")
        assert next(results).name == "one"
        with pytest.raises(ServiceError) as error:
            list(results)
    assert error.value.code == "unreachable"
    with Client(url) as client, pytest.raises(ServiceError, match="cannot be reached"):
        list(client.classify_archive(b"x"))


def test_a_service_whose_model_has_heads(headed_store: Path, tmp_path: Path) -> None:
    """The client has what the classifier has, image by image and in a batch."""
    pictures = [png(marked(radiograph(bits=8).astype("u1"), *marks)) for marks in MARKS]
    model = {"model": "swift/2.0.0", "model_store": str(headed_store)}
    with (
        serving(tmp_path / "log", **model) as live,
        Client(live.url) as client,
        Classifier("swift/2.0.0", model_store=headed_store) as classifier,
    ):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for number, picture in enumerate(pictures):
                archive.writestr(str(number), picture)
        batch = {each.name: each.row() for each in client.classify_archive(buffer.getvalue())}
        for number, picture in enumerate(pictures):
            expected = Result(str(number), classifier.classify(picture)).row()
            for found in (Result(str(number), client.classify(picture)).row(), batch[str(number)]):
                assert {
                    name: pytest.approx(value, abs=1e-3) if isinstance(value, float) else value
                    for name, value in expected.items()
                } == found
    assert [batch[str(number)]["view"] for number in range(2)] == ["frontal", "not_chest"]
    assert batch["2"]["rotation_degrees"] == 180


def test_a_service_of_another_version_is_understood() -> None:
    """An older one says nothing of heads; a newer one says more than this client knows."""
    whole = json.loads(ANSWER) | {"chest": 0.9, "chest_threshold": 0.5, "of_tomorrow": {"a": 1}}
    whole["orientation"] = {
        "rotation_degrees": 90,
        "rotation_probability": 0.9,
        "inverted": False,
        "inverted_probability": 0.1,
        "mirrored": None,
        "mirrored_probability": None,
        "of_tomorrow": "tilted",
    }
    whole["header"] = {"view_position": "PA", "agrees": True, "of_tomorrow": 1}
    older = json.loads(ANSWER) | {"header": {"view_position": "PA", "agrees": True}}
    answers = [(200, {}, json.dumps(each).encode()) for each in (older, whole)]
    with answering(*answers) as (url, _), Client(url) as client:
        old, new = client.classify(b"x"), client.classify(b"x")
    assert (old.view, old.chest, old.chest_threshold, old.orientation) == ("frontal", *[None] * 3)
    assert old.header is not None
    assert (old.header.agrees, old.header.body_part_agrees) == (True, None)
    assert new.orientation is not None
    assert (new.chest, new.orientation.rotation_degrees) == (0.9, 90)

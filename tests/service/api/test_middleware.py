"""What every request gets: an identifier, safe headers, a line in the access log, a span."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest
from conftest import DATA
from images import dicom, radiograph
from live import serving
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from service.api.auth.keys import new_key
from service.api.middleware.request_id import RequestId
from service.api.middleware.security_headers import SECURITY_HEADERS
from service.api.middleware.unforeseen_errors import UnforeseenErrors, where
from service.api.settings import Settings

JPEG = (DATA / "frontal-0003.jpg").read_bytes()
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@pytest.mark.parametrize("given", ["a", "REQ-2026.11_4711", "x" * 128])
def test_a_request_keeps_its_identifier(client: httpx2.Client, given: str) -> None:
    """Whatever it is answered."""
    headers = {"x-request-id": given}
    for content in (JPEG, b"x"):
        answer = client.post("/v1/classify", content=content, headers=headers)
        assert answer.headers["x-request-id"] == given
    for path in ("/v1/model", "/nowhere", "/readyz", "/docs"):
        assert client.get(path, headers=headers).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", "Zebra^Quagga", "x" * 129, "a;b"])
def test_a_doubtful_identifier_is_replaced(client: httpx2.Client, given: str) -> None:
    """By one that is new each time, as it would be written into logs."""
    found = {
        client.get("/readyz", headers={"x-request-id": given}).headers["x-request-id"]
        for _ in range(3)
    }
    assert len(found) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in found)


def test_every_answer_has_safe_headers(start, light: Settings) -> None:
    """Good or bad, and refused before the application saw it; nothing says what serves."""
    sent = {"content": JPEG, "timeout": 30}
    with start(light) as service, service.client() as client:
        answers = [
            client.post("/v1/classify", content=JPEG),
            client.post("/v1/classify", content=b"x"),
            client.get("/nowhere"),
            client.get("/docs"),
        ]
        url = f"{service.url}/v1/classify"
        with service.network_held():
            senders = [
                threading.Thread(target=httpx2.post, args=[url], kwargs=sent)
                for _ in range(light.max_queue_images)
            ]
            for sender in senders:
                sender.start()
            service.until_waiting(light.max_queue_images)
            answers.append(client.post("/v1/classify", content=JPEG))
        for sender in senders:
            sender.join()
    assert [each.status_code for each in answers] == [200, 415, 404, 200, 503]
    for answer in answers:
        for name, value in SECURITY_HEADERS:
            assert answer.headers.get_list(name.decode()) == [value.decode()]


def test_the_access_log_is_json_and_says_nothing_of_patients(tmp_path: Path) -> None:
    """A line a request, refusals too, but none of probes; paths that are not ours have no name."""
    key, line = new_key("pacs", frozenset({"classify"}))
    (tmp_path / "keys").write_text(line)
    marked = dicom(radiograph(), PatientName="Zebra^Quagga", PatientID="ZQ4711", PixelData=None)
    headers = {
        "authorization": f"Bearer {key}",
        "x-request-id": "r-1",
        "traceparent": f"00-{TRACE}-{PARENT}-01",
    }
    settings = {"access_log": "true", "log_format": "json", "keys": str(tmp_path / "keys")}
    with serving(tmp_path / "log", model="swift/1.0.0", **settings) as live:
        url = live.url
        httpx2.post(f"{url}/v1/classify", content=JPEG, headers=headers)
        httpx2.post(f"{url}/v1/classify?lane=interactive", content=marked, headers=headers)
        httpx2.post(f"{url}/v1/classify?name=Zebra", content=JPEG, headers=headers)
        httpx2.post(f"{url}/v1/classify/batch", content=JPEG, headers=headers)
        httpx2.get(f"{url}/v1/patients/Zebra^Quagga", headers=headers)
        httpx2.get(f"{url}/v1/model")
        httpx2.request("PROPFIND", f"{url}/docs")
        httpx2.get(f"{url}/readyz")
        assert live.end() == 0
    text = live.log.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    requests = [each for each in lines if each["logger"] == "cxrview.access"]
    shown = ("method", "path", "status", "code", "client")
    assert [tuple(each[name] for name in shown) for each in requests] == [
        ("POST", "/v1/classify", 200, None, "pacs"),
        ("POST", "/v1/classify", 422, "no_pixel_data", "pacs"),
        ("POST", "/v1/classify", 422, "invalid_request", "pacs"),
        ("POST", "/v1/classify/batch", 403, "not_permitted", "pacs"),
        ("GET", "elsewhere", 404, "not_found", None),
        ("GET", "/v1/model", 401, "not_authenticated", None),
        ("OTHER", "/docs", 405, "method_not_allowed", None),
    ]
    assert {each["request_id"] for each in requests[:5]} == {"r-1"}
    assert {each["trace_id"] for each in requests[:5]} == {TRACE}
    assert all(each["level"] == "INFO" and each["time"] for each in requests)
    assert not any("color_message" in each for each in lines)
    assert 0 < requests[0]["seconds"] < 10
    assert not [word for word in ("zebra", "ZQ4711", key) if word.lower() in text.lower()]


def test_an_unforeseen_error_is_logged_without_its_message() -> None:
    """Its kind and the lines that led to it: a message may quote a patient's file."""
    try:
        raise ValueError("Zebra^Quagga")
    except ValueError as error:
        told = where(error)
    assert told.startswith("ValueError\n")
    assert __file__ in told
    assert "told" not in told


def test_files_are_looked_at_again_when_told(tmp_path: Path) -> None:
    """SIGHUP: keys are read at once, the audit log goes on in a new file, no request is lost."""
    keys, audit = tmp_path / "keys", tmp_path / "audit"
    key, line = new_key("pacs", frozenset({"classify"}))
    keys.write_text(line)
    (tmp_path / "secret").write_bytes(bytes(32))
    files = {"audit_log": str(audit), "audit_key": str(tmp_path / "secret"), "keys": str(keys)}
    with (
        serving(tmp_path / "log", model="swift/1.0.0", **files) as live,
        httpx2.Client(base_url=live.url) as client,
    ):

        def sent(key: str) -> int:
            headers = {"authorization": f"Bearer {key}"}
            return client.post("/v1/classify", content=JPEG, headers=headers).status_code

        assert sent(key) == 200
        audit.rename(tmp_path / "old")
        new, line = new_key("pacs", frozenset({"classify"}))
        keys.write_text(line)
        live.process.send_signal(signal.SIGHUP)
        while not audit.exists() or sent(new) != 200:
            assert sent(key) in {200, 401}
        assert sent(key) == 401
    assert "classified" in audit.read_text()
    assert "classified" in (tmp_path / "old").read_text()


def test_traces_go_on_to_a_collector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One span for each request, in the client's trace, with the answer's status."""
    received: list[ExportTraceServiceRequest] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    collector = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{collector.server_port}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    try:
        with serving(tmp_path / "log", model="swift/1.0.0", tracing="true") as live:
            headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
            httpx2.post(f"{live.url}/v1/classify", content=JPEG, headers=headers)
            httpx2.get(f"{live.url}/patients/Zebra", headers=headers)
            assert live.end() == 0  # spans that wait are sent before it ends
    finally:
        collector.shutdown()
        collector.server_close()
    resources = [each for request in received for each in request.resource_spans]
    spans = [span for each in resources for scope in each.scope_spans for span in scope.spans]
    named = {each.key: each.value.string_value for each in resources[0].resource.attributes}
    assert named["service.name"] == "cxrview"
    assert [span.name for span in spans] == ["POST /v1/classify", "GET elsewhere"]
    assert all(span.trace_id.hex() == TRACE for span in spans)
    assert all(span.parent_span_id.hex() == PARENT for span in spans)
    statuses = [
        value.value.int_value
        for span in spans
        for value in span.attributes
        if value.key == "http.response.status_code"
    ]
    assert statuses == [200, 404]
    assert "Zebra" not in str(received)


def test_a_request_that_is_cancelled_while_it_is_refused_ends_quietly() -> None:
    """At the end of the process, when the rest of its body is still awaited; a log has no error."""

    async def cancelled(*_: object) -> None:
        raise asyncio.CancelledError

    middleware = RequestId(UnforeseenErrors(cancelled), None)
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "client": None}
    asyncio.run(middleware(scope, cancelled, cancelled))

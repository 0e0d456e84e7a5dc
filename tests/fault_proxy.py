"""Between a source and a PACS: what fails now and then, when a test says so."""

from __future__ import annotations

import http.client
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Proxy(ThreadingHTTPServer):
    """It notes what passes, and spoils some of it."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.target = urllib.parse.urlsplit(target)
        self.address = f"http://127.0.0.1:{self.server_port}{self.target.path}"
        self.times: list[float] = []
        self.headers: list[Any] = []
        self.spoiled = self.away = 0  # answers, and how often there was none
        self.inside = self.most_inside = 0
        self.spoil = lambda _: 0  # a status instead of the answer; 1: half of it
        self.retry_after: str | None = None
        self.lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """Of one connection."""

    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.times.append(time.monotonic())
            self.server.headers.append(self.headers)
            self.server.inside += 1
            self.server.most_inside = max(self.server.most_inside, self.server.inside)
            spoil = self.server.spoil(self.path)
            self.server.spoiled += bool(spoil)
        try:
            self.answer(spoil)
        finally:
            with self.server.lock:
                self.server.inside -= 1

    def answer(self, spoil: int) -> None:
        if spoil > 1:
            self.reply(spoil, {"Retry-After": self.server.retry_after}, b"sorry")
            return
        target = self.server.target
        connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=30)
        try:
            connection.request("GET", self.path, headers={"Accept": self.headers["Accept"]})
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            with self.server.lock:
                self.server.away += 1
            self.reply(502, {}, b"")
            return
        finally:
            connection.close()
        kept = {"Content-Type": answer.getheader("Content-Type")}
        self.reply(answer.status, kept, body, cut=spoil == 1)

    def reply(
        self, status: int, headers: dict[str, str | None], body: bytes, *, cut: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True


@contextmanager
def proxy(target: str) -> Iterator[Proxy]:
    """Serve until the block ends."""
    with Proxy(target) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()

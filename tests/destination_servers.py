"""Destinations that behave as tests want: HTTP servers and a DICOM receiver, real ones."""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydicom.uid import Comprehensive3DSRStorage
from pynetdicom import AE, evt

BODY_OF_PART = re.compile(rb"\r\n\r\n(.*)\r\n--[^\r\n]+--\r\n$", re.DOTALL)


@dataclass
class Asked:
    """A request that a server got."""

    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes
    at: float = field(default_factory=time.monotonic)

    @property
    def part(self) -> bytes:
        """The object in a multipart body."""
        found = BODY_OF_PART.search(self.body)
        assert found is not None
        return found[1]


Said = tuple[int, dict[str, str], bytes]  # status, headers, body
HANG, CLOSE = (0, {}, b""), (-1, {}, b"")


class HttpPeer:
    """An HTTP server whose answers the test decides.

    Attributes:
        answer: Called with each request; HANG and CLOSE are answers too.
        asked: All requests.
    """

    def __init__(self, answer: Callable[[Asked], Said], context: ssl.SSLContext | None) -> None:
        self.answer, self.asked = answer, list[Asked]()
        self.ending = threading.Event()
        peer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.path, headers, body)
                peer.asked.append(asked)
                status, more, said = peer.answer(asked)
                if status <= 0:
                    if status == 0:
                        peer.ending.wait(30)
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(said))} | more).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:  # clients that went away
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if context is None else "https"
        self.port = self._server.server_address[1]
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.ending.set()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def http_peer(
    answer: Callable[[Asked], Said], context: ssl.SSLContext | None = None
) -> Iterator[HttpPeer]:
    """Serve until the block ends."""
    peer = HttpPeer(answer, context)
    try:
        yield peer
    finally:
        peer.close()


@dataclass
class StorePeer:
    """A DICOM receiver whose statuses the test decides."""

    server: Any
    port: int
    status: Callable[[Any], int]
    stored: list[tuple[str, bytes]] = field(default_factory=list)  # calling AE, the object
    associations: int = 0


@contextmanager
def store_peer(
    status: Callable[[Any], int] = lambda _: 0,
    context: ssl.SSLContext | None = None,
    sop_class: str = Comprehensive3DSRStorage,
    **settings: Any,
) -> Iterator[StorePeer]:
    """Serve until the block ends."""
    entity = AE("PACS")
    for name, value in settings.items():
        setattr(entity, name, value)
    entity.add_supported_context(sop_class)

    def store(event: evt.Event) -> int:
        found = peer.status(event)
        if found == 0 or found >> 12 == 0xB:
            calling = event.assoc.requestor.ae_title
            peer.stored.append((calling, event.encoded_dataset()))
        return found

    def accepted(_: evt.Event) -> None:
        peer.associations += 1

    handlers: Any = [(evt.EVT_C_STORE, store), (evt.EVT_ACCEPTED, accepted)]
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=handlers, ssl_context=context
    )
    assert server is not None
    peer = StorePeer(server, server.server_address[1], status)
    try:
        yield peer
    finally:
        with suppress(OSError):
            server.shutdown()


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


def server_tls(certificate: Path, key: Path, *, clients: Path | None = None) -> ssl.SSLContext:
    """TLS of a server; `clients`: it asks for their certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if clients is not None:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED
    return context

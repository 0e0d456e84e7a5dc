"""Requests that declare more than they send, each after another client's radiograph.

    python tests/leaks.py PORT TRIES

prints as JSON what each way of it got, and how often an answer held what that request had not
sent. The service at PORT is to be one of the test's own.
"""

from __future__ import annotations

import json
import random
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from images import dicom  # pytest is not there to find it

GREY = np.random.default_rng(0).integers(0, 4096, (200, 200), dtype=np.uint16)
UPGRADE = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQ")
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close by a reset


def victim(number: int) -> bytes:
    """A radiograph whose SOP Instance UID is known."""
    return dicom(GREY, SOPInstanceUID=f"1.2.826.0.1.3680043.8.498.{number}")


def head(length: int, *fields: str, target: str = "/v1/classify") -> bytes:
    """A request's head that declares a body."""
    lines = (f"POST {target} HTTP/1.1", "Host: x", f"Content-Length: {length}", *fields)
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunked(*fields: str) -> bytes:
    """A request's head of a body in chunks."""
    return head(0, "Transfer-Encoding: chunked", *fields).replace(b"Content-Length: 0\r\n", b"")


# What is sent, by the victim's body; then the connection ends by FIN or reset
WAYS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "upgrade without a body": lambda body, _: head(len(body), *UPGRADE),
    "upgrade with a part": lambda body, rng: (
        head(len(body), *UPGRADE) + bytes(rng.randrange(1, len(body)))
    ),
    "upgrade to websocket": lambda body, _: head(
        len(body), "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"
    ),
    "prior knowledge of HTTP/2": lambda body, _: (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(len(body) // 2)
    ),
    "no body": lambda body, _: head(len(body)),
    "a part of the body": lambda body, rng: head(len(body)) + bytes(rng.randrange(1, len(body))),
    "all but a byte": lambda body, _: head(len(body)) + bytes(len(body) - 1),
    "expects leave": lambda body, _: head(len(body), "Expect: 100-continue"),
    "chunk cut off": lambda body, rng: (
        chunked() + b"%x\r\n" % len(body) + bytes(rng.randrange(len(body)))
    ),
    "chunks without an end": lambda *_: chunked() + b"1\r\nx\r\n" * 20,
    "two lengths": lambda body, _: (
        head(len(body), "Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n"
    ),
    "two different lengths": lambda body, _: (
        head(len(body), f"Content-Length: {len(body) + 9}") + bytes(9)
    ),
    "a form cut off": lambda body, rng: (
        head(len(body), "Content-Type: multipart/form-data; boundary=X")
        + b'--X\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        + bytes(rng.randrange(1, len(body) // 2))
    ),
    "a batch cut off": lambda body, rng: (
        head(len(body), target="/v1/classify/batch") + bytes(rng.randrange(1, len(body)))
    ),
}


def answer_to(port: int, data: bytes, end: Callable[[socket.socket], None]) -> bytes:
    """All that comes back until the service closes the connection."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), 10) as connection, suppress(OSError):
        connection.sendall(data)
        end(connection)
        while piece := connection.recv(65536):
            received += piece
    return received


def stay(_: socket.socket) -> None:
    """Wait for the answer."""


def finish(connection: socket.socket) -> None:
    """Send nothing more."""
    connection.shutdown(socket.SHUT_WR)


def reset(connection: socket.socket) -> None:
    """Go at once."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connection.close()


def attack(port: int, tries: int, seed: int = 0) -> dict[str, object]:
    """Each try: another client's radiograph, then one of `WAYS`, in turn.

    Returns:
        By way how often each status came, and under `leaks` the answers that no request sent.
    """
    rng = random.Random(seed)
    statuses: dict[str, Counter[str]] = {way: Counter() for way in WAYS}
    leaks = []
    for number, way in zip(range(tries), [*WAYS] * tries, strict=False):
        body = victim(number)
        honest = answer_to(port, head(len(body), "Connection: close") + body, stay)
        assert f'498.{number}"'.encode() in honest, honest
        end = rng.choice([finish] * 9 + [reset])
        found = answer_to(port, WAYS[way](body, rng), end)
        statuses[way][found[9:12].decode() or "closed"] += 1
        if b'"pfi"' in found or b"sop_instance_uid" in found:
            leaks.append((way, found.decode()))
    return {"tries": tries, "leaks": leaks, "statuses": statuses}


if __name__ == "__main__":
    print(json.dumps(attack(int(sys.argv[1]), int(sys.argv[2])), indent=1))

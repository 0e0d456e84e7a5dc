"""Damaged streams of DICOM's upper layer, made from valid ones by a seed; and what sends them.

    python tests/pdu_fuzz.py PORT FIRST COUNT

Each connection must be ended by the receiver. Prints how often each answer came last.
"""

from __future__ import annotations

import random
import select
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable

from dicom_peer import CR, ECHO, EXPLICIT, P_DATA, VERIFICATION, Stored, association, pdu, value
from pydicom import uid
from receiving import stored

HOSTILE = (0, 1, 2, 5, 6, 2**15, 2**16 - 1, 2**18, 2**31 - 1, 2**31, 2**32 - 1)
ANSWER_SECONDS = 60.0
FIRST_SECONDS = 0.5
CONTEXTS = [(1, CR, [EXPLICIT]), (3, VERIFICATION, [uid.ImplicitVRLittleEndian])]


def valid(random_: random.Random, sent: Stored) -> list[bytes]:
    """PDUs of an association that is served."""
    size = random_.choice((100, 1000, 20_000))
    few = list(sent.pdus(size=size))[:20]
    echo = pdu(P_DATA, value(3, 3, ECHO))
    return [association(CONTEXTS), *random_.choice(([echo], few, [echo, *few])), pdu(5, bytes(4))]


def _flip(data: bytearray, random_: random.Random) -> None:
    for _ in range(random_.randint(1, 8)):
        data[random_.randrange(len(data))] = random_.randrange(256)


def _length(data: bytearray, random_: random.Random) -> None:
    """A number of two or four bytes, anywhere; most often in the head of the PDU."""
    form, most = random_.choice(((">H", 2**16 - 1), (">L", 2**32 - 1), ("<L", 2**32 - 1)))
    at = random_.choice((2, 6, 6, 78, random_.randrange(len(data))))
    at = min(at, len(data) - struct.calcsize(form))
    struct.pack_into(form, data, at, min(random_.choice(HOSTILE), most))


def _cut(data: bytearray, random_: random.Random) -> None:
    if len(data) > 6:  # otherwise only its head is left of an earlier cut
        del data[random_.randrange(6, len(data)) :]


def _insert(data: bytearray, random_: random.Random) -> None:
    at = random_.randrange(len(data))
    data[at:at] = random_.randbytes(random_.randint(1, 64))


def _repeat(data: bytearray, random_: random.Random) -> None:
    data += data[: random_.randrange(1, len(data))]


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip,
    _length,
    _length,
    _cut,
    _insert,
    _repeat,
)


def changed(seed: int, body: bytes) -> bytes:
    """A body whose bytes are changed, removed, added or repeated, always the same for a seed."""
    random_ = random.Random(seed)
    data = bytearray(body)
    for _ in range(random_.randint(1, 4)):
        random_.choice((_flip, _remove, _insert, _repeat))(data, random_)
    return bytes(data)


def _remove(data: bytearray, random_: random.Random) -> None:
    at = random_.randrange(len(data))
    del data[at : min(at + random_.randint(1, 8), at + len(data) - 1)]


def damaged(seed: int, sent: Stored) -> list[bytes]:
    """The PDUs of a stream, always the same for a seed."""
    random_ = random.Random(seed)
    pdus = [bytearray(each) for each in valid(random_, sent)]
    targets = pdus if random_.random() < 0.4 else pdus[1:]  # the others get an association
    for _ in range(random_.randint(1, 3)):
        random_.choice(MUTATIONS)(random_.choice(targets), random_)
    if random_.random() < 0.1:
        random_.shuffle(pdus)
    if random_.random() < 0.2:
        pdus.insert(random_.randrange(len(pdus)), pdus[random_.randrange(len(pdus))])
    return [bytes(each) for each in pdus]


def send(port: int, pdus: list[bytes]) -> str:
    """Send a stream, with a pause after its first PDU; returns the type of the last answer.

    Raises:
        TimeoutError: The receiver has not ended the connection in time.
    """
    with socket.create_connection(("127.0.0.1", port), ANSWER_SECONDS) as connection:
        answer = b""
        try:
            connection.sendall(pdus[0])
            if select.select([connection], [], [], FIRST_SECONDS)[0]:
                answer = connection.recv(65536)
            connection.sendall(b"".join(pdus[1:]))
            connection.shutdown(socket.SHUT_WR)
            while more := connection.recv(65536):
                answer += more
        except TimeoutError:
            raise
        except OSError:
            return "reset"
    last = "none"
    while len(answer) >= 6:
        kind, length = struct.unpack_from(">BxL", answer)
        last, answer = str(kind), answer[6 + length :]
    return last


if __name__ == "__main__":
    port, first, count = map(int, sys.argv[1:])
    shown = stored(1)
    ends: Counter[str] = Counter()
    for seed in range(first, first + count):
        try:
            ends[send(port, damaged(seed, shown))] += 1
        except TimeoutError:
            ends["timeout"] += 1
            print("not ended:", seed, flush=True)
        if seed % 1000 == 999:
            print(seed + 1, dict(ends), flush=True)
    print(dict(ends))

"""Damaged streams: nothing crashes, hangs, grows or is logged, and the service answers after."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from dicom_peer import (
    ASSOCIATE_AC,
    ASSOCIATE_RQ,
    CR,
    EXPLICIT,
    P_DATA,
    association,
    pdu,
    peer,
    store_command,
    value,
)
from live import Live
from pdu_fuzz import CONTEXTS, changed, damaged, send
from receiving import PATIENT, UID, receiving, stored, wait_for

STREAMS = 300
REQUESTS = 200
GROWTH_BYTES = 60_000_000
PROMPT_SECONDS = 8.0  # less than any limit of the receiver


def store(service: Live, number: int) -> None:
    with peer(service.dicom_port) as sender:
        sender.associate((1, CR, [EXPLICIT]))
        assert sender.store(stored(number)).Status == 0


def test_every_seed_makes_a_stream():
    """Also one that cuts a PDU twice."""
    sent = stored(1)
    assert all(damaged(seed, sent) for seed in range(5000))


def test_damaged_streams_are_survived(tmp_path):
    """Each is ended by the receiver in time; lengths up to 4 GB take no memory."""
    sent = stored(1)
    with receiving(tmp_path) as service, ThreadPoolExecutor(4) as senders:
        store(service, 2)  # it loads what makes reports
        wait_for(lambda: list((tmp_path / "reports").iterdir()))
        before = service.memory("VmHWM")
        ends = list(
            senders.map(lambda seed: send(service.dicom_port, damaged(seed, sent)), range(STREAMS))
        )
        assert len(set(ends)) > 3  # accepted, aborted, released ...
        store(service, 3)
        assert service.memory("VmHWM") - before < GROWTH_BYTES
        assert service.end() == 0
    text = (tmp_path / "log").read_text()
    assert not [each for each in (*PATIENT.values(), UID, "Traceback") if each in text], text


def answer(service: Live, *requests: bytes) -> int | None:
    """The type of the PDU that answers the last; None: the connection was closed.

    Raises:
        TimeoutError: The receiver leaves a peer that waits without an answer.
    """
    with peer(service.dicom_port) as sender:
        sender.socket.settimeout(PROMPT_SECONDS)
        try:
            for request in requests:
                sender.socket.sendall(request)
                kind, _ = sender.read()
        except (EOFError, ConnectionError):
            return None
        return kind


def test_a_peer_that_waits_is_answered(tmp_path):
    """Whatever is damaged in its association request, or in the command set of an object."""
    asked, told = association(CONTEXTS), store_command(CR, "1.2.3")
    data_set = value(1, 2, bytes(50))
    with receiving(tmp_path) as service, ThreadPoolExecutor(4) as senders:

        def ask(seed: int) -> int | None:
            return answer(service, pdu(ASSOCIATE_RQ, changed(seed, asked[6:])))

        def tell(seed: int) -> int | None:
            message = pdu(P_DATA, value(1, 3, changed(seed, told)) + data_set)
            return answer(service, asked, message)

        associated, stored_ = (set(senders.map(each, range(REQUESTS))) for each in (ask, tell))
        assert service.end() == 0
    assert ASSOCIATE_AC in associated
    assert P_DATA in stored_
    assert "Traceback" not in (tmp_path / "log").read_text()

"""Damaged streams: nothing crashes, hangs, grows or is logged, and the service answers after."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from dicom_peer import CR, EXPLICIT, peer
from live import Live
from pdu_fuzz import damaged, send
from receiving import PATIENT, UID, receiving, stored, wait_for

STREAMS = 300
GROWTH_BYTES = 60_000_000


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

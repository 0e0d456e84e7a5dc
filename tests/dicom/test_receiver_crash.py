"""Nothing is lost when the receiver is killed: its senders repeat what was not told success."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from dicom_peer import CR, EXPLICIT, Stored, peer
from live import Live
from receiving import receiving, stored, subjects, wait_for

from service.dicom.destination_worker import LEASE_SECONDS

OBJECTS = 24
KILLS = 2


def send_until_killed(live: Live, waiting: list[Stored], stored_ones: set[str], kill: int) -> None:
    """Send in turn; the process is killed in the middle of an object, after `kill` of them."""
    with peer(live.dicom_port) as sender:
        sender.associate((1, CR, [EXPLICIT]))
        for number, each in enumerate(list(waiting)):
            if number == kill:
                parts = list(each.pdus(size=10_000))
                sender.socket.sendall(b"".join(parts[:-1]))
                live.process.send_signal(signal.SIGKILL)
                live.process.wait()
                return
            if sender.store(each).Status == 0:
                stored_ones.add(each.instance)
                waiting.remove(each)


def test_each_object_has_one_report_after_kills(tmp_path: Path):
    """An object that was told success has its report once, and every other is sent again."""
    objects = [stored(number) for number in range(OBJECTS)]
    waiting, told = list(objects), set()
    for _ in range(KILLS):
        with receiving(tmp_path) as live:
            send_until_killed(live, waiting, told, kill=OBJECTS // (KILLS + 1))
        waiting.insert(0, next(each for each in objects if each.instance in told))  # unsure of it
    with receiving(tmp_path) as live:
        send_until_killed(live, waiting, told, kill=-1)
        assert told == {each.instance for each in objects}
        wait_for(lambda: told <= set(subjects(tmp_path)), LEASE_SECONDS + 60)
        time.sleep(0.1)
        assert len(subjects(tmp_path)) == OBJECTS

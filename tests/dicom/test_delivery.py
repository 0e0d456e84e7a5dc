"""Delivery: every result arrives once, at its rate, in its hours, or is a dead letter."""

from __future__ import annotations

import contextlib
import json
import logging
import random
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from archive_servers import free_port, orthanc
from conftest import ROOT as REPOSITORY
from destination_servers import HANG, Asked, Said, http_peer, store_peer
from dicom_results import answered, cards

from model_store import Prediction
from service.dicom import destination_worker
from service.dicom.delivery import Deliveries
from service.dicom.destination_worker import DestinationWorker
from service.dicom.destinations import payload, read_destinations
from service.dicom.entries import Entry, Leased
from service.dicom.outbox import Outbox

MODEL, CARD = "swift/1.1.0", cards().plain
# pynetdicom leaves the sockets of failed connections to the garbage collection
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <(ssl|socket)")
SOON = "first_delay_seconds = 0.05\nmax_delay_seconds = 0.2\ntimeout_seconds = 1\n"


class Site:
    """An outbox with its destinations.

    Attributes:
        outcomes: Of all attempts, by destination and outcome.
    """

    def __init__(self, folder: Path, tables: dict[str, str], url: str | None = None) -> None:
        (folder / "secret").write_text("0123456789abcdef")
        self.file = folder / "destinations.toml"
        self.file.write_text(
            "\n".join(f"[destinations.{k}]\n{v}\n{SOON}" for k, v in tables.items())
        )
        self.destinations = read_destinations(self.file)
        self.url = url or f"sqlite:///{folder}/outbox.sqlite?timeout=0.2"
        self.outbox = Outbox(self.url)
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.ahead = 0.0

    def now(self) -> float:
        return time.time() + self.ahead

    def put(self, count: int, first: int = 0) -> list[str]:
        """Results about so many instances, for all destinations; returns the instances' UIDs."""
        uids = [f"1.2.826.0.1.3680043.8.498.7.{number}" for number in range(first, first + count)]
        for uid in uids:
            said = Prediction(0.99, None, None, None, None)
            result = answered(CARD, said, SOPInstanceUID=uid, MediaStorageSOPInstanceUID=uid)
            entries = [Entry(each.name, payload(each, result)) for each in self.destinations]
            assert self.outbox.put(uid, MODEL, "{}", entries)
        return uids

    @contextmanager
    def delivering(self) -> Iterator[Deliveries]:
        def observe(name: str, outcome: str) -> None:
            self.outcomes[name, outcome] += 1

        deliveries = Deliveries(self.outbox, self.destinations, observe, self.now)
        deliveries.start()
        try:
            yield deliveries
        finally:
            deliveries.close(10)

    def states(self) -> Counter[str]:
        return Counter(each.state for each in self.outbox.deliveries(most=10**6))

    def until(self, *states: str, seconds: float = 60) -> None:
        """Wait until all deliveries have one of these states."""
        until(lambda: not self.states().keys() - set(states), seconds)


def until(holds: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Makes the site with these destinations."""
    made: list[Site] = []

    def of(**tables: str) -> Site:
        made.append(Site(tmp_path, tables))
        return made[-1]

    yield of
    for each in made:
        each.outbox.close()


def hook(url: str, *more: str) -> str:
    return "\n".join(('kind = "webhook"', f'url = "{url}"', 'secret_file = "secret"', *more))


def accept(_: Asked) -> Said:
    return 204, {}, b""


def subjects(asked: list[Asked]) -> list[str]:
    return [json.loads(each.body)["subject"] for each in asked]


def test_each_result_goes_to_each_destination(site, tmp_path: Path) -> None:
    """Of every kind; what was delivered is counted."""
    (tmp_path / "out").mkdir()

    def store(asked: Asked) -> Said:
        uid = str(pydicom.dcmread(BytesIO(asked.part)).SOPInstanceUID)
        item = {"00081155": {"vr": "UI", "Value": [uid]}}
        answer = json.dumps({"00081199": {"vr": "SQ", "Value": [item]}}).encode()
        return 200, {"Content-Type": "application/dicom+json"}, answer

    with http_peer(accept) as hooked, http_peer(store) as stowed, store_peer() as stored:
        here = site(
            hook=hook(hooked.url),
            fhir=f'kind = "fhir"\nurl = "{hooked.url}"',
            stow=f'kind = "stow"\nurl = "{stowed.url}"',
            store=f'kind = "c-store"\nhost = "127.0.0.1"\nport = {stored.port}\n'
            'called_ae_title = "PACS"',
            folder='kind = "folder"\npath = "out"',
        )
        uids = here.put(4)
        with here.delivering() as deliveries:
            here.until("delivered")
            names = [each.name for each in here.destinations]
            until(lambda: all(deliveries.counts(each).states["delivered"] == 4 for each in names))
    assert here.outcomes == {(name, "delivered"): 4 for name in names}
    events = [each for each in hooked.asked if each.path != "/Observation"]
    assert sorted(subjects(events)) == sorted(uids)
    assert len(stored.stored) == len(stowed.asked) == len(list((tmp_path / "out").iterdir())) == 4


def test_a_destination_that_fails_at_times_gets_all(site) -> None:
    """503 to a third, in any order; each result arrives once."""
    chance, accepted = random.Random(1), []

    def flaky(asked: Asked) -> Said:
        if chance.random() < 0.33:
            return 503, {}, b""
        accepted.append(asked)
        return accept(asked)

    with http_peer(flaky) as peer:
        here = site(hook=hook(peer.url))
        uids = here.put(40)
        with here.delivering():
            here.until("delivered")
    assert sorted(subjects(accepted)) == sorted(uids)
    assert here.outcomes["hook", "delivered"] == 40
    assert here.outcomes["hook", "retry"] == len(peer.asked) - 40 > 0


def test_a_destination_that_lies_is_asked_again(site) -> None:
    """STOW-RS with 200, and nothing stored; the third time it tells the truth."""
    seen: Counter[str] = Counter()

    def liar(asked: Asked) -> Said:
        uid = str(pydicom.dcmread(BytesIO(asked.part)).SOPInstanceUID)
        seen[uid] += 1
        tag, reason = ("00081199", {}) if seen[uid] == 3 else ("00081198", {"00081197": 0x0110})
        item = {"00081155": {"Value": [uid]}} | {k: {"Value": [v]} for k, v in reason.items()}
        answer = json.dumps({tag: {"vr": "SQ", "Value": [item]}}).encode()
        return 200, {"Content-Type": "application/dicom+json"}, answer

    with http_peer(liar) as peer:
        here = site(stow=f'kind = "stow"\nurl = "{peer.url}"')
        here.put(3)
        with here.delivering():
            here.until("delivered")
    assert set(seen.values()) == {3}
    assert here.outcomes == {("stow", "retry"): 6, ("stow", "delivered"): 3}


def test_what_is_rejected_is_a_dead_letter_at_once(site, caplog) -> None:
    """And others go on; nothing of the patient is logged."""

    def choosy(asked: Asked) -> Said:
        return (422 if subjects([asked])[0].endswith(".1") else 200), {}, b"Doe^John"

    with http_peer(choosy) as peer:
        here = site(hook=hook(peer.url))
        uids = here.put(3)
        with here.delivering():
            here.until("delivered", "dead")
        (dead,) = here.outbox.deliveries("dead")
        assert (dead.sop_instance_uid, dead.code, dead.detail) == (uids[1], "rejected", "HTTP 422")
        assert (dead.attempts, len(peer.asked)) == (1, 3)
        assert f"delivery {dead.id} is a dead letter: HTTP 422" in caplog.text
        assert not any(each in caplog.text for each in (*uids, "Doe"))
        peer.answer = accept
        here.outbox.retry(dead.id)
        with here.delivering():
            here.until("delivered")


def test_a_destination_that_is_away_is_asked_seldom(site, caplog) -> None:
    """Once per pause, whatever waits; then all arrive, and an operator sees both in the log."""
    caplog.set_level(logging.INFO)
    here = site(hook=hook(f"http://127.0.0.1:{free_port()}"))
    here.put(30)
    with here.delivering():
        time.sleep(2)
    attempts = here.outcomes["hook", "retry"]
    assert 5 <= attempts <= 40  # 0.2 s, times 0.5 to 1, with a poll of 0.5 s
    assert caplog.text.count("destination hook is away") <= 2
    with http_peer(accept) as peer:
        address = here.file.read_text().replace(here.destinations[0].url, peer.url)
        here.file.write_text(address)
        here.destinations = read_destinations(here.file)
        with here.delivering():
            here.until("delivered")
    assert len(peer.asked) == 30


def test_retry_after_is_honoured_for_all(site) -> None:
    """No other result is sent meanwhile."""
    said = [(503, {"Retry-After": "1"}, b"")]

    def once(asked: Asked) -> Said:
        return said.pop() if said else accept(asked)

    with http_peer(once) as peer:
        here = site(hook=hook(peer.url))
        here.put(3)
        with here.delivering():
            here.until("delivered")
    first, second, *_ = (each.at for each in peer.asked)
    assert len(peer.asked) == 4
    assert second - first >= 1


def test_a_result_that_fails_for_long_is_a_dead_letter(site) -> None:
    """Counted from its first failure."""
    with http_peer(lambda _: (500, {}, b"")) as peer:
        here = site(hook=hook(peer.url, "give_up_hours = 1"))
        here.put(1)
        with here.delivering():
            until(lambda: here.outcomes["hook", "retry"] >= 2)
            assert here.states() == {"pending": 1}
            here.ahead = 3601
            here.until("dead")
    (dead,) = here.outbox.deliveries()
    assert (dead.code, dead.detail) == ("server_error", "HTTP 500")
    assert here.outcomes["hook", "dead"] == 1


def test_the_rate_is_kept(site) -> None:
    """Results are sent evenly."""
    with http_peer(accept) as peer:
        here = site(hook=hook(peer.url, "results_per_second = 10"))
        here.put(12)
        with here.delivering():
            here.until("delivered")
    times = [each.at for each in peer.asked]
    assert times[-1] - times[0] >= 0.9  # one may be late, the next catches up


def test_nothing_is_sent_outside_of_the_hours(site) -> None:
    """Of local time; an hour later they begin."""
    begin = datetime.now().astimezone() + timedelta(minutes=30)
    window = f"{begin:%H:%M}-{begin + timedelta(hours=2):%H:%M}"
    with http_peer(accept) as peer:
        here = site(hook=hook(peer.url, f'hours = "{window}"'))
        here.put(2)
        with here.delivering():
            time.sleep(1)
        assert peer.asked == []
        assert here.states() == {"pending": 2}
        here.ahead = 3600.0
        with here.delivering():
            here.until("delivered")


def test_the_lane_backfill_waits_for_interactive(site) -> None:
    """While a result is being sent there."""
    release = threading.Event()

    def slow(asked: Asked) -> Said:
        release.wait(20)
        return accept(asked)

    with http_peer(slow) as urgent, http_peer(accept) as patient:
        here = site(
            urgent=hook(urgent.url),
            patient=hook(patient.url, 'lane = "backfill"'),
        )
        urgent_one = here.destinations[0].model_copy(update={"timeout_seconds": 30.0})
        here.destinations = (urgent_one, here.destinations[1])
        here.put(1)
        with here.delivering():
            until(lambda: urgent.asked)
            here.put(3, first=1)
            time.sleep(1)
            early = len(patient.asked)
            assert early <= 1  # that of the first result, if it was faster
            release.set()
            here.until("delivered")
    assert len(patient.asked) == 4


def test_it_stops_between_two_results(site) -> None:
    """The one in progress is finished; the others are given back, and not counted as attempts."""
    with http_peer(lambda asked: (time.sleep(0.3), accept(asked))[1]) as peer:
        here = site(hook=hook(peer.url))
        here.put(10)
        with here.delivering():
            until(lambda: len(peer.asked) == 2)
    done = here.states()["delivered"]
    assert done == len(peer.asked) in {2, 3}
    assert here.states() == {"delivered": done, "pending": 10 - done}
    assert all(each.attempts == 0 for each in here.outbox.deliveries("pending"))


def test_a_destination_that_hangs_does_not_hold_the_process(site) -> None:
    """Its thread is left behind, and the result stays leased until its lease expires."""
    with http_peer(lambda _: HANG) as peer:
        here = site(hook=hook(peer.url))
        slow = here.destinations[0].model_copy(update={"timeout_seconds": 20.0})
        here.put(1)
        deliveries = Deliveries(here.outbox, (slow,), lambda *_: None)
        deliveries.start()
        until(lambda: peer.asked)
        begin = time.monotonic()
        deliveries.close(0.2)
        assert time.monotonic() - begin < 3
        assert here.states() == {"leased": 1}


def test_an_outbox_that_is_away_is_waited_for(site, tmp_path: Path, caplog) -> None:
    """Locked before a lease and before an outcome is stored: each result arrives once."""
    with http_peer(accept) as peer:
        here = site(hook=hook(peer.url))
        here.put(1)
        locker = sqlite3.connect(tmp_path / "outbox.sqlite", check_same_thread=False)

        def lock(asked: Asked) -> Said:
            locker.execute("BEGIN IMMEDIATE")
            return accept(asked)

        peer.answer = lock
        with here.delivering():
            until(lambda: "the outbox is locked" in caplog.text)
            peer.answer = accept
            locker.rollback()
            here.put(2, first=1)
            here.until("delivered")
        locker.close()
    assert len(peer.asked) == 3


def test_what_ended_long_ago_is_purged(site) -> None:
    """Also of destinations that the file has no longer; what waits is kept, and named."""
    with http_peer(accept) as peer:
        here = site(hook=hook(peer.url, "keep_days = 1"))
        here.put(2)
        here.outbox.put("1.9", MODEL, "{}", [Entry("gone", b""), Entry("hook", b"{}")])
        here.outbox.put("1.8", MODEL, "{}", [Entry("gone", b"")])
        here.outbox.drop(here.outbox.deliveries(destination="gone")[0].id)
        here.ahead = 86400.0 + 60
        with here.delivering():
            until(lambda: len(here.outbox.deliveries(destination="gone")) == 1)
            until(lambda: here.outbox.answer("1.8", MODEL) is None)


def test_a_defect_ends_no_thread(site, caplog) -> None:
    """A payload that no sender understands: it is tried again, and others arrive."""
    with http_peer(accept) as peer:
        here = site(hook=hook(peer.url))
        here.outbox.put("1.9", MODEL, "{}", [Entry("hook", b'"Doe^John"')])
        here.put(2)
        with here.delivering():
            until(lambda: here.states()["delivered"] == 2 and here.outcomes["hook", "retry"] > 1)
    (stuck,) = here.outbox.deliveries("pending")
    assert (stuck.code, stuck.detail) == ("internal_error", "TypeError")
    assert "Doe" not in caplog.text


class Defective:
    """A sender with defects, except that it delivers."""

    def send(self, leased: Leased) -> None:
        """Deliver nothing, without an error."""

    def idle(self) -> None:
        raise KeyError("Doe^John")

    def close(self) -> None:
        raise KeyError("Doe^John")


def test_a_defect_between_results_ends_no_thread(site, caplog, monkeypatch) -> None:
    """Nor does one at the end: each has a line in the log, without data of the patient."""
    monkeypatch.setattr(destination_worker, "IDLE_SECONDS", 0.0)
    monkeypatch.setattr(destination_worker, "AWAY_SECONDS", 0.05)
    here = site(hook=hook("http://127.0.0.1:1"))
    worker = DestinationWorker(
        here.outbox, here.destinations[0], Defective(), lambda _: None, yields=lambda: False
    )
    worker.start()
    until(lambda: "destination hook: KeyError at " in caplog.text)
    here.put(1)
    here.until("delivered")
    caplog.clear()
    worker.stop()
    assert worker.join(10)
    assert "destination hook: KeyError at " in caplog.text
    assert "Doe" not in caplog.text


@pytest.fixture
def running(url: str) -> Iterator[Callable[[Site, float], subprocess.Popen[str]]]:
    """Starts a process that delivers."""
    processes: list[subprocess.Popen[str]] = []

    def start(here: Site, ahead: float) -> subprocess.Popen[str]:
        words = [sys.executable, str(REPOSITORY / "tests/delivering.py"), url, str(here.file)]
        processes.append(
            subprocess.Popen(
                [*words, str(ahead)], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
            )
        )
        assert processes[-1].stdout is not None
        assert processes[-1].stdout.readline() == "delivering\n"
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_a_process_that_is_killed_loses_and_doubles_nothing(running, url, tmp_path) -> None:
    """Killed while it sends, three times; the PACS has every report once."""
    chance = random.Random(5)
    (tmp_path / "orthanc").mkdir()
    with orthanc(tmp_path / "orthanc", dicom=True) as pacs, contextlib.ExitStack() as stack:
        here = Site(
            tmp_path,
            {
                "stow": f'kind = "stow"\nurl = "{pacs.address}"',
                "store": f'kind = "c-store"\nhost = "127.0.0.1"\nport = {pacs.dicom_port}\n'
                'called_ae_title = "ORTHANC"',
            },
            url,
        )
        stack.callback(here.outbox.close)
        here.put(40)
        for kill in range(3):
            process = running(here, 1000.0 * kill)
            done = here.states()["delivered"]
            until(lambda done=done: here.states()["delivered"] > done + 3)
            time.sleep(chance.uniform(0, 0.05))
            process.kill()
            process.wait()
        assert here.states()["delivered"] < 80
        running(here, 1e6)
        here.until("delivered")
        with urllib.request.urlopen(f"{pacs.root}/instances?expand") as found:
            stored = [each["MainDicomTags"]["SOPInstanceUID"] for each in json.load(found)]
        assert len(stored) == len(set(stored)) == 40


def test_a_kill_between_sending_and_the_outcome(running, url, tmp_path) -> None:
    """The destination has it, the outbox does not know: it is sent again, as the same report."""
    kept: dict[str, list[bytes]] = {}
    holding, hold = threading.Event(), threading.Event()

    def store(asked: Asked) -> Said:
        uid = str(pydicom.dcmread(BytesIO(asked.part)).SOPInstanceUID)
        kept.setdefault(uid, []).append(asked.part)
        if not hold.is_set():
            holding.set()
            return HANG
        item = {"00081155": {"Value": [uid]}}
        answer = json.dumps({"00081199": {"Value": [item]}}).encode()
        return 200, {"Content-Type": "application/dicom+json"}, answer

    with http_peer(store) as peer, contextlib.ExitStack() as stack:
        table = f'kind = "stow"\nurl = "{peer.url}"'
        here = Site(tmp_path, {"stow": table}, url)
        stack.callback(here.outbox.close)
        here.file.write_text(here.file.read_text().replace("timeout_seconds = 1", ""))
        here.put(1)
        process = running(here, 0)
        assert holding.wait(60)
        process.kill()
        process.wait()
        hold.set()
        assert here.states() == {"leased": 1}
        running(here, 1000)
        here.until("delivered")
    ((first, second),) = kept.values()
    assert first == second

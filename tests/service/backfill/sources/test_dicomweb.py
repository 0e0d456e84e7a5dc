import http.client
import random
import threading
import time
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from archive_servers import Orthanc, orthanc
from images import dicom, radiograph
from pydicom import uid

from service.backfill.rows import ItemError, Source, SourceError
from service.backfill.sources import open_source

ROOT = "1.2.826.0.1.3680043.8.498"
PIXELS = radiograph(48, 40)
DAYS = ["20240501", "20240502", "20240504"]
PERIOD = {"since": "2024-05-01", "until": "2024-05-04"}
FAST: dict[str, Any] = PERIOD | {
    "first_delay_seconds": 0.05,
    "max_delay_seconds": 0.2,
    "requests_per_second": 1000,
    "page_instances": 7,
}


def instance(day: str, number: int, modality: str, syntax: str) -> tuple[str, bytes]:
    study, series = f"{ROOT}.{day}.{number // 4}", f"{ROOT}.{day}.{number // 2}.{len(modality)}"
    series += f".{ord(modality[0])}"
    sop = f"{series}.{number}"
    data = dicom(
        PIXELS,
        syntax,
        StudyInstanceUID=study,
        SeriesInstanceUID=series,
        SOPInstanceUID=sop,
        MediaStorageSOPInstanceUID=sop,
        StudyDate=day,
        Modality=modality,
    )
    return f"studies/{study}/series/{series}/instances/{sop}", data


def archived() -> dict[str, bytes]:
    """20 CR or DX images of each day, as they are stored, by where they are."""
    kinds = [("CR", uid.JPEG2000Lossless), ("DX", uid.ExplicitVRLittleEndian)]
    return dict(instance(day, number, *kinds[number % 2]) for day in DAYS for number in range(20))


IMAGES = archived()


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as started:
        others = [
            instance("20240430", 1, "CR", uid.ExplicitVRLittleEndian),
            instance("20240501", 1, "MR", uid.ExplicitVRLittleEndian),
        ]
        for data in [*IMAGES.values(), *(data for _, data in others)]:
            started.store(data)
        yield started


OPENED: list[Source] = []


def opened(address: str, options: dict[str, Any]) -> Source:
    OPENED.append(open_source(address, options))
    return OPENED[-1]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield
    while OPENED:
        OPENED.pop().close()


class Proxy(ThreadingHTTPServer):
    """Between a source and the PACS; it notes what passes, and spoils some of it."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.target = urllib.parse.urlsplit(target)
        self.address = f"http://127.0.0.1:{self.server_port}{self.target.path}"
        self.times: list[float] = []
        self.headers: list[Any] = []
        self.spoiled = 0
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
def proxy(pacs: Orthanc) -> Iterator[Proxy]:
    with Proxy(pacs.address) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def read_all(source: Source, locators: list[str], threads: int = 8) -> dict[str, bytes]:
    with ThreadPoolExecutor(threads) as pool:
        return dict(zip(locators, map(bytes, pool.map(source.read, locators)), strict=True))


def test_a_pacs_gives_each_radiograph_of_the_days_once_as_it_is_stored(pacs: Orthanc) -> None:
    """Day by day, in the same order each time; nothing is decompressed on the way."""
    source = opened(pacs.address, FAST)
    found = list(source.find())
    assert sorted(found) == sorted(IMAGES)
    days = [locator.split("/")[1].removeprefix(ROOT + ".").split(".")[0] for locator in found]
    assert days == sorted(days)
    assert list(opened(pacs.address, FAST | {"page_instances": 500}).find()) == found
    whole = opened(pacs.address, FAST | {"partition_days": 30, "modalities": "DX"})
    assert sorted(whole.find()) == sorted(list(IMAGES)[1::2])
    assert read_all(source, found) == IMAGES


def test_a_tenth_of_answers_refused_or_cut_costs_only_time(pacs: Orthanc) -> None:
    """All images, no duplicates, and never more requests than the limits allow."""
    chance = random.Random(1)
    with proxy(pacs) as between:
        between.spoil = lambda _: chance.choices([0, 503, 1], [85, 10, 5])[0]
        source = opened(between.address, FAST | {"requests_per_second": 60, "concurrency": 3})
        begin = time.monotonic()
        found = list(source.find())
        assert len(found) == len(IMAGES)
        assert read_all(source, found) == IMAGES
        seconds = time.monotonic() - begin
    assert {headers["Accept-Encoding"] for headers in between.headers} == {"identity"}
    assert between.spoiled > 5
    assert between.most_inside <= 3
    assert len(between.times) <= seconds * 60 + 1
    spans = zip(between.times, between.times[30:], strict=False)
    assert min(later - earlier for earlier, later in spans) > 0.9 * 30 / 60


def test_a_pacs_that_is_restarted_costs_only_time(pacs: Orthanc) -> None:
    """Killed in the middle of a listing and of reads, and back a second later."""
    source = opened(pacs.address, FAST)
    listing = source.find()
    found = [next(listing)]
    pacs.stop()
    back = threading.Timer(1, pacs.start)
    back.start()
    found += listing
    back.join()
    assert sorted(found) == sorted(IMAGES)
    with ThreadPoolExecutor(4) as pool:
        reads = [pool.submit(source.read, locator) for locator in found]
        pacs.stop()
        back = threading.Timer(1, pacs.start)
        back.start()
        assert dict(zip(found, (bytes(read.result()) for read in reads), strict=True)) == IMAGES
    back.join()


def test_what_a_pacs_has_not_is_an_outcome_of_its_own(pacs: Orthanc) -> None:
    """404 is not tried again, nor what is too large, nor what is no instance at all."""
    source = opened(pacs.address, FAST | {"first_delay_seconds": 60, "max_image_bytes": 9})
    first = next(iter(IMAGES))
    for locator, code in {
        first: "entry_too_large",
        f"{first}9": "not_found",
        f"{first}/../../x": "not_found",
        "studies/../series/../instances/..": "not_found",
    }.items():
        with pytest.raises(ItemError) as caught:
            source.read(locator)
        assert caught.value.code == code


@pytest.mark.parametrize("status", [500, 403, 406, 1])
def test_one_image_that_a_pacs_cannot_give_does_not_hold_up_the_others(
    pacs: Orthanc, status: int
) -> None:
    """The archive answers other requests: the failure is the image's own."""
    bad, good = list(IMAGES)[:2]
    with proxy(pacs) as between:
        between.spoil = lambda path: status if path.endswith(bad) else 0
        source = opened(between.address, FAST | {"max_tries": 2})
        with pytest.raises(ItemError) as caught:
            source.read(bad)
        assert caught.value.code == "unreadable_file"
        assert not any(uid in str(caught.value) for uid in bad.split("/")[1::2])
        assert source.read(good) == IMAGES[good]


@pytest.mark.parametrize("status", [401, 403])
def test_a_pacs_that_refuses_everything_fails_no_image(pacs: Orthanc, status: int) -> None:
    """It is asked once or twice, not for ever."""
    with proxy(pacs) as between:
        between.spoil = lambda _: status
        source = opened(between.address, FAST)
        with pytest.raises(SourceError, match=str(status)):
            source.read(next(iter(IMAGES)))
        with pytest.raises(SourceError, match=str(status)):
            list(source.find())
        assert len(between.times) <= 3


def test_a_pacs_that_asks_for_a_pause_gets_it(pacs: Orthanc) -> None:
    """Retry-After counts for all requests, however long a back-off would be."""
    with proxy(pacs) as between:
        between.retry_after = "1"
        between.spoil = lambda _: 429 if len(between.times) == 1 else 0
        source = opened(between.address, FAST)
        locators = list(IMAGES)[:4]
        assert read_all(source, locators, 1) == {name: IMAGES[name] for name in locators}
    assert between.times[1] - between.times[0] >= 1


@pytest.mark.parametrize("kind", ["token", "file", "user"])
def test_who_asks_is_said_by_variables_and_nowhere_else(
    pacs: Orthanc, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, caplog: Any
) -> None:
    """A bearer token, one in a file that changes, or a name and a password."""
    caplog.set_level(0)
    expected = ["Bearer one", "Bearer one"]
    if kind == "token":
        monkeypatch.setenv("CXRVIEW_DICOMWEB_TOKEN", "one")
    elif kind == "file":
        monkeypatch.setenv("CXRVIEW_DICOMWEB_TOKEN_FILE", str(tmp_path / "token"))
        (tmp_path / "token").write_text("one\n")
        expected = ["Bearer one", "Bearer two"]
    else:
        monkeypatch.setenv("CXRVIEW_DICOMWEB_USER", "us")
        monkeypatch.setenv("CXRVIEW_DICOMWEB_PASSWORD", "er")
        expected = ["Basic dXM6ZXI="] * 2
    with proxy(pacs) as between:
        source = opened(between.address, FAST)
        source.read(next(iter(IMAGES)))
        if kind == "file":
            (tmp_path / "token").write_text("two")
        source.read(list(IMAGES)[1])
        assert [headers["Authorization"] for headers in between.headers] == expected
    assert ROOT not in caplog.text


def test_outside_its_hours_a_pacs_is_not_asked(pacs: Orthanc) -> None:
    """Whoever reads waits; closing the source ends the waiting."""
    hour = (time.localtime().tm_hour + 3) % 24
    hours = f"{hour:02}:00-{(hour + 1) % 24:02}:00"
    with proxy(pacs) as between:
        source = opened(between.address, FAST | {"off_peak": hours})
        threading.Timer(0.2, source.close).start()
        with pytest.raises(SourceError, match="closed"):
            source.read(next(iter(IMAGES)))
        assert not between.times

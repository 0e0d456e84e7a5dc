"""STOW-RS: each object is answered for, once its result is committed, and nothing else is kept."""

from __future__ import annotations

import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from images import dicom, radiograph
from live import serving
from pydicom import Dataset, uid

from service.api.paths import name_of
from service.api.settings import Settings
from service.cli import main
from service.dicom.outbox import Outbox
from service.inference import LANES, Lane

MIB = 2**20
STUDY = "1.2.826.0.1.3680043.8.498.1"
PIXELS = radiograph(64, 56)
PATH = "/dicom-web/studies"
RELATED = 'multipart/related; type="application/dicom"; boundary="b o=x"'

Start = Callable[..., AbstractContextManager[Any]]


def instance(number: int, **attributes: Any) -> bytes:
    """A radiograph of the study."""
    named = {
        "SOPInstanceUID": f"{STUDY}.1.{number}",
        "MediaStorageSOPInstanceUID": f"{STUDY}.1.{number}",
        "SeriesInstanceUID": f"{STUDY}.1",
        "StudyInstanceUID": STUDY,
        "PatientName": "Zebra^Quagga",
    }
    return dicom(PIXELS + number, **named | attributes)


def related(*parts: bytes, header: bytes = b"Content-Type: application/dicom\r\n") -> bytes:
    written = b"".join(b"--b o=x\r\n%b\r\n%b\r\n" % (header, part) for part in parts)
    return written + b"--b o=x--\r\n"


class Sender:
    """A client of one service, and a look into its outbox."""

    def __init__(self, service: Any, folder: Path) -> None:
        self.service = service
        self.url = f"sqlite:///{folder / 'outbox.sqlite'}"

    def post(self, *parts: bytes, path: str = PATH, **headers: str) -> httpx2.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with self.service.client() as client:
            body = related(*parts)
            return client.post(path, content=body, headers={"content-type": RELATED} | named)

    def post_whole(self, body: bytes, kind: str, path: str = PATH) -> httpx2.Response:
        with self.service.client() as client:
            return client.post(path, content=body, headers={"content-type": kind})

    @property
    def results(self) -> int:
        """Deliveries in the outbox."""
        outbox = Outbox(self.url)
        try:
            return sum(sum(each.states.values()) for each in outbox.counts().values())
        finally:
            outbox.close()

    @property
    def reserved(self) -> int:
        return int(self.service.runtime.budget.reserved)


def with_destinations(folder: Path, settings: Settings, **changes: Any) -> Settings:
    """These settings, with a folder for results; its key `results` is `all`."""
    (folder / "results").mkdir()
    file = folder / "destinations.toml"
    file.write_text('[destinations.folder]\nkind = "folder"\npath = "results"\n')
    return settings.model_copy(update={"destinations": file} | changes)


@pytest.fixture
def sender(start: Start, light: Settings, tmp_path: Path) -> Iterator[Sender]:
    with start(with_destinations(tmp_path, light)) as service:
        yield Sender(service, tmp_path)


@pytest.fixture(scope="module")
def shared(
    start: Start, light: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sender]:
    """For tests that do not count results."""
    folder = tmp_path_factory.mktemp("shared")
    with start(with_destinations(folder, light)) as service:
        yield Sender(service, folder)


def answer_of(response: httpx2.Response) -> tuple[list[str], dict[str, int], list[int]]:
    """What was stored, what failed and why, and why parts failed that have no UIDs."""
    assert response.headers["content-type"] == "application/dicom+json"
    found = Dataset.from_json(response.text)
    last = lambda item: item.ReferencedSOPInstanceUID.rpartition(".")[2]  # noqa: E731
    return (
        [last(item) for item in found.get("ReferencedSOPSequence", [])],
        {last(item): item.FailureReason for item in found.get("FailedSOPSequence", [])},
        [item.FailureReason for item in found.get("OtherFailuresSequence", [])],
    )


@pytest.mark.parametrize("lane", ["", "?lane=interactive", "?lane=backfill"])
@pytest.mark.parametrize("study", ["", f"/{STUDY}"])
def test_all_objects_are_stored_once(sender: Sender, lane: str, study: str) -> None:
    """200, in their order; sent again, they are answered the same, and have one result each."""
    objects = [instance(number) for number in range(20)]
    for _ in range(2):
        response = sender.post(*objects, path=PATH + study + lane)
        assert response.status_code == 200
        assert answer_of(response) == ([str(number) for number in range(20)], {}, [])
        assert sender.results == 20
    assert sender.reserved == 0
    images = sender.service.runtime.admission.images
    assert [images(lane) for lane in LANES] == [0, 0]


def test_one_object_may_come_without_multipart(shared: Sender) -> None:
    """As a single part payload (PS3.18 8.6.1.1)."""
    response = shared.post_whole(instance(1), "application/dicom; transfer-syntax=1.2")
    assert (response.status_code, answer_of(response)) == (200, (["1"], {}, []))


def test_each_failure_has_its_reason(sender: Sender) -> None:
    """202: the others are stored. What cannot be referred to is in Other Failures Sequence."""
    parts = [
        instance(1),
        instance(2, SOPClassUID=uid.CTImageStorage, MediaStorageSOPClassUID=uid.CTImageStorage),
        instance(3)[:-2000],
        instance(4, TransferSyntaxUID="1.2.3.4"),
        instance(5),
        b"",
        b"no DICOM object",
        instance(6, SOPInstanceUID="no UID"),
        b"x" * (4 * MIB + 1),
    ]
    response = sender.post(*parts)
    assert response.status_code == 202
    failed = {"2": 0x0122, "3": 0xC000, "4": 0xC122}
    assert answer_of(response) == (["1", "5"], failed, [0xC000] * 4)
    assert sender.results == 2


def test_a_part_of_another_type_costs_itself(shared: Sender) -> None:
    """Its media type decides, not its content; a part without one is an object."""
    mixed = related(instance(1), header=b"Content-Type: image/dicom\r\n")[:-11]
    body = mixed + related(instance(2), header=b"X-Y: z\r\n")
    response = shared.post_whole(body, RELATED)
    assert (response.status_code, answer_of(response)) == (202, (["2"], {}, [0xC000]))


def test_nothing_stored_is_a_conflict(sender: Sender) -> None:
    """409, with the reasons."""
    response = sender.post(b"x", instance(2, PixelData=None))
    assert (response.status_code, answer_of(response)) == (409, ([], {"2": 0xC000}, [0xC000]))
    assert sender.results == 0


def test_an_object_of_another_study_fails(sender: Sender) -> None:
    """It is neither classified nor reported; the others are."""
    foreign = instance(2, StudyInstanceUID=STUDY + ".9")
    response = sender.post(instance(1), foreign, path=f"{PATH}/{STUDY}")
    assert (response.status_code, answer_of(response)) == (202, (["1"], {"2": 0xA900}, []))
    assert sender.results == 1
    assert sender.post(foreign).status_code == 200


def test_the_answer_can_be_xml(shared: Sender) -> None:
    """As a Native DICOM Model."""
    response = shared.post(instance(1), accept="application/dicom+xml")
    assert response.headers["content-type"] == "application/dicom+xml"
    assert response.text.startswith("<?xml")
    assert f">{STUDY}.1.1<" in response.text


JSON = 'multipart/related; type="application/dicom+json"; boundary=x'
REQUESTS: dict[str, tuple[int, str, str, dict[str, str], bytes]] = {
    "accept": (406, "not_acceptable", PATH, {"accept": "text/html"}, related(instance(1))),
    "type": (415, "unsupported_media_type", PATH, {"content-type": JSON}, b""),
    "no type": (415, "unsupported_media_type", PATH, {"content-type": ""}, b""),
    "coding": (415, "unsupported_media_type", PATH, {"content-encoding": "gzip"}, b""),
    "boundary": (400, "malformed_multipart", PATH, {"content-type": RELATED[:46]}, b""),
    "empty": (400, "malformed_multipart", PATH, {}, b""),
    "cut off": (400, "malformed_multipart", PATH, {}, related(instance(1))[:-9]),
    "parts": (413, "too_many_files", PATH, {}, related(*[b""] * 21)),
    "study": (400, "invalid_study_uid", PATH + "/Zebra", {}, related(instance(1))),
    "lane": (422, "invalid_request", PATH + "?lane=fast", {}, b""),
    "parameter": (422, "invalid_request", PATH + "?Lane=backfill", {}, b""),
    "length": (413, "body_too_large", PATH, {}, b"x" * (6 * MIB + 1)),
    "length of one": (413, "body_too_large", PATH, {"content-type": "application/dicom"}, b"x"),
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_a_bad_request_is_a_problem(
    shared: Sender, request_: tuple[int, str, str, dict[str, str], bytes]
) -> None:
    """Nothing is held after it."""
    status, code, path, headers, body = request_
    if headers.get("content-type") == "application/dicom":
        body *= 4 * MIB + 1
    with shared.service.client() as client:
        response = client.post(path, content=body, headers={"content-type": RELATED} | headers)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert "Zebra" not in response.text
    assert shared.reserved == 0


def test_objects_before_the_damage_have_one_result(sender: Sender) -> None:
    """400 is a failure for the sender, which sends them all again."""
    body = related(instance(1), instance(2))
    assert sender.post_whole(body[:-9], RELATED).status_code == 400
    assert sender.post_whole(body, RELATED).status_code == 200
    assert sender.results == 2


def test_without_destinations_there_is_no_resource(service: Any) -> None:
    """404, with a code that says why."""
    with service.client() as client:
        for path in (PATH, f"{PATH}/{STUDY}"):
            response = client.post(path, content=b"", headers={"content-type": RELATED})
            assert (response.status_code, response.json()["code"]) == (404, "deliveries_disabled")


def test_more_than_fits_in_memory_passes_through(
    start: Start, light: Settings, tmp_path: Path
) -> None:
    """48 MiB within a budget of 8 MiB, of which this lane may use 6; the rest waits outside."""
    settings = with_destinations(tmp_path, light, max_batch_body_bytes=64 * MIB)
    large = [instance(number) + b"\0" * 2 * MIB for number in range(20)]
    small = [instance(number) + b"\0" * 2**18 for number in range(20, 52)]
    with start(settings.model_copy(update={"max_archive_entries": 60})) as service:
        sender, most = Sender(service, tmp_path), 0
        ended = threading.Event()

        def watch() -> None:
            nonlocal most
            while not ended.wait(0.002):
                most = max(most, sender.reserved)

        thread = threading.Thread(target=watch)
        thread.start()
        response = sender.post(*large, *small)
        ended.set()
        thread.join()
        assert (response.status_code, answer_of(response)[1:]) == (200, ({}, []))
        assert 3 * MIB < most <= 6 * MIB
        assert sender.reserved == 0


@pytest.mark.parametrize("lane", LANES)
def test_an_overloaded_service_asks_to_send_again(sender: Sender, lane: Lane) -> None:
    """503 with Retry-After: before a byte is read if no bytes are free; it stores nothing."""
    budget = sender.service.runtime.budget
    taken = int(budget.limit * (0.75 if lane == "backfill" else 1)) - 1000
    assert budget.take(lane, taken)
    try:
        response = sender.post(instance(1), path=f"{PATH}?lane={lane}")
    finally:
        budget.release(taken)
    assert (response.status_code, response.json()["code"]) == (503, "service_full")
    assert int(response.headers["retry-after"]) >= 1
    assert sender.results == 0
    assert sender.post(instance(1), path=f"{PATH}?lane={lane}").status_code == 200


def test_a_full_queue_costs_what_does_not_fit(sender: Sender) -> None:
    """Interactive objects are refused with A700H while others are ahead, those of backfill wait."""
    admission = sender.service.runtime.admission
    for lane in LANES:
        admission.count(lane, 3)  # the limit
    response = sender.post(instance(1), instance(2), path=f"{PATH}?lane=interactive")
    assert response.status_code == 503
    assert answer_of(response) == ([], {"1": 0xA700, "2": 0xA700}, [])
    assert int(response.headers["retry-after"]) >= 1
    threading.Timer(0.2, lambda: admission.count("backfill", -3)).start()
    assert sender.post(instance(1), instance(2)).status_code == 200
    admission.count("interactive", -3)


def test_nothing_is_stored_while_the_outbox_is_away(sender: Sender, tmp_path: Path) -> None:
    """503: the sender must keep what it has."""
    assert sender.post(instance(1)).status_code == 200
    with sqlite3.connect(tmp_path / "outbox.sqlite") as database:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (name,) in tables.fetchall():
            if name != "sqlite_sequence":
                database.execute(f'ALTER TABLE "{name}" RENAME TO "gone_{name}"')
    response = sender.post(instance(2))
    assert (response.status_code, answer_of(response)) == (503, ([], {"2": 0xA700}, []))
    assert "retry-after" in response.headers


def test_a_lost_client_leaves_nothing_behind(shared: Sender) -> None:
    """Neither bytes nor slots; what it sent may be stored."""
    service = shared.service
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: {RELATED}\r\n"
    with socket.create_connection((service.host, service.port)) as connection:
        connection.sendall(f"{head}Content-Length: 1000000\r\n\r\n".encode())
        connection.sendall(related(instance(1), instance(2))[:-200])
        service.until(lambda: shared.reserved > 0)
    service.until(lambda: shared.reserved == 0)
    service.until(lambda: not any(service.runtime.admission.images(lane) for lane in LANES))


def test_the_path_is_logged_without_the_study() -> None:
    """Its UID identifies an examination."""
    assert name_of(f"{PATH}/{STUDY}") == name_of(PATH) == PATH
    assert name_of("/dicom-web/studiesX") == "elsewhere"


def test_classify_is_the_permission(
    light: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In both lanes: a sender needs no permission to create jobs. Logs name no patient."""
    keys = tmp_path / "keys"
    tokens = {}
    for permission in ("classify", "backfill"):
        assert main(["key", permission, permission, "--file", str(keys)]) == 0
        tokens[permission] = capsys.readouterr().out.strip()
    settings = with_destinations(tmp_path, light)
    audit_key = tmp_path / "audit-key"
    audit_key.write_bytes(b"k" * 32)
    log, audit = tmp_path / "log", tmp_path / "audit"
    variables = {"access_log": "true", "audit_log": str(audit), "audit_key": str(audit_key)}
    with serving(
        log,
        keys=str(keys),
        destinations=str(settings.destinations),
        model_store=str(light.model_store),
        model=light.model,
        **variables,
    ) as live:

        def post(permission: str, path: str) -> int:
            headers = {"authorization": f"Bearer {tokens[permission]}", "content-type": RELATED}
            body = related(instance(1), instance(2, PixelData=None))
            response = httpx2.post(f"{live.url}{path}", content=body, headers=headers)
            return int(response.status_code)

        for lane in ("", "?lane=interactive", "?lane=backfill"):
            assert post("classify", f"{PATH}/{STUDY}{lane}") == 202
            assert post("backfill", f"{PATH}{lane}") == 403
        metrics = httpx2.get(f"{live.url}/metrics").text
        assert 'cxrview_images_total{lane="backfill",source="dicom",view="' in metrics
        assert 'cxrview_images_refused_total{reason="no_pixel_data"} 3.0' in metrics
    assert f"POST {PATH} " in log.read_text()
    assert audit.read_text().count('"classified"') == 3
    for written in (log.read_text(), audit.read_text(), metrics):
        assert "Zebra" not in written
        assert STUDY not in written

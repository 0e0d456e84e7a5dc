"""What an attempt to deliver a result becomes, with real servers of every kind."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import stat
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from archive_servers import ORTHANCS, orthanc
from destination_servers import (
    CLOSE,
    HANG,
    Asked,
    certificate,
    http_peer,
    server_tls,
    store_peer,
)
from dicom_results import answered, cards
from disks import disk, fill
from pydicom.uid import CTImageStorage

from model_store import Prediction
from service.dicom.destinations import Destination, payload, read_destinations
from service.dicom.entries import Leased
from service.dicom.senders.opening import open_sender
from service.dicom.senders.sender import RejectedError, RetryableError, Warned

# pynetdicom leaves the sockets of failed connections to the garbage collection
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <(ssl|socket)")
RESULT = answered(cards().plain, Prediction(0.99, None, None, None, None), PatientName="Doe^John")
SECRET = "0123456789abcdef"


def destination(folder: Path, kind: str, *lines: str) -> Destination:
    """Of a file with these lines."""
    (folder / "secret").write_text(SECRET + "\n")
    path = folder / "destinations.toml"
    path.write_text("\n".join(("[destinations.here]", f'kind = "{kind}"', *lines)))
    return read_destinations(path)[0]


def leased(given: Destination) -> Leased:
    return Leased(1, given.name, "1.2", payload(given, RESULT), 1, 0.0, None, "lease")


def send(given: Destination) -> Warned | None:
    """One attempt."""
    sender = open_sender(given)
    try:
        return sender.send(leased(given))
    finally:
        sender.close()


def stow(url: str, folder: Path, *more: str) -> Destination:
    return destination(folder, "stow", f'url = "{url}/dicom-web"', "timeout_seconds = 1", *more)


def uid_of(report: bytes) -> str:
    return str(pydicom.dcmread(BytesIO(report)).SOPInstanceUID)


def answer(failed: int | None = None, warning: int | None = None, *, wrong: bool = False):
    """A server's answer in DICOM JSON."""

    def of(asked: Asked) -> bytes:
        item = {"00081155": {"vr": "UI", "Value": ["1.9" if wrong else uid_of(asked.part)]}}
        if failed is not None:
            item["00081197"] = {"vr": "US", "Value": [failed]}  # type: ignore[dict-item]
        if warning is not None:
            item["00081196"] = {"vr": "US", "Value": [warning]}  # type: ignore[dict-item]
        tag = "00081199" if failed is None else "00081198"
        return json.dumps({tag: {"vr": "SQ", "Value": [item]}}).encode()

    return of


def xml(failed: int | None = None, warning: int | None = None):
    """The same in the Native DICOM Model."""

    def of(asked: Asked) -> bytes:
        tag = "00081199" if failed is None else "00081198"
        found = [("00081155", uid_of(asked.part)), ("00081197", failed), ("00081196", warning)]
        attributes = "".join(
            f'<DicomAttribute tag="{each}" vr="UI"><Value number="1">{value}</Value>'
            "</DicomAttribute>"
            for each, value in found
            if value is not None
        )
        return (
            '<?xml version="1.0"?><NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/'
            f'NativeDICOM"><DicomAttribute tag="{tag}" vr="SQ"><Item number="1">{attributes}'
            "</Item></DicomAttribute></NativeDicomModel>"
        ).encode()

    return of


JSON, XML = "application/dicom+json", "application/dicom+xml; charset=utf-8"


def text(body: bytes) -> Callable[[Asked], bytes]:
    return lambda _: body


@pytest.mark.parametrize(
    ("status", "content_type", "body", "outcome"),
    [
        (200, JSON, answer(), None),
        (200, XML, xml(), None),
        (202, JSON, answer(), None),
        (200, JSON, answer(warning=0xB000), Warned("Warning Reason B000H")),
        (202, XML, xml(warning=0xB006), Warned("Warning Reason B006H")),
        (200, JSON, answer(failed=0xA700), "not_stored: HTTP 200, Failure Reason A700H"),
        (202, XML, xml(failed=0x0110), "not_stored: HTTP 202, Failure Reason 0110H"),
        (200, JSON, answer(failed=0xA900), "rejected: HTTP 200, Failure Reason A900H"),
        (409, JSON, answer(failed=0xC000), "rejected: HTTP 409, Failure Reason C000H"),
        (409, JSON, answer(failed=0xA701), "not_stored: HTTP 409, Failure Reason A701H"),
        (409, XML, xml(failed=0x0122), "not_stored: HTTP 409, Failure Reason 0122H"),
        (409, XML, xml(failed=0xA901), "rejected: HTTP 409, Failure Reason A901H"),
        (409, "text/plain", text(b"no"), "rejected: HTTP 409"),
        (200, JSON, text(b""), "not_stored: HTTP 200: the answer is not DICOM JSON or XML"),
        (200, JSON, text(b"{}"), "not_stored: HTTP 200: the answer does not name the instance"),
        (200, JSON, text(b"[]"), "not_stored: HTTP 200: the answer does not name the instance"),
        (200, JSON, text(b'{"00081199": 1}'), "not_stored: HTTP 200: the answer does not name"),
        (200, JSON, text(b'{"00081199": {"Value": [1]}}'), "not_stored: HTTP 200: the answer"),
        (200, JSON, text(b"[" * 100_000), "not_stored: HTTP 200: the answer is not DICOM"),
        (200, XML, text(b"<a"), "not_stored: HTTP 200: the answer is not DICOM JSON or XML"),
        (200, JSON, answer(wrong=True), "not_stored: HTTP 200: the answer does not name"),
        (204, JSON, text(b""), "not_stored: HTTP 204"),
        (400, JSON, text(b""), "rejected: HTTP 400"),
        (401, JSON, text(b""), "no_access: HTTP 401"),
        (413, JSON, text(b""), "rejected: HTTP 413"),
    ],
)
def test_stow_believes_the_status_of_the_instance(
    tmp_path: Path, status: int, content_type: str, body, outcome
) -> None:
    """A 200 that stored nothing is a failure; what the instance would be told again is final."""
    said = (status, {"Content-Type": content_type})
    with http_peer(lambda asked: (*said, body(asked))) as peer:
        given = stow(peer.url, tmp_path)
        if not isinstance(outcome, str):
            assert send(given) == outcome
        else:
            code, _, detail = outcome.partition(": ")
            kind = RejectedError if code == "rejected" else RetryableError
            with pytest.raises(kind) as error:
                send(given)
            assert error.value.code == code
            assert str(error.value).startswith(detail)
    (asked,) = peer.asked
    assert asked.path == "/dicom-web/studies"
    assert asked.part == payload(given, RESULT)
    assert 'type="application/dicom"' in asked.headers["content-type"]


def test_an_answer_in_which_entities_grow_is_refused(tmp_path: Path) -> None:
    """A billion laughs: soon, and with little memory."""
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY l0 "ha">{laughs}]><a>&l11;</a>'
    with http_peer(lambda _: (200, {"Content-Type": XML}, bomb.encode())) as peer:
        begin = time.monotonic()
        with pytest.raises(RetryableError):
            send(stow(peer.url, tmp_path))
        assert time.monotonic() - begin < 10


HOOK = ('secret_file = "secret"', "timeout_seconds = 0.3")


@pytest.mark.parametrize(
    ("said", "code", "away", "after"),
    [
        ((503, {}, b""), "busy", False, None),
        ((503, {"Retry-After": "7"}, b""), "busy", True, 7),
        ((429, {"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"}, b""), "busy", True, 1e9),
        ((408, {}, b""), "busy", False, None),
        ((500, {"Retry-After": "soon"}, b""), "server_error", False, None),
        ((501, {}, b""), "server_error", False, None),
        ((302, {"Location": "http://127.0.0.1:1/"}, b""), "redirect", True, None),
        (HANG, "timeout", True, None),
        (CLOSE, "unreachable", True, None),
        ((200, {"Content-Length": "10"}, b"short"), "timeout", True, None),
        ((200, {}, bytes(2**20 + 1)), "unexpected_answer", True, None),
        *(
            ((each, {}, b""), "no_access", True, None)
            for each in (401, 403, 404, 405, 407, 410, 421)
        ),
    ],
)
def test_what_may_pass_is_tried_again(tmp_path: Path, said, code, away, after) -> None:
    """With what the destination asks for; nothing is sent to where it redirects."""
    with http_peer(lambda _: said) as peer:
        with pytest.raises(RetryableError) as error:
            send(destination(tmp_path, "webhook", f'url = "{peer.url}/events"', *HOOK))
        assert len(peer.asked) == 1
    found = error.value
    assert (found.code, found.away) == (code, away)
    if after is not None:
        assert found.after_seconds is not None
        assert found.after_seconds >= after
    assert peer.url not in str(found)


@pytest.mark.parametrize("status", [400, 402, 409, 413, 415, 422, 431])
def test_what_cannot_pass_is_not_tried_again(tmp_path: Path, status: int) -> None:
    """Whatever else 4xx says."""
    with (
        http_peer(lambda _: (status, {"Retry-After": "1"}, b"Doe")) as peer,
        pytest.raises(RejectedError, match=f"^HTTP {status}$"),
    ):
        send(destination(tmp_path, "webhook", f'url = "{peer.url}"', *HOOK))


@pytest.mark.parametrize("key", [SECRET, "whsec_" + base64.b64encode(b"k" * 24).decode()])
def test_a_webhook_is_signed(tmp_path: Path, key: str) -> None:
    """Over id, time and body, with the key of the file as it is now."""
    with http_peer(lambda _: (204, {}, b"")) as peer:
        given = destination(tmp_path, "webhook", f'url = "{peer.url}/events"', *HOOK)
        (tmp_path / "secret").write_text(f" {key}\n")
        assert send(given) is None
    (asked,) = peer.asked
    event = json.loads(asked.body)
    assert asked.path == "/events"
    assert asked.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert asked.headers["webhook-id"] == event["id"]
    stamp = asked.headers["webhook-timestamp"]
    assert abs(int(stamp) - time.time()) < 60
    raw = b"k" * 24 if key.startswith("whsec_") else key.encode()
    signed = f"{event['id']}.{stamp}.".encode() + asked.body
    expected = base64.b64encode(hmac.new(raw, signed, hashlib.sha256).digest()).decode()
    assert asked.headers["webhook-signature"] == f"v1,{expected}"
    assert b"Doe" not in asked.body


@pytest.mark.parametrize("key", ["", "short", "whsec_c2hvcnQ=", "whsec_!!!"])
def test_a_key_that_is_none_is_named(tmp_path: Path, key: str) -> None:
    """It can be corrected without a restart, so it is tried again."""
    given = destination(tmp_path, "webhook", 'url = "http://127.0.0.1:1"', *HOOK)
    (tmp_path / "secret").write_text(key)
    with pytest.raises(RetryableError, match="secret_file must hold 16 bytes") as error:
        send(given)
    assert (error.value.code, error.value.away) == ("credentials", True)


@pytest.mark.parametrize(
    ("lines", "header", "value"),
    [
        (['token_file = "secret"'], "authorization", f"Bearer {SECRET}"),
        (
            ['user = "me"', 'password_file = "secret"'],
            "authorization",
            "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode(),
        ),
        (['header_files = { X-Api-Key = "secret" }'], "x-api-key", SECRET),
        (['headers = { X-Tenant = "a" }'], "x-tenant", "a"),
    ],
)
def test_credentials_come_from_files(tmp_path: Path, lines, header: str, value: str) -> None:
    """With each request, so that a rotated secret is used at once."""
    with http_peer(lambda _: (201, {}, b"")) as peer:
        given = destination(tmp_path, "fhir", f'url = "{peer.url}"', *lines)
        sender = open_sender(given)
        sender.send(leased(given))
        (tmp_path / "secret").write_text("rotated")
        sender.send(leased(given))
        sender.close()
    assert peer.asked[0].headers[header] == value
    if SECRET in value:
        assert peer.asked[1].headers[header] == value.replace(SECRET, "rotated")


def test_a_secret_that_vanished_is_named(tmp_path: Path) -> None:
    """By its file, not by its contents; nothing is sent without it."""
    with http_peer(lambda _: (201, {}, b"")) as peer:
        given = destination(tmp_path, "fhir", f'url = "{peer.url}"', 'token_file = "secret"')
        (tmp_path / "secret").unlink()
        with pytest.raises(RetryableError, match="secret cannot be read"):
            send(given)
        assert peer.asked == []


def test_an_observation_is_created_once(tmp_path: Path) -> None:
    """The server is told by which identifier it knows a repetition; here it holds two results."""
    held: dict[str, bytes] = {}

    def create(asked: Asked):
        known = asked.headers["if-none-exist"] in held
        held.setdefault(asked.headers["if-none-exist"], asked.body)
        return (200 if known else 201, {}, b"")

    with http_peer(create) as peer:
        given = destination(tmp_path, "fhir", f'url = "{peer.url}/r4/"')
        for _ in range(3):
            assert send(given) is None
    assert len(held) == 1
    asked = peer.asked[0]
    (identifier,) = json.loads(asked.body)["identifier"]
    assert asked.path == "/r4/Observation"
    query = urllib.parse.parse_qs(asked.headers["if-none-exist"])
    assert query == {"identifier": [f"{identifier['system']}|{identifier['value']}"]}
    assert asked.headers["content-type"] == "application/fhir+json; charset=utf-8"


def test_an_observation_that_is_there_twice_is_there(tmp_path: Path) -> None:
    """412: more than one matches."""
    with http_peer(lambda _: (412, {}, b"")) as peer:
        found = send(destination(tmp_path, "fhir", f'url = "{peer.url}"'))
    assert found == Warned("HTTP 412: the server has it more than once")


def test_http_over_tls(tmp_path: Path) -> None:
    """The destination's certificate is checked, and it may ask for ours."""
    pem, key = certificate(tmp_path)
    tls = server_tls(pem, key, clients=pem)
    with http_peer(lambda _: (201, {}, b""), tls) as peer:
        url = f'url = "{peer.url}"'
        with pytest.raises(RetryableError) as error:
            send(destination(tmp_path, "fhir", url))
        assert error.value.code == "unreachable"
        ca = f'tls_ca = "{pem}"'
        ours = (f'tls_certificate = "{pem}"', f'tls_key = "{key}"')
        assert send(destination(tmp_path, "fhir", url, ca, *ours)) is None
        given = destination(tmp_path, "fhir", url, ca, *ours)
        key.write_text("none")
        with pytest.raises(RetryableError, match="a certificate or key cannot be used"):
            send(given)


def test_http_with_renewed_tls(tmp_path: Path) -> None:
    """New files are used without a restart; those that cannot be used are an error of this side."""
    pem, key = certificate(tmp_path)
    (tmp_path / "new").mkdir()
    new_pem, new_key = certificate(tmp_path / "new")
    tls = server_tls(pem, key)
    lines = (f'tls_ca = "{pem}"', f'tls_certificate = "{pem}"', f'tls_key = "{key}"')
    with http_peer(lambda _: (201, {"Connection": "close"}, b""), tls) as peer:
        given = destination(tmp_path, "fhir", f'url = "{peer.url}"', *lines)
        sender = open_sender(given)
        assert sender.send(leased(given)) is None
        tls.load_cert_chain(new_pem, new_key)
        with pytest.raises(RetryableError, match="Error"):
            sender.send(leased(given))
        pem.write_bytes(new_pem.read_bytes())
        with pytest.raises(RetryableError) as error:
            sender.send(leased(given))
        assert error.value.code == "credentials"
        key.write_bytes(new_key.read_bytes())
        assert sender.send(leased(given)) is None
        sender.close()


def test_a_folder_gets_whole_files(tmp_path: Path) -> None:
    """Named by their UIDs, not for all to read; a repetition is the same file."""
    (tmp_path / "out").mkdir()
    given = destination(tmp_path, "folder", 'path = "out"')
    for _ in range(2):
        assert send(given) is None
    (path,) = (tmp_path / "out").iterdir()
    report = payload(given, RESULT)
    assert path.name == f"{uid_of(report)}.dcm"
    assert path.read_bytes() == report
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0


def test_a_folder_that_is_gone_or_full_is_away(tmp_path: Path) -> None:
    """Nothing is left in it."""
    out = tmp_path / "out"
    out.mkdir()
    given = destination(tmp_path, "folder", 'path = "out"')
    out.rename(tmp_path / "moved")
    with pytest.raises(RetryableError, match="No such file") as error:
        send(given)
    assert (error.value.code, error.value.away) == ("folder", True)
    with disk(out, 64):
        fill(out)
        with pytest.raises(RetryableError, match="No space left"):
            send(given)
        assert [path.name for path in out.iterdir()] == ["filler"]


def store(port: int, folder: Path, *more: str) -> Destination:
    return destination(
        folder,
        "c-store",
        'host = "127.0.0.1"',
        f"port = {port}",
        'called_ae_title = "PACS"',
        "timeout_seconds = 2",
        *more,
    )


# Whether others wait
AWAY = {"busy": True, "server_error": False, "no_access": True, "unexpected_answer": True}


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (0x0000, None),
        (0xB000, Warned("status B000H")),
        (0xB007, Warned("status B007H")),
        (0x0111, Warned("status 0111H")),
        (0xA700, "busy"),
        (0xA7FF, "busy"),
        (0x0110, "server_error"),
        (0x0122, "no_access"),
        (0x0124, "no_access"),
        (0xFE00, "unexpected_answer"),
        (0xFF00, "unexpected_answer"),
        (0xA900, "rejected"),
        (0xC000, "rejected"),
        (0xC123, "rejected"),
    ],
)
def test_c_store_has_a_status(tmp_path: Path, status: int, outcome) -> None:
    """Success only if the entity says so; a duplicate is there."""
    with store_peer(lambda _: status) as peer:
        given = store(peer.port, tmp_path)
        if not isinstance(outcome, str):
            assert send(given) == outcome
        else:
            kind = RejectedError if outcome == "rejected" else RetryableError
            with pytest.raises(kind, match=f"status {status:04X}H") as error:
                send(given)
            assert error.value.code == outcome
            assert getattr(error.value, "away", None) == AWAY.get(outcome)
    if outcome is None:
        ((calling, data),) = peer.stored
        assert calling == "CXRVIEW"
        sent = pydicom.dcmread(BytesIO(payload(given, RESULT)))
        assert pydicom.dcmread(BytesIO(data), force=True) == sent


def test_an_association_serves_many_results(tmp_path: Path) -> None:
    """And is opened again after it was released, or lost."""
    with store_peer() as peer:
        given = store(peer.port, tmp_path)
        sender = open_sender(given)
        for _ in range(3):
            sender.send(leased(given))
        assert peer.associations == 1
        sender.idle()
        sender.send(leased(given))
        assert peer.associations == 2
        sender.close()
    assert len(peer.stored) == 4


def test_an_entity_that_rejects_the_association(tmp_path: Path) -> None:
    """It may know our title tomorrow."""
    with store_peer(require_called_aet=True) as peer:
        given = store(peer.port, tmp_path).model_copy(update={"called_ae_title": "OTHER"})
        with pytest.raises(RetryableError, match="the association is rejected") as error:
            send(given)
    assert (error.value.code, error.value.away) == ("association_rejected", True)


def test_an_entity_that_takes_no_reports(tmp_path: Path) -> None:
    """It may take them once it is configured."""
    with (
        store_peer(sop_class=CTImageStorage) as peer,
        pytest.raises(RetryableError, match="no Comprehensive 3D SR: result 3") as error,
    ):
        send(store(peer.port, tmp_path))
    assert (error.value.code, error.value.away) == ("association_rejected", True)


def test_an_entity_that_is_not_there(tmp_path: Path) -> None:
    """Nothing listens."""
    with pytest.raises(RetryableError, match="no association") as error:
        send(store(1, tmp_path))
    assert (error.value.code, error.value.away) == ("unreachable", True)


@pytest.mark.parametrize("host", ["pacs.invalid", "a" * 64])
def test_an_entity_whose_name_does_not_resolve(tmp_path: Path, host: str) -> None:
    """It may resolve again."""
    with pytest.raises(RetryableError, match="gaierror") as error:
        send(
            destination(
                tmp_path,
                "c-store",
                f'host = "{host}"',
                "port = 104",
                'called_ae_title = "PACS"',
                "timeout_seconds = 2",
            )
        )
    assert (error.value.code, error.value.away) == ("unreachable", True)


def test_an_entity_that_hangs_or_aborts(tmp_path: Path) -> None:
    """Both end within the time limit, and are tried again."""

    def hang(event) -> int:
        time.sleep(3)
        return 0

    def abort(event) -> int:
        event.assoc.abort()
        return 0

    for act in (hang, abort):
        with store_peer(act) as peer:
            begin = time.monotonic()
            with pytest.raises(RetryableError) as error:
                send(store(peer.port, tmp_path))
            assert error.value.away
            assert time.monotonic() - begin < 10


def test_c_store_over_tls(tmp_path: Path) -> None:
    """With certificates on both sides; without ours there is no association."""
    pem, key = certificate(tmp_path)
    with store_peer(context=server_tls(pem, key, clients=pem)) as peer:
        tls = ("tls = true", f'tls_ca = "{pem}"')
        with pytest.raises(RetryableError):
            send(store(peer.port, tmp_path, *tls))
        ours = (f'tls_certificate = "{pem}"', f'tls_key = "{key}"')
        assert send(store(peer.port, tmp_path, *tls, *ours)) is None
    assert len(peer.stored) == 1


@pytest.mark.parametrize("release", ORTHANCS)
def test_orthanc_has_the_report_once(release: str, tmp_path: Path) -> None:
    """By C-STORE and by STOW-RS, repeated: one instance, of the study it is about."""
    (tmp_path / "orthanc").mkdir()
    with orthanc(tmp_path / "orthanc", release, dicom=True) as pacs:
        given = [stow(pacs.root, tmp_path), store(pacs.dicom_port, tmp_path)]
        for _ in range(2):
            for each in given:
                assert send(each.model_copy(update={"timeout_seconds": 30})) is None
        with urllib.request.urlopen(f"{pacs.root}/instances?expand") as found:
            (instance,) = json.load(found)
    report = pydicom.dcmread(BytesIO(payload(given[0], RESULT)))
    assert instance["MainDicomTags"]["SOPInstanceUID"] == report.SOPInstanceUID

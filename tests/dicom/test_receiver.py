"""The DICOM receiver of a real service: what it answers, and what comes of each object."""

from __future__ import annotations

import http.client
import json
import re
import signal
import struct
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from dicom_peer import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    CR,
    EXPLICIT,
    P_DATA,
    RELEASE_RP,
    VERIFICATION,
    Peer,
    Stored,
    association,
    item,
    pdu,
    peer,
    results,
    store_command,
    value,
)
from heads import marked
from images import CODECS, NATIVE, dicom, radiograph
from live import Live
from pydicom import uid
from pynetdicom import AE
from pynetdicom.presentation import build_context, build_role
from receiving import PATIENT, UID, receiving, reports, stored, subjects, wait_for

from service.api.audit import hash_of
from service.imaging import RADIOGRAPHS, SUPPORTED

SYNTAXES = (*NATIVE, uid.RLELossless, *CODECS)
ECHO_CONTEXT = (1, VERIFICATION, [uid.ImplicitVRLittleEndian])
CT = uid.CTImageStorage


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("receiver")


@pytest.fixture(scope="module")
def live(folder) -> Iterator[Live]:
    with receiving(folder, max_upload_bytes="2000000") as service:
        yield service


@pytest.fixture
def sender(live) -> Iterator[Peer]:
    """Associated for CR in Explicit VR Little Endian."""
    with peer(live.dicom_port) as connected:
        assert connected.associate((1, CR, [EXPLICIT]))[0] == ASSOCIATE_AC
        yield connected


def metric(live: Live, name: str) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", live.port)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)[1])


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n", bytes(6), pdu(P_DATA, b"")])
def test_a_connection_that_ends_without_a_request_keeps_no_slot(live, said):
    """Probes of load balancers connect and go, many a second, and peers speak other protocols."""
    for _ in range(100):
        with peer(live.dicom_port) as probe:
            probe.socket.sendall(said)
    wait_for(lambda: associated(live), seconds=3)


def associated(live: Live) -> bool:
    """Whether the receiver accepts an association now."""
    with peer(live.dicom_port) as connected:
        try:
            return connected.associate(ECHO_CONTEXT)[0] == ASSOCIATE_AC
        except (EOFError, ConnectionResetError):
            return False


def test_every_transfer_syntax_is_stored_as_it_is(live, folder):
    """The contexts are those of the decoders; each object has a report in the end."""
    assert set(SYNTAXES) == SUPPORTED
    for number, syntax in enumerate(SYNTAXES, 100):
        sent = stored(number, syntax)
        with peer(live.dicom_port) as sender:
            kind, answer = sender.associate(sent.context)
            assert kind == ASSOCIATE_AC
            assert str(syntax).encode() in answer
            status = sender.store(sent)
            assert (status.Status, status.get("ErrorComment")) == (0, None), syntax
            assert status.AffectedSOPInstanceUID == sent.instance
            assert sender.release() == RELEASE_RP
    wanted = {f"{UID}.{number}" for number, _ in enumerate(SYNTAXES, 100)}
    wait_for(lambda: wanted <= set(subjects(folder)))


@pytest.mark.parametrize("sop_class", sorted(RADIOGRAPHS))
def test_every_class_of_radiographs_is_stored(live, sop_class):
    """CR, DX in both forms, Secondary Capture with one frame or several."""
    sent = stored(f"200.{sop_class.rpartition('.')[2]}", SOPClassUID=sop_class)
    with peer(live.dicom_port) as sender:
        assert sender.associate(sent.context)[0] == ASSOCIATE_AC
        assert sender.store(sent).Status == 0


def test_a_repeated_instance_has_the_same_result_once(live, folder, sender):
    """A sender that did not hear the answer sends again."""
    sent = stored(300)
    assert [sender.store(sent).Status for _ in range(3)] == [0, 0, 0]
    wait_for(lambda: sent.instance in subjects(folder))
    assert subjects(folder).count(sent.instance) == 1


def test_images_are_of_the_lane_of_the_settings(tmp_path, live, folder, sender):
    """`backfill`, in which they yield to people's requests, unless the setting says otherwise."""

    def counted(service: Live) -> dict[str, float]:
        with urllib.request.urlopen(f"{service.url}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        found = re.findall(r"^cxrview_images_total\{(.+)\} (\S+)$", text, re.MULTILINE)
        lanes = ("interactive", "backfill")
        return {
            lane: sum(float(each) for labels, each in found if f'lane="{lane}"' in labels)
            for lane in lanes
        }

    before = counted(live)
    assert sender.store(stored(305)).Status == 0
    assert counted(live) == before | {"backfill": before["backfill"] + 1}
    own = receiving(tmp_path, dicom_lane="interactive")
    with own as service, peer(service.dicom_port) as other:
        sent = stored(306)
        other.associate(sent.context)
        assert other.store(sent).Status == 0
        assert counted(service) == {"interactive": 1, "backfill": 0}


@pytest.mark.parametrize("size", [1, 7, 4096, 2**18 - 6])
def test_fragments_of_any_size_are_put_together(sender, size):
    """From values of one byte to the largest PDU that is announced."""
    sent = stored(f"310.{size}")
    assert sender.store(sent, size=size).Status == 0


def test_many_values_in_one_pdu(sender):
    """Even command and data set together."""
    sent = stored(320)
    parts = [sent.data_set[at : at + 1000] for at in range(0, len(sent.data_set), 1000)]
    values = [value(1, 2 * (part is parts[-1]), part) for part in parts]
    command = value(1, 3, store_command(sent.sop_class, sent.instance))
    sender.socket.sendall(pdu(P_DATA, command + b"".join(values)))
    assert sender.status().Status == 0


@pytest.mark.parametrize("max_pdu", [0, 4096, 2**32 - 1])
def test_peers_may_announce_any_maximum(live, max_pdu):
    """Unlimited, small, or the largest number."""
    with peer(live.dicom_port) as sender:
        assert sender.associate(ECHO_CONTEXT, max_pdu=max_pdu)[0] == ASSOCIATE_AC
        assert sender.echo() == 0


def test_128_contexts_with_roles(live):
    """All odd numbers; the roles that a peer proposes do not change that it sends."""
    classes = sorted(RADIOGRAPHS)
    contexts = [
        (2 * n + 1, classes[n % len(classes)], [SYNTAXES[n % len(SYNTAXES)], CT])
        for n in range(128)
    ]
    roles = b"".join(
        item(0x54, struct.pack(">H", len(each)) + each.encode() + b"\1\1") for each in classes
    )
    sent = stored(330)
    with peer(live.dicom_port) as sender:
        kind, answer = sender.associate(*contexts, more=roles)
        assert kind == ASSOCIATE_AC
        assert results(answer) == {number: 0 for number, _, __ in contexts}
        number = next(n for n, kind, syntaxes in contexts if kind == CR and EXPLICIT in syntaxes)
        assert sender.store(sent, context=number).Status == 0


def test_a_toolkit_that_proposes_all_of_it(live):
    """Pynetdicom as sender, with roles and contexts that are not ours."""
    entity = AE("MODALITY")
    contexts = [build_context(CR, list(SYNTAXES)), build_context(CT), build_context(VERIFICATION)]
    association = entity.associate(
        "127.0.0.1",
        live.dicom_port,
        contexts,
        ae_title="CXRVIEW",
        ext_neg=[build_role(CR, scu_role=True, scp_role=True)],
    )
    assert {each.abstract_syntax for each in association.accepted_contexts} == {CR, VERIFICATION}
    assert association.send_c_echo().Status == 0
    association.release()


@pytest.mark.parametrize(
    ("titles", "reason"),
    [({"called": "OTHER"}, (1, 1, 7)), ({"called": "cxrview"}, (1, 1, 7))],
)
def test_a_wrong_called_title_is_rejected(live, titles, reason):
    """With the reason of the Standard."""
    with peer(live.dicom_port) as sender:
        kind, answer = sender.associate(ECHO_CONTEXT, **titles)
        assert (kind, tuple(answer[1:])) == (ASSOCIATE_RJ, reason)


def test_a_context_of_another_class_or_syntax_is_not_accepted(live):
    """3: abstract syntax not supported; 4: transfer syntaxes not supported (PS3.8 9.3.3.2)."""
    with peer(live.dicom_port) as sender:
        kind, answer = sender.associate(
            (1, CT, [EXPLICIT]), (3, CR, [uid.MPEG2MPML]), (5, CR, [EXPLICIT])
        )
        assert kind == ASSOCIATE_AC
        assert results(answer) == {1: 3, 3: 4, 5: 0}
        assert sender.store(stored(340), context=5).Status == 0


def refused(sender: Peer, sent, code: int, comment: str) -> None:
    status = sender.store(sent)
    assert (hex(status.Status), status.get("ErrorComment")) == (hex(code), comment)
    assert sender.store(stored(1000)).Status == 0  # the association goes on


def test_what_is_no_radiograph_is_refused(sender):
    """By the class of the request, and by that of the data set."""
    wrong = replace(stored(400), sop_class=CT)
    refused(sender, wrong, 0x0122, "unsupported_sop_class")


@pytest.mark.parametrize(
    "wrong",
    [
        replace(stored(410), instance=f"{UID}.999"),
        replace(stored(411, SOPClassUID=CT), sop_class=CR),
        replace(stored(412, SOPClassUID=uid.SecondaryCaptureImageStorage), sop_class=CR),
    ],
    ids=["instance", "no radiograph", "class"],
)
def test_a_data_set_of_another_request_is_refused(sender, wrong):
    """So that no answer is about another object than the sender knows."""
    refused(sender, wrong, 0xA900, "instance_mismatch")


def test_corrupt_pixels_are_refused_and_reported(sender, folder):
    """C000H with the problem's code; a destination that wants refusals gets a report."""
    whole = stored(420)
    cut = replace(whole, data_set=whole.data_set[:-20000])
    refused(sender, cut, 0xC000, "corrupt_image")
    wait_for(lambda: whole.instance in subjects(folder))


def test_a_repaired_object_is_accepted(sender, folder):
    """A refusal is no answer that is kept."""
    whole = stored(421)
    refused(sender, replace(whole, data_set=whole.data_set[:-20000]), 0xC000, "corrupt_image")
    assert sender.store(whole).Status == 0
    wait_for(lambda: subjects(folder).count(whole.instance) == 2)


@pytest.mark.parametrize(
    ("data_set", "comment"),
    [
        (b"\0\0", "not_an_instance"),
        (b"no DICOM at all", "corrupt_image"),
        (bytes(1000), "not_an_instance"),
    ],
)
def test_what_is_no_data_set_is_refused(sender, data_set, comment):
    """Whatever it is."""
    refused(sender, replace(stored(430), data_set=data_set), 0xC000, comment)


def test_an_object_beyond_the_limit_is_refused(sender, live):
    """It is read to its end, but not kept."""
    before = live.memory("VmHWM")
    huge = replace(stored(440), data_set=bytes(80_000_000))
    refused(sender, huge, 0xC000, "object_too_large")
    assert live.memory("VmHWM") - before < 20_000_000


def test_a_request_without_data_set(sender):
    """It says that there is none."""
    command = store_command(CR, f"{UID}.450")
    none = command.replace(b"\0\x08\2\0\0\0\1\0", b"\0\x08\2\0\0\0\1\1")
    assert none != command
    sender.socket.sendall(pdu(P_DATA, value(1, 3, none)))
    assert sender.status().Status == 0xC000


@pytest.mark.parametrize("count", [1, 3])
def test_an_abort_in_the_middle_leaves_nothing(live, count):
    """The bytes are freed, and the next association is served."""
    parts = list(stored(460).pdus(size=5000))
    with peer(live.dicom_port) as sender:
        sender.associate((1, CR, [EXPLICIT]))
        sender.socket.sendall(b"".join(parts[:count]) + pdu(ABORT, bytes(4)))
    wait_for(lambda: metric(live, "cxrview_dicom_associations") == 0)
    assert metric(live, "cxrview_held_bytes") == 0


def test_a_late_release_is_answered(sender):
    """Long after the last object."""
    assert sender.store(stored(470)).Status == 0
    assert sender.release() == RELEASE_RP


@pytest.mark.parametrize(
    "wrong",
    [
        pdu(P_DATA, value(1, 2, b"data without a command")),
        struct.pack(">BxL", P_DATA, 2**32 - 1),
        struct.pack(">BxL", P_DATA, 2**18 + 1),
        struct.pack(">BxL", 0x99, 4),
        pdu(P_DATA, b"\0\0\0\1\1"),
        pdu(2, b"an answer"),
    ],
    ids=["data first", "4 GB", "too large", "unknown type", "no header", "unexpected"],
)
def test_what_breaks_the_protocol_is_aborted(sender, wrong):
    """At once, without reading what it announces."""
    sender.socket.sendall(wrong)
    kind, _ = sender.read()
    assert kind == ABORT
    with pytest.raises((EOFError, ConnectionError)):
        sender.read()


def test_metrics_count_objects_and_associations(live, sender):
    """By status, by reason; open ones are a gauge."""
    ok, wrong = (f'cxrview_dicom_objects_total{{status="{code}"}}' for code in ("0000", "A900"))
    called = 'cxrview_dicom_associations_rejected_total{reason="called_ae"}'
    before = [metric(live, name) for name in (ok, wrong, called)]
    assert metric(live, "cxrview_dicom_associations") >= 1
    sender.store(stored(480))
    sender.store(replace(stored(481), instance=f"{UID}.1.1"))
    with peer(live.dicom_port) as other:
        other.associate(ECHO_CONTEXT, called="OTHER")
    assert [metric(live, name) for name in (ok, wrong, called)] == [each + 1 for each in before]


def test_the_audit_log_has_a_line_for_each_object(tmp_path):
    """Which peer got which answer; repeated, refused and damaged objects too, and no patient."""
    (tmp_path / "key").write_bytes(bytes(range(32)))
    audit = tmp_path / "audit"
    with (
        receiving(tmp_path, audit_log=str(audit), audit_key=str(tmp_path / "key")) as service,
        peer(service.dicom_port) as sender,
    ):
        sender.associate(stored(490).context, calling="CT1")
        damaged = stored(491)
        other = replace(stored(492), instance=f"{UID}.1.1")
        cut = replace(damaged, data_set=damaged.data_set[:-5000])
        statuses = [sender.store(each).Status for each in (stored(490), stored(490), cut, other)]
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert statuses == [0, 0, 0xC000, 0xA900]
    assert [line["event"] for line in lines] == ["classified"] * 2 + ["failed"] * 2
    assert [line["code"] for line in lines[2:]] == ["corrupt_image", "instance_mismatch"]
    assert {(line["client"], line["address"]) for line in lines} == {("ae:CT1", "127.0.0.1")}
    assert len({line["request_id"] for line in lines}) == 4
    assert lines[0]["sop_instance_uid_hmac"] == hash_of(f"{UID}.490", bytes(range(32)))
    assert not [each for each in (*PATIENT.values(), UID) if each in audit.read_text()]


def test_the_audit_log_has_lines_of_rejected_associations(tmp_path):
    """The first of a kind at once; at the end how many more there were, so that all are counted."""
    (tmp_path / "key").write_bytes(bytes(32))
    audit = tmp_path / "audit"
    settings = {"audit_log": str(audit), "audit_key": str(tmp_path / "key")}
    callers = "CT1,CT2"

    def lines() -> list[dict]:
        return [json.loads(line) for line in audit.read_text().splitlines()]

    with receiving(tmp_path, dicom_callers=callers, dicom_max_associations="1", **settings) as live:
        for calling, called in (("CT1", "OTHER"), *[("THIEF", "CXRVIEW")] * 5):
            with peer(live.dicom_port) as sender:
                assert sender.associate(ECHO_CONTEXT, calling=calling, called=called)[0] == 3
        wait_for(lambda: metric(live, "cxrview_dicom_associations") == 0)
        with peer(live.dicom_port) as first, peer(live.dicom_port) as second:
            assert first.associate(ECHO_CONTEXT, calling="CT1")[0] == ASSOCIATE_AC
            assert second.associate(ECHO_CONTEXT, calling="CT2")[0] == ASSOCIATE_RJ
        said = [(each["event"], each["code"], each["client"], each["count"]) for each in lines()]
        assert said == [
            ("rejected", "called_ae", "ae:CT1", 1),
            ("rejected", "calling_ae", "ae:THIEF", 1),
            ("rejected", "limit", "ae:CT2", 1),
        ]
        assert live.end() == 0
    last = lines()[-1]
    assert (last["code"], last["client"], last["count"]) == ("calling_ae", "ae:THIEF", 4)
    assert {each["address"] for each in lines()} == {"127.0.0.1"}
    assert len({each["request_id"] for each in lines()}) == 4


def test_what_cannot_be_recorded_is_no_success(tmp_path):
    """The peer sends it again; its result was committed, and is delivered once."""
    (tmp_path / "key").write_bytes(bytes(32))
    full = {"audit_log": "/dev/full", "audit_key": str(tmp_path / "key")}
    with receiving(tmp_path, **full) as service, peer(service.dicom_port) as sender:
        sender.associate(stored(495).context)
        answer = sender.store(stored(495))
    assert (answer.Status, answer.ErrorComment) == (0x0110, "audit_failed")


def test_the_log_names_no_patient(live):
    """Neither pynetdicom's lines nor ours show what objects hold."""
    text = live.log.read_text()
    assert not [each for each in (*PATIENT.values(), UID, "Traceback") if each in text], text


def test_reports_are_of_this_patient(folder):
    """What the modality wrote is repeated, so that the archive files the report with the image."""
    assert {str(report.PatientID) for report in reports(folder)} == {PATIENT["PatientID"]}


def test_allow_list(tmp_path):
    """A peer that is not in it is rejected with the reason of the Standard, and can be logged."""
    allowed = "PACS@127.0.0.0/8,192.0.2.0/24"
    with receiving(tmp_path, dicom_callers=allowed, access_log="true") as service:
        for calling, expected in (("PACS", ASSOCIATE_AC), ("OTHER", ASSOCIATE_RJ)):
            with peer(service.dicom_port) as sender:
                kind, answer = sender.associate(ECHO_CONTEXT, calling=calling)
                assert kind == expected
        assert tuple(answer[1:]) == (1, 1, 3)
        said = "an association of 'OTHER' at 127.0.0.1 is rejected: calling_ae"
        assert said in service.log.read_text()
        assert service.end() == 0


def test_limits_of_associations_and_time(tmp_path):
    """Beyond the limit, a transient rejection; a peer that says nothing is disconnected."""
    with (
        receiving(tmp_path, dicom_max_associations="2", max_head_seconds="1") as service,
        peer(service.dicom_port) as first,
        peer(service.dicom_port) as second,
        peer(service.dicom_port) as third,
        peer(service.dicom_port) as silent,
    ):
        for each in (first, second):
            assert each.associate(ECHO_CONTEXT)[0] == ASSOCIATE_AC
        kind, answer = third.associate(ECHO_CONTEXT)
        assert (kind, tuple(answer[1:])) == (ASSOCIATE_RJ, (2, 3, 2))
        with pytest.raises((EOFError, ConnectionError)):
            silent.read()
        assert first.echo() == 0


def test_a_request_has_its_time_to_its_last_byte(tmp_path):
    """From the connection on, however its bytes arrive."""
    with receiving(tmp_path, max_head_seconds="1") as service, peer(service.dicom_port) as slow:
        slow.socket.settimeout(0.05)
        started = time.monotonic()
        with pytest.raises((EOFError, ConnectionError)):
            drip(slow, association([ECHO_CONTEXT]) * 2)  # for 20 s
        assert time.monotonic() - started < 6


def drip(sender: Peer, data: bytes) -> None:
    """Send a byte at a time, while there is no answer."""
    for byte in data:
        sender.socket.sendall(bytes([byte]))
        with suppress(TimeoutError):
            sender.read()


def answers(port: int) -> bool:
    """Whether an association is accepted; it may be rejected, or not even connected."""
    try:
        with peer(port) as late:
            return late.associate(ECHO_CONTEXT)[0] == ASSOCIATE_AC
    except (OSError, EOFError):
        return False


def test_a_stopping_service_finishes_its_object(tmp_path):
    """New associations are rejected, or not connected; the object in progress gets its answer."""
    sent = stored(500)
    parts = list(sent.pdus(size=5000))
    with receiving(tmp_path) as service, peer(service.dicom_port) as sender:
        port = service.dicom_port
        with peer(port) as idle:
            assert idle.associate(ECHO_CONTEXT)[0] == ASSOCIATE_AC
            assert sender.associate(sent.context)[0] == ASSOCIATE_AC
            sender.socket.sendall(b"".join(parts[:3]))
            assert idle.echo() == 0
            service.process.send_signal(signal.SIGTERM)
            assert idle.read()[0] == ABORT
        wait_for(lambda: not answers(port))
        sender.socket.sendall(b"".join(parts[3:]))
        assert sender.status().Status == 0
        assert service.process.wait(30) == 0


def test_an_image_that_is_no_chest_is_accepted(tmp_path, headed_store):
    """It is an answer, and no error."""
    data = dicom(
        marked(radiograph(256, 256), "no_chest"),
        SOPInstanceUID=f"{UID}.600",
        StudyInstanceUID=f"{UID}.2",
        SeriesInstanceUID=f"{UID}.3",
    )
    sent = Stored.of(data)
    with (
        receiving(tmp_path, model="swift/2.0.0", model_store=str(headed_store)) as service,
        peer(service.dicom_port) as sender,
    ):
        sender.associate(sent.context)
        assert sender.store(sent).Status == 0
        name = 'cxrview_images_total{lane="backfill",source="dicom",view="not_chest"}'
        assert metric(service, name) == 1

"""TLS of the DICOM receiver."""

from __future__ import annotations

import http.client
import json
import os
import re
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copyfile

import pytest
from dicom_peer import ASSOCIATE_AC, CR, EXPLICIT, P_DATA, command, pdu, peer, value
from live import Live
from receiving import file_of, receiving, stored, wait_for
from tools import tool

from service.dicom.tls import TlsFileError, read_tls


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and certificates of it: for localhost, its renewal, and for a modality."""
    folder = tmp_path_factory.mktemp("tls")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for name in ("authority", "other"):
        openssl(
            *("req", "-x509", *key, "-subj", f"/CN={name}", "-days", "2"),
            *("-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"),
        )
    for name, host, days in (
        ("localhost", "localhost", "2"),
        ("renewed", "localhost", "90"),
        ("modality", "modality", "2"),
    ):
        openssl(
            *("req", "-x509", *key, "-subj", f"/CN={host}", "-days", days),
            *("-addext", f"subjectAltName=DNS:{host}", "-addext", "basicConstraints=CA:FALSE"),
            *("-CA", folder / "authority.pem", "-CAkey", folder / "authority.key"),
            *("-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"),
        )
    return folder


@pytest.fixture(scope="module")
def live(files, tmp_path_factory) -> Iterator[Live]:
    """Wants a certificate of the authority."""
    settings = {
        "dicom_tls_certificate": "localhost.pem",
        "dicom_tls_key": "localhost.key",
        "dicom_tls_clients": "authority.pem",
    }
    paths = {name: str(files / file) for name, file in settings.items()}
    with receiving(tmp_path_factory.mktemp("receiver"), **paths) as service:
        yield service


def client(files: Path, name: str | None, **limits: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=files / "authority.pem")
    if name is not None:
        context.load_cert_chain(files / f"{name}.pem", files / f"{name}.key")
    for limit, version in limits.items():
        setattr(context, limit, version)
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_peer_with_a_certificate_is_served(live, files, version):
    """Also objects of several records."""
    context = client(files, "modality", minimum_version=version, maximum_version=version)
    with peer(live.dicom_port, context) as sender:
        assert sender.associate((1, CR, [EXPLICIT]))[0] == ASSOCIATE_AC
        for number, size in enumerate((1000, 16384, 2**18 - 6)):
            assert sender.store(stored(f"{version}.{number}"), size=size).Status == 0


def test_what_follows_an_object_in_its_record_does_not_delay_its_answer(live, files):
    """Decrypted bytes wait where `select` does not see them."""
    with peer(live.dicom_port, client(files, "modality")) as sender:
        sent = stored(805)
        assert sender.associate(sent.context)[0] == ASSOCIATE_AC
        cancel = command(CommandField=0xFFF, MessageIDBeingRespondedTo=1, CommandDataSetType=0x101)
        message = b"".join(sent.pdus(size=500))
        sender.socket.settimeout(8)
        for _ in range(3):
            sender.socket.sendall(message + pdu(P_DATA, value(1, 3, cancel)))
            assert sender.status().Status == 0


@pytest.mark.parametrize(
    ("profile", "served"),
    [("+py", True), ("+px", True), ("+pz", True), ("+pa", False), ("+pn", False)],
)
def test_dcmtk_is_served(live, files, tmp_path, profile, served):
    """`storescu` by the profiles of BCP 195, with both certificates; by retired ones it is not."""
    path = tmp_path / "image.dcm"
    path.write_bytes(file_of(f"800.{ord(profile[-1])}"))
    ours = ("+tls", files / "modality.key", files / "modality.pem", "+cf", files / "authority.pem")
    where = ("-aec", "CXRVIEW", "localhost", str(live.dicom_port), path)
    command = [tool("dcmtk/storescu"), "-v", profile, *map(str, (*ours, *where))]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (run.returncode == 0) == served, run.stderr
    assert ("Received Store Response (Success)" in run.stderr) == served


@pytest.mark.parametrize("name", [None, "other"])
def test_a_peer_without_a_certificate_is_not(live, files, name):
    """None, or one of another authority."""
    with pytest.raises((OSError, EOFError)), peer(live.dicom_port, client(files, name)) as sender:
        sender.associate((1, CR, [EXPLICIT]))


def test_a_peer_that_does_not_speak_tls_is_not_served(live):
    """An association in plain text; and one that says nothing keeps no other waiting."""
    with (
        peer(live.dicom_port),
        peer(live.dicom_port) as sender,
        pytest.raises((OSError, EOFError)),
    ):
        sender.associate((1, CR, [EXPLICIT]))


def test_the_audit_log_has_a_line_of_a_failed_handshake(used, files, tmp_path):
    """Of its address, as the peer has named no AE title yet."""
    (tmp_path / "secret").write_bytes(bytes(32))
    audit = {"audit_log": str(tmp_path / "audit"), "audit_key": str(tmp_path / "secret")}
    settings = {f"dicom_tls_{kind}": str(path) for kind, path in used.items()}
    with receiving(tmp_path, **settings, **audit) as live:
        with (
            pytest.raises((OSError, EOFError)),
            peer(live.dicom_port, client(files, None)) as peer_,
        ):
            peer_.associate((1, CR, [EXPLICIT]))
        wait_for((tmp_path / "audit").read_text)
    line = json.loads((tmp_path / "audit").read_text())
    del line["time"], line["request_id"]
    assert line == {
        "event": "rejected",
        "client": None,
        "address": "127.0.0.1",
        "code": "tls",
        "count": 1,
    }


def test_tls_1_1_is_refused(live, files):
    """BCP 195: 1.2 or later."""
    context = client(files, "modality")
    with pytest.warns(DeprecationWarning, match="TLS"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(OSError), peer(live.dicom_port, context):  # noqa: PT011  # SSLError
        pass


@pytest.mark.parametrize(
    ("certificate", "key", "clients", "message"),
    [
        ("absent.pem", "localhost.key", None, "absent.pem: No such file"),
        ("localhost.pem", "modality.key", None, "the key does not belong to the certificate"),
        ("localhost.key", "localhost.key", None, "no certificate"),
        ("localhost.pem", "localhost.key", "localhost.key", "localhost.key: it"),
        ("pipe", "localhost.key", None, "pipe: it is no regular file"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(files, certificate, key, clients, message):
    """In one line, at the start; a pipe does not keep it waiting."""
    if not (files / "pipe").exists():
        os.mkfifo(files / "pipe")
    with pytest.raises(TlsFileError, match=message) as raised:
        read_tls(files / certificate, files / key, clients and files / clients)
    assert "\n" not in str(raised.value)


def test_a_certificate_that_only_openssl_reads_will_do(files, tmp_path):
    """Its expiry is not known then."""
    openssl("x509", "-in", files / "localhost.pem", "-trustout", "-out", tmp_path / "trusted.pem")
    assert read_tls(files / "localhost.pem", files / "localhost.key", None).expires is not None
    assert read_tls(tmp_path / "trusted.pem", files / "localhost.key", None).expires is None


@pytest.fixture
def used(files, tmp_path) -> dict[str, Path]:
    """Copies of the files that the receiver reads, which a test may replace."""
    copies = {kind: tmp_path / kind for kind in ("certificate", "key", "clients")}
    for kind, name in zip(copies, ("localhost.pem", "localhost.key", "authority.pem"), strict=True):
        copyfile(files / name, copies[kind])
    return copies


@pytest.fixture
def renewable(used, tmp_path) -> Iterator[Live]:
    """A service that reads the copies."""
    settings = {f"dicom_tls_{kind}": str(path) for kind, path in used.items()}
    with receiving(tmp_path, **settings) as service:
        yield service


def shown(live: Live, files: Path) -> str:
    """When the certificate expires that a new connection is shown."""
    with peer(live.dicom_port, client(files, "modality")) as sender:
        assert isinstance(sender.socket, ssl.SSLSocket)
        found = sender.socket.getpeercert()
        assert found is not None
        return str(found["notAfter"])


def expiry(name: Path) -> str:
    command = ["openssl", "x509", "-in", str(name), "-noout", "-enddate"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return said.strip().removeprefix("notAfter=")


def expiry_metric(live: Live) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", live.port)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    name = "cxrview_dicom_certificate_expiry_timestamp_seconds"
    return float(re.search(rf"^{name} (\S+)$", text, re.MULTILINE)[1])


def test_a_renewed_certificate_is_used(renewable, used, files):
    """Without a restart; an association that is open goes on, and the metric is of the new one."""
    old, new = expiry(files / "localhost.pem"), expiry(files / "renewed.pem")
    assert old != new
    assert shown(renewable, files) == old
    assert expiry_metric(renewable) == ssl.cert_time_to_seconds(old)
    with peer(renewable.dicom_port, client(files, "modality")) as before:
        before.associate((1, CR, [EXPLICIT]))
        for kind, name in (("certificate", "renewed.pem"), ("key", "renewed.key")):
            copyfile(files / name, used[kind])
        wait_for(lambda: shown(renewable, files) == new)
        assert before.store(stored(700)).Status == 0
    with peer(renewable.dicom_port, client(files, "modality")) as after:
        after.associate((1, CR, [EXPLICIT]))
        assert after.store(stored(701)).Status == 0
    assert expiry_metric(renewable) == ssl.cert_time_to_seconds(new)


def test_a_secret_of_kubernetes_is_renewed(used, files, tmp_path):
    """Its entries are links into a folder that is a link, which alone is replaced."""
    for number, name in enumerate(("localhost", "renewed")):
        folder = tmp_path / f"..{number}"
        folder.mkdir()
        copyfile(files / f"{name}.pem", folder / "tls.crt")
        copyfile(files / f"{name}.key", folder / "tls.key")
    (tmp_path / "..data").symlink_to("..0")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    settings = {
        "dicom_tls_certificate": str(tmp_path / "tls.crt"),
        "dicom_tls_key": str(tmp_path / "tls.key"),
        "dicom_tls_clients": str(used["clients"]),
    }
    with receiving(tmp_path, **settings) as service:
        (tmp_path / "..new").symlink_to("..1")
        (tmp_path / "..new").rename(tmp_path / "..data")
        wait_for(lambda: shown(service, files) == expiry(files / "renewed.pem"))
        assert "stay as they were" not in service.log.read_text()


def cut(used: dict[str, Path], files: Path) -> None:
    used["certificate"].write_bytes((files / "renewed.pem").read_bytes()[:300])


def of_another_key(used: dict[str, Path], files: Path) -> None:
    copyfile(files / "renewed.pem", used["certificate"])


def removed(used: dict[str, Path], files: Path) -> None:
    used["key"].unlink()


def no_authority(used: dict[str, Path], files: Path) -> None:
    used["clients"].write_text("none")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (cut, "it is no certificate or key"),
        (of_another_key, "the key does not belong to the certificate"),
        (removed, "No such file or directory"),
        (no_authority, "clients: it"),
    ],
)
def test_broken_files_change_nothing(
    renewable, used, files, break_it: Callable[[dict[str, Path], Path], None], message
):
    """One line of the log says so; when they are right again, they are used."""
    old = expiry(files / "localhost.pem")
    break_it(used, files)
    said = "the TLS files of the DICOM receiver stay as they were: "
    wait_for(lambda: said in renewable.log.read_text())
    for _ in range(3):
        assert shown(renewable, files) == old
    assert expiry_metric(renewable) == ssl.cert_time_to_seconds(old)
    (line,) = [each for each in renewable.log.read_text().splitlines() if said in each]
    assert message in line
    for kind, name in zip(used, ("renewed.pem", "renewed.key", "authority.pem"), strict=True):
        copyfile(files / name, used[kind])
    wait_for(lambda: shown(renewable, files) == expiry(files / "renewed.pem"))


def test_an_authority_that_is_removed_is_trusted_no_more(renewable, used, files):
    """The peers of the new one are served, and those of the old one are refused."""
    assert shown(renewable, files)
    copyfile(files / "other.pem", used["clients"])

    def is_served(name: str) -> bool:
        try:
            with peer(renewable.dicom_port, client(files, name)) as sender:
                return sender.associate((1, CR, [EXPLICIT]))[0] == ASSOCIATE_AC
        except (OSError, EOFError):
            return False

    wait_for(lambda: is_served("other"))
    assert not is_served("modality")

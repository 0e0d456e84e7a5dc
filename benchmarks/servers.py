"""Servers, ours and the rivals', each in its own processes: started, watched, held still, stopped.

Those that are not measured are stopped by signal, as idle servers still poll and spin.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Self
from urllib.error import URLError
from urllib.request import urlopen

import psutil

from model_store import DEFAULT_ROOT, Store

HERE = Path(__file__).parent
READY_SECONDS = 120
STOP_SECONDS = 20
SAMPLE_SECONDS = 0.05
# 32 concurrent images of 13 MB stay below these limits. Another section measures the limits
AMPLE_LIMITS = {"latency_budget_seconds": 120, "max_held_bytes": 2**30}

Command = tuple[list[str], dict[str, str], str, str]  # words, environment, readiness, target


def service(model: str, **settings: object) -> Command:
    """`cxrview serve`; settings as keywords, without their prefix."""
    words = [sys.executable, "-m", "service.cli", "serve", "--port", "{port}"]
    named = {f"CXRVIEW_{name.upper()}": str(value) for name, value in settings.items()}
    return words, {"CXRVIEW_MODEL": model, **named}, "/readyz", "/v1/classify"


def receiver() -> Command:
    """The bare application, under the uvicorn that serves ours."""
    words = [sys.executable, "-m", "uvicorn", "--app-dir", str(HERE), "receive:app"]
    words += ["--http", "h11", "--ws", "none", "--lifespan", "off", "--no-access-log"]
    words += ["--log-level", "warning", "--port", "{port}"]
    return words, {}, "/", "/"


def plain(python: Path, model: str) -> Command:
    """The plain stack."""
    words = [str(python), "-m", "uvicorn", "--app-dir", str(HERE / "rivals"), "plain:app"]
    return [*words, "--port", "{port}"], _rival_model(model), "/health", "/predict"


def litserve(python: Path, model: str, workers: int) -> Command:
    """LitServe."""
    words = [str(python), str(HERE / "rivals" / "litserve_app.py"), "{port}", str(workers)]
    return words, _rival_model(model), "/health", "/predict"


def _rival_model(model: str) -> dict[str, str]:
    size = Store().load(model).card.preprocess.size
    return {"RIVAL_MODEL": str(DEFAULT_ROOT / model / "model.onnx"), "RIVAL_SIZE": str(size)}


class Server:
    """One server and its children; `said` takes what it writes."""

    def __init__(
        self, command: Command, said: IO[bytes], cpus: Sequence[int] | None = None
    ) -> None:
        words, environment, ready, self.target = command
        self.port = free_port()
        began = time.perf_counter()
        self.process = psutil.Popen(
            [word.format(port=self.port) for word in words],
            env=os.environ | environment,
            stdout=said,
            stderr=said,
        )
        if cpus is not None:  # before it has looked at its processors or started a thread
            self.process.cpu_affinity(list(cpus))
        self._until_ready(f"http://127.0.0.1:{self.port}{ready}")
        self.ready_s = time.perf_counter() - began
        self.tree: list[psutil.Process] = []
        self.refresh()

    def refresh(self) -> None:
        """Find the processes anew, as decode workers may have been replaced."""
        self.tree = [self.process, *self.process.children(recursive=True)]

    def cpu_s(self) -> float:
        """CPU seconds that the processes now alive have used so far."""
        times = self._asked(psutil.Process.cpu_times)
        return sum(each.user + each.system for each in times)

    def rss_bytes(self) -> int:
        """Resident memory, now."""
        return sum(each.rss for each in self._asked(psutil.Process.memory_info))

    def _asked(self, question: Callable[[psutil.Process], Any]) -> list[Any]:
        """The answers of all processes; those are listed anew only if one has ended: it is slow."""
        try:
            return [question(process) for process in self.tree]
        except psutil.NoSuchProcess:  # a decode worker was replaced
            self.refresh()
            return [question(process) for process in self.tree]

    def pause(self) -> None:
        """Hold still."""
        for process in self.tree:
            with suppress(psutil.NoSuchProcess):  # a decode worker that was replaced
                process.suspend()

    def resume(self) -> None:
        """Go on."""
        for process in self.tree:
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def stop(self) -> None:
        """End all of it, and wait."""
        self.resume()
        self.refresh()
        for process in reversed(self.tree):
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        for process in psutil.wait_procs(self.tree, STOP_SECONDS)[1]:
            process.kill()
        self.process.wait()

    def _until_ready(self, url: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                with urlopen(url, timeout=1):
                    return
            except (URLError, ConnectionError, TimeoutError):
                time.sleep(0.01)
        if self.process.poll() is None:
            self.process.kill()
        raise RuntimeError(f"{self.process.args} did not become ready")


@contextmanager
def running(command: Command, cpus: Sequence[int] | None = None) -> Iterator[Server]:
    """A server, until the end of the block."""
    with tempfile.TemporaryFile() as said:
        try:
            server = Server(command, said, cpus)
        except RuntimeError:
            said.seek(0)
            sys.stderr.write(said.read().decode(errors="replace"))
            raise
        try:
            yield server
        finally:
            server.stop()


class Sampler:
    """Calls `sample` every so many seconds within a block, in a thread."""

    def __init__(self, sample: Callable[[], object], seconds: float) -> None:
        self._sample, self._seconds = sample, seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._done.wait(self._seconds):
            self._sample()


class Peak(Sampler):
    """The largest resident memory within a block, by sampling."""

    def __init__(self, servers: Sequence[Server]) -> None:
        super().__init__(self._look, SAMPLE_SECONDS)
        self.servers = servers
        self.rss_bytes = 0

    def __enter__(self) -> Self:
        self._look()  # however short the block
        return super().__enter__()

    def _look(self) -> None:
        self.rss_bytes = max(self.rss_bytes, sum(server.rss_bytes() for server in self.servers))


def free_port() -> int:
    """One that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port

"""A real service on a real socket, with limits small enough to reach."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2
import pytest
import uvicorn

from service.api.app import create_app
from service.api.runtime import Runtime
from service.api.settings import Settings

MIB = 2**20
SMALL = Settings(
    max_upload_bytes=4 * MIB,
    max_batch_body_bytes=6 * MIB,
    max_held_bytes=8 * MIB,
    max_archive_entries=20,
    max_archive_bytes=24 * MIB,
    max_receive_idle_seconds=0.3,
    max_queue_images=2,
    decode_workers=2,
)


@dataclass(frozen=True)
class Service:
    """The address of a running service, and its inside."""

    host: str
    port: int
    runtime: Runtime

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def client(self) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=30)

    @contextmanager
    def network_held(self) -> Iterator[None]:
        """Keep the network busy, so that images queue up."""
        release = threading.Event()
        self.runtime.batcher._thread.submit(release.wait, 20)
        try:
            yield
        finally:
            release.set()

    def until_waiting(self, count: int) -> None:
        """Return when `count` images are in the queue and stay there."""
        deadline = time.monotonic() + 10
        while self.runtime.batcher.waiting != count:
            assert time.monotonic() < deadline, f"{self.runtime.batcher.waiting} images wait"
            time.sleep(0.005)


@contextmanager
def running(settings: Settings) -> Iterator[Service]:
    """Serve until the block ends."""
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the service did not start"
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()
    try:
        yield Service(host, port, app.state.runtime)
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the service did not stop"


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    """The service with small limits."""
    with running(SMALL) as service:
        yield service


@pytest.fixture
def client(service: Service) -> Iterator[httpx2.Client]:
    """An HTTP client of it."""
    with service.client() as client:
        yield client

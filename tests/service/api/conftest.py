"""A real service on a real socket, with limits small enough to reach."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import httpx2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from model_store import ModelVersion, Prediction, Store
from model_store.store import sha256
from service.api.app import create_app
from service.api.runtime import Runtime
from service.api.server import Server
from service.api.settings import Settings
from service.imaging import image_to_tensor

MIB = 2**20
SMALL = Settings(
    max_upload_bytes=4 * MIB,
    max_batch_body_bytes=6 * MIB,
    max_held_bytes=8 * MIB,
    max_archive_entries=20,
    max_archive_bytes=24 * MIB,
    max_receive_idle_seconds=0.3,
    max_queue_images=3,
    latency_budget_seconds=20,
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
        """Keep the network busy, on each core that it has, so that images queue up."""
        release = threading.Event()
        size = self.runtime.card.preprocess.size
        for runner, _ in self.runtime.batcher._runners:
            if "interactive" in runner.lanes:
                holder: Future[Prediction] = Future()
                # Called in the runner's own thread
                holder.add_done_callback(lambda _: release.wait(20))
                image = np.zeros((1, size, size), np.uint8)
                self.runtime.batcher.submit(image, "interactive", holder)
                self.until(holder.done)
        try:
            yield
        finally:
            release.set()

    def until_waiting(self, count: int) -> None:
        """Return when `count` images wait for the network."""
        self.until(lambda: self.runtime.batcher.waiting("interactive") == count)

    def until(self, holds: Callable[[], bool]) -> None:
        """Return when it is so; it must become so soon."""
        deadline = time.monotonic() + 10
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.002)


@contextmanager
def running(settings: Settings) -> Iterator[Service]:
    """Serve until the block ends, as `cxrview serve` does."""
    app = create_app(settings)
    server = Server(app, settings, "127.0.0.1", [0])
    thread = threading.Thread(target=server.listen, daemon=True)
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
def start() -> Callable[..., AbstractContextManager[Service]]:
    """How to run a service with other settings, for the length of a `with`."""
    return running


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


def mean_model(size: int) -> bytes:
    """A network that costs nothing: the sigmoid of the mean grey level over 32, less 4."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["tensors"], ["grey"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["grey"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Div", ["mean", "scale"], ["scaled"]),
            helper.make_node("Sub", ["scaled", "offset"], ["logit"]),
            helper.make_node("Sigmoid", ["logit"], ["pfi"]),
        ],
        "mean",
        [helper.make_tensor_value_info("tensors", TensorProto.UINT8, ["batch", 1, size, size])],
        [helper.make_tensor_value_info("pfi", TensorProto.FLOAT, ["batch"])],
        [
            numpy_helper.from_array(np.float32(value), name)
            for name, value in {"scale": 32, "offset": 4}.items()
        ],
    )
    opsets = [helper.make_opsetid("", 17)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    return model.SerializeToString()


@pytest.fixture(scope="session")
def light(version: ModelVersion, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings with a model that costs nothing, for what has to do with the service alone."""
    model = mean_model(128)
    spec = version.card.preprocess.model_copy(update={"size": 128})
    logit = float(image_to_tensor(version.probe, spec).mean()) / 32 - 4
    update = {
        "name": "mean",
        "version": "1.0.0",
        "preprocess": spec,
        "model_sha256": sha256(model),
        "probe_pfi": 1 / (1 + np.exp(-logit)),
    }
    root = tmp_path_factory.mktemp("store")
    Store(root).add(ModelVersion(version.card.model_copy(update=update), model, version.probe))
    return SMALL.model_copy(update={"model_store": root, "model": "mean/1.0.0"})

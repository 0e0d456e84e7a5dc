"""Everything that lives as long as the process: the model, the batcher, the limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from anyio import CapacityLimiter, to_thread

from model_store import ModelCard, Store
from service.api import metrics
from service.api.limits import HeldBytes
from service.api.schemas import Classification
from service.api.settings import Settings
from service.imaging import Radiograph, Tensor, read_radiograph
from service.inference import Batcher, Network, open_network

Submit = Callable[[Tensor], Awaitable[float]]


@dataclass(frozen=True)
class Runtime:
    """What the routes work with."""

    settings: Settings
    network: Network
    batcher: Batcher
    decoders: CapacityLimiter
    held: HeldBytes

    @property
    def card(self) -> ModelCard:
        """Of the model that answers."""
        return self.network.version.card

    async def classify(self, data: bytes, submit: Submit) -> Classification:
        """One file from its bytes to its answer.

        Args:
            data: A DICOM, PNG or JPEG file.
            submit: `batcher.submit` to be refused when it is busy, `submit_when_free` to wait.

        Raises:
            ImageError, QueueFullError, BatcherClosedError
        """
        radiograph = await to_thread.run_sync(self._decode, data, limiter=self.decoders)
        answer = Classification.of(radiograph, await submit(radiograph.tensor), self.card)
        metrics.IMAGES.labels(answer.view).inc()
        return answer

    def _decode(self, data: bytes) -> Radiograph:
        start = time.perf_counter()
        radiograph = read_radiograph(data, self.card.preprocess)
        metrics.STAGE_SECONDS.labels("decode").observe(time.perf_counter() - start)
        return radiograph


@asynccontextmanager
async def open_runtime(settings: Settings) -> AsyncIterator[Runtime]:
    """Store -> session -> probe replay -> warm-up -> batcher; at the end, drain.

    Raises:
        StoreError, NetworkError: The model must not serve; the process ends.
    """
    version = Store(settings.model_store).load(settings.model)
    network = await asyncio.to_thread(
        open_network,
        version,
        settings.provider,
        settings.inference_threads,
        settings.allow_cpu_fallback,
    )
    await asyncio.to_thread(network.warm_up, Batcher.sizes(settings.max_batch_images))
    batcher = Batcher(
        network.run, settings.max_batch_images, settings.max_queue_images, metrics.observe_batch
    )
    metrics.describe(network, batcher)
    batcher.start()
    try:
        yield Runtime(
            settings,
            network,
            batcher,
            CapacityLimiter(settings.decode_workers),
            HeldBytes(settings.max_held_bytes),
        )
    finally:
        await batcher.close()

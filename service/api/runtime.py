"""The objects that live as long as the process: the model, the pipeline, the limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version as version_of
from threading import Event

import onnxruntime
from fastapi import Request

from model_store import ModelCard, ModelVersion, Prediction
from service.api import metrics
from service.api.admission import Admission
from service.api.body import unless_gone
from service.api.gpu import GPU
from service.api.settings import Settings
from service.imaging import Radiograph
from service.inference import (
    CORE_BATCH_IMAGES,
    LANES,
    NETWORK_NICENESS,
    STUCK_SECONDS,
    Batcher,
    Classification,
    Explanation,
    Image,
    Lane,
    Network,
    Pipeline,
    Runner,
    Spread,
    keep_freed_memory,
    open_network,
    prepare,
    usable_cpus,
)
from service.uploads.budget import ByteBudget

# Of the latency budget, the longest batch: an image that arrives just after a batch began waits for
# that batch and for all images ahead of it
BATCH_SHARE_OF_BUDGET = 0.25
# How long a batch may wait to fill up while more images are being decoded: larger batches cost less
# per image
PATIENCE_SECONDS = 0.04
PATIENCE_SHARE_OF_BUDGET = 0.02
# Concurrent batches on a GPU: while one computes, the next is copied to the device
IN_FLIGHT = 2


@dataclass(frozen=True)
class Runtime:
    """The objects that the routes use."""

    settings: Settings
    network: Network
    batcher: Batcher
    pipeline: Pipeline
    admission: Admission
    budget: ByteBudget
    draining: Event = field(default_factory=Event)  # set: not ready, but still answers

    stuck_seconds: dict[Lane, float] = field(default_factory=STUCK_SECONDS.copy)

    @property
    def ready(self) -> bool:
        """Whether the process accepts images."""
        return self.pipeline.alive and not self.draining.is_set() and not self.stuck

    @property
    def stuck(self) -> list[str]:
        """Reasons to restart the process; empty while it drains, because it ends anyway."""
        return [] if self.draining.is_set() else self.pipeline.stuck(self.stuck_seconds)

    @property
    def card(self) -> ModelCard:
        """The card of the model that answers."""
        return self.network.version.card

    async def classify(
        self, image: Image, source: metrics.Source, request: Request | None = None
    ) -> Classification:
        """Classify one file.

        Args:
            image: Not submitted yet; with `displayed`, the answer has an explanation. The caller
                must not keep a reference to its bytes, so that they are freed once they are
                decoded.
            source: The endpoint, for the metrics.
            request: If its client disconnects, the image is cancelled at any stage.

        Raises:
            ImageError: The file cannot be classified.
            BatcherClosedError: The service is stopping.
            ClientGoneError: The client has disconnected.
        """
        prediction, radiograph = await self._predict(image, request)
        classification = Classification.of(radiograph, prediction, self.card)
        if image.displayed:
            classification.explanation = await self._explain(radiograph)
        metrics.count_answer(classification, image.lane, source, radiograph.fallbacks)
        metrics.observe_stage("respond", time.perf_counter() - image.answer.at)
        return classification

    async def explain(
        self, image: Image, request: Request, check: Callable[[str | None], None]
    ) -> Explanation:
        """What the network sees in one file that was classified before; it is not counted again.

        Args:
            image: Not submitted yet, with `displayed`.
            request: If its client disconnects, the image is cancelled at any stage.
            check: Called with the SOP Instance UID, and raises if it is another image.

        Raises:
            ImageError, BatcherClosedError, ClientGoneError: See `classify`.
        """
        _, radiograph = await self._predict(image, request)
        check(radiograph.sop_instance_uid)
        return await self._explain(radiograph)

    async def _predict(
        self, image: Image, request: Request | None
    ) -> tuple[Prediction, Radiograph]:
        self.pipeline.submit(image)
        answer = asyncio.wrap_future(image.answer)
        with unless_gone(request, answer) if request else nullcontext():
            prediction = await answer
        assert image.radiograph is not None  # there is no prediction without it
        return prediction, image.radiograph

    async def _explain(self, radiograph: Radiograph) -> Explanation:
        return await asyncio.to_thread(Explanation.of, self.network, radiograph)


def runtime_of(request: Request) -> Runtime:
    """The runtime of the process."""
    runtime: Runtime = request.app.state.runtime
    return runtime


@asynccontextmanager
async def open_runtime(settings: Settings, version: ModelVersion) -> AsyncIterator[Runtime]:
    """Open the model, replay its probe, warm up, start the pipeline; drain it at the end.

    Raises:
        NetworkError: The model must not serve; the process must end.
    """
    keep_freed_memory()
    prepare()
    network = await asyncio.to_thread(_open, version, settings)
    budget_seconds = settings.latency_budget_seconds
    batcher = Batcher(
        await asyncio.to_thread(runners_of, network, settings),
        batch_images_of(network, settings),
        budget_seconds * BATCH_SHARE_OF_BUDGET,
        min(budget_seconds * PATIENCE_SHARE_OF_BUDGET, PATIENCE_SECONDS),
        metrics.observe_batch,
    )
    pipeline = Pipeline(
        version.card.preprocess,
        batcher,
        settings.decode_workers,
        observe=metrics.observe_stage,
        observe_failure=metrics.count_decoder_restart,
    )
    admission = Admission(settings.max_queue_images, settings.latency_budget_seconds)
    budget = ByteBudget(settings.max_held_bytes, admission.retry_after_seconds, metrics.count_bytes)
    runtime = Runtime(settings, network, batcher, pipeline, admission, budget)
    _publish_metrics(runtime)
    pipeline.start()
    try:
        yield runtime
    finally:
        await asyncio.to_thread(pipeline.close)


def _publish_metrics(runtime: Runtime) -> None:
    """Set the metrics that are constant, and the functions that are read at each scrape."""
    card, admission, batcher = runtime.card, runtime.admission, runtime.batcher
    metrics.BUILD_INFO.labels(version_of("cxrview"), onnxruntime.__version__).set(1)
    metrics.BUDGET_SECONDS.set(runtime.settings.latency_budget_seconds)
    asked, found = runtime.settings.provider, runtime.network.provider
    metrics.CPU_FALLBACK.set(found == "cpu" and asked != "cpu")
    metrics.MODEL_INFO.clear()
    metrics.MODEL_INFO.labels(
        card.name, card.version, card.model_sha256, runtime.network.provider
    ).set(1)
    GPU.watch(found)
    for lane in LANES:
        metrics.QUEUE_IMAGES.labels(lane).set_function(partial(batcher.waiting, lane))
        metrics.INSIDE_IMAGES.labels(lane).set_function(partial(admission.images, lane))
        metrics.CAPACITY.labels(lane).set_function(partial(admission.images_per_second, lane))
    metrics.READY.set_function(lambda: runtime.ready)
    metrics.DECODING.set_function(runtime.pipeline.decoding)
    metrics.DECODE_WORKERS.set(len(LANES) * runtime.settings.decode_workers)
    metrics.HELD_LIMIT_BYTES.set(runtime.budget.limit)
    metrics.HELD_BYTES.set_function(lambda: runtime.budget.reserved)


def _open(version: ModelVersion, settings: Settings) -> Network:
    network = open_network(
        version,
        settings.provider,
        settings.inference_threads,
        settings.allow_cpu_fallback,
        settings.engine_cache,
    )
    network.warm_up(Batcher.sizes(batch_images_of(network, settings)))
    return network


def batch_images_of(network: Network, settings: Settings) -> int:
    """The number of images of the largest batch."""
    most = settings.max_batch_images
    by_core = network.provider == "cpu" and network.threads > 1
    return min(most, CORE_BATCH_IMAGES) if by_core else most


def runners_of(network: Network, settings: Settings) -> list[Runner]:
    """The runners for the batcher.

    On a GPU, two runners serve both lanes, interactive first, so that two batches are in flight. On
    a CPU each lane has its own runners: one if the network is very fast, else one for each core.
    Runners of backfill have a low priority, and run each batch on one core.
    """
    if network.provider != "cpu":
        most = settings.max_batch_images
        return [Runner(lambda: network.bound(most)) for _ in range(IN_FLIGHT)]
    single, run = network, network.run
    if network.threads > 1:
        single = open_network(network.version, threads=1)
        single.warm_up(Batcher.sizes(batch_images_of(network, settings)))
        run = Spread(network, single).run
    people = Runner(lambda: run, ("interactive",))
    archive = Runner(lambda: single.run, ("backfill",), NETWORK_NICENESS["backfill"])
    fast = network.threads == 1 and settings.inference_threads != 1
    return [people, archive] * (1 if fast else usable_cpus())

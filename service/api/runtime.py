"""Everything that lives as long as the process: the model, the pipeline, the limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version as version_of
from threading import Event

import onnxruntime
from fastapi import Request

from model_store import ModelCard, ModelVersion, Store
from service.api import metrics
from service.api.admission import Admission
from service.api.body import unless_gone
from service.api.gpu import GPU
from service.api.settings import Settings
from service.inference import (
    CORE_BATCH_IMAGES,
    LANES,
    NETWORK_NICENESS,
    STUCK_SECONDS,
    Batcher,
    Classification,
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
# How long a batch may wait to fill up, which makes it cheaper, while there is enough to decode
PATIENCE_SECONDS = 0.04
PATIENCE_SHARE_OF_BUDGET = 0.02
# Batches at the same time on a GPU: while one computes, the next is copied there
IN_FLIGHT = 2


@dataclass(frozen=True)
class Runtime:
    """What the routes work with."""

    settings: Settings
    network: Network
    batcher: Batcher
    pipeline: Pipeline
    admission: Admission
    budget: ByteBudget
    draining: Event = field(default_factory=Event)  # it goes on, but wants no more to be sent

    stuck_seconds: dict[Lane, float] = field(default_factory=STUCK_SECONDS.copy)

    @property
    def ready(self) -> bool:
        """Whether more images are wanted."""
        return self.pipeline.alive and not self.draining.is_set() and not self.stuck

    @property
    def stuck(self) -> list[str]:
        """Why only a new process will help; nothing in one that ends anyway."""
        return [] if self.draining.is_set() else self.pipeline.stuck(self.stuck_seconds)

    @property
    def card(self) -> ModelCard:
        """Of the model that answers."""
        return self.network.version.card

    async def classify(
        self, image: Image, source: metrics.Source, request: Request | None = None
    ) -> Classification:
        """One file from its bytes to its answer.

        Args:
            image: Not submitted yet. To let its bytes go when they are decoded, its caller must
                not hold them.
            source: Whence it came.
            request: When its client goes, the image is dropped wherever it is.

        Raises:
            ImageError, BatcherClosedError, ClientGoneError
        """
        self.pipeline.submit(image)
        answer = asyncio.wrap_future(image.answer)
        with unless_gone(request, answer) if request else nullcontext():
            pfi = await answer
        assert image.radiograph is not None  # there is no PFI without it
        classification = Classification.of(image.radiograph, pfi, self.card)
        metrics.count_answer(
            classification.view,
            image.lane,
            source,
            image.radiograph.fallbacks,
            review=classification.review,
        )
        if classification.header is not None:
            metrics.count_header(classification.header.agrees)
        metrics.observe_stage("respond", time.perf_counter() - image.answered)
        return classification


def runtime_of(request: Request) -> Runtime:
    """The process's runtime, which the lifespan opened."""
    runtime: Runtime = request.app.state.runtime
    return runtime


@asynccontextmanager
async def open_runtime(settings: Settings) -> AsyncIterator[Runtime]:
    """Store -> session -> probe replay -> warm-up -> pipeline; at the end, drain.

    Raises:
        StoreError, NetworkError: The model must not serve; the process ends.
    """
    keep_freed_memory()
    prepare()
    version = Store(settings.model_store).load(settings.model)
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
    """What is fixed after start-up, and what is read at each scrape."""
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
    """Of the largest batch."""
    most = settings.max_batch_images
    by_core = network.provider == "cpu" and network.threads > 1
    return min(most, CORE_BATCH_IMAGES) if by_core else most


def runners_of(network: Network, settings: Settings) -> list[Runner]:
    """Who runs the batches.

    A GPU serves both lanes in their order, with two batches in flight. On a CPU each lane has its
    own: one if the network is so fast that this is enough, and else one a core, each with a batch
    of its own. Those of backfill yield to all others, and never share a batch.
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

"""All metrics. Labels come from closed sets; no attribute of a patient is ever one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, get_args

from prometheus_client import Counter, Gauge, Histogram

from model_store import View
from service.inference import LANES, BatchReport, Lane

if TYPE_CHECKING:
    from service.api.runtime import Runtime

IMAGES = Counter("cxrview_images_total", "Images classified.", ["view", "lane"])
REFUSED = Counter("cxrview_images_refused_total", "Images refused, by problem code.", ["reason"])
FALLBACKS = Counter(
    "cxrview_decoder_fallbacks_total",
    "Images that this decoder could not read, and the next one was asked.",
    ["decoder"],
)
STAGES = ("receive", "wait_decode", "decode", "queue", "inference", "respond")
STAGE_SECONDS = Histogram(
    "cxrview_stage_seconds",
    "Time of one image in one stage: receive (its body), wait_decode (for a decode thread), decode,"
    " queue (for its batch), inference (of its batch), respond. Where the waiting is longest before"
    " is the bottleneck.",
    ["stage"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
BATCH_IMAGES = Histogram(
    "cxrview_batch_images", "Images per ONNX call.", buckets=(1, 2, 4, 8, 16, 32, 64)
)
QUEUE_IMAGES = Gauge("cxrview_queue_images", "Images waiting for the network.", ["lane"])
INSIDE_IMAGES = Gauge(
    "cxrview_inside_images", "Images arriving, waiting or being worked on.", ["lane"]
)
DECODING = Gauge("cxrview_decode_workers_busy", "Images being decoded now.")
CAPACITY = Gauge(
    "cxrview_capacity_images_per_second",
    "What a lane answers while it is busy, as measured over its last hundred images or so.",
    ["lane"],
)
HELD_BYTES = Gauge("cxrview_held_bytes", "Bytes of bodies in memory.")
PFI = Histogram(
    "cxrview_pfi_ratio",
    "PFI, the probability of a frontal image.",
    buckets=(0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1),
)
MODEL_INFO = Gauge(
    "cxrview_model_info",
    "Always 1; the labels say which model answers, and where it runs.",
    ["name", "version", "sha256", "provider"],
)

# Looked up once: finding a child by its labels costs more than counting
_STAGES = {stage: STAGE_SECONDS.labels(stage) for stage in STAGES}
_IMAGES = {(view, lane): IMAGES.labels(view, lane) for view in get_args(View) for lane in LANES}


def observe_stage(stage: str, seconds: float) -> None:
    """Count one image's time in one of `STAGES`."""
    _STAGES[stage].observe(seconds)


def observe_batch(report: BatchReport) -> None:
    """Count one ONNX call."""
    BATCH_IMAGES.observe(len(report.pfi))
    _STAGES["inference"].observe(report.run_seconds)
    for pfi, waited in zip(report.pfi, report.waited_seconds, strict=True):
        PFI.observe(pfi)
        _STAGES["queue"].observe(waited)


def count_answer(view: View, lane: Lane, fallbacks: tuple[str, ...]) -> None:
    """Count one image that was answered, and the decoders that could not read it."""
    _IMAGES[view, lane].inc()
    for decoder in fallbacks:
        FALLBACKS.labels(decoder).inc()


def describe(runtime: Runtime) -> None:
    """Publish what is fixed after start-up, and what is read whenever somebody looks."""
    card, admission, batcher = runtime.card, runtime.admission, runtime.batcher
    MODEL_INFO.clear()
    MODEL_INFO.labels(card.name, card.version, card.model_sha256, runtime.network.provider).set(1)
    for lane in LANES:
        QUEUE_IMAGES.labels(lane).set_function(partial(batcher.waiting, lane))
        INSIDE_IMAGES.labels(lane).set_function(partial(admission.images, lane))
        CAPACITY.labels(lane).set_function(partial(admission.images_per_second, lane))
    DECODING.set_function(runtime.pipeline.decoding)
    HELD_BYTES.set_function(lambda: runtime.held.held)

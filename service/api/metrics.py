"""All metrics. Labels come from closed sets; no attribute of a patient is ever one."""

from prometheus_client import Counter, Gauge, Histogram

from service.inference import Batcher, BatchReport, Network

IMAGES = Counter("cxrview_images_total", "Images classified.", ["view"])
REFUSED = Counter("cxrview_images_refused_total", "Images refused, by problem code.", ["reason"])
STAGE_SECONDS = Histogram(
    "cxrview_stage_seconds",
    "Time of one image in one stage: receive, decode, queue, inference (of its batch).",
    ["stage"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
BATCH_IMAGES = Histogram(
    "cxrview_batch_images", "Images per ONNX call.", buckets=(1, 2, 4, 8, 16, 32, 64)
)
QUEUE_IMAGES = Gauge("cxrview_queue_images", "Images waiting for the network.")
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


def observe_batch(report: BatchReport) -> None:
    """Count one ONNX call."""
    BATCH_IMAGES.observe(len(report.pfi))
    STAGE_SECONDS.labels("inference").observe(report.run_seconds)
    for pfi, waited in zip(report.pfi, report.waited_seconds, strict=True):
        PFI.observe(pfi)
        STAGE_SECONDS.labels("queue").observe(waited)


def describe(network: Network, batcher: Batcher) -> None:
    """Publish what is fixed after start-up."""
    card = network.version.card
    MODEL_INFO.clear()
    MODEL_INFO.labels(card.name, card.version, card.model_sha256, network.provider).set(1)
    QUEUE_IMAGES.set_function(lambda: batcher.waiting)
